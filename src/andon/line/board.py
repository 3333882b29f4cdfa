"""The alarms and the stop of one station: rules and people's actions applied to the state machines. No I/O, no clock.

Each method changes the board and notes what has to be stored; `take` hands that over. Times are microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

from andon.line.andon_states import (
    Alarm,
    AlarmEvent,
    AlarmState,
    By,
    Change,
    NotAllowed,
    Station,
    StationEvent,
    StationState,
)
from andon.line.rules import Action, Judged, Rule, RuleEvent, Watch
from andon.line.settings import EscalationSettings
from andon.line.views import AlarmView

BY_CALL, BY_STOP = "called by a person", "stopped by a person"
"""Titles of the alarms that people raise."""
ESCALATE = "escalate"
"""Event of an alarm that is announced again."""
UNACKNOWLEDGED = (AlarmState.ACTIVE_UNACK, AlarmState.RTN_UNACK)


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """One alarm from its raise until it is over: a row of the table `alarm`."""

    id: int
    rule: str
    """Title of the rule or name of the condition."""
    alarm: Alarm
    raised: int
    count: int = 0
    """Times raised."""
    why: str = ""
    acked: int | None = None
    ack_by: str = ""
    cleared: int | None = None
    resolved: int | None = None
    """When it was over."""
    resolved_by: str = ""
    cause_code: str = ""
    note: str = ""
    inspection_from: int | None = None
    inspection_to: int | None = None
    level: int = 0
    """Times of escalation that have passed and were announced."""
    rule_version: int | None = None
    """Id of the version of the rules that raised it last; None for a condition or a person."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives the same row after a restart."""
        return {**asdict(self), "alarm": self.alarm.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(**{**values, "alarm": Alarm.from_json(values["alarm"])})

    def view(self, station: str) -> AlarmView:
        """As people see it."""
        return AlarmView(
            id=self.id,
            station=station,
            rule=self.rule,
            state=self.alarm.state,
            stops=self.alarm.latched,
            why=self.why,
            count=self.count,
            raised=self.raised,
            acked=self.acked,
            ack_by=self.ack_by,
            shelved_until=self.alarm.shelved_until,
            inspection_from=self.inspection_from,
            inspection_to=self.inspection_to,
            level=self.level,
            rule_version=self.rule_version,
        )


class Transition(NamedTuple):
    """A change with the alarm it belongs to; without, it is one of the station."""

    change: Change
    alarm_id: int | None
    inspection_id: int | None = None


class Update(NamedTuple):
    """What has to be stored."""

    number: int
    """Ascends; the state of a larger one is newer."""
    transitions: tuple[Transition, ...]
    rows: tuple[AlarmRow, ...]
    """Alarms that changed, as they are now."""
    station: Station
    after_id: int
    """Windows hold parts with larger ids alone."""
    applied_id: int
    """The last part whose rules have been carried out."""


class Board:
    """State of one station. The caller holds a lock."""

    def __init__(
        self,
        station: Station,
        rules: Sequence[Rule],
        escalation: EscalationSettings,
        next_id: Callable[[], int],
        now: int,
        *,
        rows: Iterable[AlarmRow] = (),
        after_id: int = 0,
        rule_version: int | None = None,
    ) -> None:
        """`rule_version`: id of the stored version of `rules`."""
        self.station, self._escalation, self._next_id = station, escalation, next_id
        self.watch, self._rule_version = Watch(rules, now), rule_version
        self.rows = {row.rule: row for row in rows}
        """Alarms that are not over, by rule."""
        self.after_id, self._last_id = after_id, after_id
        self._number = 0
        self._transitions: list[Transition] = []
        self._changed: dict[int, AlarmRow] = {}
        self._is_changed = False

    # The machine ---------------------------------------------------------------------------------------------------

    def restore(self, parts: Sequence[Judged], applied_id: int, now: int) -> None:
        """Build the windows from the stored parts after `after_id`; carry out what fired after the part `applied_id`."""
        self._last_id = max([self._last_id, applied_id, *(part.id for part in parts)])
        present = {row.rule for row in self.rows.values() if row.alarm.present}
        for event in self.watch.restore(parts, now, present):
            if event.last_id is None or event.last_id > applied_id:
                self._apply(event)
        self._settle(now)

    def use_rules(self, rules: Sequence[Rule], rule_version: int, now: int) -> None:
        """Other rules from the next part on, with empty windows. Stops and alarms stay until a person resolves them."""
        for event in self.watch.follow(rules, now):
            self._apply(event)
        self._rule_version = rule_version
        self._empty(now)
        self._settle(now)

    def part(self, part: Judged) -> None:
        """A part was judged and committed."""
        self._last_id = part.id
        for event in self.watch.part(part):
            self._apply(event)
        self._settle(part.t_done)

    def tick(self, now: int) -> None:
        """Time has passed; about once a second."""
        if not self.station.wants_stop:
            for event in self.watch.tick(now):
                self._apply(event)
        for row in tuple(self.rows.values()):
            self._step(row, AlarmEvent.EXPIRE, now)
            self._escalate(row.rule, now)
        self._settle(now)

    def set_back(self, back: int) -> None:
        """The clock was set back by microseconds: shelves end, and alarms are announced again, after the same time as before."""
        for row in tuple(self.rows.values()):
            raised, until = row.alarm.raised, row.alarm.shelved_until
            alarm = replace(
                row.alarm,
                raised=None if raised is None else raised - back,
                shelved_until=None if until is None else until - back,
            )
            if alarm != row.alarm:
                self.rows[row.rule] = self._changed[row.id] = replace(row, alarm=alarm)
                self._is_changed = True

    def signal(self, name: str, present: bool, now: int) -> None:
        """A condition that rules wait for, such as `store_lost`, begins or ends."""
        for event in self.watch.signal(name, present, now):
            self._apply(event)
        self._settle(now)

    def condition(self, title: str, present: bool, now: int, why: str, *, stops: bool) -> None:
        """A condition that is no rule, such as a full disk, begins or ends."""
        row = self.rows.get(title)
        if present and (row is None or not row.alarm.present):
            self._raise(title, stops, now, why)
        elif not present and row is not None and row.alarm.present:
            self._step(row, AlarmEvent.CLEAR, now)
        self._settle(now)

    def ready(self, now: int, verified: bool, faults: Sequence[str]) -> None:
        """What is known about model and faults."""
        self.station, change = self.station.ready(now, verified=verified, faults=faults)
        self._note(change)
        self._settle(now)

    def known_parts(self, there: bool) -> None:
        """Whether known parts exist that have to be judged right before a resume after some causes."""
        if self.station.has_known_parts != there:
            self.station = replace(self.station, has_known_parts=there)
            self._is_changed = True

    def checked(self, passed: bool, now: int, why: str) -> None:
        """Known parts were judged, or need not be for now."""
        self.station, change = self.station.checked(now, passed=passed, why=why)
        self._note(change)

    # People --------------------------------------------------------------------------------------------------------

    def on_alarm(
        self, row: AlarmRow, event: AlarmEvent, by: By, now: int, until: int | None = None
    ) -> AlarmRow:
        """A person acknowledges, resolves, shelves, unshelves, disables or enables one alarm. Returns it as it is then."""
        after = self._step(row, event, now, by, until=until)
        self._settle(now)
        return after

    def give_cause(self, by: By, now: int) -> None:
        """A person gives the cause of the stop: all alarms that stop are acknowledged and resolved."""
        self.station, change = self.station.step(StationEvent.GIVE_CAUSE, now, by)
        self._note(change)
        for rule, row in tuple(self.rows.items()):
            if not row.alarm.latched or row.alarm.is_silent:
                continue
            if row.alarm.state in UNACKNOWLEDGED:
                self._step(row, AlarmEvent.ACKNOWLEDGE, now, by)
            self._step(self.rows[rule], AlarmEvent.RESOLVE, now, by)

    def resume(self, by: By, now: int) -> None:
        """A person releases the line; it runs once the station is ready."""
        self.station, change = self.station.step(StationEvent.RESUME, now, by)
        self._note(change)
        self._settle(now)

    def call(self, by: By, now: int, *, stops: bool) -> None:
        """A person calls for help, or stops the line. The alarm is over once it is acknowledged (stop: has a cause)."""
        if not by.who.strip():
            raise NotAllowed(f"station {self.station.name}: to call or stop needs a person: give a name")
        title = BY_STOP if stops else BY_CALL
        why = f"{by.who}: {by.why}" if by.why else f"{title}: {by.who}"
        self._raise(title, stops, now, why)
        self._step(self.rows[title], AlarmEvent.CLEAR, now)
        self._settle(now)

    # What is stored ------------------------------------------------------------------------------------------------

    def take(self) -> Update | None:
        """What has to be stored since the last call; None where nothing has."""
        if not self._is_changed:
            return None
        self._number += 1
        update = Update(
            self._number,
            tuple(self._transitions),
            tuple(self._changed.values()),
            self.station,
            self.after_id,
            self._last_id,
        )
        self._transitions, self._changed, self._is_changed = [], {}, False
        return update

    # Steps ---------------------------------------------------------------------------------------------------------

    def _apply(self, event: RuleEvent) -> None:
        title = event.rule.title
        if event.present:
            stops = event.rule.action is Action.STOP
            parts = (event.first_id, event.last_id)
            self._raise(title, stops, event.t, event.why, parts, self._rule_version)
        elif title in self.rows:
            self._step(self.rows[title], AlarmEvent.CLEAR, event.t)

    def _raise(
        self,
        title: str,
        stops: bool,
        t: int,
        why: str,
        parts: tuple[int | None, int | None] = (None, None),
        rule_version: int | None = None,
    ) -> None:
        """`parts`: ids of the oldest and the newest part because of which it is raised."""
        row, (first_id, last_id) = self.rows.get(title), parts
        if row is None:
            key = f"{self.station.name}/{title}"
            row = AlarmRow(self._next_id(), title, Alarm(key, stops), t, inspection_from=first_id)
        last_id = row.inspection_to if last_id is None else last_id
        row = replace(row, why=why, inspection_to=last_id, cleared=None, rule_version=rule_version)
        after = self._step(row, AlarmEvent.RAISE, t, why=why)
        if not after.alarm.is_silent:
            self._act(after, t)

    def _act(self, row: AlarmRow, t: int) -> None:
        """What an active alarm does to the line."""
        if not row.alarm.latched:
            self._move(StationEvent.CALL, t, row.why)
        elif self._move(StationEvent.STOP, t, row.why):
            self._move(StationEvent.STOPPED, t, row.why)  # nothing reports whether the line stands
            self._empty(t)

    def _step(
        self,
        row: AlarmRow,
        event: AlarmEvent,
        t: int,
        by: By | None = None,
        *,
        why: str = "",
        until: int | None = None,
    ) -> AlarmRow:
        """The row after an event; it is no longer kept where the alarm is over."""
        alarm, change = row.alarm.step(event, t, by, why=why, until=until)
        if alarm == row.alarm and change is None:
            return row
        after = replace(row, alarm=alarm, count=alarm.count or row.count)
        if event is AlarmEvent.ACKNOWLEDGE and by is not None:
            after = replace(after, acked=t, ack_by=by.who)
        elif event is AlarmEvent.CLEAR:
            after = replace(after, cleared=t)
        if alarm.state is AlarmState.NORMAL:
            after = replace(after, resolved=t, resolved_by="" if by is None else by.who)
            if by is not None and event is AlarmEvent.RESOLVE:
                after = replace(after, cause_code=str(by.cause or ""), note=by.why)
            self.rows.pop(row.rule, None)
        else:
            self.rows[row.rule] = after
        self._changed[row.id] = after
        self._note(change, row.id, after.inspection_to)
        comes_back = row.alarm.is_silent and alarm.state is AlarmState.ACTIVE_UNACK
        if comes_back:
            self._act(after, t)
        return after

    def _escalate(self, rule: str, now: int) -> None:
        """Announce an alarm again where a further time has passed; stop the line where a call was not answered."""
        row = self.rows.get(rule)
        if row is None:
            return
        level = row.alarm.escalation(now, self._escalation.minutes)
        if level != row.level:
            self.rows[rule] = self._changed[row.id] = replace(row, level=level)
            self._is_changed = True
            if level > row.level:
                state = row.alarm.state.value
                change = Change(row.alarm.key, now, ESCALATE, state, state, why=row.why, count=row.count)
                self._note(change, row.id, row.inspection_to)
        limit = self._escalation.call_stops_after_s
        if limit and not row.alarm.latched and row.alarm.escalation(now, (limit / 60,)):
            why = f"nobody acknowledged within {limit:g} s: {row.why}"
            if self._move(StationEvent.CALL_EXPIRED, now, why):
                self._move(StationEvent.STOPPED, now, why)
                self._empty(now)

    def _settle(self, now: int) -> None:
        """End a call that is over; run where a person released the line and the station is ready."""
        if self.station.state is StationState.CALL and not any(
            row.alarm.needs_person and not row.alarm.latched for row in self.rows.values()
        ):
            self._move(StationEvent.END_CALL, now, "")
        if self.station.state is StationState.RESUME_REQUESTED and self._move(StationEvent.RUN, now, ""):
            self._empty(now)
            for row in self.rows.values():  # what still calls, calls again
                if row.alarm.needs_person and not row.alarm.latched:
                    self._act(row, now)

    def _move(self, event: StationEvent, t: int, why: str) -> bool:
        """Whether the station changed its state."""
        self.station, change = self.station.step(event, t, why=why)
        self._note(change)
        return change is not None

    def _empty(self, now: int) -> None:
        """Begin all windows again."""
        self.watch.clear(now)
        self.after_id = self._last_id
        self._is_changed = True

    def _note(
        self, change: Change | None, alarm_id: int | None = None, inspection_id: int | None = None
    ) -> None:
        self._is_changed = self._is_changed or change is not None or alarm_id is not None
        if change is not None:
            self._transitions.append(Transition(change, alarm_id, inspection_id))
