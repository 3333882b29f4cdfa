"""False stops of a rule per 10,000 good parts, each rejected independently with probability p.

k in a row (exact): the expected number of parts up to a stop, with an empty window at first, is
(1 - p^k) / ((1 - p) p^k) (Feller, An Introduction to Probability Theory, vol. 1, XIII.7), so that stops per part are its inverse.

k in the last n: the places of rejects among the last n - 1 parts form a Markov chain that returns to the empty window at
each stop. Where it has at most `MOST_STATES` states its stationary distribution gives the rate exactly. Otherwise the rate is
simulated: only rejects are drawn, whose distances are geometric.

False rejects of a real line cluster (light, lot), so these numbers are optimistic: compare them with `replay`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from andon.core.errors import ConfigError
from andon.line.rules.kinds import InARow, InWindow, Rule

PARTS = 10_000
MOST_STATES = 20_000
"""Markov chains with more states are simulated."""
SIMULATED_REJECTS = 1_000_000
CHUNK = 250_000
"""Rejects drawn at a time."""


class Forecast(NamedTuple):
    """Expected false stops (calls, for a rule that calls) per 10,000 good parts."""

    per_10_000: float
    method: Literal["exact", "simulated"]
    standard_error: float = 0.0
    """Of `per_10_000`; 0 where exact. Where nothing was seen in a simulation: 3 / parts, a 95 % bound."""


def forecast(rule: Rule, p: float, *, seed: int = 0) -> Forecast | None:
    """Expected false stops of `rule` per 10,000 good parts that are rejected independently at rate `p`.

    None for rules that do not follow from p: places, times, errors. Raises `ConfigError` unless 0 <= p < 1.
    """
    if not 0.0 <= p < 1.0:
        raise ConfigError(f"false-reject rate {p} is not in [0, 1): give a fraction, e.g. 0.01 for 1 %")
    if not isinstance(rule, InARow | InWindow) or rule.verdict != "NG":
        return None
    if p == 0.0:
        return Forecast(0.0, "exact")
    if isinstance(rule, InARow) or rule.k == rule.n:
        return Forecast(PARTS * in_a_row_rate(rule.k, p), "exact")
    if rule.k == 1:
        return Forecast(PARTS * p, "exact")
    states = sum(math.comb(rule.n - 1, rejects) for rejects in range(rule.k))
    if states <= MOST_STATES and rule.n <= 64:
        return Forecast(PARTS * window_rate(rule.k, rule.n, p), "exact")
    return _simulated(rule.k, rule.n, p, seed)


def in_a_row_rate(k: int, p: float) -> float:
    """Stops per part of k rejects in a row, windows emptied at a stop."""
    return (1.0 - p) * p**k / (1.0 - p**k)


@lru_cache(maxsize=64)
def window_rate(k: int, n: int, p: float) -> float:
    """Stops per part of k rejects among the last n, windows emptied at a stop; n <= 64. Exact to 1e-10 relative.

    A state is a bit mask of the last n - 1 parts, 1 = rejected, with fewer than k bits. The distribution is advanced part by
    part until the rate of stops settles; all states forget their past within n parts.
    """
    masks = np.array(
        sorted(
            sum(1 << place for place in places) for m in range(k) for places in combinations(range(n - 1), m)
        ),
        dtype=np.uint64,
    )
    shifted = (masks << np.uint64(1)) & np.uint64((1 << (n - 1)) - 1)
    after_good = np.searchsorted(masks, shifted)
    stops = np.bitwise_count(masks) == k - 1  # one more reject fires
    after_reject = np.where(
        stops, 0, np.searchsorted(masks, shifted | np.uint64(1))
    )  # mask 0, the empty window, is first
    share: npt.NDArray[np.float64] = np.zeros(len(masks))
    share[0] = 1.0
    rate = 0.0
    for _ in range(1000):
        for _ in range(n):
            good = np.bincount(after_good, (1.0 - p) * share, len(masks))
            share = np.add(good, np.bincount(after_reject, p * share, len(masks)), dtype=np.float64)
        before, rate = rate, p * float(share[stops].sum())
        if abs(rate - before) <= 1e-11 * rate:
            break
    return rate


@lru_cache(maxsize=64)
def simulate(k: int, n: int, p: float, *, rejects: int = SIMULATED_REJECTS, seed: int = 0) -> tuple[int, int]:
    """Stops of k in n among simulated good parts, and the number of these parts.

    Parts are drawn until `rejects` of them are rejected, each independently at rate `p`.
    """
    rng = np.random.default_rng(seed)
    stops = parts = 0
    for drawn in range(0, rejects, CHUNK):
        places = np.cumsum(rng.geometric(p, min(CHUNK, rejects - drawn)))
        parts += int(places[-1])
        stops += _stops(places, k, n)
    return stops, parts


def _stops(places: npt.NDArray[np.int64], k: int, n: int) -> int:
    """Stops for rejects at `places` (ascending): each reject whose k-1 predecessors since the last stop lie in its window."""
    candidates = np.flatnonzero(places[k - 1 :] - places[: len(places) - k + 1] < n) + k - 1
    stops, earliest = 0, 0
    for reject in candidates.tolist():
        if reject >= earliest:
            stops += 1
            earliest = reject + k
    return stops


def _simulated(k: int, n: int, p: float, seed: int) -> Forecast:
    stops, parts = simulate(k, n, p, seed=seed)
    spread = math.sqrt(stops) if stops else 3.0
    return Forecast(PARTS * stops / parts, "simulated", PARTS * spread / parts)
