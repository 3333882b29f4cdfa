"""Alarms and stations: every way between states, by table, by hypothesis, over restarts, under floods."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.line.andon_states import (
    ALARM_TABLE,
    CHECKED_CAUSES,
    LONGEST_SHELF,
    STATION_TABLE,
    Alarm,
    AlarmEvent,
    AlarmState,
    By,
    Change,
    NotAllowed,
    Station,
    StationEvent,
    StationState,
    StopCause,
    stops,
    summary,
)
from andon.line.clock import HOUR, MINUTE, SECOND

ANNA = By("anna", StopCause.FALSE_STOP, "nothing found")


def restart(value):
    """The same value, written and read back."""
    return type(value).from_json(json.loads(json.dumps(value.to_json())))


# --- alarms


def alarm_after(*events: AlarmEvent, latched: bool = True) -> Alarm:
    alarm = Alarm("press/3 NG in a row", latched=latched)
    for event in events:
        alarm, _ = alarm.step(event, 1, ANNA, until=HOUR)
    return alarm


E = AlarmEvent
PATHS = {
    AlarmState.NORMAL: (),
    AlarmState.ACTIVE_UNACK: (E.RAISE,),
    AlarmState.ACTIVE_ACK: (E.RAISE, E.ACKNOWLEDGE),
    AlarmState.RTN_UNACK: (E.RAISE, E.CLEAR),
    AlarmState.LATCHED: (E.RAISE, E.ACKNOWLEDGE, E.CLEAR),
    AlarmState.SHELVED: (E.SHELVE,),
    AlarmState.OUT_OF_SERVICE: (E.DISABLE,),
}
"""Shortest way of a latched alarm to each state."""


@pytest.mark.parametrize("state", AlarmState)
def test_each_alarm_state_is_reached_and_survives_a_restart(state):
    alarm = alarm_after(*PATHS[state])
    assert alarm.state is state
    assert restart(alarm) == alarm


@pytest.mark.parametrize(
    ("latched", "events", "state"),
    [
        (True, (E.RAISE, E.CLEAR, E.ACKNOWLEDGE), AlarmState.LATCHED),
        (False, (E.RAISE, E.CLEAR, E.ACKNOWLEDGE), AlarmState.NORMAL),
        (False, (E.RAISE, E.ACKNOWLEDGE, E.CLEAR), AlarmState.NORMAL),
        (True, (E.RAISE, E.ACKNOWLEDGE, E.RESOLVE), AlarmState.NORMAL),
        (True, (E.RAISE, E.ACKNOWLEDGE, E.CLEAR, E.RAISE), AlarmState.ACTIVE_UNACK),
        (False, (E.RAISE, E.SHELVE, E.UNSHELVE), AlarmState.ACTIVE_UNACK),
        (False, (E.RAISE, E.SHELVE, E.CLEAR, E.UNSHELVE), AlarmState.NORMAL),
        (True, (E.DISABLE, E.RAISE, E.ENABLE), AlarmState.ACTIVE_UNACK),
        (True, (E.SHELVE, E.DISABLE, E.ENABLE), AlarmState.NORMAL),
    ],
)
def test_ways_of_an_alarm(latched, events, state):
    assert alarm_after(*events, latched=latched).state is state


def advance_alarm(
    alarm: Alarm, is_open: bool, event: AlarmEvent, by: By | None, t: int
) -> tuple[Alarm, bool]:
    """One event on a latched alarm, and the checks; `is_open`: raised, and no person has given a cause since."""
    before = alarm
    try:
        alarm, change = alarm.step(event, t, by, until=t + HOUR)
    except NotAllowed:
        return before, is_open
    assert (change is None) == (alarm.state is before.state)
    if change:
        assert (change.old, change.new, change.event) == (before.state, alarm.state, event)
        assert bool(change.who) == (event not in (E.RAISE, E.CLEAR, E.EXPIRE))
    is_open = is_open or alarm.state is AlarmState.ACTIVE_UNACK
    if is_open and alarm.state is AlarmState.NORMAL:
        assert (event, change.who, change.cause) == (E.RESOLVE, "anna", "false_stop")
        is_open = False
    assert not (is_open and alarm.is_silent)
    return restart(alarm), is_open


PEOPLE = [None, By("anna"), ANNA]


def test_a_stop_alarm_ends_only_by_a_person_with_a_cause():
    """Every event in every state that can be reached; counts and times left out."""
    waiting = [(Alarm("a", latched=True), False)]
    seen = set(waiting)
    while waiting:
        alarm, is_open = waiting.pop()
        for event, by in product(AlarmEvent, PEOPLE):
            after, still = advance_alarm(alarm, is_open, event, by, 2 * HOUR if event is E.EXPIRE else 1)
            state = replace(after, count=min(after.count, 1), raised=after.raised and 1), still
            if state not in seen:
                seen.add(state)
                waiting.append(state)
    assert {alarm.state for alarm, _ in seen} == set(AlarmState)


@given(st.lists(st.tuples(st.sampled_from(AlarmEvent), st.sampled_from(PEOPLE)), max_size=25))
@settings(max_examples=40, deadline=None)
def test_a_stop_alarm_under_random_events(events):
    alarm, is_open = Alarm("a", latched=True), False
    for t, (event, by) in enumerate(events, start=1):
        alarm, is_open = advance_alarm(alarm, is_open, event, by, t * HOUR // 2)


def test_a_flood_is_one_alarm_with_a_count():
    alarm, changes = Alarm("press/ERROR", latched=False), []
    for t in range(1000):
        alarm, change = alarm.step(E.RAISE, t, why="3 parts in a row were not judged (ERROR)")
        changes += [change] if change else []
    assert [change.new for change in changes] == ["active_unack"]
    why = "3 parts in a row were not judged (ERROR)"
    assert changes == [Change("press/ERROR", 0, "raise", "normal", "active_unack", why=why, count=1)]
    assert (alarm.count, alarm.raised) == (1000, 0)
    alarm, change = alarm.step(E.CLEAR, 1000)
    assert change.count == 1000


def test_silent_alarms_count_and_say_nothing():
    alarm = alarm_after(E.SHELVE)
    after, change = alarm.step(E.RAISE, 2)
    assert (change, after.state, after.count, after.is_silent) == (None, AlarmState.SHELVED, 1, True)
    back, change = after.step(E.EXPIRE, HOUR)
    assert (back.state, change.new, back.raised) == (AlarmState.ACTIVE_UNACK, "active_unack", HOUR)


def test_a_shelf_ends_by_itself_at_its_time():
    alarm = alarm_after(E.SHELVE)
    assert alarm.step(E.EXPIRE, HOUR - 1) == (alarm, None)
    assert alarm.step(E.EXPIRE, HOUR)[0] == Alarm(alarm.key, latched=True)


@pytest.mark.parametrize(
    ("path", "event", "options", "message"),
    [
        ((), E.ACKNOWLEDGE, {"by": ANNA}, "not active"),
        ((E.RAISE,), E.ACKNOWLEDGE, {}, "give a name"),
        ((E.RAISE,), E.ACKNOWLEDGE, {"by": By("  ")}, "give a name"),
        ((E.RAISE,), E.RESOLVE, {"by": ANNA}, "acknowledge it first"),
        ((E.RAISE, E.ACKNOWLEDGE), E.RESOLVE, {"by": By("anna")}, "give the cause, one of product"),
        ((E.RAISE, E.ACKNOWLEDGE), E.RESOLVE, {"by": By("anna", StopCause.OTHER)}, "needs a note"),
        ((E.RAISE,), E.SHELVE, {"by": ANNA, "until": HOUR}, "give the cause first"),
        ((E.RAISE, E.ACKNOWLEDGE), E.SHELVE, {"by": ANNA, "until": HOUR}, "give the cause first"),
        ((), E.SHELVE, {"by": By("anna"), "until": HOUR}, "give a reason"),
        ((), E.SHELVE, {"by": ANNA}, "within the next 8 hours"),
        ((), E.SHELVE, {"by": ANNA, "until": 3 + LONGEST_SHELF}, "within the next 8 hours"),
        ((), E.SHELVE, {"by": ANNA, "until": 2}, "within the next 8 hours"),
        ((E.RAISE,), E.DISABLE, {"by": ANNA}, "does not allow disable"),
    ],
)
def test_refused_actions_on_alarms(path, event, options, message):
    with pytest.raises(NotAllowed, match=message):
        alarm_after(*path).step(event, 2, **options)


def test_escalation_by_minutes_until_acknowledged():
    alarm = alarm_after(E.RAISE)
    assert [alarm.escalation(1 + m * MINUTE, (5, 15)) for m in (4, 5, 14, 15, 99)] == [0, 1, 1, 2, 2]
    assert alarm_after(E.RAISE, E.ACKNOWLEDGE).escalation(HOUR, (5, 15)) == 0


# --- stations

V = StationEvent
STATION_PATHS = {
    StationState.RUN: (),
    StationState.CALL: (V.CALL,),
    StationState.STOP_REQUESTED: (V.STOP,),
    StationState.STOPPED: (V.STOP, V.STOPPED),
    StationState.CAUSE_GIVEN: (V.STOP, V.STOPPED, V.GIVE_CAUSE),
    StationState.RESUME_REQUESTED: (V.STOP, V.STOPPED, V.GIVE_CAUSE, V.RESUME),
}


def station_after(*events: StationEvent, by: By = ANNA, **options) -> Station:
    station = Station("press", verified=True, **options)
    for t, event in enumerate(events, start=1):
        station, change = station.step(event, t, by, why="3 parts in a row were rejected (NG)")
        assert change is not None
    return station


@pytest.mark.parametrize("state", STATION_PATHS)
def test_a_restart_in_each_state_returns_to_it(state):
    station = station_after(*STATION_PATHS[state])
    again = restart(station).restarted()
    assert (again.state, again.since, again.cause, again.why) == (
        *(station.state, station.since, station.cause, station.why),
    )
    stands = state not in (StationState.RUN, StationState.CALL)
    assert again.wants_stop == stands
    assert again.shown is (state if stands else StationState.SETUP)
    assert again.ready(9, verified=True)[0] == station


def test_the_whole_way_and_its_times():
    alarm, station, changes = Alarm("press/5 NG in 50", latched=True), Station("press"), []

    def do(at: int, event, by: By | None = None) -> None:
        nonlocal alarm, station
        if isinstance(event, AlarmEvent):
            alarm, change = alarm.step(event, at * SECOND, by)
        else:
            station, change = station.step(
                event, at * SECOND, by, why="5 of the last 50 parts were rejected (NG)"
            )
        changes.append(change)

    station, ready = station.ready(0, verified=True)
    assert (ready.old, ready.new) == ("setup", "run")
    do(10, V.CALL)
    do(10, E.RAISE)
    do(70, V.CALL_EXPIRED)
    do(71, V.STOPPED)
    do(100, E.ACKNOWLEDGE, By("anna"))
    do(160, V.GIVE_CAUSE, ANNA)
    do(161, E.RESOLVE, ANNA)
    do(170, V.RESUME, By("anna"))
    do(171, V.RUN)
    assert all(changes)
    assert station == Station("press", verified=True, since=171 * SECOND)
    (stop,) = stops(changes)
    times = (stop.called, stop.requested, stop.stopped, stop.acknowledged, stop.cause_given, stop.resumed)
    assert times == tuple(s * SECOND for s in (10, 70, 71, 100, 160, 171))
    assert stop.cause == "false_stop"
    assert summary([stop]) == (1, 90, 101)
    assert summary([]) == (0, None, None)


def test_times_of_a_call_that_was_answered_and_of_a_stop_that_lasts():
    answered = station_changes([(V.CALL, 1), (V.END_CALL, 5), (V.STOP, 9)])
    (stop,) = stops(answered)
    assert (stop.called, stop.requested, stop.resumed) == (None, 9, None)
    assert summary([stop]) == (1, None, None)


def test_a_fault_during_a_call_and_a_stop_begins_neither_again():
    station, changes = Station("press", verified=True), []

    def do(event: V, t: int) -> None:
        nonlocal station
        station, change = station.step(event, t, ANNA)
        changes.append(change)

    def fault(t: int, *faults: str) -> None:
        nonlocal station
        station, change = station.ready(t, faults=faults)
        changes.append(change)

    do(V.CALL, 10)
    fault(60, "camera")
    fault(70)
    do(V.STOP, 100)
    fault(101, "camera")
    fault(102)
    assert [(change.event, change.new) for change in changes[2::3]] == [
        ("ready", "call"),
        ("ready", "stop_requested"),
    ]
    (stop,) = stops(changes)
    assert (stop.called, stop.requested) == (10, 100)


def station_changes(events):
    station, changes = Station("press", verified=True), []
    for event, t in events:
        station, change = station.step(event, t, ANNA)
        changes.append(change)
    return changes


@dataclass(frozen=True)
class Memory:
    """What happened since the last stop, kept apart from the station."""

    person: bool = False
    cause: bool = False
    check_due: bool = False


LIGHT, NOTHING = By("anna", StopCause.LIGHT), By("anna", StopCause.FALSE_STOP)
ACTIONS = [
    *product(StationEvent, [None, By("anna"), LIGHT, NOTHING]),
    *product(["checked", "verified"], [False, True]),
    *product(["faults"], [(), ("camera",)]),
    ("restart", None),
]


def advance(station: Station, memory: Memory, action, value) -> tuple[Station, Memory]:
    """One action, and the checks of what it must not do."""
    before, change = station, None
    if action == "restart":
        return restart(station).restarted(), memory
    if action == "checked":
        station, change = station.checked(0, passed=value)
        memory = replace(memory, check_due=not value) if before.wants_stop else memory
    elif action in ("verified", "faults"):
        station, change = station.ready(0, **{action: value})
    else:
        try:
            station, change = station.step(action, 0, value)
        except NotAllowed:
            assert action in (V.GIVE_CAUSE, V.RESUME)
            return before, memory
    assert change is not None or station == before
    if action is V.GIVE_CAUSE:
        due = memory.check_due or (station.has_known_parts and value.cause in CHECKED_CAUSES)
        memory = replace(memory, cause=True, check_due=due)
    if action is V.RESUME:
        assert not memory.check_due
        memory = replace(memory, person=bool(value.who))
    if station.state in (StationState.STOP_REQUESTED, StationState.STOPPED):
        memory = replace(memory, person=False, cause=False)
    if before.wants_stop and not station.wants_stop:
        assert (action, before.state, station.state) == (
            V.RUN,
            StationState.RESUME_REQUESTED,
            StationState.RUN,
        )
        assert memory == Memory(person=True, cause=True, check_due=False)
        assert before.is_ready
        memory = Memory()
    assert station.shown not in (StationState.RUN, StationState.CALL) or station.is_ready
    return station, memory


def test_no_way_at_all_from_a_stop_to_run_without_person_cause_and_known_parts():
    """Every action in every state that can be reached."""
    waiting = [(Station("press", has_known_parts=known), Memory()) for known in (False, True)]
    seen = set(waiting)
    while waiting:
        station, memory = waiting.pop()
        for action, value in ACTIONS:
            after = advance(station, memory, action, value)
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    assert {station.state for station, _ in seen} == set(STATION_PATHS)
    assert {station.shown for station, _ in seen} == set(StationState)


@given(st.lists(st.sampled_from(ACTIONS), max_size=40), st.sampled_from(sorted(STATION_PATHS)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_way_from_a_stop_by_random_actions(actions, start, has_known_parts):
    station = Station("press", has_known_parts=has_known_parts, verified=True)
    memory = Memory()
    for action, value in [*((event, NOTHING) for event in STATION_PATHS[start]), *actions]:
        station, memory = advance(station, memory, action, value)


def test_known_parts_are_due_after_light_and_a_corrected_cause_does_not_cancel_them():
    light = By("anna", StopCause.LIGHT)
    station = station_after(V.STOP, V.STOPPED, V.GIVE_CAUSE, by=light, has_known_parts=True)
    with pytest.raises(NotAllowed, match="cannot resume after cause light: judge the known parts first"):
        station.step(V.RESUME, 9, ANNA)
    station, _ = station.step(V.GIVE_CAUSE, 10, ANNA)
    with pytest.raises(NotAllowed, match="judge the known parts first"):
        station.step(V.RESUME, 11, ANNA)
    assert station.checked(12, passed=False) == (station, None)
    station, change = station.checked(13, passed=True)
    assert change.why == "known parts judged right"
    assert station.step(V.RESUME, 14, ANNA)[0].state is StationState.RESUME_REQUESTED


def test_a_check_that_fails_after_the_release_keeps_the_line_standing():
    station = station_after(*STATION_PATHS[StationState.RESUME_REQUESTED])
    failed, _ = station.checked(9, passed=False)
    assert failed.step(V.RUN, 10) == (failed, None)


def test_without_known_parts_nothing_is_due():
    station = station_after(V.STOP, V.STOPPED, V.GIVE_CAUSE, by=By("anna", StopCause.LIGHT))
    assert station.step(V.RESUME, 9, ANNA)[1].new == "resume_requested"


@pytest.mark.parametrize("state", [StationState.CAUSE_GIVEN, StationState.RESUME_REQUESTED])
def test_a_new_stop_needs_a_new_cause(state):
    station, change = station_after(*STATION_PATHS[state]).step(V.STOP, 9, why="again")
    assert (station.state, station.cause, station.why, change.why) == (
        StationState.STOPPED,
        None,
        "again",
        "again",
    )


def test_faults_and_setup_are_shown_and_hold_back_the_release():
    station = Station("press")
    assert station.shown is StationState.SETUP
    station, change = station.ready(1, verified=True, faults=("camera", "camera"))
    assert (station.shown, change.why, station.faults) == (StationState.FAULT, "camera", ("camera",))
    assert station.ready(2, faults=("camera",)) == (station, None)
    stopped, _ = station.step(V.STOP, 3)
    assert stopped.shown is StationState.STOP_REQUESTED
    released = station_after(*STATION_PATHS[StationState.RESUME_REQUESTED], faults=("camera",))
    assert released.step(V.RUN, 9) == (released, None)
    assert released.ready(10, faults=())[0].step(V.RUN, 11)[0].state is StationState.RUN


@pytest.mark.parametrize(
    ("state", "event", "by", "message"),
    [
        (StationState.STOPPED, V.RESUME, ANNA, "cannot resume while stopped: give the cause first"),
        (StationState.STOP_REQUESTED, V.RESUME, ANNA, "wait until the line stands"),
        (StationState.STOPPED, V.GIVE_CAUSE, By(""), "give a name"),
        (StationState.STOPPED, V.GIVE_CAUSE, By("anna"), "give the cause, one of"),
        (StationState.RUN, V.GIVE_CAUSE, ANNA, "is run, which does not allow give_cause"),
        (StationState.CAUSE_GIVEN, V.RESUME, None, "give a name"),
    ],
)
def test_refused_actions_on_stations(state, event, by, message):
    with pytest.raises(NotAllowed, match=message):
        station_after(*STATION_PATHS[state]).step(event, 9, by)


def test_a_person_may_stop_at_any_time():
    station, change = station_after(V.CALL).step(V.STOP, 9, By("anna", why="smoke"))
    assert (station.state, change.who, change.why) == (StationState.STOP_REQUESTED, "anna", "smoke")


def test_the_tables_lead_to_every_state():
    assert {*ALARM_TABLE.values(), AlarmState.LATCHED} == set(AlarmState)
    shown_only = {StationState.SETUP, StationState.FAULT}
    assert set(STATION_TABLE.values()) == set(StationState) - shown_only
    for state, event in product(StationState, StationEvent):
        if (state, event) in STATION_TABLE and STATION_TABLE[state, event] is StationState.RUN:
            assert state in (StationState.CALL, StationState.RESUME_REQUESTED)
