"""AUPIMO: recall of each anomalous image at very low false positive rates (docs/reference/metrics.md, "PIMO").

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
"""Range of false positive rates on good images over which AUPIMO integrates."""
FEWEST_VERTICES = 31
"""With fewer thresholds in the range AUPIMO is undefined (the minimum of the published code)."""
RELIABLE_VERTICES = 300
"""With fewer thresholds the value is coarse and the report says so (the minimum of the published code)."""

Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class RateCurve:
    """Thresholds and their false positive rates F on good images, in and around the range of AUPIMO."""

    thresholds: Scores
    """(K,) descending, distinct."""
    rates: Rates
    """(K,) F of each threshold, ascending, > 0."""
    range: tuple[float, float] = PIMO_RANGE

    @property
    def n_vertices(self) -> int:
        """Number of thresholds whose rate lies in the range."""
        low, high = self.range
        return int(np.count_nonzero((self.rates >= low) & (self.rates <= high)))

    def integrate(self, recalls: Rates) -> float:
        """AUPIMO of one image: mean over ln F of its recalls (K,) at the thresholds."""
        at, ends = np.log(self.rates), np.log(self.range)
        inside = (at > ends[0]) & (at < ends[1])
        x = np.concatenate((ends[:1], at[inside], ends[1:]))
        y = np.interp(x, at, recalls)
        return float(np.trapezoid(y, x) / (ends[1] - ends[0]))

    def error_bound(self, recalls: Rates, above: Rates) -> float:
        """Largest error of `integrate` if each vertex is the lower end of a bin, inside which the order is not known.

        `above` (K,) is the recall strictly above each bin: the exact curve lies between it and `recalls` inside the bin.
        """
        at, ends = np.log(self.rates), np.log(self.range)
        inside = (at > ends[0]) & (at < ends[1])
        x = np.concatenate((ends[:1], at[inside], ends[1:]))
        width = np.diff(x) / (ends[1] - ends[0])
        after = np.minimum(np.searchsorted(at, x[1:]), at.size - 1)
        before = np.maximum(np.searchsorted(at, x[:-1], side="right") - 1, 0)
        value = self.integrate(recalls)
        return max(float(recalls[after] @ width) - value, value - float(above[before] @ width))


@dataclass(frozen=True, slots=True)
class Pimo:
    """AUPIMO of a set of images; NaN where undefined."""

    scores: tuple[tuple[str, float], ...]
    """Name and AUPIMO of each anomalous image with a mask."""
    n_good: int
    n_vertices: int
    """Number of distinct good scores whose rate lies in the range; below `RELIABLE_VERTICES` AUPIMO is coarse."""
    bound: float | None = None
    """Largest error of the mean due to binning; None where it is exact."""

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
        """Share of the anomalous images with AUPIMO 0."""
        return math.nan if math.isnan(self.mean) else float(np.mean(self.values == 0))


def rate_curve(
    good: Sequence[tuple[Scores, int]], n_good: int, bounds: tuple[float, float] = PIMO_RANGE
) -> RateCurve:
    """Vertices from the scores of `n_good` good images, up to the upper bound and one beyond.

    `good` holds pairs: scores (ascending, of any number of images) and the number of pixels of each of these
    images. A score of an image of n pixels has the weight 1 / (n_good n).
    """
    low, high = bounds
    if not 0 < low < high <= 1:
        raise ValueError(f"AUPIMO range {bounds} must rise within (0, 1]; the usual one is {PIMO_RANGE}")
    tails, sizes, floor = [], [], -np.inf
    for scores, pixels in good:
        # More pixels than this, of these images alone, exceed the upper rate.
        keep = min(scores.size, math.floor(high * n_good * pixels) + 1)
        if keep < scores.size:
            floor = max(floor, scores[scores.size - keep])  # below it, counts are incomplete
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
    beyond = np.flatnonzero(~known)[:1]  # the next lower threshold; its rate is counted over all scores
    if beyond.size:
        rates[beyond] = sum(
            (s.size - np.searchsorted(s, thresholds[beyond])) / pixels for s, pixels in good
        ) / max(n_good, 1)
    kept = np.concatenate((np.flatnonzero(known), beyond))
    return RateCurve(thresholds[kept], np.minimum(rates[kept], 1.0), bounds)


def recalls_at(scores: Scores, thresholds: Scores) -> Rates:
    """(K,) T at descending thresholds (K,): share of the scores (n,) in one image's mask that are >= each."""
    ordered = np.sort(scores)
    counts: Counts = ordered.size - np.searchsorted(ordered, thresholds, side="left")
    return counts / max(ordered.size, 1)


def pimo(
    curve: RateCurve,
    n_good: int,
    recalls: Iterable[tuple[str, Rates]],
    *,
    force: bool = False,
    above: Iterable[Rates] | None = None,
) -> Pimo:
    """AUPIMO from the good images' curve and the (name, recalls at its thresholds) of anomalous images.

    NaN without good images and, unless `force`, with fewer than `FEWEST_VERTICES` thresholds in the range. Where the
    thresholds are the lower ends of bins, `above` holds each image's recalls strictly above the bins, and the result has a
    bound on the error of the binning.
    """
    if n_good == 0 or (curve.n_vertices < FEWEST_VERTICES and not force):
        return Pimo(tuple((name, math.nan) for name, _ in recalls), n_good, curve.n_vertices)
    recalls = list(recalls)
    scores = tuple((name, curve.integrate(recall)) for name, recall in recalls)
    bound = None
    if above is not None and recalls:
        bounds = [
            curve.error_bound(recall, higher) for (_, recall), higher in zip(recalls, above, strict=True)
        ]
        bound = math.fsum(bounds) / len(bounds)
    return Pimo(scores, n_good, curve.n_vertices, bound)
