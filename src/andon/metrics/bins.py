"""Bins of float32 scores: order-preserving keys, sums by bin, and the largest error that binning can cause.

The bits of a float32 are transformed so that they sort like the numbers, and cut to the first 20: sign, exponent and 11 bits
of the mantissa. A bin is thus 0.05 % wide wherever the scores lie (docs/reference/metrics.md, "Pixel metrics").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.metrics.pixel_inputs import Map
from andon.metrics.ranking import Piece

BITS = 20
"""Bits of a key, 12 to 24."""
SIGN = np.uint32(0x80000000)
Keys = npt.NDArray[np.uint32]
Bins = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


def order_keys(scores: Map) -> Keys:
    """uint32 keys that sort like the float32 scores, any shape. -0.0 has the key of 0.0; NaN is not supported.

    >>> [hex(key) for key in order_keys(np.float32([-1.5, 0.0, 0.5]))]
    ['0x403fffff', '0x80000000', '0xbf000000']
    """
    bits = (np.asarray(scores, np.float32) + np.float32(0.0)).view(np.uint32)
    flipped = (bits.view(np.int32) >> 31).view(
        np.uint32
    ) | SIGN  # all bits of negative numbers, else the sign
    return bits ^ flipped


def key_scores(keys: Keys) -> Map:
    """Inverse of `order_keys`."""
    return (keys ^ np.where(keys & SIGN, SIGN, np.uint32(0xFFFFFFFF))).view(np.float32)


def bound_of_area(piece: Piece, n_neg: int, limit: float) -> float:
    """Largest error of a weighted area up to the FPR `limit`, where each threshold of `piece` is a bin.

    `(1 / 2L) sum w_b n_b / N` over the bins b that begin before the limit.
    """
    if n_neg == 0:
        return 0.0
    shared = np.where(piece.fp_above < limit * n_neg, piece.fp - piece.fp_above, 0)
    return float(np.sum(piece.weights * shared)) / (2 * limit * n_neg)


def bound_of_average_precision(piece: Piece, n_pos: int) -> float:
    """Largest error of the average precision: the positives of a bin may rank above or below its negatives."""
    tp_above = piece.tp - piece.hits
    best = piece.tp / (piece.tp + piece.fp_above)
    worst = (tp_above + 1) / (tp_above + 1 + piece.fp)
    off = np.maximum(best - piece.precision, piece.precision - worst)
    return float(np.sum(piece.hits * off)) / n_pos if n_pos else 0.0


def bound_of_f1_max(piece: Piece, n_pos: int) -> float:
    """Largest error of F1-max: the true value may be reached inside a bin; it is never smaller than the binned one."""
    if not n_pos:
        return 0.0
    found = 2 * piece.tp / (piece.tp + piece.fp + n_pos)
    possible = 2 * piece.tp / (piece.tp + piece.fp_above + n_pos)
    return float(possible.max() - found.max())


@dataclass(slots=True)
class BinSums:
    """Sums by bin, over the range of bins that occur."""

    dtype: type[np.generic]
    start: int = 0
    values: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        self.values = self.values.astype(self.dtype)

    @property
    def total(self) -> Any:
        return self.values.sum().item()

    def add(self, start: int, values: npt.NDArray[Any]) -> None:
        """Add sums (n,) of consecutive bins, the first of which is `start`."""
        if not self.values.size:
            self.start, self.values = start, values.astype(self.dtype)
            return
        low = min(start, self.start)
        high = max(start + values.size, self.start + self.values.size)
        if (low, high) != (self.start, self.start + self.values.size):
            grown = np.zeros(high - low, self.dtype)
            grown[self.start - low : self.start - low + self.values.size] = self.values
            self.start, self.values = low, grown
        self.values[start - low : start - low + values.size] += values.astype(self.dtype)

    def at_or_above(self, bins: Bins) -> Bins:
        """(n,) sum of each of the bins (n,) and all bins above it."""
        sums = np.append(np.cumsum(self.values[::-1])[::-1], self.dtype(0))
        return np.asarray(sums[np.clip(bins - self.start, 0, self.values.size)])

    def from_bin(self, first: int) -> Any:
        return self.values[max(first - self.start, 0) :].sum().item()


def total_sums(histograms: Sequence[BinSums]) -> BinSums:
    """The sums of all histograms as a new one; empty without histograms."""
    out = BinSums(histograms[0].dtype if histograms else np.float64)
    for histogram in histograms:
        if histogram.values.size:
            out.add(histogram.start, histogram.values)
    return out


def gathered(
    pixels: Sequence[tuple[Bins, Bins]], weights: Sequence[Weights] | None = None
) -> tuple[Bins, Bins, Weights]:
    """Distinct bins, ascending, and the number of pixels and the sum of weights of each."""
    empty = np.empty(0, np.int64)
    bins, place = np.unique(np.concatenate([empty, *(b for b, _ in pixels)]), return_inverse=True)
    counts = np.concatenate([empty, *(c for _, c in pixels)])
    hits = np.zeros(bins.size, np.int64)
    np.add.at(hits, place, counts)
    sums = np.bincount(place, np.concatenate([np.empty(0), *(weights or ())]) if weights else None, bins.size)
    return bins, hits, sums.astype(np.float64)


def at_or_above(bins: Bins, counts: Bins, at: Bins) -> Bins:
    """For each of the bins `at`: how many pixels lie in it or above; `bins` are ascending, with `counts` pixels each."""
    above = np.append(np.cumsum(counts[::-1])[::-1], 0)
    return np.asarray(above[np.searchsorted(bins, at)])
