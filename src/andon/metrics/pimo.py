"""AUPIMO: how much of each anomalous image is found while good images stay almost untouched (docs/reference/metrics.md, "PIMO").

Reference: Bertoldo, Ameln, Vaidya, Akcay: AUPIMO, BMVC 2024, https://arxiv.org/abs/2401.01984. The false
positive rate F(t) of a threshold is the mean over the *good* images of the share of their pixels with `score
>= t`; the recall T_i(t) is the share of the annotated pixels of anomalous image i. AUPIMO_i is the mean of
T_i over ln F, from F = 1e-5 to 1e-4.

The published code takes 300,000 evenly spaced thresholds. Here the vertices are the distinct scores of the
good images, T is linear in ln F between them and constant beyond the outermost, which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.metrics.counts import Counts, Rates

PIMO_RANGE = (1e-5, 1e-4)
"""False positive rates on good images between which AUPIMO looks."""
FEWEST_VERTICES = 31
"""With fewer thresholds in the range the value means nothing and is undefined (the published limit)."""
RELIABLE_VERTICES = 300
"""With fewer the value is coarse, which the report says (the published limit)."""

Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class RateCurve:
    """Thresholds and their false positive rates on good images, around the rates AUPIMO looks at."""

    thresholds: Scores
    """(K,) descending, distinct."""
    rates: Rates
    """(K,) F of each, rising, above 0."""
    range: tuple[float, float] = PIMO_RANGE

    @property
    def n_vertices(self) -> int:
        """Thresholds whose rate lies in the range."""
        low, high = self.range
        return int(np.count_nonzero((self.rates >= low) & (self.rates <= high)))

    def integrate(self, recalls: Rates) -> float:
        """Mean over ln F of the recalls (K,) at the thresholds: AUPIMO of one image."""
        at, ends = np.log(self.rates), np.log(self.range)
        inside = (at > ends[0]) & (at < ends[1])
        x = np.concatenate((ends[:1], at[inside], ends[1:]))
        y = np.interp(x, at, recalls)
        return float(np.trapezoid(y, x) / (ends[1] - ends[0]))

    def doubt(self, recalls: Rates) -> float:
        """Largest error of `integrate` when the true recalls rise in any way between the vertices."""
        at, ends = np.log(self.rates), np.log(self.range)
        inside = (at > ends[0]) & (at < ends[1])
        x = np.concatenate((ends[:1], at[inside], ends[1:]))
        width = np.diff(x) / (ends[1] - ends[0])
        after = np.minimum(np.searchsorted(at, x[1:]), at.size - 1)
        before = np.searchsorted(at, x[:-1], side="right") - 1
        # Before the first vertex nothing is known of the recall but that it is not larger than there.
        low = np.where(before >= 0, recalls[np.maximum(before, 0)], 0.0)
        value = self.integrate(recalls)
        return max(float(recalls[after] @ width) - value, value - float(low @ width))


@dataclass(frozen=True, slots=True)
class Pimo:
    """AUPIMO of a set of images; NaN where undefined."""

    scores: tuple[tuple[str, float], ...]
    """Name and AUPIMO of each anomalous image with a mask."""
    n_good: int
    n_vertices: int
    """Distinct good scores whose rate lies in the range; the value is coarse below `RELIABLE_VERTICES`."""
    bound: float | None = None
    """Largest error of the mean that binning can have made; None where it is exact."""

    @property
    def values(self) -> Rates:
        """(n,) AUPIMO of the images."""
        return np.array([score for _, score in self.scores], dtype=np.float64)

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.scores) if self.scores else math.nan

    def quantile(self, q: float) -> float:
        """Quantile (linear) over the images."""
        return float(np.quantile(self.values, q)) if self.scores else math.nan

    @property
    def zero_share(self) -> float:
        """Share of the anomalous images of which nothing is found."""
        return math.nan if math.isnan(self.mean) else float(np.mean(self.values == 0))


def rate_curve(
    good: Sequence[tuple[Scores, int]], n_good: int, bounds: tuple[float, float] = PIMO_RANGE
) -> RateCurve:
    """Vertices from the scores of `n_good` good images: those up to the upper bound and one beyond.

    `good` holds pairs of scores (ascending, of any number of images) and the pixels of one of these
    images; a score of an image of n pixels counts 1 / (n_good n).
    """
    low, high = bounds
    if not 0 < low < high <= 1:
        raise ValueError(f"AUPIMO range {bounds} must rise within (0, 1]; the usual one is {PIMO_RANGE}")
    tails, sizes, floor = [], [], -np.inf
    for scores, pixels in good:
        # More than this many pixels of these images alone exceed the upper rate.
        keep = min(scores.size, math.floor(high * n_good * pixels) + 1)
        if keep < scores.size:
            floor = max(floor, scores[scores.size - keep])  # below it, pixels are missing
        tails.append(scores[scores.size - keep :])
        sizes.append(np.full(keep, 1.0 / pixels))
    values = np.concatenate([np.empty(0, np.float32), *tails])
    weights = np.concatenate([np.empty(0), *sizes])
    order = np.argsort(values, kind="stable")[::-1]
    values, weights = values[order], weights[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], values.size > 0))
    rates = np.cumsum(weights)[last] / max(n_good, 1)
    thresholds = values[last]
    known = thresholds > floor
    beyond = np.flatnonzero(~known)[:1]  # the neighbour below: its rate is counted in full
    if beyond.size:
        rates[beyond] = sum(
            (s.size - np.searchsorted(s, thresholds[beyond])) / pixels for s, pixels in good
        ) / max(n_good, 1)
    kept = np.concatenate((np.flatnonzero(known), beyond))
    return RateCurve(thresholds[kept], np.minimum(rates[kept], 1.0), bounds)


def recalls_at(scores: Scores, thresholds: Scores) -> Rates:
    """T at descending thresholds (K,): share of the scores (n,) of one image's masks that reach them."""
    ordered = np.sort(scores)
    counts: Counts = ordered.size - np.searchsorted(ordered, thresholds, side="left")
    return counts / max(ordered.size, 1)


def pimo(
    curve: RateCurve,
    n_good: int,
    recalls: Iterable[tuple[str, Rates]],
    *,
    force: bool = False,
    binned: bool = False,
) -> Pimo:
    """AUPIMO from the good images' curve and the (name, recalls at its thresholds) of anomalous images.

    NaN without good images and, unless `force`, with fewer than `FEWEST_VERTICES` in the range. `binned` says
    that thresholds are edges of bins, and asks for the largest error this can make.
    """
    if n_good == 0 or (curve.n_vertices < FEWEST_VERTICES and not force):
        return Pimo(tuple((name, math.nan) for name, _ in recalls), n_good, curve.n_vertices)
    scores, doubts = [], []
    for name, recall in recalls:
        scores.append((name, curve.integrate(recall)))
        if binned:
            doubts.append(curve.doubt(recall))
    bound = math.fsum(doubts) / len(doubts) if doubts else None
    return Pimo(tuple(scores), n_good, curve.n_vertices, bound)
