"""Rank metrics of scores and labels: curves, AUROC, average precision, F1-max, counts at a threshold.

Definitions: docs/reference/metrics.md, "Image metrics". A higher score is more anomalous; a sample is called anomalous when
`score >= threshold`, so equal scores get the same verdict. Undefined values are NaN. +inf and -inf are legal scores,
NaN is an error.

All sums run over the distinct scores of the *positives*: between two of them the recall is constant, so that no
rank metric changes there. Negatives are only counted (how many lie above a positive?), so `Ranking` needs them
sorted, in any number of arrays. scikit-learn computes the same values by sorting positives and negatives
together, which needs an index of 8 bytes per pixel; it also rejects infinite scores and returns 0 where a value
is undefined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from andon.metrics.counts import Confusion, Counts, Curve, OperatingPoint, Rates

Scores: TypeAlias = npt.NDArray[np.floating[Any]]

CHUNK = 1 << 20
"""Distinct positive scores processed at once; bounds memory, does not change results."""


@dataclass(frozen=True, slots=True)
class RankSummary:
    """All scalar rank metrics of one ranking."""

    n_pos: int
    n_neg: int
    auroc: float
    """P(positive above negative) + P(equal) / 2; NaN unless there are positives and negatives."""
    average_precision: float
    """Step-wise area under precision over recall; NaN without positives."""
    f1_max: OperatingPoint
    """Largest F1 over all thresholds (an oracle value, since it needs the labels); of ties the largest threshold."""
    weighted_area: dict[float, float] = field(default_factory=dict)
    """FPR limit L -> area under the weighted recall up to L, divided by L: AUPRO for weights 1/(R area)."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Sorted scores of positives and negatives, from which all rank metrics are computed."""

    positives: Scores
    """(P,) ascending."""
    negatives: Sequence[Scores]
    """Any number of ascending arrays, together the N negatives."""
    weights: Rates | None = None
    """(P,) weight of each positive in the partial areas; None = 1 / P."""

    @property
    def n_pos(self) -> int:
        return int(self.positives.size)

    @property
    def n_neg(self) -> int:
        return sum(int(array.size) for array in self.negatives)

    def summary(self, limits: Sequence[float] = (), chunk: int = CHUNK) -> RankSummary:
        """All scalar metrics in one pass; `limits` are the FPR limits, in (0, 1], of the partial areas."""
        return summarise(self.pieces(chunk), self.n_pos, self.n_neg, limits)

    def areas(self, limits: Sequence[float], chunk: int = CHUNK) -> dict[float, float]:
        """`RankSummary.weighted_area` alone: FPR limit -> weighted area."""
        totals = dict.fromkeys(limits, 0.0)
        for piece in self.pieces(chunk):
            for limit in limits:
                totals[limit] += piece.area(self.n_neg, limit)
        both = self.n_pos > 0 and self.n_neg > 0
        return {limit: total if both else np.nan for limit, total in totals.items()}

    def curve(self, thresholds: Scores | None = None) -> Curve:
        """Counts at +inf and at the distinct values of `thresholds`, by default of all scores."""
        at = np.concatenate([self.positives, *self.negatives]) if thresholds is None else thresholds
        at = np.unique(at)  # ascending
        tp, fp = _at_least([self.positives], at), _at_least(self.negatives, at)
        return Curve(
            thresholds=np.concatenate(([np.inf], at[::-1].astype(np.float64))),
            tp=np.concatenate(([0], tp[::-1])),
            fp=np.concatenate(([0], fp[::-1])),
            n_pos=self.n_pos,
            n_neg=self.n_neg,
        )

    def confusion(self, threshold: float) -> Confusion:
        """Counts at one threshold, compared in the dtype of the scores. Raises ValueError for NaN."""
        if np.isnan(threshold):
            raise ValueError("the threshold is NaN, so nothing can be compared with it; fit or set it first")
        at = self.positives.dtype.type(threshold).reshape(1)
        tp, fp = int(_at_least([self.positives], at)[0]), int(_at_least(self.negatives, at)[0])
        return Confusion(tp=tp, fp=fp, fn=self.n_pos - tp, tn=self.n_neg - fp)

    def pieces(self, chunk: int = CHUNK) -> Iterator[Piece]:
        """The distinct positive scores, ascending, `chunk` at a time."""
        scores = self.positives
        is_first = np.ones(scores.size, dtype=np.bool_)  # of its equals
        is_first[1:] = scores[1:] != scores[:-1]
        starts = np.flatnonzero(is_first)
        for first in range(0, starts.size, chunk):
            here = starts[first : first + chunk]
            stop = starts[first + chunk] if first + chunk < starts.size else scores.size
            at = scores[here]
            hits = np.diff(here, append=stop)
            own = self.weights
            weights = (
                hits / scores.size if own is None else np.add.reduceat(own[here[0] : stop], here - here[0])
            )
            yield Piece(
                thresholds=at,
                hits=hits,
                weights=weights,
                tp=scores.size - here,
                fp=_at_least(self.negatives, at),
                fp_above=_above(self.negatives, at),
            )


@dataclass(frozen=True, slots=True)
class Piece:
    """Counts at some of the distinct positive scores, ascending; all arrays (K,)."""

    thresholds: Scores
    hits: Counts
    """Positives equal to the threshold."""
    weights: Rates
    """Sum of the weights of these positives."""
    tp: Counts
    fp: Counts
    fp_above: Counts
    """Negatives strictly above the threshold."""

    @property
    def precision(self) -> Rates:
        return self.tp / (self.tp + self.fp)

    def area(self, n_neg: int, limit: float) -> float:
        """Contribution of these positives to the weighted area up to the FPR `limit`, divided by it."""
        return float(np.sum(self.weights * area_above(self.fp_above, self.fp, n_neg, limit))) / limit

    def twice_wins(self, n_neg: int) -> int:
        """Twice the number of (positive, negative) pairs in the right order; pairs with equal scores count half."""
        return int(np.sum(self.hits * (2 * n_neg - self.fp - self.fp_above)))

    def best_f1(self, n_pos: int) -> OperatingPoint:
        f1 = 2 * self.tp / (self.tp + self.fp + n_pos)
        k = f1.size - 1 - int(np.argmax(f1[::-1]))  # the last maximum: the largest threshold
        return OperatingPoint(
            threshold=float(self.thresholds[k]),
            f1=float(f1[k]),
            precision=float(self.precision[k]),
            recall=float(self.tp[k] / n_pos),
        )


def summarise(pieces: Iterable[Piece], n_pos: int, n_neg: int, limits: Sequence[float] = ()) -> RankSummary:
    """All scalar metrics from ascending pieces that together hold every positive."""
    twice_wins = 0  # an integer, so that AUROC has no rounding error of a sum
    average_precision = 0.0
    best = OperatingPoint(np.nan, np.nan, np.nan, np.nan)
    areas = dict.fromkeys(limits, 0.0)
    for piece in pieces:
        twice_wins += piece.twice_wins(n_neg)
        average_precision += float(np.sum(piece.hits / n_pos * piece.precision))
        point = piece.best_f1(n_pos)
        if not best.f1 > point.f1:  # pieces ascend: a tie goes to the later one, the larger threshold
            best = point
        for limit in limits:
            areas[limit] += piece.area(n_neg, limit)
    both = n_pos > 0 and n_neg > 0
    return RankSummary(
        n_pos=n_pos,
        n_neg=n_neg,
        auroc=twice_wins / (2 * n_pos * n_neg) if both else np.nan,
        average_precision=average_precision if n_pos else np.nan,
        f1_max=best,
        weighted_area={limit: area if both else np.nan for limit, area in areas.items()},
    )


def area_above(n_above: Counts, n_at_least: Counts, n_neg: int, limit: float) -> Rates:
    """Area that a positive adds under the recall curve for FPR in [0, limit]: h_L of docs/reference/metrics.md, "AUPRO".

    With a = n_above / n_neg (negatives above the positive) and b = n_at_least / n_neg (negatives at or above it), the
    recall of the positive is 0 up to FPR a, rises linearly to 1 at b, and is 1 beyond, which is exact with ties.
    Result (K,) in [0, limit]; NaN for `n_neg` = 0.
    """
    if n_neg == 0:
        return np.full(n_above.shape, np.nan)
    a, b = n_above / n_neg, n_at_least / n_neg
    width = np.where(b > a, b - a, 1.0)  # unused where b == a
    cut = np.square(np.maximum(limit - a, 0.0)) / (2 * width)
    return np.where(b <= limit, limit - (a + b) / 2, cut)


# --- functions of scores and labels -------------------------------------------------------------------------


def rank(scores: npt.ArrayLike, labels: npt.ArrayLike, names: Sequence[str] | None = None) -> Ranking:
    """A `Ranking` of scores (n,) with labels (n,), 0 = good and 1 = anomalous.

    float32 and float64 scores keep their dtype. `names` (n,) identify samples in messages. Raises ValueError
    for NaN scores, other labels and unequal lengths.
    """
    scores, labels = checked(scores, labels, names)
    return Ranking(positives=np.sort(scores[labels]), negatives=(np.sort(scores[~labels]),))


def checked(
    scores: npt.ArrayLike, labels: npt.ArrayLike, names: Sequence[str] | None = None
) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Scores (n,) as floats and labels (n,) as booleans. Raises ValueError that names the wrong sample."""
    values, truth = as_scores(scores, names), np.asarray(labels)
    if truth.shape != values.shape:
        raise ValueError(f"{values.size} scores but labels of shape {truth.shape}; give one label per score")
    wrong = np.flatnonzero((truth != 0) & (truth != 1))
    if wrong.size:
        raise ValueError(
            f"label of {_name(wrong[0], names)} is {truth[wrong[0]]}; labels are 0 = good or 1 = anomalous, "
            "leave samples with an unknown label out"
        )
    return values, truth.astype(np.bool_)


def as_scores(scores: npt.ArrayLike, names: Sequence[str] | None = None) -> Scores:
    """Scores (n,) as float32 or float64. Raises ValueError for another shape and for NaN, naming the sample."""
    values: Scores = np.asarray(scores)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"scores have the shape {values.shape}; give one number per sample")
    nan = np.flatnonzero(np.isnan(values))
    if nan.size:
        raise ValueError(
            f"score of {_name(nan[0], names)} is NaN ({nan.size} of {values.size} are) and cannot be ranked; "
            "check the detector on this sample"
        )
    return values


def curve(scores: npt.ArrayLike, labels: npt.ArrayLike) -> Curve:
    """ROC and precision-recall curve at all distinct scores.

    >>> curve([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1]).tp
    array([0, 1, 2, 2])
    """
    return rank(scores, labels).curve()


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the ROC curve; NaN unless both labels occur."""
    return rank(scores, labels).summary().auroc


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Average precision without interpolation; NaN without an anomalous sample."""
    return rank(scores, labels).summary().average_precision


def f1_max(scores: npt.ArrayLike, labels: npt.ArrayLike) -> OperatingPoint:
    """Largest F1 over all thresholds and its threshold; an oracle value, since it needs the labels."""
    return rank(scores, labels).summary().f1_max


def confusion(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float) -> Confusion:
    """Counts for `score >= threshold`; the threshold is rounded to the dtype of the scores."""
    return rank(scores, labels).confusion(threshold)


def _at_least(arrays: Sequence[Scores], values: Scores) -> Counts:
    """How many elements of the ascending arrays are >= each value."""
    return _count(arrays, values, side="left")


def _above(arrays: Sequence[Scores], values: Scores) -> Counts:
    """How many elements of the ascending arrays are > each value."""
    return _count(arrays, values, side="right")


def _count(arrays: Sequence[Scores], values: Scores, side: Any) -> Counts:
    count = np.zeros(values.shape, dtype=np.int64)
    for array in arrays:
        count += array.size - np.searchsorted(array, values, side=side)
    return count


def _name(index: int, names: Sequence[str] | None) -> str:
    return f"sample {index}" if names is None else f"{names[index]} (sample {index})"
