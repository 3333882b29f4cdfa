"""Confusion counts at one threshold or along a curve, and their rates (docs/reference/metrics.md, "Image metrics").

A sample is called anomalous when `score >= threshold`. A rate with denominator 0 is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[np.int64]
Rates: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Confusion counts at one threshold and their rates."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def precision(self) -> float:
        """TP / (TP + FP); NaN when nothing is called anomalous."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); 1 - recall is the escape rate."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 0 when no positive is found, NaN without positives."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn) if self.tp + self.fn else np.nan

    @property
    def fpr(self) -> float:
        """FP / (FP + TN): for images the false-reject rate."""
        return _ratio(self.fp, self.fp + self.tn)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold and the rates at it; all NaN where no threshold exists."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at descending thresholds, the first +inf: the ROC and the precision-recall curve."""

    thresholds: Rates
    """(K,), the first is +inf, where nothing is called anomalous."""
    tp: Counts
    """(K,) positives with `score >= threshold`."""
    fp: Counts
    """(K,) negatives with `score >= threshold`."""
    n_pos: int
    n_neg: int

    @property
    def tpr(self) -> Rates:
        """(K,) true positive rate = recall; NaN without positives."""
        return ratios(self.tp, np.full_like(self.tp, self.n_pos), empty=np.nan)

    recall = tpr

    @property
    def fpr(self) -> Rates:
        """(K,) false positive rate; NaN without negatives."""
        return ratios(self.fp, np.full_like(self.fp, self.n_neg), empty=np.nan)

    @property
    def precision(self) -> Rates:
        """(K,); 1 at the start point, where nothing is called anomalous."""
        return ratios(self.tp, self.tp + self.fp, empty=1.0)


def exact_interval(part: int, whole: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact confidence interval of a rate observed as `part` of `whole` (Clopper and Pearson 1934); (0, 1) for 0 of 0."""
    from scipy import special  # takes long to import, and answers do without

    tail = (1 - confidence) / 2
    low = float(special.betaincinv(part, whole - part + 1, tail)) if part else 0.0
    high = float(special.betaincinv(part + 1, whole - part, 1 - tail)) if part < whole else 1.0
    return low, high


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def ratios(part: Counts, whole: Counts, empty: float) -> Rates:
    """part / whole elementwise; `empty` where whole is 0."""
    shares = np.full(part.shape, empty, dtype=np.float64)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
