"""What two thresholds would do with images whose truth is known: counts with exact intervals, sessions, promise, cost.

`andon threshold --json` and the threshold page of a line print what is computed here.

    found = figures(evidence, accept=0.9, reject=1.0)
    found.good.stopped.count, found.bad.passed.interval
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from andon.metrics.counts import exact_interval
from andon.thresholds.costs import candidates, expected_costs
from andon.thresholds.evidence import Evidence, Images

CLAIM = 0.01
"""Share of bad parts that pass which one would like to claim."""
CONFIDENCE = 0.95
"""Of the one-sided bound behind a claim."""
MOST_PARTS = 10**7
"""More parts than anybody brings."""


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `n` images."""

    count: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % confidence interval of the rate (Clopper and Pearson 1934)."""
        return exact_interval(self.count, self.n)

    def to_json(self) -> dict[str, Any]:
        """Counts, rate and interval."""
        low, high = self.interval
        rate = self.count / self.n if self.n else None
        return {"count": self.count, "n": self.n, "rate": rate, "low": low, "high": high}


class Verdicts(NamedTuple):
    """Images of one kind by verdict."""

    passed: Share
    review: Share
    stopped: Share

    def to_json(self) -> dict[str, Any]:
        """Each share."""
        return {name: share.to_json() for name, share in self._asdict().items()}


class Promise(NamedTuple):
    """The false-reject rate that the calibration promised, and the one expected at a threshold."""

    promised: float
    expected: float
    """(r + 1) / (n + 1) with r of n good parts rejected: what the conformal rule guarantees at this threshold."""

    @property
    def is_kept(self) -> bool:
        """Whether the threshold keeps the promise."""
        return self.expected <= self.promised + 1e-12


class Separation(NamedTuple):
    """Whether some threshold passes all known good images and stops all known bad ones."""

    state: Literal["safe", "overlap", "unknown"]
    """`unknown`: one kind has no images."""
    highest_good: float | None
    lowest_bad: float | None

    @property
    def sentence(self) -> str:
        """In words."""
        if self.state == "unknown":
            return "Whether a safe threshold exists is not known: there are no images of one kind."
        if self.state == "overlap":
            return (
                f"No safe threshold exists: the highest good image scores {self.highest_good:.3f}, the lowest bad one "
                f"{self.lowest_bad:.3f}."
            )
        return (
            f"Thresholds above {self.highest_good:.3f} and up to {self.lowest_bad:.3f} pass all known good images and stop all "
            "known bad ones."
        )


class Session(NamedTuple):
    """Good images of the calibration from one session."""

    name: str
    """Empty: of no known session."""
    verdicts: Verdicts


@dataclass(frozen=True, slots=True)
class Figures:
    """What two thresholds would do."""

    accept: float
    reject: float
    good: Verdicts
    """Of the calibration."""
    good_tests: Verdicts
    bad: Verdicts
    sessions: tuple[Session, ...]
    """By name; empty where no session is known."""
    within: Share | None
    """Good images stopped by what others of their own session teach too, beside `good.stopped`, which is by other sessions."""
    promise: Promise | None
    separation: Separation

    @property
    def bad_parts_for_claim(self) -> int | None:
        """Bad parts to bring so that `CLAIM` can be claimed, if no more of them pass than did; None: too many."""
        return parts_to_claim(CLAIM, self.bad.passed.count)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "accept": self.accept,
            "reject": self.reject,
            "good": self.good.to_json(),
            "good_tests": self.good_tests.to_json(),
            "bad": self.bad.to_json(),
            "sessions": [{"session": name, **found.to_json()} for name, found in self.sessions],
            "within": None if self.within is None else self.within.to_json(),
            "promise": None
            if self.promise is None
            else {**self.promise._asdict(), "is_kept": self.promise.is_kept},
            "separation": {**self.separation._asdict(), "sentence": self.separation.sentence},
            "claim": {"rate": CLAIM, "bad_parts": self.bad_parts_for_claim},
        }


class Wrong(NamedTuple):
    """An image on the wrong side of a threshold."""

    kind: Literal["good", "bad"]
    """A good image that is stopped, or a bad one that passes."""
    name: str
    session: str
    score: float
    distance: float
    """To the threshold that it should be on the other side of; at least 0."""


class Prices(NamedTuple):
    """Prices of both mistakes, in one unit, and the share of bad parts on the line."""

    escape: float
    reject: float
    defect_rate: float


class Cost(NamedTuple):
    """Expected cost per part of the two thresholds, and the one threshold with the lowest."""

    cost: float
    """Where a person who looks at a part between the thresholds decides rightly."""
    cheapest: float
    cheapest_cost: float


def figures(evidence: Evidence, accept: float, reject: float) -> Figures:
    """What the thresholds would do; an image passes below `accept` and is stopped at or above `reject`."""
    return Figures(
        accept=accept,
        reject=reject,
        good=verdicts(evidence.good.scores, accept, reject),
        good_tests=verdicts(evidence.good_tests.scores, accept, reject),
        bad=verdicts(evidence.bad.scores, accept, reject),
        sessions=_sessions(evidence.good, accept, reject),
        within=verdicts(evidence.within, accept, reject).stopped if evidence.within else None,
        promise=_promise(evidence, reject),
        separation=_separation(evidence),
    )


def verdicts(scores: Sequence[float], accept: float, reject: float) -> Verdicts:
    """Scores by verdict."""
    values, n = np.asarray(scores, np.float64), len(scores)
    passed, stopped = int((values < accept).sum()), int((values >= reject).sum())
    return Verdicts(Share(passed, n), Share(n - passed - stopped, n), Share(stopped, n))


def parts_to_claim(rate: float, misses: int = 0) -> int | None:
    """Fewest bad parts of which `misses` may pass so that a share of at most `rate` is claimed with 95 % confidence.

    The one-sided exact bound: 299 parts for 1 % without a miss. None where it takes more than `MOST_PARTS`.
    """
    from scipy import special  # takes long to import, and answers do without

    low, high = misses, MOST_PARTS
    if special.bdtr(misses, high, rate) > 1 - CONFIDENCE:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if special.bdtr(misses, middle, rate) <= 1 - CONFIDENCE:
            high = middle
        else:
            low = middle
    return high


def wrong_images(good: Iterable[Images], bad: Iterable[Images], accept: float, reject: float) -> list[Wrong]:
    """Good images that are stopped and bad ones that pass, the nearest to its threshold first."""
    found = [
        Wrong("good", name, session, score, score - reject)
        for images in good
        for score, name, session in _each(images)
        if score >= reject
    ]
    found += [
        Wrong("bad", name, session, score, accept - score)
        for images in bad
        for score, name, session in _each(images)
        if score < accept
    ]
    return sorted(found, key=lambda image: (image.distance, image.kind, image.name))


def cost(evidence: Evidence, accept: float, reject: float, prices: Prices) -> Cost | None:
    """Expected cost; None without known good or bad images. Good images are those of calibration and test."""
    good, bad = (
        np.sort(np.asarray(scores, np.float64))
        for scores in (evidence.good.scores + evidence.good_tests.scores, evidence.bad.scores)
    )
    if not good.size or not bad.size:
        return None
    weights = prices.defect_rate * prices.escape, (1 - prices.defect_rate) * prices.reject
    escapes, rejects = float((bad < accept).mean()), float((good >= reject).mean())
    places = candidates(np.concatenate([good, bad]))
    every = expected_costs(places, good, bad, weights)
    best = int(np.argmin(every))
    return Cost(weights[0] * escapes + weights[1] * rejects, float(places[best]), float(every[best]))


def _each(images: Images) -> list[tuple[float, str, str]]:
    blank = ("",) * len(images.scores)
    return list(zip(images.scores, images.names or blank, images.sessions or blank, strict=True))


def _sessions(good: Images, accept: float, reject: float) -> tuple[Session, ...]:
    of_session: dict[str, list[float]] = {}
    for name, score in zip(good.sessions, good.scores if good.sessions else (), strict=True):
        of_session.setdefault(name, []).append(score)
    return tuple(Session(name, verdicts(of_session[name], accept, reject)) for name in sorted(of_session))


def _promise(evidence: Evidence, reject: float) -> Promise | None:
    if evidence.promised is None or not evidence.parts:
        return None
    rejected = sum(score >= reject for score in evidence.parts)
    return Promise(evidence.promised, (rejected + 1) / (len(evidence.parts) + 1))


def _separation(evidence: Evidence) -> Separation:
    good, bad = evidence.good.scores + evidence.good_tests.scores, evidence.bad.scores
    highest, lowest = max(good, default=None), min(bad, default=None)
    if highest is None or lowest is None:
        return Separation("unknown", highest, lowest)
    return Separation("safe" if highest < lowest else "overlap", highest, lowest)
