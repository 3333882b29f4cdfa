"""Histograms of scores on one scale, for the threshold page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 80
LOWEST, HIGHEST = -1.0, 3.0
"""Scores outside are counted in the first and last bin."""


class Histogram(NamedTuple):
    """Counts of several kinds of scores in bins of equal width from `low` to `high`."""

    low: float
    high: float
    counts: tuple[tuple[int, ...], ...]
    """One row for each kind."""


def histogram(kinds: Sequence[Sequence[float]], thresholds: Sequence[float]) -> Histogram:
    """Bins that show all scores of all kinds, and the thresholds; scores outside `LOWEST` to `HIGHEST` in the outer bins."""
    every = [*(score for scores in kinds for score in scores), 0.0, 1.0, *thresholds]
    low = max(LOWEST, min(every))
    high = max(min(HIGHEST, max(every)), *thresholds)
    room = 0.03 * (high - low)
    edges = np.linspace(low - room, high + room, BINS + 1)
    counts = tuple(
        tuple(
            int(n)
            for n in np.histogram(np.clip(np.asarray(scores, np.float64), edges[0], edges[-1]), edges)[0]
        )
        for scores in kinds
    )
    return Histogram(float(edges[0]), float(edges[-1]), counts)
