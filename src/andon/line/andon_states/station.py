"""State of one station: from running over a call or a stop back to running, never without a person and a cause.

    RUN -> CALL -> STOP_REQUESTED -> STOPPED -> CAUSE_GIVEN -> RESUME_REQUESTED -> RUN

After a cause that concerns the camera, the light or the setting, known parts have to be judged right before the line resumes,
where the station has some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from andon.line.andon_states.changes import By, Change, NotAllowed, StopCause, check_cause, named

CHECKED_CAUSES = frozenset({StopCause.CAMERA, StopCause.LIGHT, StopCause.SETTING})
"""Causes after which known parts have to be judged again, where the station has some."""


class StationState(StrEnum):
    """State of a station. The last two are shown over the others and are not kept: see `Station.shown`."""

    RUN = "run"
    CALL = "call"
    """A person is called; the line runs."""
    STOP_REQUESTED = "stop_requested"
    """The line has been told to stop."""
    STOPPED = "stopped"
    CAUSE_GIVEN = "cause_given"
    """A person has given the cause."""
    RESUME_REQUESTED = "resume_requested"
    """A person has released the line; it runs once the station is ready."""
    SETUP = "setup"
    """The packed model has not been verified yet."""
    FAULT = "fault"
    """Camera, disk, database or model fail."""


class StationEvent(StrEnum):
    """What happens to a station."""

    CALL = "call"
    END_CALL = "end_call"
    """All alarms that called are over."""
    CALL_EXPIRED = "call_expired"
    """Nobody answered a call in time."""
    STOP = "stop"
    """A rule or a person stops the line."""
    STOPPED = "stopped"
    """The line confirms that it stands."""
    GIVE_CAUSE = "give_cause"
    RESUME = "resume"
    RUN = "run"
    """The station is ready and runs again."""


_S, _V = StationState, StationEvent
STATION_TABLE: Mapping[tuple[StationState, StationEvent], StationState] = {
    (_S.RUN, _V.CALL): _S.CALL,
    (_S.CALL, _V.END_CALL): _S.RUN,
    (_S.CALL, _V.CALL_EXPIRED): _S.STOP_REQUESTED,
    (_S.RUN, _V.STOP): _S.STOP_REQUESTED,
    (_S.CALL, _V.STOP): _S.STOP_REQUESTED,
    (_S.STOP_REQUESTED, _V.STOPPED): _S.STOPPED,
    (_S.STOPPED, _V.GIVE_CAUSE): _S.CAUSE_GIVEN,
    (_S.CAUSE_GIVEN, _V.GIVE_CAUSE): _S.CAUSE_GIVEN,  # corrected
    (_S.CAUSE_GIVEN, _V.STOP): _S.STOPPED,  # a new stop needs a new cause
    (_S.CAUSE_GIVEN, _V.RESUME): _S.RESUME_REQUESTED,
    (_S.RESUME_REQUESTED, _V.STOP): _S.STOPPED,
    (_S.RESUME_REQUESTED, _V.RUN): _S.RUN,
}
"""Where each event leads. `run` also needs a ready station, `resume` a passed check of known parts where one is due."""
BY_PERSON = frozenset({_V.GIVE_CAUSE, _V.RESUME})
"""Station events that a person has to cause."""
DO_FIRST = {
    _S.STOP_REQUESTED: "wait until the line stands",
    _S.STOPPED: "give the cause first",
}
"""What is to be done before a resume."""


@dataclass(frozen=True, slots=True)
class Station:
    """What one station remembers of stops. `state` is kept over restarts; readiness is found anew."""

    name: str
    has_known_parts: bool = False
    """Whether known parts exist that are judged again after a cause of `CHECKED_CAUSES`."""
    state: StationState = StationState.RUN
    """Never SETUP or FAULT."""
    since: int = 0
    """Start of `state`, microseconds UTC."""
    why: str = ""
    """What called or stopped."""
    cause: StopCause | None = None
    check_due: bool = False
    """Known parts have to be judged right before the line may resume."""
    verified: bool = False
    """The packed model has passed its self-check since the start."""
    faults: tuple[str, ...] = ()
    """What fails now, e.g. `camera`, in order of appearance."""

    @property
    def is_ready(self) -> bool:
        """Whether parts can be judged."""
        return self.verified and not self.faults

    @property
    def shown(self) -> StationState:
        """The state for people: a stop goes before a fault, a fault before setup, setup before running."""
        if self.state not in (StationState.RUN, StationState.CALL):
            return self.state
        if self.faults:
            return StationState.FAULT
        return self.state if self.verified else StationState.SETUP

    @property
    def wants_stop(self) -> bool:
        """The output contact: the line must not move."""
        return self.state not in (StationState.RUN, StationState.CALL)

    def step(
        self, event: StationEvent, t: int, by: By | None = None, *, why: str = ""
    ) -> tuple[Station, Change | None]:
        """The station after an event, and the change, None where the event does not apply.

        `give_cause` needs `by` with a name and a cause, `resume` a name; `stop` takes a name where a person stops. Raises
        `NotAllowed` where a person's event does not apply.
        """
        target = STATION_TABLE.get((self.state, event))
        if event in BY_PERSON:
            by = named(by, f"station {self.name}", event)
            if target is None:
                raise NotAllowed(self._refusal(event))
            if event is StationEvent.GIVE_CAUSE:
                check_cause(by, f"station {self.name}")
            elif self.check_due:
                raise NotAllowed(
                    f"station {self.name} cannot resume after cause {self.cause}: judge the known parts first"
                )
        by = by or By("")
        if target is None or (event is StationEvent.RUN and (self.check_due or not self.is_ready)):
            return self, None
        why = by.why or why
        cause = str(by.cause or "")
        change = Change(self.name, t, event.value, self.state.value, target.value, by.who, cause, why)
        return self._enter(target, t, by, why), change

    def ready(
        self, t: int, *, verified: bool | None = None, faults: Sequence[str] | None = None
    ) -> tuple[Station, Change | None]:
        """With what is known about the model and the faults now; the change where `shown` changes or a fault comes or goes."""
        after = replace(
            self,
            verified=self.verified if verified is None else verified,
            faults=self.faults if faults is None else tuple(dict.fromkeys(faults)),
        )
        if after == self:
            return self, None
        why = ", ".join(after.faults) or ("verified" if after.verified else "not verified")
        return after, Change(self.name, t, "ready", self.shown.value, after.shown.value, why=why)

    def checked(self, t: int, *, passed: bool, why: str = "") -> tuple[Station, Change | None]:
        """After the known parts have been judged: only where all were judged right the line may resume."""
        after = replace(self, check_due=not passed) if self.wants_stop else self
        if after == self:
            return self, None
        why = why or ("known parts judged right" if passed else "known parts judged wrong")
        return after, Change(self.name, t, "checked", self.state.value, self.state.value, why=why)

    def restarted(self) -> Station:
        """The station after a restart of the process: the same state, the model not verified, no faults known."""
        return replace(self, verified=False, faults=())

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives the same station."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        cause = values["cause"]
        return cls(
            **{
                **values,
                "state": StationState(values["state"]),
                "cause": None if cause is None else StopCause(cause),
                "faults": tuple(values["faults"]),
            }
        )

    def _enter(self, target: StationState, t: int, by: By, why: str) -> Station:
        after = replace(self, state=target, since=t)
        if target is StationState.CAUSE_GIVEN:  # a corrected cause does not cancel a check that is due
            due = self.check_due or (self.has_known_parts and by.cause in CHECKED_CAUSES)
            return replace(after, cause=by.cause, check_due=due)
        if target in (StationState.RUN, StationState.CALL, StationState.STOP_REQUESTED):
            return replace(after, why="" if target is StationState.RUN else why, cause=None, check_due=False)
        if target is StationState.STOPPED and self.state is not StationState.STOP_REQUESTED:
            return replace(after, why=why, cause=None)
        return after

    def _refusal(self, event: StationEvent) -> str:
        if event is StationEvent.RESUME and self.state in DO_FIRST:
            return f"station {self.name} cannot resume while {self.state}: {DO_FIRST[self.state]}"
        return f"station {self.name} is {self.state}, which does not allow {event!s}"
