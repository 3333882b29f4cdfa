"""What people see of the drift watch of a station."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from andon.line.drift.follower import Followed, drift_text
from andon.line.drift.numbers import CELLS
from andon.line.drift.reference import NAMES
from andon.line.drift.watch import FEWEST_IN_SHIFT, Drift, Shift


class NumberView(NamedTuple):
    """One number against the reference."""

    name: str
    usual: float
    """Median of the reference."""
    now: float
    """Moving average of about the last ten parts."""
    average: float
    """Moving average of the normal deviates, standard deviations."""
    limit: float
    """Largest |average| without drift."""
    autocorrelation: float


class RateView(NamedTuple):
    """The rate of a verdict."""

    verdict: str
    usual: float | None
    """None while it is learned."""
    last: int | None
    """Parts of the last full block."""
    limit: int | None
    """Parts of a block from which the rate has risen."""


class DriftView(NamedTuple):
    """The drift watch of a station now."""

    text: str
    """What drifts, for people; empty where nothing does."""
    drift: Drift | None
    unlike: str
    """How images are unlike the training images."""
    learning: tuple[int, int] | None
    """Parts of a reference that is being learned, and how many it needs."""
    reference: Mapping[str, int | str] | None
    """Version, parts, who, why, at."""
    parts: int
    """Compared parts."""
    numbers: tuple[NumberView, ...]
    cells: tuple[tuple[float, ...], ...]
    """Relative change of the brightness of 4 x 4 cells, rows from the top."""
    rates: tuple[RateView, ...]
    shift: Shift | None
    """The last shift that was compared."""
    timing: Mapping[str, tuple[float, float]]
    """Judging (ms) and interval (s): median of the reference, and now."""

    @property
    def shift_says(self) -> str:
        """What the comparison of the last shift found, in a line."""
        if self.shift is None:
            return "no shift has ended since the reference"
        if self.shift.count < FEWEST_IN_SHIFT:
            return f"too few parts: {self.shift.count}, at least {FEWEST_IN_SHIFT} are needed"
        return f"different: {', '.join(self.shift.found)}" if self.shift.found else "no difference"


def view(followed: Followed) -> DriftView:
    """The state of a station; asked under the lock of the follower (`DriftFollower.read`)."""
    watch, version, reference = followed.watch, followed.version, followed.watch.reference
    numbers: tuple[NumberView, ...] = ()
    timing: dict[str, tuple[float, float]] = {}
    if reference is not None:
        columns = (reference.centre, watch.recent, watch.average, reference.limits, reference.rho)
        rows = zip(NAMES, *(column.tolist() for column in columns), strict=True)
        numbers = tuple(NumberView(*row) for row in rows)
        judging, interval = reference.timing
        timing = {"judging_ms": (judging, watch.judging_ms), "interval_s": (interval, watch.interval_s)}
    return DriftView(
        text=drift_text(watch),
        drift=watch.drift,
        unlike=watch.unlike(),
        learning=None if watch.learner is None else (watch.learner.progress, watch.learner.total),
        reference=None
        if version is None
        else {
            "version": version.id,
            "parts": version.parts,
            "who": version.who,
            "why": version.why,
            "at": version.at,
        },
        parts=watch.parts,
        numbers=numbers,
        cells=tuple(tuple(row) for row in watch.cells.tolist()) if watch.parts else ((0.0,) * CELLS,) * CELLS,
        rates=tuple(RateView(name, rate.usual, rate.last, rate.limit) for name, rate in watch.rates.items()),
        shift=watch.ended,
        timing=timing,
    )
