"""Alarms and stops of all stations: rules and people act on boards, everything is stored, and a restart returns to it.

What a rule does takes effect at once and is stored by the thread that commits; what a person does is committed when the
method returns. A change that could not be stored is tried again at each tick.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from andon.line import andon_states, rule_versions
from andon.line.andon_states import AlarmEvent, By, NotAllowed, StopCause
from andon.line.board import AlarmRow, Board, Transition, Update
from andon.line.clock import MINUTE, Clock, SetBackWatch, now_us
from andon.line.roles import acting_role
from andon.line.rule_versions import RuleVersion
from andon.line.settings import LineSettings, StationSettings, of_station
from andon.line.store import Connection, Inspection, Store, rows
from andon.line.store.audit import Entry, append
from andon.line.versions import station_id
from andon.line.views import AlarmView

LOG = logging.getLogger(__name__)
K = TypeVar("K")
STORED_WITHIN = 30.0
"""Seconds in which a person's action has to be committed."""
FEWEST_PARTS = 300
"""Parts that a restart reads at least for the windows of the rules."""


class Alarms:
    """All alarms of a line. Any thread may ask and act; judging threads never do."""

    def __init__(
        self,
        store: Store,
        settings: LineSettings,
        *,
        clock: Clock = now_us,
        changed: Callable[[str, Sequence[AlarmView]], object] = lambda station, alarms: None,
    ) -> None:
        """`changed` is called with a station and its alarms that changed, under a lock: it must not wait."""
        self._store, self._clock, self._changed = store, clock, changed
        self._lock = threading.RLock()
        self._unsaved: deque[tuple[str, Update]] = deque()
        self._behind: set[str] = set()
        """Stations whose changes could not be stored the last time."""
        self._newest_state: dict[str, int] = {}
        self._newest_row: dict[int, int] = {}
        """Numbers of the newest updates that were written to each station and alarm. What is tried again may be older than
        what is there; only the thread that commits reads and changes both."""
        self._boards: dict[str, Board] = {}
        self._rules: dict[str, RuleVersion] = {}
        self._last_id = store.ask(_newest)
        store.write(lambda connection: _add_stations(connection, settings)).result()
        for station in settings.stations:
            self._boards[station.name] = self._restored(station, settings)
            self._save(station.name)
        self._set_back = SetBackWatch(clock, self._latest())

    # What is there -------------------------------------------------------------------------------------------------

    def station(self, name: str) -> andon_states.Station:
        """State of the stop of a station."""
        return self._board(name).station

    def rules(self, station: str) -> RuleVersion:
        """The stop rules in use."""
        self._board(station)
        return self._rules[station]

    def use_rules(self, station: str, version: RuleVersion) -> None:
        """Other stop rules from the next part on; their windows begin empty."""

        def use(board: Board, now: int) -> None:
            board.use_rules(version.rules, version.id, now)
            self._rules[station] = version

        self._person(station, use)

    def windows_begin_after(self, station: str) -> int:
        """Id of the last part before the windows of the rules were emptied; 0 where they never were."""
        return self._board(station).after_id

    def active(self, station: str | None = None) -> list[AlarmView]:
        """Alarms that are not over, oldest first, of one station or of all."""
        with self._lock:
            names = self._boards if station is None else [station]
            found = [row.view(name) for name in names for row in self._board(name).rows.values()]
        return sorted(found, key=lambda alarm: alarm.id)

    # People --------------------------------------------------------------------------------------------------------

    def acknowledge(self, id: int, by: str) -> AlarmView:
        """A person has seen the alarm. Raises `NotAllowed` where that does not apply, as all methods below."""
        return self._on_alarm(id, AlarmEvent.ACKNOWLEDGE, By(by))

    def resolve(self, id: int, cause_code: str, note: str, by: str) -> AlarmView:
        """A person gives the cause of one alarm. A stop also needs `give_cause` for its station."""
        return self._on_alarm(id, AlarmEvent.RESOLVE, By(by, cause_of(cause_code), note))

    def shelve(self, id: int, by: str, why: str, minutes: float) -> AlarmView:
        """Silence an alarm that calls, at most for 8 hours."""
        return self._on_alarm(id, AlarmEvent.SHELVE, By(by, why=why), round(minutes * MINUTE))

    def unshelve(self, id: int, by: str) -> AlarmView:
        """End the silence of an alarm."""
        return self._on_alarm(id, AlarmEvent.UNSHELVE, By(by))

    def disable(self, id: int, by: str, why: str) -> AlarmView:
        """Take an alarm out of service until `enable`."""
        return self._on_alarm(id, AlarmEvent.DISABLE, By(by, why=why))

    def enable(self, id: int, by: str) -> AlarmView:
        """Put an alarm back into service."""
        return self._on_alarm(id, AlarmEvent.ENABLE, By(by))

    def give_cause(self, station: str, cause_code: str, note: str, by: str) -> None:
        """A person gives the cause of a stop, a code of `StopCause`. Raises `NotAllowed` where the line does not stand."""
        cause = By(by, cause_of(cause_code), note)
        self._person(station, lambda board, now: board.give_cause(cause, now))

    def resume(self, station: str, by: str) -> None:
        """A person releases the line. Raises `NotAllowed` without a cause, or where known parts have to be judged first."""
        self._person(station, lambda board, now: board.resume(By(by), now))

    def call(self, station: str, by: str, why: str = "") -> None:
        """A person calls for help; the line runs on."""
        self._person(station, lambda board, now: board.call(By(by, why=why), now, stops=False))

    def stop(self, station: str, by: str, why: str = "") -> None:
        """A person stops the line."""
        self._person(station, lambda board, now: board.call(By(by, why=why), now, stops=True))

    # The machine ---------------------------------------------------------------------------------------------------

    def part(self, row: Inspection) -> None:
        """Apply the rules to a committed part."""
        self._act(row.station, lambda board, now: board.part(row))

    def tick(self) -> None:
        """Apply what depends on time alone, and store what could not be stored before."""
        back = self._set_back.back()
        for name in self._boards:
            if back:
                self._act(name, lambda board, _now: board.set_back(back))
            self._act(name, lambda board, now: board.tick(now))
        self._retry()

    def signal(self, station: str, name: str, present: bool) -> None:
        """A condition that rules wait for (`store_lost`) begins or ends."""
        self._act(station, lambda board, now: board.signal(name, present, now))

    def condition(
        self, station: str, title: str, present: bool, why: str = "", *, stops: bool = False
    ) -> None:
        """A condition that is no rule, such as a full disk, begins or ends; it calls a person or `stops` the line."""
        self._act(station, lambda board, now: board.condition(title, present, now, why, stops=stops))

    def ready(self, station: str, *, verified: bool, faults: Iterable[str]) -> None:
        """Whether the model is verified, and what fails."""
        names = tuple(faults)
        self._act(station, lambda board, now: board.ready(now, verified, names))

    def known_parts(self, station: str, there: bool) -> None:
        """Whether the station has known parts, which are judged before it resumes after some causes."""
        self._act(station, lambda board, now: board.known_parts(there))

    def checked(self, station: str, *, passed: bool, why: str) -> None:
        """Whether a line that stands may resume as far as known parts are concerned."""
        self._act(station, lambda board, now: board.checked(passed, now, why))

    # Inside --------------------------------------------------------------------------------------------------------

    def _board(self, station: str) -> Board:
        return of_station(self._boards, station)

    def _act(self, station: str, act: Callable[[Board, int], object]) -> Future[None] | None:
        with self._lock:
            board = self._board(station)
            try:
                act(board, self._clock())
            finally:
                saving = self._save(station)
        return saving

    def _person(self, station: str, act: Callable[[Board, int], object]) -> None:
        saving = self._act(station, act)
        if saving is not None:
            saving.result(STORED_WITHIN)

    def _on_alarm(self, id: int, event: AlarmEvent, by: By, lasts: int | None = None) -> AlarmView:
        found: list[AlarmRow] = []

        def act(board: Board, now: int) -> None:
            row = next((row for row in board.rows.values() if row.id == id), None)
            if row is None:
                raise NotAllowed(f"alarm {id} is over: see the list of alarms")
            found.append(board.on_alarm(row, event, by, now, None if lasts is None else now + lasts))

        station = next((alarm.station for alarm in self.active() if alarm.id == id), None)
        if station is None:
            raise NotAllowed(f"alarm {id} is over, or there is none: see the list of alarms")
        self._person(station, act)
        return found[0].view(station)

    def _next_id(self) -> int:
        self._last_id = self._store.box.next_id(self._last_id)
        return self._last_id

    def _restored(self, station: StationSettings, settings: LineSettings) -> Board:
        """The board as it was before the restart; what fired since then and was not carried out is carried out."""
        state, alarms = self._store.ask(lambda connection: _read(connection, station.name))
        version = self._rules[station.name] = rule_versions.at_start(self._store, station)
        now = self._clock()
        machine = andon_states.Station(station.name, since=now)
        if state is not None:
            machine = andon_states.Station.from_json(state["station"]).restarted()
        board = Board(
            machine,
            version.rules,
            settings.escalation,
            self._next_id,
            now,
            rows=alarms,
            after_id=0 if state is None else state["after_id"],
            rule_version=version.id,
        )
        reach = max([FEWEST_PARTS, *(rule.reach for rule in version.rules)])
        parts = self._store.last_verdicts(station.name, reach)
        applied_id = 0 if state is None else state["applied_id"]
        board.restore([part for part in parts if part.id > board.after_id], applied_id, now)
        return board

    def _latest(self) -> int:
        """The latest time that is known from before the start."""
        parts = [part.t_done for name in self._boards for part in self._store.last_verdicts(name, 1)]
        rows = [row for board in self._boards.values() for row in board.rows.values()]
        return max([0, *parts, *(max(row.alarm.raised or 0, row.acked or 0) for row in rows)])

    def _save(self, station: str) -> Future[None] | None:
        update = self._boards[station].take()
        if update is None:
            return None
        self._changed(station, [row.view(station) for row in update.rows])
        return self._write(station, update)

    def _write(self, station: str, update: Update) -> Future[None]:
        try:
            future = self._store.write(lambda connection: self._store_update(connection, station, update))
        except Exception as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda done: self._written(station, update, done))
        return future

    def _written(self, station: str, update: Update, done: Future[None]) -> None:
        """In the thread that commits: takes no lock."""
        error = done.exception()
        if error is None:
            self._behind.discard(station)
            return
        if station not in self._behind:  # said once, tried again each tick
            LOG.error("station %s: a change of its state is not stored yet: %s", station, error)
        self._behind.add(station)
        self._unsaved.append((station, update))

    def _retry(self) -> None:
        for _ in range(len(self._unsaved)):
            self._write(*self._unsaved.popleft())

    def _store_update(self, connection: Connection, station: str, update: Update) -> None:
        number = station_id(connection, station)
        if _is_newest(self._newest_state, station, update):
            state = {
                "station": update.station.to_json(),
                "after_id": update.after_id,
                "applied_id": update.applied_id,
            }
            rows.change(connection, "station", number, state_json=json.dumps(state))
        for row in update.rows:
            if not _is_newest(self._newest_row, row.id, update):
                continue
            values = _alarm_columns(row)
            if not rows.change(connection, "alarm", row.id, **values):
                rows.add(connection, "alarm", id=row.id, station_id=number, **values)
        for transition in update.transitions:
            _add_transition(connection, station, number, transition, self._clock())


def _is_newest(newest: dict[K, int], key: K, update: Update) -> bool:
    """Note that an update is written. An equal number is written again: its transaction was taken back."""
    newest[key] = max(update.number, newest.get(key, 0))
    return update.number == newest[key]


def cause_of(code: str) -> StopCause:
    """The cause with this code. Raises `NotAllowed`."""
    try:
        return StopCause(code)
    except ValueError:
        raise NotAllowed(f"there is no cause {code!r}: give one of {', '.join(StopCause)}") from None


def _newest(connection: Connection) -> int:
    """Largest id of an alarm, 0 where there is none."""
    found = rows.find(connection, "alarm", limit=1)
    return int(found[0]["id"]) if found else 0


def _add_stations(connection: Connection, settings: LineSettings) -> None:
    """The rows of all stations with their settings of today."""
    for station in settings.stations:
        values = {
            "line": settings.name,
            "takt_ms": round(station.cycle_s * 1000),
            "config_json": json.dumps(station.model_dump(mode="json")),
        }
        found = rows.find(connection, "station", name=station.name, limit=1)
        if found:
            rows.change(connection, "station", found[0]["id"], **values)
        else:
            rows.add(connection, "station", name=station.name, **values)


def _read(connection: Connection, name: str) -> tuple[Mapping[str, Any] | None, list[AlarmRow]]:
    """State of a station, None before its first, and its alarms that are not over."""
    station = rows.find(connection, "station", name=name, limit=1)[0]
    alarms = rows.find(connection, "alarm", station_id=station["id"], resolved=None)
    state = station["state_json"]
    found = [AlarmRow.from_json(json.loads(alarm["state_json"])) for alarm in alarms]
    return None if state is None else json.loads(state), found


def _alarm_columns(row: AlarmRow) -> dict[str, Any]:
    return {
        "rule": row.rule,
        "rule_version_id": row.rule_version,
        "state": row.alarm.state.value,
        "state_json": json.dumps(row.to_json()),
        "n": row.count,
        "raised": row.raised,
        "acked": row.acked,
        "ack_by": row.ack_by,
        "cleared": row.cleared,
        "resolved": row.resolved,
        "resolved_by": row.resolved_by,
        "cause_code": row.cause_code,
        "note": row.note,
        "inspection_from": row.inspection_from,
        "inspection_to": row.inspection_to,
    }


def _add_transition(
    connection: Connection, station: str, number: int, transition: Transition, now: int
) -> None:
    """The change in the tables `alarm_event` and `audit`."""
    change = transition.change
    rows.add(
        connection,
        "alarm_event",
        alarm_id=transition.alarm_id,
        station_id=number,
        at=change.t,
        event=change.event,
        from_state=change.old,
        to_state=change.new,
        who=change.who,
        cause=change.cause,
        note=change.why,
        n=change.count,
        inspection_id=transition.inspection_id,
    )
    entry = Entry(
        who=change.who or "system",
        role=acting_role() if change.who else "",
        action=change.event,
        object=f"station {station}"
        if transition.alarm_id is None
        else f"alarm {transition.alarm_id}, {change.subject}",
        old=change.old,
        new={"state": change.new, "cause": change.cause} if change.cause else change.new,
        reason=change.why,
    )
    append(connection, entry, now)
