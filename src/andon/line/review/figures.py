"""Figures of reviews: escapes with interval, how often people say the opposite of the machine, and each other.

An escape is a part that passed and that a person calls bad. Its rate is estimated from the random sample alone: every other
reviewed part was chosen by its score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from andon.line.verdicts import Opinion, Verdict
from andon.metrics.counts import exact_interval

CONFIDENCE = 0.95
NORMAL = 1.959963984540054
"""Quantile of the standard normal distribution for 95 %, two-sided."""


class Stratum(NamedTuple):
    """The sample of one station at one rate."""

    station: str
    rate: float
    """Probability with which a part that passed was drawn."""
    drawn: int
    good: int
    bad: int
    unsure: int

    @property
    def reviewed(self) -> int:
        """Parts that a person judged."""
        return self.good + self.bad + self.unsure


@dataclass(frozen=True, slots=True)
class Escapes:
    """Share of the parts that passed which are bad, estimated from the sample."""

    rate: float | None
    """None where no part was called good or bad."""
    low: float
    high: float
    """Interval that holds the truth in at least 95 % of samples."""
    drawn: int
    reviewed: int
    bad: int
    unsure: int


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement of first and second opinions beyond chance (Cohen 1960)."""

    value: float | None
    """None where chance alone gives full agreement, or there are no pairs."""
    low: float | None
    high: float | None
    n: int
    """Parts with two opinions."""
    agree: int


@dataclass(frozen=True, slots=True)
class Overrides:
    """Opinions that say the opposite of the verdicts OK and NG, and how many could have."""

    count: int
    n: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often one reviewer said what about parts of each verdict."""

    who: str
    counts: dict[tuple[Verdict, Opinion], int]
    n: int


def escapes(strata: Sequence[Stratum]) -> Escapes:
    """Estimate over all strata, each weighted by drawn / rate, the parts that passed.

    The interval of one stratum is that of Clopper and Pearson (1934). With k strata each has the confidence 1 - 0.05 / k, so
    that their weighted sum holds with 95 % (Bonferroni). Parts that a person is unsure of count as good in the lower limit
    and as bad in the upper one.
    """
    known = [each for each in strata if each.drawn and each.rate > 0]
    weights = np.array([each.drawn / each.rate for each in known], dtype=np.float64)
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(known))
    limits = [
        (
            exact_interval(each.bad, each.reviewed, confidence)[0],
            exact_interval(each.bad + each.unsure, each.reviewed, confidence)[1],
        )
        for each in known
    ]
    low, high = np.average(np.array(limits), axis=0, weights=weights) if known else (0.0, 1.0)
    decided = [
        (each.bad / (each.good + each.bad), w)
        for each, w in zip(known, weights, strict=True)
        if each.good + each.bad
    ]
    rate = (
        None if not decided else float(np.average([r for r, _ in decided], weights=[w for _, w in decided]))
    )
    return Escapes(
        rate,
        float(low),
        float(high),
        sum(each.drawn for each in known),
        sum(each.reviewed for each in known),
        sum(each.bad for each in known),
        sum(each.unsure for each in known),
    )


def is_override(machine: Verdict, said: Opinion) -> bool:
    """Whether a person says the opposite of the machine. REVIEW and ERROR say nothing that could be overridden."""
    return (machine, said) in ((Verdict.OK, Opinion.BAD), (Verdict.NG, Opinion.GOOD))


def overrides(pairs: Sequence[tuple[Verdict, Opinion]]) -> Overrides:
    """Of pairs of machine and person, those with OK or NG and good or bad."""
    clear = [
        each
        for each in pairs
        if each[0] in (Verdict.OK, Verdict.NG) and each[1] in (Opinion.GOOD, Opinion.BAD)
    ]
    count = sum(is_override(*each) for each in clear)
    return Overrides(count, len(clear), *exact_interval(count, len(clear)))


def confusions(said: Sequence[tuple[str, Verdict, Opinion]]) -> list[Confusion]:
    """One for each reviewer, by name."""
    counts: dict[str, Counter[tuple[Verdict, Opinion]]] = {}
    for who, machine, opinion in said:
        counts.setdefault(who, Counter())[machine, opinion] += 1
    return [Confusion(who, dict(counts[who]), counts[who].total()) for who in sorted(counts)]


def kappa(pairs: Sequence[tuple[Opinion, Opinion]]) -> Kappa:
    """Cohen's kappa of pairs with the large-sample interval of Fleiss, Cohen and Everitt (1969).

    Where all pairs agree that interval has no width; its lower limit then comes from the exact interval of the agreement.
    """
    n, agree = len(pairs), sum(first == second for first, second in pairs)
    if not n:
        return Kappa(None, None, None, 0, 0)
    names = sorted({each for pair in pairs for each in pair})
    table = np.zeros((len(names), len(names)))
    for first, second in pairs:
        table[names.index(first), names.index(second)] += 1 / n
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    chance = float(rows @ columns)
    if math.isclose(chance, 1.0):
        return Kappa(None, None, None, n, agree)
    value = (float(np.trace(table)) - chance) / (1 - chance)
    if agree == n:
        low = (exact_interval(n, n, CONFIDENCE)[0] - chance) / (1 - chance)
        return Kappa(1.0, low, 1.0, n, agree)
    half = NORMAL * math.sqrt(_kappa_variance(table, rows, columns, chance, value) / n)
    return Kappa(value, max(-1.0, value - half), min(1.0, value + half), n, agree)


def _kappa_variance(
    table: np.ndarray, rows: np.ndarray, columns: np.ndarray, chance: float, value: float
) -> float:
    """n times the variance of kappa: equation 13 of Fleiss, Cohen and Everitt (1969)."""
    rest = 1 - value
    diagonal = np.diag(table)
    same = float((diagonal * (1 - (rows + columns) * rest) ** 2).sum())
    other = table * (columns[:, None] + rows[None, :]) ** 2  # p_ij (p_.i + p_j.)^2
    different = rest**2 * float(other.sum() - np.trace(other))
    return max(0.0, same + different - (value - chance * rest) ** 2) / (1 - chance) ** 2
