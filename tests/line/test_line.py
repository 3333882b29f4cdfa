"""A running line: what pages see, events, health, thresholds, disk, retention."""

from __future__ import annotations

import json
import threading
import time
from itertools import count

import pytest

from andon.core.errors import UsageError
from andon.line.andon_states import AlarmState
from andon.line.clock import DAY, HOUR, SECOND
from andon.line.events import KEPT, RESET, Events
from andon.line.faults import Fault
from andon.line.judge import Thresholds
from andon.line.reports.mail import ShiftMail
from andon.line.rules import InARow
from andon.line.settings import FolderSettings, ThresholdSettings
from andon.line.station import NotReady
from andon.line.store import DiskLevel, images, rows
from andon.line.store.retention import RetentionRun
from andon.line.tally import Tally, shift_begin
from andon.line.verdicts import Verdict
from andon.line.versions import Stale
from andon.line.views import Shown
from line.running import BadModel, answer, part, running, until
from line.storing import NOON
from line.test_alarms import Clock


def test_a_stop_from_the_first_reject_to_running(folder):
    with running(folder) as line:
        press = line.stations["press"]
        assert press.view().state is Shown.RUNNING
        with line.events.subscribe() as events:
            ids = [answer(press, k, "NG").id for k in range(3)]
            until(lambda: press.view().state is Shown.STOPPED)
            view = press.view()
            assert view.reason == "3 parts in a row were rejected (NG)"
            assert (view.counts, view.last_id) == ({Verdict.NG: 3}, ids[-1])
            assert view.strip == tuple((id, Verdict.NG) for id in ids)
            assert answer(press, 3).verdict is Verdict.OK  # parts on their way are judged as ever
            line.alarms.give_cause("press", "product", "", "eva")
            line.alarms.resume("press", "eva")
            assert press.view().state is Shown.RUNNING
            line.stop(1.0)
            seen = list(events)
        json.dumps([event.data for event in seen], allow_nan=False)
        inspections = [event.data["id"] for event in seen if event.kind == "inspection"]
        assert inspections[:3] == ids
        assert {event.kind for event in seen} >= {"inspection", "state", "alarm"}
        states = [event.data["machine"] for event in seen if event.kind == "state"]
        assert states[-1] == "run"
        assert "stopped" in states


def test_every_answered_inspection_becomes_one_event(folder):
    with running(folder, rules=(), queue=50) as line:
        with line.events.subscribe() as events:
            futures = [line.stations["press"].submit(part(k, "OK" if k % 3 else "NG")) for k in range(30)]
            ids = [future.result(20.0).recorded.id for future in futures]
            line.stop(5.0)
        told = [event.data["id"] for event in events if event.kind == "inspection"]
        assert told == ids


def test_a_restart_counts_on(folder):
    with running(folder, rules=()) as line:
        for k, word in enumerate(["OK", "NG", "REVIEW"]):
            answer(line.stations["press"], k, word)
        until(lambda: line.stations["press"].view().state is Shown.REVIEW)
        before = line.stations["press"].view()
    with running(folder, rules=()) as line:
        view = line.stations["press"].view()
        assert (view.counts, view.strip, view.last_id) == (before.counts, before.strip, before.last_id)


def test_health_says_what_is_missing(folder):
    with running(folder, "press", "saw") as line:
        until(lambda: line.health().ready)
        line.stations["saw"].set_fault("camera", "no frame for 5 s")
        health = line.health()
        assert (health.live, health.ready, health.reasons) == (
            True,
            False,
            ("station saw, camera: no frame for 5 s",),
        )
        until(lambda: line.alarms.active("saw"))
        assert line.stations["saw"].view().state is Shown.FAULT
        (alarm,) = line.alarms.active("saw")
        assert (alarm.rule, alarm.why, alarm.stops) == ("fault: camera", "no frame for 5 s", False)
        line.stations["saw"].set_fault("camera", None)
        assert line.health().ready
        until(lambda: line.alarms.active("saw")[0].state is AlarmState.RTN_UNACK)
    assert not line.health().live


def test_a_judgement_that_never_ends_asks_for_a_restart(folder, monkeypatch):
    monkeypatch.setattr("andon.line.showing.HANGS_SECONDS", 0.05)
    with running(folder, cycle_s=0.01) as line:
        until(lambda: line.health().live)
        line.stations["press"].submit(part(1, "hang"))
        until(lambda: not line.health().live)
        assert "station press: a judgement does not end; restart" in line.health().reasons
        line.stations["press"].model.go.set()
        until(lambda: line.health().live)


def test_a_bad_model_is_a_fault(folder):
    with running(folder, judge=BadModel) as line:
        view = line.stations["press"].view()
        assert (view.state, view.is_ready) == (Shown.FAULT, False)
        assert "does not answer here" in view.reason


def test_thresholds_are_versions(folder):
    with running(folder) as line:
        press = line.stations["press"]
        assert press.thresholds == Thresholds(1.0, 1.0)
        first = line.activate_thresholds("press", 0.9, 1.1, who="eva", why="a band to look at")
        second = line.activate_thresholds("press", 0.8, 1.1, who="leo", why="wider")
        assert press.view().thresholds == Thresholds(0.8, 1.1, second.id)
        assert [v.id for v in line.threshold_versions("press")] == [second.id, first.id]
        assert second.prev_id == first.id
        for wrong in (
            (1.2, 1.1, "eva", "order"),
            (0.9, 1.0, " ", "no name"),
            (0.9, float("nan"), "eva", "x"),
        ):
            with pytest.raises(UsageError):
                line.activate_thresholds("press", wrong[0], wrong[1], who=wrong[2], why=wrong[3])
        assert answer(press, 1).threshold_version == second.id
        audited = line.store.ask(lambda connection: rows.find(connection, "audit", action="threshold"))
        assert [json.loads(row["new_json"])["accept"] for row in audited] == [0.8, 0.9]
    with running(folder) as line:
        assert line.stations["press"].thresholds.version == second.id
    for accept in (0.7, 0.7, 0.6):  # a change in the file counts once
        with running(folder, thresholds=ThresholdSettings(accept=accept)) as line:
            assert line.stations["press"].thresholds.accept == accept
            newest = line.threshold_versions("press")
    assert [v.accept for v in newest] == [0.6, 0.7, 0.8, 0.9]


def test_rules_are_versions(folder):
    with running(folder, rules=(InARow(k=3),)) as line:
        first = line.alarms.rules("press")
        second = line.set_rules("press", [InARow(k=2)], who="eva", why="stop earlier", based_on=first.id)
        assert line.stations["press"].view().rule_version == second.id
        with pytest.raises(Stale, match="by eva"):
            line.set_rules("press", [], who="leo", why="none", based_on=first.id)
        for wrong in (([InARow(k=2), InARow(k=2)], "eva", "twice"), ([], " ", "no name"), ([], "eva", " ")):
            with pytest.raises(UsageError):
                line.set_rules("press", wrong[0], who=wrong[1], why=wrong[2])
        audited = line.store.ask(lambda connection: rows.find(connection, "audit", action="rules"))
        assert [(row["who"], json.loads(row["new_json"])["version"]) for row in audited] == [
            ("eva", second.id),
            ("settings file", first.id),
        ]
    for k, found in ((3, 2), (3, 2), (4, 4)):  # a change in the file counts once
        with running(folder, rules=(InARow(k=k),)) as line:
            assert line.alarms.rules("press").rules == (InARow(k=found),)


def test_another_model_is_taken_and_audited(folder, tmp_path):
    with running(folder) as line:
        line.set_model("press", tmp_path / "new.andon", who="eva", why="lens changed")
        assert answer(line.stations["press"], 1).model_sha256.startswith("new")
        assert line.stations["press"].view().model_name == "new"
        (row,) = line.store.ask(lambda connection: rows.find(connection, "audit", action="model"))
        assert (row["who"], row["reason"]) == ("eva", "lens changed")


def test_a_full_disk_calls_and_goes(folder, monkeypatch):
    with running(folder) as line:
        press = line.stations["press"]
        monkeypatch.setattr(line.store, "disk", lambda: DiskLevel.FULL)
        line.store_watch.look_at_disk()
        assert [alarm.rule for alarm in line.alarms.active()] == ["disk"]
        until(lambda: press.view().state is Shown.FAULT)
        monkeypatch.setattr(line.store, "disk", lambda: DiskLevel.OK)
        line.store_watch.look_at_disk()
        assert not press.faults
        line.alarms.acknowledge(line.alarms.active()[0].id, "eva")
        assert line.alarms.active() == []


def test_a_failure_of_the_rules_stops_and_one_of_reports_is_shown(folder, monkeypatch):
    def fall_over(row: object) -> None:
        raise RuntimeError("no rules")

    with running(folder) as line:
        monkeypatch.setattr(line.outbox, "part", fall_over)
        press = line.stations["press"]
        assert answer(press, 1).verdict is Verdict.OK
        until(lambda: list(press.faults) == [Fault.FOLLOWER])  # whose verdicts are as good as before
        monkeypatch.setattr(line.alarms, "part", fall_over)
        assert answer(press, 2).verdict is Verdict.OK
        until(lambda: Fault.LINE in press.faults)
        with pytest.raises(NotReady, match="no rules"):
            answer(press, 3)


def test_no_part_for_some_cycles_is_waiting(folder):
    with running(folder, cycle_s=0.02) as line:
        until(lambda: line.stations["press"].view().state is Shown.WAITING)


class TestEvents:
    def test_who_comes_back_gets_what_was_missed(self):
        events = Events()
        ids = [events.publish("inspection", {"n": n}).id for n in range(5)]
        events.publish("tick", {}, keep=False)
        with events.subscribe(ids[2]) as subscription:
            assert [subscription.get(0).data["n"] for _ in range(2)] == [3, 4]
            assert subscription.get(0) is None

    @pytest.mark.parametrize("last", [0, 99_999])
    def test_who_missed_too_much_is_told(self, last):
        events = Events()
        for n in range(KEPT + 5):
            events.publish("inspection", {"n": n})
        with events.subscribe(last) as subscription:
            assert (subscription.get(0).kind, subscription.get(0)) == (RESET, None)

    def test_a_slow_listener_loses_and_is_told(self):
        events = Events()
        with events.subscribe() as slow, events.subscribe() as fast:
            for n in range(KEPT + 3):
                events.publish("inspection", {"n": n})
                assert fast.get(0).data["n"] == n
            assert [slow.get(0).kind for _ in range(3)] == [RESET, "inspection", "inspection"]
            assert slow.get(0) is None

    def test_a_waiting_listener_is_woken(self):
        events, woken = Events(), threading.Event()
        subscription = events.subscribe(wake=woken.set)
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.extend(subscription))
        thread.start()
        events.publish("state", {"n": 1})
        events.close()
        thread.join(5.0)
        assert ([event.data["n"] for event in found], woken.is_set(), events.listeners) == ([1], True, 0)


def test_shifts_begin_at_local_hours():
    for hour in range(0, 48, 3):
        begin = shift_begin(NOON + hour * HOUR)
        assert NOON + hour * HOUR - begin < 8 * HOUR + SECOND
        assert shift_begin(begin) == begin


@pytest.mark.parametrize(("month", "day", "hours"), [(10, 25, 9), (3, 29, 7), (6, 1, 8)])
def test_the_night_shift_is_one_although_clocks_are_set(monkeypatch, month, day, hours):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        end = round(time.mktime((2026, month, day, 6, 0, 0, 0, 0, -1))) * SECOND
        begin = end - hours * HOUR
        assert {shift_begin(t) for t in range(begin, end, HOUR // 4)} == {begin}
        assert (shift_begin(end), shift_begin(begin - 1)) == (end, begin - 8 * HOUR)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_tally_turns_with_the_shift():
    clock = Clock()
    steady = [0.0]
    tally = Tally({Verdict.OK: 7}, [], clock.now, lambda: steady[0])
    assert tally.counts(clock.now)[1] == {Verdict.OK: 7}
    later = clock.now + DAY
    assert tally.counts(later)[1] == {}
    tally.add(_Done(1, later))
    assert tally.counts(later)[1] == {Verdict.NG: 1}
    assert tally.per_minute() == 1
    steady[0] = 120.0
    assert tally.per_minute() == 0


def test_tally_does_not_depend_on_a_clock_that_is_set():
    clock, steady = Clock(), [0.0]
    tally = Tally({}, [_Done(0, clock.now - 30 * SECOND)], clock.now, lambda: steady[0])
    for number in range(1, 200):  # 10 a minute; set back by an hour after 10 minutes
        steady[0] += 6.0
        back = HOUR if number > 100 else 0
        tally.add(_Done(number, clock.now + round(steady[0] * SECOND) - back))
        assert tally.per_minute() <= 11
    assert tally.per_minute() == 11
    tally = Tally({Verdict.OK: 7}, [], clock.now, lambda: steady[0])
    assert tally.counts(clock.now + 365 * DAY)[1] == {}
    assert tally.counts(clock.now) == (shift_begin(clock.now), {Verdict.OK: 7})
    for day in range(10):
        tally.counts(clock.now + day * DAY)
    assert tally.counts(clock.now)[1] == {}


class _Done:
    verdict = Verdict.NG

    def __init__(self, id: int, t_done: int) -> None:
        self.id, self.t_done = id, t_done


def test_retention_runs_while_the_line_does(folder, monkeypatch):
    began, ran, go_on = threading.Event(), threading.Event(), []

    def run(store: object, rule: object, stop: threading.Event, **_: object) -> RetentionRun:
        began.set()
        go_on.append(stop.wait(5.0))
        ran.set()
        return RetentionRun()

    monkeypatch.setattr("andon.line.retention_watch.RUN_SECONDS", 0.01)
    monkeypatch.setattr("andon.line.retention_watch.retention.run", run)
    with running(folder) as line:
        assert answer(line.stations["press"], 1).verdict is Verdict.OK
        assert began.wait(5.0)
    assert (ran.is_set(), go_on) == (True, [True])


def test_what_cannot_be_deleted_calls_a_person_until_it_can(folder, monkeypatch):
    outcomes = [
        OSError(5, "Input/output error"),
        RetentionRun(failed=2, problem="a.png: busy"),
        RetentionRun(),
    ]

    def run(*_: object, **named: object) -> RetentionRun:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("andon.line.retention_watch.retention.run", run)
    with running(folder, rules=()) as line:
        said = []
        while outcomes:
            line.retention.run()
            (alarm,) = line.alarms.active("press")
            assert (alarm.rule, "Input/output error" in alarm.why) == ("retention", True)
            said.append(alarm.state)
        assert said == [AlarmState.ACTIVE_UNACK, AlarmState.ACTIVE_UNACK, AlarmState.RTN_UNACK]


def test_every_thread_of_a_line_survives_an_error_of_its_work(folder, tmp_path, monkeypatch):
    broken: set[str] = set()

    def breaks(name: str, target: object, method: str) -> None:
        """The method raises once, in the thread of this name."""
        works = getattr(target, method)

        def work(*arguments: object, **named: object) -> object:
            if threading.current_thread().name == name and name not in broken:
                broken.add(name)
                raise OSError(5, "Input/output error")
            return works(*arguments, **named)

        monkeypatch.setattr(target, method, work)

    def fails(name: str) -> None:
        broken.add(name)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("andon.line.retention_watch.RUN_SECONDS", 0.01)
    drop = FolderSettings(path=tmp_path)
    with running(folder, rules=(), folder=drop, cycle_s=0.5) as line:
        press = line.stations["press"]
        line.accounts._reader.start()  # as on a shared database
        mail = ShiftMail(["press"], lambda *_: fails("andon-shift-mail"), lambda *_: None, line.clock)
        mail.start()
        breaks("andon-retention", line.retention, "_tell")
        breaks("andon-accounts", line.accounts, "look")
        breaks("andon-press-inbox", line._inboxes[0]._waker, "watch")
        breaks("andon-press-work", press._sampler, "draw")
        breaks("andon-press-watch", press, "_give_up")
        breaks("andon-images-0", images, "write_durably")
        breaks("andon-images-1", images, "write_durably")
        breaks("andon-drift", line.drift, "_part")
        line.golden._work.put(lambda: fails("andon-golden"))
        monkeypatch.setattr(line.candidates, "_store_last", lambda _: line.candidates._ended.clear())
        breaks("andon-candidates", line.candidates, "_store_last")
        line.candidates._ended.append(None)
        monkeypatch.setattr("andon.line.candidates.work.RETRY_SECONDS", 0.01)
        with line.candidates._news:
            line.candidates._news.notify_all()
        with pytest.raises(OSError, match="error"):
            line.store.write(lambda _: fails("andon-writer")).result()
        with mail._changed:
            mail._due.append(("press", 0, 1))
            mail._changed.notify()
        assert answer(press, 1).verdict is Verdict.ERROR
        with pytest.raises(OSError, match="error"):
            answer(press, 2, "hang")
        press.model.go.set()
        threads = {thread.name for thread in threading.enumerate()} & {
            *("andon-line", "andon-retention", "andon-accounts", "andon-press-inbox", "andon-press-work"),
            *("andon-press-watch", "andon-images-0", "andon-images-1", "andon-drift", "andon-golden"),
            *("andon-candidates", "andon-writer", "andon-shift-mail"),
        }
        assert len(threads) == 13
        numbers = count(3)

        def all_failed() -> bool:
            answer(press, next(numbers))
            return broken == threads - {"andon-line"}

        until(all_failed)
        breaks("andon-line", line.alarms, "tick")
        until(lambda: Fault.LINE in press.faults)
        press.set_fault(Fault.LINE, None)
        alive = {thread.name for thread in threading.enumerate()}
        assert threads <= alive
        mail.stop(1.0)
        assert answer(press, next(numbers)).verdict is Verdict.OK
