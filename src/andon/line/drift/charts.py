"""Tests on streams of numbers, as pure functions: transformation, EWMA, Kolmogorov-Smirnov with Holm, rates, PSI.

References: Roberts (1959), "Control chart tests based on geometric moving averages"; Nishina (1992) for the change point; Holm
(1979), "A simple sequentially rejective multiple test procedure"; Yurdakul and Naranjo (2020) for the distribution of PSI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]

LAMBDA, L = 1 / 64, 4.05
"""Weight of the newest part, and the limit in standard deviations of the moving average."""
MOST_RHO = 0.95
"""Largest autocorrelation that is allowed for."""
ALPHA = 0.001
"""Probability of a false finding of the comparison of one shift, over all numbers."""
RATE_ALPHA = 1e-4
"""The same of one block of parts, for a rate."""
BINS = 10
"""Of the PSI: deciles of the reference."""


def to_normal(values: npt.ArrayLike, levels: Floats, count: int) -> Floats:
    """Values as standard normal deviates by the distribution of a reference.

    `levels` (K,): its quantiles from 0 to 1, ascending; `count`: its parts, which bound the result to about +-3.5. Of values
    that occur several times, the middle of their probabilities is taken.
    """
    places = np.linspace(0.0, 1.0, levels.size)
    x = np.asarray(values, np.float64)
    below, above = (_probability(x, levels, places, side) for side in ("left", "right"))
    edge = 0.5 / count
    return np.asarray(special.ndtri(np.clip((below + above) / 2, edge, 1 - edge)))


def _probability(x: Floats, levels: Floats, places: Floats, side: str) -> Floats:
    """Share of the reference below x (`left`), or at and below (`right`), interpolated between the quantiles."""
    right = np.searchsorted(levels, x, side)  # type: ignore[call-overload]
    high, low = np.minimum(right, levels.size - 1), np.maximum(right - 1, 0)
    width = levels[high] - levels[low]
    part = np.divide(x - levels[low], width, out=np.zeros_like(x), where=width > 0)
    return np.asarray(places[low] + np.clip(part, 0.0, 1.0) * (places[high] - places[low]))


def autocorrelation(values: Floats) -> float:
    """Correlation of neighbours, in [0, `MOST_RHO`]; 0 for values that do not vary. A negative one is taken as 0."""
    centred = values - values.mean()
    power = float((centred**2).sum())
    if power < 1e-12:
        return 0.0
    return float(np.clip((centred[1:] * centred[:-1]).sum() / power, 0.0, MOST_RHO))


def ewma_limit(rho: float, count: int) -> float:
    """Largest in-control |EWMA| of standard normal deviates with autocorrelation `rho` (AR(1)), reference of `count` parts.

    The variance is that of the moving average of an AR(1) series, plus that of the reference's own mean.
    """
    follow = rho * (1 - LAMBDA)
    moving = LAMBDA / (2 - LAMBDA) * (1 + follow) / (1 - follow)
    return L * float(np.sqrt(moving + (1 + rho) / (1 - rho) / count))


class Compared(NamedTuple):
    """A shift against the reference, one number."""

    distance: float
    """Largest difference of the two distributions."""
    p: float
    """Probability of such a distance without a change."""
    psi: float
    psi_null: float
    """95 % quantile of the PSI without a change, for these counts."""


def compare(values: Floats, levels: Floats, count: int, rho: float) -> Compared:
    """Kolmogorov-Smirnov distance and PSI of values (N,) to a reference of `count` parts.

    Counts are divided by (1 + rho) / (1 - rho), as correlated parts say less.
    """
    factor = (1 - rho) / (1 + rho)
    ordered = np.sort(values)
    places = np.linspace(0.0, 1.0, levels.size)
    expected = [_probability(ordered, levels, places, side) for side in ("left", "right")]
    steps = np.arange(ordered.size + 1) / ordered.size
    distance = float(max((steps[1:] - expected[1]).max(), (expected[0] - steps[:-1]).max(), 0.0))
    return Compared(
        distance,
        ks_probability(distance, count * factor, ordered.size * factor),
        psi(ordered, levels),
        float(special.chdtri(BINS - 1, 0.05)) * (1 / count + 1 / ordered.size) / factor,
    )


def ks_probability(distance: float, first: float, second: float) -> float:
    """Probability of a two-sample Kolmogorov-Smirnov distance at least this large (asymptotic, Stephens' correction)."""
    root = float(np.sqrt(first * second / (first + second)))
    return float(special.kolmogorov((root + 0.12 + 0.11 / root) * distance))


def psi(values: Floats, levels: Floats) -> float:
    """Population stability index over the deciles of the reference; empty bins count as half a part."""
    edges = np.interp(np.linspace(0, 1, BINS + 1)[1:-1], np.linspace(0, 1, levels.size), levels)
    found = np.bincount(np.searchsorted(edges, values, "right"), minlength=BINS)
    share = np.maximum(found, 0.5) / values.size
    return float(((share - 1 / BINS) * np.log(share * BINS)).sum())


def holm(probabilities: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses are rejected at a family-wise level."""
    rejected = [False] * len(probabilities)
    for rank, index in enumerate(np.argsort(probabilities, kind="stable")):
        if probabilities[index] > alpha / (len(probabilities) - rank):
            break
        rejected[index] = True
    return rejected


class RateReference(NamedTuple):
    """Beta distribution of the rate of a block: mean rate, between-block variance, and what is not known of both."""

    a: float
    b: float

    @classmethod
    def of(cls, found: npt.ArrayLike, size: int) -> RateReference:
        """From how many of `size` parts there were in each of at least two blocks; moments, as for a beta-binomial."""
        counts = np.asarray(found, np.float64)
        total = counts.size * size
        mean = (float(counts.sum()) + 0.5) / (total + 1)
        binomial = mean * (1 - mean)
        between = max(float((counts / size).var(ddof=1)) - binomial / size, 0.0)
        precision = max(binomial / (between * (1 + 1 / counts.size) + binomial / total) - 1, 2.0)
        return cls(mean * precision, (1 - mean) * precision)

    def limit(self, size: int) -> int:
        """Smallest count of `size` parts that is at most `RATE_ALPHA` probable, or more; `size` + 1 where none is."""
        k = np.arange(size + 1)
        choose = special.gammaln(size + 1) - special.gammaln(k + 1) - special.gammaln(size - k + 1)
        log = choose + special.betaln(k + self.a, size - k + self.b) - special.betaln(self.a, self.b)
        tail = np.cumsum(np.exp(log)[::-1])[::-1]
        return int(np.count_nonzero(tail > RATE_ALPHA))
