"""Maps from raw scores to comparable or readable ones, in numpy (docs/reference/metrics.md, "Display").

`quantile_map` makes two maps comparable before they are added (EfficientAD, Batzner et al. 2024,
https://arxiv.org/abs/2303.14535, section 3.4). The others are for people. Metrics always use raw scores:
clipping and rounding make ties.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.thresholds.rules import p_value

TINY = 1e-12
"""Smallest divisor."""

Values = npt.NDArray[np.floating[Any]]


class DegenerateRangeWarning(UserWarning):
    """A range that a map divides by is empty."""


@dataclass(frozen=True, slots=True)
class AffineDisplay:
    """The score shown to people: 0 = a typical good image, 1 = the threshold, one straight line.

    Where the threshold is not above the typical good score there is no such line. Then 1 stays the threshold,
    the slope is that of the smallest usable span, and `note` says so.
    """

    typical: float
    """Median of the good validation scores."""
    threshold: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.typical) and np.isfinite(self.threshold)):
            raise ValueError(
                f"typical score {self.typical} and threshold {self.threshold} must be finite, "
                "check the detector on the validation pictures"
            )

    @classmethod
    def fit(cls, good_scores: npt.ArrayLike, threshold: float) -> AffineDisplay:
        """From good validation scores (n,); warns (DegenerateRangeWarning) unless their median is lower."""
        display = cls(float(np.median(np.asarray(good_scores, dtype=np.float64))), float(threshold))
        if display.note:
            warnings.warn(display.note, DegenerateRangeWarning, stacklevel=2)
        return display

    @property
    def span(self) -> float:
        """Raw units per display unit, positive."""
        smallest = max(1e-6 * max(abs(self.threshold), abs(self.typical)), TINY)
        return max(self.threshold - self.typical, smallest)

    @property
    def offset(self) -> float:
        """Raw score shown as 0; `typical` unless the range is degenerate."""
        return self.threshold - self.span

    @property
    def note(self) -> str:
        """Empty, or why 0 is not the typical good score."""
        if self.threshold - self.typical == self.span:
            return ""
        return (
            f"the threshold {self.threshold:g} is not above the typical good score {self.typical:g}; "
            "shown scores keep 1 = threshold, 0 is arbitrary"
        )

    def __call__(self, raw: npt.ArrayLike) -> Values:
        """Display units of raw scores or maps, any shape; float32 stays float32, the rest becomes float64.

        `shown >= 1` is the same decision as `raw >= threshold`, whatever rounding does.
        """
        values = _floats(raw)
        # 1 + (x - threshold) / span, not (x - typical) / span: exactly 1 at the threshold.
        shown = (1.0 + (values.astype(np.float64) - self.threshold) / self.span).astype(values.dtype)
        just_below = np.nextafter(values.dtype.type(1), values.dtype.type(0))
        return np.where(values < self.threshold, np.minimum(shown, just_below), shown)

    def inverse(self, shown: npt.ArrayLike) -> Values:
        """Raw scores of display units. `inverse(shown) >= threshold` is the same decision as `shown >= 1`."""
        values = _floats(shown)
        raw = (self.threshold + (values.astype(np.float64) - 1.0) * self.span).astype(values.dtype)
        just_below = np.nextafter(values.dtype.type(self.threshold), values.dtype.type(-np.inf))
        return np.where(values < 1, np.minimum(raw, just_below), raw)


def map_quantiles(pixels: npt.ArrayLike, lower: float = 0.9, upper: float = 0.995) -> tuple[float, float]:
    """The two quantiles (linear interpolation) of all validation pixels that `quantile_map` needs.

    By partition, in float64 between the two neighbours, for any number of pixels (`torch.quantile` has a
    limit).
    """
    values = _floats(pixels).ravel()
    if values.size == 0:
        raise ValueError("no validation pixels, so there are no quantiles; hold out some good pictures")
    if np.isnan(values).any():
        raise ValueError(
            "a validation pixel is NaN, so there are no quantiles; check the detector on these pictures"
        )
    positions = [q * (values.size - 1) for q in (lower, upper)]
    below = [int(position) for position in positions]
    above = [min(index + 1, values.size - 1) for index in below]
    values = np.partition(values, sorted({*below, *above}))
    first, second = (
        _between(float(values[i]), float(values[j]), position - i)
        for position, i, j in zip(positions, below, above, strict=True)
    )
    return first, second


def quantile_map(anomaly_map: npt.ArrayLike, q_a: float, q_b: float) -> Values:
    """`0.1 (m - q_a) / (q_b - q_a)`: 0 at the lower validation quantile, 0.1 at the upper one; any shape.

    DegenerateRangeWarning, and a divisor of at least 1e-12, where the quantiles are equal.
    """
    values = _floats(anomaly_map)
    if q_b - q_a < TINY:
        warnings.warn(
            f"the map's quantiles {q_a:g} and {q_b:g} are equal: it is flat on good pictures, "
            "so that any change is blown up; check the detector",
            DegenerateRangeWarning,
            stacklevel=2,
        )
    return (0.1 * (values.astype(np.float64) - q_a) / max(q_b - q_a, TINY)).astype(values.dtype)


def threshold_centred_range(good_scores: npt.ArrayLike, threshold: float) -> tuple[float, float]:
    """`(lo, hi)` for `threshold_centred`: lo = smallest good score, hi = max(largest, 2 threshold - lo)."""
    values = np.asarray(good_scores, dtype=np.float64)
    low = float(values.min())
    return low, max(float(values.max()), 2 * threshold - low)


def threshold_centred(scores: npt.ArrayLike, lo: float, hi: float, threshold: float) -> Values:
    """Scores, any shape, to [0, 1] with 0.5 at the threshold, 0 from `lo` down and 1 from `hi` up.

    A side without extent (lo = threshold or hi = threshold) maps to 0.5, infinite scores to 0 and 1.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("NaN has no place on the scale; check the detector on this sample")
    left, right = threshold - lo, hi - threshold
    offset = np.where(np.isfinite(values), values - threshold, 0.0)
    below = 0.5 + 0.5 * offset / left if left > 0 else 0.5
    above = 0.5 + 0.5 * offset / right if right > 0 else 0.5
    scale = np.clip(np.where(offset <= 0, below, above), 0.0, 1.0)
    return np.where(np.isfinite(values), scale, np.where(values > 0, 1.0, 0.0))


def ecdf(scores: npt.ArrayLike, good_scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """1 - p-value: about the share of good validation images that are less anomalous; any shape."""
    return 1.0 - p_value(scores, good_scores)


def zscore(scores: npt.ArrayLike, mean: float, std: float) -> Values:
    """Standard deviations above the mean, with a divisor of at least 1e-12; any shape."""
    values = _floats(scores)
    return ((values.astype(np.float64) - mean) / max(std, TINY)).astype(values.dtype)


def _between(low: float, high: float, share: float) -> float:
    """Linear interpolation that also holds for equal infinite ends."""
    return low if low == high else low + share * (high - low)


def _floats(values: npt.ArrayLike) -> Values:
    """float32 as it is, everything else as float64."""
    array: Values = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64)
