"""Counts at one threshold or at many, and the rates that follow from them (docs/reference/metrics.md, "Image metrics").

A sample is called anomalous when `score >= threshold`. A rate without a denominator is NaN, never 0 or 1.
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
    """Counts at one threshold and the rates that follow from them."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def precision(self) -> float:
        """Share of the called that are anomalous; NaN when nothing is called anomalous."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the anomalous that are called; 1 - recall is the escape rate."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 when nothing is found, NaN when nothing exists."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn) if self.tp + self.fn else np.nan

    @property
    def fpr(self) -> float:
        """Share of the good that are called anomalous: the false reject rate."""
        return _ratio(self.fp, self.fp + self.tn)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The threshold that a rule chose, and what is reached there; all NaN where the rule has no answer."""

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts at descending thresholds from the start point +inf on: ROC and precision-recall curve in one."""

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


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def ratios(part: Counts, whole: Counts, empty: float) -> Rates:
    """part / whole, `empty` where the whole is 0."""
    shares = np.full(part.shape, empty, dtype=np.float64)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
