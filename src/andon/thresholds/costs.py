"""The threshold with the lowest expected cost, from labelled images and the prices of both mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError

REPEATS = 1000
"""Bootstrap samples behind an interval."""
FEWEST = 5
"""Images of either kind below which no threshold is computed."""


@dataclass(frozen=True, slots=True)
class CostThreshold:
    """A threshold with its expected cost per part, and intervals that hold 95 % of bootstrap samples."""

    value: float
    """Anomalous from here on."""
    value_interval: tuple[float, float]
    cost: float
    """Expected cost per part, in the unit of the prices."""
    cost_interval: tuple[float, float]
    """Of this threshold, not of the best one of each sample."""
    escapes: float
    """Share of anomalous images that stay below."""
    false_reject_rate: float
    """Share of good images that reach it."""
    n_good: int
    n_anomalous: int

    def describe(self) -> str:
        """In words."""
        return (
            f"of {self.n_good} good and {self.n_anomalous} anomalous pictures it rejects {self.false_reject_rate:.1%} and misses "
            f"{self.escapes:.1%}; expected cost {self.cost:.4g} a part (95 % of samples: {self.cost_interval[0]:.4g} to "
            f"{self.cost_interval[1]:.4g})"
        )


def cheapest(
    good: npt.ArrayLike,
    anomalous: npt.ArrayLike,
    *,
    escape: float,
    reject: float,
    defect_rate: float,
    seed: int = 0,
) -> CostThreshold:
    """The threshold with the lowest expected cost per part.

    Cost of a threshold t: defect_rate · escape · P(anomalous < t) + (1 - defect_rate) · reject · P(good >= t). `good` (n,) and
    `anomalous` (m,) are raw scores of images that nothing was learned from. Candidates lie halfway between scores; of equally
    cheap ones the lowest is taken, which rejects in case of doubt. Raises `DataError` for fewer than `FEWEST` of a kind.
    """
    if not (escape > 0 and reject > 0 and 0 < defect_rate < 1):
        raise ValueError("prices must be above 0 and the defect rate between 0 and 1")
    g, a = (np.sort(np.asarray(x, np.float64)) for x in (good, anomalous))
    if min(g.size, a.size) < FEWEST:
        raise DataError(
            f"a threshold by cost needs at least {FEWEST} good and {FEWEST} anomalous pictures, there are {g.size} and {a.size}: "
            "add some, or use --false-reject-rate, which needs good ones alone"
        )
    prices = defect_rate * escape, (1 - defect_rate) * reject
    places = candidates(np.concatenate([g, a]))
    value = places[int(np.argmin(expected_costs(places, g, a, prices)))]
    rng = np.random.default_rng(seed)
    values, costs = [], []
    for _ in range(REPEATS):
        some = (np.sort(rng.choice(x, x.size)) for x in (g, a))
        drawn_good, drawn_anomalous = some
        every = expected_costs(places, drawn_good, drawn_anomalous, prices)
        values.append(places[int(np.argmin(every))])
        costs.append(expected_costs(np.array([value]), drawn_good, drawn_anomalous, prices)[0])
    return CostThreshold(
        value=float(value),
        value_interval=_interval(values),
        cost=float(expected_costs(np.array([value]), g, a, prices)[0]),
        cost_interval=_interval(costs),
        escapes=float((a < value).mean()),
        false_reject_rate=float((g >= value).mean()),
        n_good=g.size,
        n_anomalous=a.size,
    )


def candidates(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Halfway between neighbouring scores, the lowest score, and one above all."""
    found = np.unique(scores)
    above = np.nextafter(np.float32(found[-1]), np.float32(np.inf))
    return np.concatenate([found[:1], (found[1:] + found[:-1]) / 2, [float(above)]])


def expected_costs(
    thresholds: npt.NDArray[np.float64],
    good: npt.NDArray[np.float64],
    anomalous: npt.NDArray[np.float64],
    prices: tuple[float, float],
) -> npt.NDArray[np.float64]:
    """Cost per part of each threshold (k,). Scores ascend; `prices`: of an escape and of a reject, each times its share."""
    escapes = np.searchsorted(anomalous, thresholds, side="left") / anomalous.size
    rejects = 1 - np.searchsorted(good, thresholds, side="left") / good.size
    return np.asarray(prices[0] * escapes + prices[1] * rejects)


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
