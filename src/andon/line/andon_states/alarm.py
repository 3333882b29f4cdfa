"""State of one alarm, after ISA-18.2 and OPC UA Part 9 (Alarms and Conditions).

    NORMAL -> ACTIVE_UNACK -> ACTIVE_ACK -> NORMAL          acknowledged, then over
    NORMAL -> ACTIVE_UNACK -> RTN_UNACK -> NORMAL           over, then acknowledged

A stop alarm is latched: where another becomes NORMAL it becomes LATCHED, until a person gives the cause. What is counted in
a window is over as soon as the window is emptied, so a cause may also be given in ACTIVE_ACK; a condition that lasts raises
the alarm again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from andon.line.andon_states.changes import By, Change, NotAllowed, check_cause, named
from andon.line.clock import HOUR, MINUTE

LONGEST_SHELF = 8 * HOUR
"""Microseconds for which an alarm may be shelved."""


class AlarmState(StrEnum):
    """State of one alarm."""

    NORMAL = "normal"
    ACTIVE_UNACK = "active_unack"
    """The condition is there, nobody has acknowledged it."""
    ACTIVE_ACK = "active_ack"
    """The condition is there, a person knows."""
    RTN_UNACK = "rtn_unack"
    """The condition is over, nobody has acknowledged it."""
    LATCHED = "latched"
    """The condition of a stop alarm is over and acknowledged; it waits for the cause."""
    SHELVED = "shelved"
    """Silent until a time, by a person."""
    OUT_OF_SERVICE = "out_of_service"
    """Silent until a person puts it back."""


class AlarmEvent(StrEnum):
    """What happens to an alarm."""

    RAISE = "raise"
    CLEAR = "clear"
    """The condition is over."""
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"
    """A person gives the cause; the alarm is over."""
    SHELVE = "shelve"
    UNSHELVE = "unshelve"
    EXPIRE = "expire"
    """The time of a shelf has passed."""
    DISABLE = "disable"
    ENABLE = "enable"


_A, _E = AlarmState, AlarmEvent
_SILENT = (_A.SHELVED, _A.OUT_OF_SERVICE)
ALARM_TABLE: Mapping[tuple[AlarmState, AlarmEvent], AlarmState] = {
    (_A.NORMAL, _E.RAISE): _A.ACTIVE_UNACK,
    (_A.RTN_UNACK, _E.RAISE): _A.ACTIVE_UNACK,
    (_A.LATCHED, _E.RAISE): _A.ACTIVE_UNACK,
    (_A.ACTIVE_UNACK, _E.CLEAR): _A.RTN_UNACK,
    (_A.ACTIVE_ACK, _E.CLEAR): _A.NORMAL,  # latched alarms: LATCHED
    (_A.ACTIVE_UNACK, _E.ACKNOWLEDGE): _A.ACTIVE_ACK,
    (_A.RTN_UNACK, _E.ACKNOWLEDGE): _A.NORMAL,  # latched alarms: LATCHED
    (_A.ACTIVE_ACK, _E.RESOLVE): _A.NORMAL,
    (_A.LATCHED, _E.RESOLVE): _A.NORMAL,
    (_A.NORMAL, _E.SHELVE): _A.SHELVED,
    (_A.ACTIVE_UNACK, _E.SHELVE): _A.SHELVED,  # never a latched alarm: a stop is not put aside
    (_A.ACTIVE_ACK, _E.SHELVE): _A.SHELVED,
    (_A.RTN_UNACK, _E.SHELVE): _A.SHELVED,
    (_A.SHELVED, _E.UNSHELVE): _A.NORMAL,  # with its condition: ACTIVE_UNACK
    (_A.SHELVED, _E.EXPIRE): _A.NORMAL,
    (_A.NORMAL, _E.DISABLE): _A.OUT_OF_SERVICE,
    (_A.SHELVED, _E.DISABLE): _A.OUT_OF_SERVICE,
    (_A.OUT_OF_SERVICE, _E.ENABLE): _A.NORMAL,
}
"""Where each event leads. `Alarm.step` says what is different for latched alarms and for conditions that last."""
BY_MACHINE = frozenset({_E.RAISE, _E.CLEAR, _E.EXPIRE})
"""Alarm events that need no person."""
FIRST = {
    (_A.ACTIVE_UNACK, _E.RESOLVE): "acknowledge it first",
    (_A.RTN_UNACK, _E.RESOLVE): "acknowledge it first",
    (_A.NORMAL, _E.ACKNOWLEDGE): "it is not active",
    (_A.NORMAL, _E.RESOLVE): "it is not active",
}
"""What a person has to do first, for the events that are tried most."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """The alarm of one rule. However often the rule fires there is one, with a count."""

    key: str
    """Station and rule."""
    latched: bool
    """A stop alarm: it stays until a person has given the cause."""
    state: AlarmState = AlarmState.NORMAL
    present: bool = False
    """Whether the condition is there, also while shelved or out of service."""
    count: int = 0
    """Times raised since the alarm was last normal."""
    raised: int | None = None
    """First time raised since then, microseconds UTC."""
    shelved_until: int | None = None

    @property
    def is_silent(self) -> bool:
        """Whether a rule that fires neither calls nor stops, because a person put the alarm aside."""
        return self.state in _SILENT

    @property
    def needs_person(self) -> bool:
        """Whether a person has yet to act."""
        return self.state not in (AlarmState.NORMAL, *_SILENT)

    def step(
        self, event: AlarmEvent, t: int, by: By | None = None, *, why: str = "", until: int | None = None
    ) -> tuple[Alarm, Change | None]:
        """The alarm after an event, and the change, None where the state stays (a raise is counted).

        People's events need `by` with a name; `resolve` a cause, `shelve` and `disable` a reason, `shelve` an end `until` at
        most 8 h ahead. Raises `NotAllowed` otherwise. `why` says what fired.
        """
        target = ALARM_TABLE.get((self.state, event))
        if event in BY_MACHINE:
            if event is AlarmEvent.EXPIRE and (self.shelved_until is None or t < self.shelved_until):
                return self, None
            counted = self._noted(event, t)
            return (counted, None) if target is None else counted._enter(target, event, t, By("", why=why))
        by = named(by, f"alarm {self.key}", event)
        shelves_a_stop = event is AlarmEvent.SHELVE and self.latched and self.needs_person
        if target is None or shelves_a_stop:
            first = "give the cause first" if shelves_a_stop else FIRST.get((self.state, event), "")
            hint = f"; {first}" if first else ""
            raise NotAllowed(f"alarm {self.key} is {self.state}, which does not allow {event!s}{hint}")
        if event is AlarmEvent.RESOLVE:
            check_cause(by, f"alarm {self.key}")
        if event in (AlarmEvent.SHELVE, AlarmEvent.DISABLE) and not by.why.strip():
            raise NotAllowed(f"alarm {self.key}: to {event!s} it, give a reason")
        if event is not AlarmEvent.SHELVE:
            return self._enter(target, event, t, by)
        if until is None or not t < until <= t + LONGEST_SHELF:
            raise NotAllowed(f"alarm {self.key}: give an end of the shelf within the next 8 hours")
        return replace(self, shelved_until=until)._enter(target, event, t, by)

    def escalation(self, t: int, minutes: Sequence[float]) -> int:
        """How many of `minutes` have passed without an acknowledgement since the alarm was raised."""
        if self.raised is None or self.state not in (AlarmState.ACTIVE_UNACK, AlarmState.RTN_UNACK):
            return 0
        return sum(t - self.raised >= limit * MINUTE for limit in minutes)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives the same alarm after a restart."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(**{**values, "state": AlarmState(values["state"])})

    def _noted(self, event: AlarmEvent, t: int) -> Alarm:
        """With the condition and the count after an event of the machine."""
        if event is AlarmEvent.RAISE:
            raised = t if self.raised is None else self.raised
            return replace(self, present=True, count=self.count + 1, raised=raised)
        return replace(self, present=False) if event is AlarmEvent.CLEAR else self

    def _enter(self, target: AlarmState, event: AlarmEvent, t: int, by: By) -> tuple[Alarm, Change]:
        over = target is AlarmState.NORMAL
        if over and self.latched and event in (AlarmEvent.CLEAR, AlarmEvent.ACKNOWLEDGE):
            after = replace(self, state=AlarmState.LATCHED)
        elif over and self.is_silent and self.present:
            after = replace(self, state=AlarmState.ACTIVE_UNACK, raised=t, shelved_until=None)
        elif over:
            after = Alarm(self.key, self.latched)
        else:
            after = replace(self, state=target)
        cause = str(by.cause or "")
        change = Change(
            self.key, t, event.value, self.state.value, after.state.value, by.who, cause, by.why, self.count
        )
        return after, change
