"""Attribute agreement of a station with known parts: effectiveness, misses, false alarms, kappa (AIAG, MSA, 4th edition, 2010).

The station is the appraiser, OK accepts a part, every other verdict rejects it. A part is shown several times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from andon.line.review.figures import CONFIDENCE
from andon.line.review.figures import kappa as cohen
from andon.line.verdicts import Opinion
from andon.metrics.counts import exact_interval

LIMITS = {"effectiveness": (0.90, 0.80), "misses": (0.02, 0.05), "false_alarms": (0.05, 0.10)}
"""Limits for acceptable and for marginal of AIAG, MSA, 4th edition, chapter III, section C."""
GOOD_KAPPA, POOR_KAPPA = 0.75, 0.40
"""Above the first: good agreement; below the second: poor (same place)."""


class Shown(NamedTuple):
    """A part with its reference, and whether it was accepted each time it was shown."""

    is_good: bool
    accepted: tuple[bool, ...]
    """As many for each part."""


class Share(NamedTuple):
    """`n` of `of`, with the exact 95 % interval (Clopper and Pearson 1934)."""

    n: int
    of: int
    rate: float | None
    """None for 0 of 0."""
    low: float
    high: float


class KappaShare(NamedTuple):
    """Agreement beyond chance with its 95 % interval; None where chance alone gives full agreement."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Figures of a study."""

    parts: int
    repeats: int
    good: int
    bad: int
    effectiveness: Share
    """Parts with the right answer each time."""
    consistent: Share
    """Parts with the same answer each time."""
    misses: Share
    """Answers that accept a bad part, of all answers on bad parts."""
    false_alarms: Share
    """Answers that reject a good part, of all answers on good parts."""
    missed_parts: Share
    """Bad parts that were accepted at least once."""
    rejected_parts: Share
    """Good parts that were rejected at least once."""
    kappa: KappaShare
    """With the reference (Cohen 1960)."""
    kappa_within: KappaShare
    """Between repeats (Fleiss 1971)."""
    assessment: dict[str, str]
    """`effectiveness`, `misses`, `false_alarms`: acceptable, marginal, unacceptable; `kappa`: good, moderate, poor, unknown."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in plain.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Agreement:
        """Inverse of `to_json`."""
        shapes: dict[str, Any] = {"kappa": KappaShare, "kappa_within": KappaShare}
        return cls(
            **{
                name: shapes.get(name, Share)(**value)
                if isinstance(value, dict) and name != "assessment"
                else value
                for name, value in values.items()
            }
        )


def agreement(shown: Sequence[Shown]) -> Agreement:
    """Figures of parts that were shown equally often, at least twice."""
    good = [part.accepted for part in shown if part.is_good]
    bad = [part.accepted for part in shown if not part.is_good]
    right = sum(all(answer == part.is_good for answer in part.accepted) for part in shown)
    effectiveness = share(right, len(shown))
    misses = share(sum(map(sum, bad)), sum(map(len, bad)))
    false_alarms = share(sum(map(len, good)) - sum(map(sum, good)), sum(map(len, good)))
    kappa = _with_interval(shown, with_reference)
    return Agreement(
        parts=len(shown),
        repeats=len(shown[0].accepted) if shown else 0,
        good=len(good),
        bad=len(bad),
        effectiveness=effectiveness,
        consistent=share(sum(len(set(part.accepted)) == 1 for part in shown), len(shown)),
        misses=misses,
        false_alarms=false_alarms,
        missed_parts=share(sum(map(any, bad)), len(bad)),
        rejected_parts=share(sum(not all(each) for each in good), len(good)),
        kappa=kappa,
        kappa_within=_with_interval(shown, within),
        assessment=assess(effectiveness.rate, misses.rate, false_alarms.rate, kappa.value),
    )


def share(n: int, of: int) -> Share:
    """`n` of `of` with its exact interval."""
    return Share(n, of, n / of if of else None, *exact_interval(n, of, CONFIDENCE))


def assess(
    effectiveness: float | None, misses: float | None, false_alarms: float | None, kappa: float | None
) -> dict[str, str]:
    """The words of AIAG, MSA, 4th edition, for the observed rates; `unknown` where there is no rate."""

    def word(name: str, rate: float | None, sign: int) -> str:
        if rate is None:
            return "unknown"
        best, last = (sign * limit for limit in LIMITS[name])
        return "acceptable" if sign * rate >= best else "marginal" if sign * rate >= last else "unacceptable"

    agrees = "moderate"
    if kappa is None:
        agrees = "unknown"
    elif kappa > GOOD_KAPPA:
        agrees = "good"
    elif kappa < POOR_KAPPA:
        agrees = "poor"
    return {
        "effectiveness": word("effectiveness", effectiveness, 1),
        "misses": word("misses", misses, -1),
        "false_alarms": word("false_alarms", false_alarms, -1),
        "kappa": agrees,
    }


def with_reference(shown: Sequence[Shown]) -> float | None:
    """Cohen's kappa of all answers with the references."""
    opinions = {True: Opinion.GOOD, False: Opinion.BAD}
    return cohen([(opinions[p.is_good], opinions[answer]) for p in shown for answer in p.accepted]).value


def within(shown: Sequence[Shown]) -> float | None:
    """Fleiss' kappa of the repeats: each repeat is a rater."""
    if not shown:
        return None
    n, m = len(shown), len(shown[0].accepted)
    accepted = [sum(part.accepted) for part in shown]
    same = sum(k * (k - 1) + (m - k) * (m - k - 1) for k in accepted) / (n * m * (m - 1))
    p = sum(accepted) / (n * m)
    chance = p**2 + (1 - p) ** 2
    return None if math.isclose(chance, 1.0) else (same - chance) / (1 - chance)


def _with_interval(shown: Sequence[Shown], kappa: Callable[[Sequence[Shown]], float | None]) -> KappaShare:
    """Kappa with the jackknife interval over parts (Student's t): answers on one part are not independent.

    Full agreement has no spread; its lower limit follows from the exact interval of the parts that agree.
    """
    from scipy import special  # takes long to import, and answers do without

    value = kappa(shown)
    if value is None:
        return KappaShare(None, None, None)
    n = len(shown)
    if math.isclose(value, 1.0):
        p = sum(part.accepted[0] for part in shown) / n
        chance = p**2 + (1 - p) ** 2
        return KappaShare(1.0, (exact_interval(n, n, CONFIDENCE)[0] - chance) / (1 - chance), 1.0)
    left_out = [kappa([*shown[:i], *shown[i + 1 :]]) for i in range(n)]
    known = [each for each in left_out if each is not None]
    if len(known) < n:
        return KappaShare(value, -1.0, 1.0)
    mean = sum(known) / n
    error = math.sqrt((n - 1) / n * sum((each - mean) ** 2 for each in known))
    half = float(special.stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * error
    return KappaShare(value, max(-1.0, value - half), min(1.0, value + half))
