"""What a comparison of two models says: verdicts of both on the same parts, AUROC, escapes, false rejects, times.

    found = figures(pairs)
    found.escapes.candidate.interval, found.auroc.interval

Differences of models are differences on the same parts, so that the difficulty of single parts cancels. Which parts people review
depends on the thresholds in use; the reviewed parts are no random sample of the production.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from andon.line.store.candidates import Pair, Scored
from andon.line.verdicts import Opinion, Verdict
from andon.metrics.bootstrap import paired_auroc
from andon.metrics.ranking import auroc
from andon.thresholds.figures import Share


class Both(NamedTuple):
    """The share of the same parts by the model in use and by the candidate."""

    base: Share
    candidate: Share

    def to_json(self) -> dict[str, Any]:
        """Counts, rates and exact intervals."""
        return {"base": self.base.to_json(), "candidate": self.candidate.to_json()}


class Auroc(NamedTuple):
    """Ranking of reviewed parts that both models have scored."""

    good: int
    bad: int
    base: float
    candidate: float
    difference: float
    """Of the candidate minus that of the model in use."""
    interval: tuple[float, float] | None
    """Paired bootstrap interval of the difference, 95 %; None with fewer than two good or bad parts."""


class Times(NamedTuple):
    """Milliseconds of judgements."""

    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Two models on the same parts."""

    parts: int
    """Judged by both."""
    left_out: Counter[str]
    """Parts without a judgement, by cause."""
    table: Counter[tuple[Verdict, Verdict]]
    """Parts by verdict of the model in use and of the candidate."""
    flips: tuple[Pair, ...]
    """Parts with another verdict: reviewed ones first, then those whose score moved furthest."""
    auroc: Auroc | None
    """None without reviewed good and bad parts."""
    escapes: Both
    """Parts that people called bad and the model lets pass."""
    false_rejects: Both
    """Parts that people called good and the model stops."""
    base_ms: Times | None
    candidate_ms: Times | None

    @property
    def agreement(self) -> Share:
        """Parts with the same verdict."""
        return Share(sum(n for (was, becomes), n in self.table.items() if was is becomes), self.parts)


def figures(found: Sequence[Pair]) -> Figures:
    """Figures of a comparison; parts that were left out count as such alone."""
    pairs = [pair for pair in found if not pair.cause]
    good = [pair for pair in pairs if pair.opinion is Opinion.GOOD]
    bad = [pair for pair in pairs if pair.opinion is Opinion.BAD]
    flips = [pair for pair in pairs if pair.base.verdict is not pair.candidate.verdict]
    return Figures(
        parts=len(pairs),
        left_out=Counter(pair.cause for pair in found if pair.cause),
        table=Counter((pair.base.verdict, pair.candidate.verdict) for pair in pairs),
        flips=tuple(sorted(flips, key=_importance)),
        auroc=_auroc(good, bad),
        escapes=_both(bad, Verdict.OK),
        false_rejects=_both(good, Verdict.NG),
        base_ms=_times([pair.base for pair in pairs]),
        candidate_ms=_times([pair.candidate for pair in pairs]),
    )


def _both(pairs: Sequence[Pair], verdict: Verdict) -> Both:
    counts = (sum(getattr(pair, name).verdict is verdict for pair in pairs) for name in ("base", "candidate"))
    return Both(*(Share(count, len(pairs)) for count in counts))


def _auroc(good: Sequence[Pair], bad: Sequence[Pair]) -> Auroc | None:
    """Of the parts that both models have scored."""
    good, bad = ([p for p in kind if None not in (p.base.score, p.candidate.score)] for kind in (good, bad))
    if not good or not bad:
        return None
    truth = np.array([False] * len(good) + [True] * len(bad))
    base = np.array([pair.base.score for pair in (*good, *bad)], np.float64)
    candidate = np.array([pair.candidate.score for pair in (*good, *bad)], np.float64)
    difference, interval = paired_auroc(base, candidate, truth)
    return Auroc(len(good), len(bad), auroc(base, truth), auroc(candidate, truth), difference, interval)


def _times(scored: Sequence[Scored]) -> Times | None:
    """None where no judgement was timed."""
    ms = [each.ms for each in scored if each.ms > 0]
    return Times(*(float(value) for value in np.quantile(ms, (0.5, 0.95)))) if ms else None


def _importance(pair: Pair) -> tuple[bool, float, int]:
    scores = pair.base.score, pair.candidate.score
    moved = float("inf") if None in scores else abs((scores[1] or 0.0) - (scores[0] or 0.0))
    return pair.opinion is None, -moved, pair.inspection_id
