"""How long people took: times of each stop, and their means, from stored changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

from andon.line.andon_states.changes import Change
from andon.line.clock import SECOND

STAYS = ("ready", "checked")
"""Changes that leave a station in its state: a fault that ends during a call shows the call again, and it is no new one."""


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of a station. Times are microseconds UTC, None where they have not come."""

    requested: int
    called: int | None = None
    """Start of the call that became this stop."""
    acknowledged: int | None = None
    """First acknowledgement of an alarm: a person is there."""
    stopped: int | None = None
    cause_given: int | None = None
    resumed: int | None = None
    cause: str = ""
    why: str = ""

    @property
    def first(self) -> int:
        """Start of the call, otherwise of the stop."""
        return self.requested if self.called is None else self.called


class Summary(NamedTuple):
    """Means over stops, in seconds; None where no stop has that time."""

    stops: int
    to_acknowledge: float | None
    """Mean time to acknowledge (MTTA), from call or stop to the first acknowledgement."""
    to_resume: float | None
    """Mean time to repair (MTTR), from stop to running again."""


def stops(changes: Iterable[Change]) -> list[Stop]:
    """Stops of one station, oldest first, from the changes of the station and of its alarms in order."""
    found: list[Stop] = []
    called: int | None = None
    arrived: int | None = None
    for change in changes:
        if change.event in STAYS:
            continue
        if change.event == "acknowledge":
            if _is_open(found) and found[-1].acknowledged is None:
                found[-1] = replace(found[-1], acknowledged=change.t)
            elif called is not None and arrived is None:
                arrived = change.t
        elif change.new == "call":
            called = change.t
        elif change.new == "stop_requested":
            found.append(Stop(change.t, called=called, acknowledged=arrived, why=change.why))
        elif _is_open(found):
            found[-1] = _later(found[-1], change)
        if change.new in ("run", "stop_requested"):
            called = arrived = None
    return found


def summary(found: Iterable[Stop]) -> Summary:
    """Number of stops, mean time to acknowledge and to resume."""
    found = list(found)
    answered = [(s.acknowledged - s.first) / SECOND for s in found if s.acknowledged is not None]
    resumed = [(s.resumed - s.requested) / SECOND for s in found if s.resumed is not None]
    return Summary(len(found), fmean(answered) if answered else None, fmean(resumed) if resumed else None)


def _is_open(found: list[Stop]) -> bool:
    return bool(found) and found[-1].resumed is None


def _later(stop: Stop, change: Change) -> Stop:
    """`stop` with the time of a later change of its station."""
    if change.event == "stopped":
        return replace(stop, stopped=change.t)
    if change.event == "give_cause":
        return replace(stop, cause_given=change.t, cause=change.cause)
    return replace(stop, resumed=change.t) if change.event == "run" else stop
