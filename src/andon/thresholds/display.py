"""The scale on which scores are shown to people: 0 = a typical good image, 1 = the threshold (NumPy).

Metrics always use raw scores. See docs/reference/metrics.md, "Display".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

TINY = 1e-12
"""Smallest divisor."""
FEW = 5
"""Fewer good scores than this do not tell their own spread."""
OF_SCORES, OF_CELLS = 0.05, 0.1
"""Shares of the distance between the 10 % and 90 % quantiles of the good scores, and of the range of the map values of good
images, that a unit has at least."""

STRIP = 2**15
"""Values converted at a time: each step finds them in the processor's cache; of a whole map every step reads memory anew."""

Values = npt.NDArray[np.floating[Any]]


def smallest_unit(scores: npt.ArrayLike, cells: npt.ArrayLike = ()) -> float:
    """Raw distance that one displayed unit has at least, from the spread of all good `scores` (n,); positive.

    Few or equal scores do not tell it; then the map values `cells` of the good images do, and where they are all equal too, it
    is 1 raw unit.
    """
    own, inside = (np.asarray(values, np.float64) for values in (scores, cells))
    unit = OF_SCORES * float(np.ptp(np.quantile(own, (0.1, 0.9)))) if own.size else 0.0
    if own.size < FEW or unit == 0:
        unit = max(unit, OF_CELLS * float(np.ptp(inside)) if inside.size else 0.0)
    return unit or 1.0


class DegenerateRangeWarning(UserWarning):
    """A range that a map divides by is empty."""


@dataclass(frozen=True, slots=True)
class AffineDisplay:
    """Affine map of raw scores to displayed ones: 0 = the typical good score, 1 = the threshold.

    Where the threshold does not exceed the typical good score by `floor`, 1 stays the threshold, the slope is that of `floor`,
    and `note` says so.
    """

    typical: float
    """Median of the good validation scores."""
    threshold: float
    floor: float = 0.0
    """Smallest raw distance of one displayed unit, see `smallest_unit`."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.typical) and np.isfinite(self.threshold) and np.isfinite(self.floor)):
            raise ValueError(
                f"typical score {self.typical} and threshold {self.threshold} must be finite, "
                "check the detector on the validation pictures"
            )

    @classmethod
    def fit(cls, good_scores: npt.ArrayLike, threshold: float, floor: float = 0.0) -> AffineDisplay:
        """From good validation scores (n,); warns (DegenerateRangeWarning) unless their median is lower than the threshold."""
        display = cls(float(np.median(np.asarray(good_scores, dtype=np.float64))), float(threshold), floor)
        if display.threshold - display.typical < display._rounding:
            warnings.warn(display.note, DegenerateRangeWarning, stacklevel=2)
        return display

    @property
    def span(self) -> float:
        """Raw units per display unit, positive."""
        return max(self.threshold - self.typical, self.floor, self._rounding)

    @property
    def _rounding(self) -> float:
        """Raw distance that may be rounding alone."""
        return max(1e-6 * max(abs(self.threshold), abs(self.typical)), TINY)

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
            f"the threshold {self.threshold:g} is not above the typical good score {self.typical:g} by what good pictures "
            f"differ; shown scores keep 1 = threshold, one unit is {self.span:g}, 0 is arbitrary"
        )

    def __call__(self, raw: npt.ArrayLike) -> Values:
        """Display units of raw scores or maps, any shape; float32 stays float32, the rest becomes float64.

        `shown >= 1` is the same decision as `raw >= threshold`, whatever rounding does.
        """
        values = _floats(raw)
        threshold, one, span = values.dtype.type(self.threshold), values.dtype.type(1), self.span

        def show(strip: Values, shown: Values) -> None:
            # 1 + (x - threshold) / span, not (x - typical) / span: exactly 1 at the threshold.
            np.subtract(strip, threshold, out=shown)
            shown /= span
            shown += one
            _keep_below(shown, one, strip, threshold)

        return _in_strips(show, values)

    def inverse(self, shown: npt.ArrayLike) -> Values:
        """Raw scores of display units. `inverse(shown) >= threshold` is the same decision as `shown >= 1`."""
        values = _floats(shown)
        threshold, one, span = values.dtype.type(self.threshold), values.dtype.type(1), self.span

        def unshow(strip: Values, raw: Values) -> None:
            np.subtract(strip, one, out=raw)
            raw *= span
            raw += threshold
            _keep_below(raw, threshold, strip, one)

        return _in_strips(unshow, values)


def _in_strips(convert: Callable[[Values, Values], None], values: Values) -> Values:
    """`values`, any shape, converted: `convert` gets strips (n,) of them that the cache holds, and where the results go."""
    converted = np.empty(values.shape, values.dtype)
    source, target = values.reshape(-1), converted.reshape(-1)
    for start in range(0, values.size, STRIP):
        convert(source[start : start + STRIP], target[start : start + STRIP])
    return converted


def _keep_below(
    converted: Values, limit: np.floating[Any], values: Values, boundary: np.floating[Any]
) -> None:
    """Change `converted` in place: where `values` are below the boundary but rounding led to the limit, the next below it."""
    at_limit = converted == limit
    if at_limit.any():
        converted[at_limit & (values < boundary)] = np.nextafter(limit, converted.dtype.type(-np.inf))


def _floats(values: npt.ArrayLike) -> Values:
    """float32 as it is, everything else as float64."""
    array: Values = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64)
