"""Alarms of a line: stops outlive restarts, a person and a cause end them, every transition is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.errors import UsageError
from andon.line import rule_versions
from andon.line.alarms import Alarms
from andon.line.andon_states import AlarmEvent, AlarmState, By, NotAllowed, Station, StationState, StopCause
from andon.line.board import BY_CALL, BY_STOP, Board
from andon.line.clock import MINUTE, SECOND
from andon.line.rules import Action, InARow, InWindow, NoGoodPart, Part, StoreLost
from andon.line.settings import EscalationSettings, LineSettings
from andon.line.store import Store, StoreUnavailable, rows
from andon.line.store.audit import check
from andon.line.verdicts import Verdict
from line.running import settings as line_settings
from line.storing import NOON, part

RULES = (InARow(k=2), InWindow(action=Action.CALL, k=2, n=4), StoreLost(seconds=0))
STOPS, CALLS, LOST = (rule.title for rule in RULES)
S = StationState


class Clock:
    """Time as the test sets it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


class Bench:
    """Alarms with a store; parts are stored as a station would."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.settings: LineSettings = line_settings(folder, "press", "saw", rules=RULES).updated(changes)
        self.clock = Clock()
        self.number = 0
        self.store = Store.open(folder, clock=self.clock)
        self.alarms = Alarms(self.store, self.settings, clock=self.clock)
        self.ready()

    def ready(self) -> None:
        for name in ("press", "saw"):
            self.alarms.ready(name, verified=True, faults=())

    def restart(self) -> None:
        """As after a crash: nothing but the store is left."""
        self.store.write(lambda connection: None).result()  # what was queued is committed
        self.alarms = Alarms(self.store, self.settings, clock=self.clock)

    def store_part(self, verdict: Verdict, station: str = "press") -> Any:
        self.number += 1
        self.clock.later(1)
        new = part(self.number, station=station, verdict=verdict, t_done=self.clock.now)
        return self.store.record(new).result().row

    def parts(self, *verdicts: Verdict, station: str = "press") -> None:
        for verdict in verdicts:
            self.alarms.part(self.store_part(verdict, station))

    def state(self, station: str = "press") -> StationState:
        return self.alarms.station(station).state

    def one(self) -> Any:
        (alarm,) = self.alarms.active()
        return alarm

    def table(self, name: str, **equal: Any) -> list[dict[str, Any]]:
        self.store.write(lambda connection: None).result()
        return self.store.ask(lambda connection: rows.find(connection, name, **equal))[::-1]


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    made = Bench(folder)
    yield made
    made.store.close()


def test_from_stop_to_running(bench):
    bench.parts(Verdict.NG, Verdict.NG)
    assert (bench.state(), bench.state("saw")) == (S.STOPPED, S.RUN)
    alarms = {alarm.rule: alarm for alarm in bench.alarms.active()}
    assert set(alarms) == {STOPS, CALLS}
    assert (alarms[STOPS].inspection_from, alarms[STOPS].inspection_to) == (1, 2)
    with pytest.raises(NotAllowed, match="give the cause first"):
        bench.alarms.resume("press", "eva")
    with pytest.raises(NotAllowed, match="needs a note"):
        bench.alarms.give_cause("press", "other", "", "eva")
    bench.alarms.acknowledge(alarms[STOPS].id, "eva")
    bench.alarms.give_cause("press", "product", "scratches", "eva")
    bench.alarms.resume("press", "eva")
    assert bench.state() is S.CALL  # the other rule still calls
    assert bench.one().rule == CALLS
    (row,) = bench.table("alarm", rule=STOPS)
    assert (row["state"], row["resolved_by"], row["cause_code"], row["note"], row["n"]) == (
        "normal",
        "eva",
        "product",
        "scratches",
        1,
    )
    of_station = [event for event in bench.table("alarm_event") if event["alarm_id"] is None]
    assert [event["to_state"] for event in of_station if event["event"] != "ready"] == [
        *("stop_requested", "stopped", "cause_given", "resume_requested", "run", "call")
    ]
    audited = [entry for entry in bench.table("audit") if entry["action"] != "rules"]
    assert len(audited) == len(bench.table("alarm_event"))
    assert any(a["who"] == "eva" and a["action"] == "resume" for a in audited)
    bench.store.ask(check)


def to_call(bench: Bench) -> None:
    bench.parts(Verdict.NG, Verdict.OK, Verdict.NG)


def to_stopped(bench: Bench) -> None:
    bench.parts(Verdict.NG, Verdict.NG)


def to_cause_given(bench: Bench) -> None:
    to_stopped(bench)
    bench.alarms.give_cause("press", "camera", "", "eva")


def to_resume_requested(bench: Bench) -> None:
    to_cause_given(bench)
    bench.alarms.ready("press", verified=True, faults=("disk",))
    bench.alarms.resume("press", "eva")


@pytest.mark.parametrize(
    ("go", "state"),
    [
        (to_call, S.CALL),
        (to_stopped, S.STOPPED),
        (to_cause_given, S.CAUSE_GIVEN),
        (to_resume_requested, S.RESUME_REQUESTED),
    ],
)
def test_a_restart_returns_to_the_state(bench, go: Callable[[Bench], None], state):
    go(bench)
    before = (bench.state(), bench.alarms.active(), bench.alarms.station("press").cause)
    assert before[0] is state
    bench.restart()
    assert (bench.state(), bench.alarms.active(), bench.alarms.station("press").cause) == before
    bench.ready()
    assert bench.state() is (S.CALL if state is S.RESUME_REQUESTED else state)
    assert bench.state("saw") is S.RUN


def test_each_alarm_state_outlives_a_restart(bench):
    to_call(bench)
    number = bench.one().id
    steps: list[tuple[Callable[[], object], AlarmState]] = [
        (lambda: None, AlarmState.ACTIVE_UNACK),
        (lambda: bench.alarms.shelve(number, "eva", "being repaired", 30), AlarmState.SHELVED),
        (lambda: bench.alarms.disable(number, "eva", "waits for a lens"), AlarmState.OUT_OF_SERVICE),
        (lambda: bench.alarms.enable(number, "eva"), AlarmState.ACTIVE_UNACK),
        (lambda: bench.parts(*[Verdict.OK] * 4), AlarmState.RTN_UNACK),
    ]
    for step, state in steps:
        step()
        bench.restart()
        assert bench.one().state is state
    bench.alarms.acknowledge(number, "eva")
    assert bench.alarms.active() == []
    assert bench.state() is S.RUN


@pytest.mark.parametrize("restarts", [False, True])
def test_a_shelf_lasts_no_longer_when_the_clock_is_set_back(bench, restarts):
    to_call(bench)
    bench.alarms.shelve(bench.one().id, "eva", "being repaired", 30)
    bench.clock.later(29 * 60)
    bench.parts(Verdict.OK)
    bench.alarms.tick()
    bench.clock.later(-3600)
    if restarts:
        bench.restart()
    bench.alarms.tick()
    assert bench.one().state is AlarmState.SHELVED
    bench.clock.later(61)
    bench.alarms.tick()
    assert bench.one().state is AlarmState.ACTIVE_UNACK


def test_an_alarm_is_announced_again_although_the_clock_is_set_back(bench):
    to_call(bench)
    bench.clock.later(4 * 60)
    bench.alarms.tick()
    bench.clock.later(-3600)
    bench.alarms.tick()
    bench.clock.later(61)
    bench.alarms.tick()
    assert bench.one().level == 1


def test_a_stop_that_a_crash_prevented_is_carried_out(bench):
    for _ in range(2):
        bench.store_part(Verdict.NG)
    bench.restart()
    assert bench.state() is S.STOPPED
    assert {a.rule for a in bench.alarms.active()} == {STOPS, CALLS}


def test_parts_before_a_stop_do_not_count_after_a_restart(bench):
    to_stopped(bench)
    bench.alarms.give_cause("press", "product", "", "eva")
    bench.alarms.resume("press", "eva")
    bench.restart()
    bench.parts(Verdict.NG)
    assert bench.state() is S.CALL


def test_a_window_goes_on_over_a_restart(bench):
    bench.parts(Verdict.NG)
    bench.restart()
    bench.parts(Verdict.NG)
    assert bench.state() is S.STOPPED


def test_other_rules_begin_with_empty_windows_and_name_their_alarms(bench):
    first = bench.alarms.rules("press")
    bench.parts(Verdict.NG, Verdict.OK, Verdict.OK, Verdict.NG)
    assert (bench.one().rule, bench.one().rule_version) == (CALLS, first.id)
    rules = (InARow(k=2), InARow(k=1, action=Action.CALL))
    second = rule_versions.add_version(bench.store, "press", rules, who="eva", why="fewer calls")
    bench.alarms.use_rules("press", second)
    assert bench.one().state is AlarmState.RTN_UNACK  # its rule is gone, a person has yet to see it
    bench.alarms.acknowledge(bench.one().id, "eva")
    bench.parts(Verdict.NG)
    assert (bench.state(), bench.one().rule) == (S.CALL, "1 NG in a row")  # NG before the change do not count
    bench.restart()
    bench.parts(Verdict.NG)
    assert bench.state() is S.STOPPED
    (stop,) = bench.table("alarm", rule="2 NG in a row")
    assert stop["rule_version_id"] == second.id
    assert bench.alarms.rules("saw").rules == RULES


def test_a_flood_is_one_alarm(bench):
    for k in range(100):
        bench.alarms.condition("press", "disk", k % 2 == 0, "the disk is nearly full")
    assert (bench.one().count, len(bench.table("alarm"))) == (50, 1)


def test_a_call_that_nobody_answers_stops_the_line(folder):
    bench = Bench(folder, escalation=EscalationSettings(minutes=(1.0, 2.0), call_stops_after_s=90.0))
    try:
        bench.alarms.call("press", "eva", "come here")
        levels = []
        for _ in range(3):
            bench.alarms.tick()
            levels.append((bench.one().level, bench.state()))
            bench.clock.later(60)
        assert levels == [(0, S.CALL), (1, S.CALL), (2, S.STOPPED)]
        again = [event for event in bench.table("alarm_event") if event["event"] == "escalate"]
        assert [event["note"] for event in again] == ["eva: come here"] * 2
        bench.restart()
        assert (bench.one().level, bench.state()) == (2, S.STOPPED)
    finally:
        bench.store.close()


def test_people_call_and_stop(bench):
    bench.alarms.call("press", "eva")
    assert (bench.state(), bench.one().rule) == (S.CALL, BY_CALL)
    bench.alarms.acknowledge(bench.one().id, "leo")
    assert (bench.state(), bench.alarms.active()) == (S.RUN, [])
    bench.alarms.stop("press", "eva", "smoke")
    assert (bench.state(), bench.one().rule, bench.one().why) == (S.STOPPED, BY_STOP, "eva: smoke")
    bench.alarms.give_cause("press", "other", "a motor", "eva")
    bench.alarms.resume("press", "eva")
    assert (bench.state(), bench.alarms.active()) == (S.RUN, [])
    for wrong in (
        lambda: bench.alarms.call("press", " "),
        lambda: bench.alarms.acknowledge(999, "eva"),
        lambda: bench.alarms.give_cause("press", "weather", "", "eva"),
        lambda: bench.alarms.stop("mill", "eva"),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_a_lost_store_stops_and_is_stored_later(bench, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "write", lambda work: (_ for _ in ()).throw(StoreUnavailable("gone")))
        bench.alarms.signal("press", "store_lost", True)
        assert bench.state() is S.STOPPED  # at once, stored or not
        with pytest.raises(StoreUnavailable):
            bench.alarms.give_cause("press", "other", "cable", "eva")
        bench.alarms.tick()
    bench.alarms.tick()
    bench.restart()
    assert bench.state() is S.CAUSE_GIVEN
    assert [event["to_state"] for event in bench.table("alarm_event", alarm_id=None)][-1] == "cause_given"
    bench.store.ask(check)


def test_what_is_stored_late_does_not_undo_what_is_newer(bench, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "write", lambda work: (_ for _ in ()).throw(StoreUnavailable("gone")))
        bench.alarms.condition("press", "disk", True, "nearly full")
    number = bench.one().id
    bench.alarms.acknowledge(number, "eva")
    bench.alarms.condition("press", "disk", False)
    assert bench.alarms.active() == []
    bench.alarms.tick()  # stores that it was raised
    assert {event["event"] for event in bench.table("alarm_event", alarm_id=number)} >= {"raise", "clear"}
    bench.restart()
    assert bench.alarms.active() == []


def test_waiting_rules_rest_while_the_line_stands(folder):
    board = Board(
        Station("press"), (NoGoodPart(seconds=5),), EscalationSettings(), iter(range(9)).__next__, 0
    )
    board.part(Part(1, SECOND, Verdict.NG))
    board.tick(6 * SECOND)
    assert board.station.state is S.STOPPED
    count = board.rows["no good part for 5 s"].count
    for second in range(7, 100):
        board.tick(second * SECOND)
    assert board.rows["no good part for 5 s"].count == count


ACTIONS = ["ng", "ok", "error", "tick", "ack", "cause", "resume", "call", "stop", "shelve", "fault", "ready"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), max_size=25))
def test_never_from_stop_to_run_without_person_and_cause(actions):
    board = Board(
        Station("press", verified=True), RULES, EscalationSettings(), iter(range(1, 99)).__next__, 0
    )
    by, now, given_cause, resumed = By("eva", StopCause.PRODUCT, "why"), 0, False, False
    for number, action in enumerate(actions):
        now += 20 * SECOND
        stood = board.station.wants_stop
        with suppress(NotAllowed):
            if action in ("ng", "ok", "error"):
                board.part(Part(number, now, Verdict[action.upper()]))
            elif action == "tick":
                board.tick(now)
            elif action == "cause":
                board.give_cause(by, now)
                given_cause = True
            elif action == "resume":
                board.resume(by, now)
                resumed = True
            elif action in ("call", "stop"):
                board.call(by, now, stops=action == "stop")
            elif action in ("fault", "ready"):
                board.ready(now, True, ("disk",) if action == "fault" else ())
            for row in tuple(board.rows.values())[:1]:
                if action == "ack":
                    board.on_alarm(row, AlarmEvent.ACKNOWLEDGE, by, now)
                elif action == "shelve":
                    board.on_alarm(row, AlarmEvent.SHELVE, by, now, now + MINUTE)
        if stood and not board.station.wants_stop:
            assert given_cause and resumed
        if board.station.state is S.STOPPED:
            given_cause = resumed = False
        open_stops = [row for row in board.rows.values() if row.alarm.latched]
        assert not open_stops or board.station.wants_stop
        restored = Station.from_json(board.station.to_json())
        assert restored == board.station
