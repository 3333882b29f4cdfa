"""The outbox: in order, nothing lost, back-off, what is given up is counted, judging does not wait."""

from __future__ import annotations

import sys
import threading
from itertools import pairwise

import pytest

from andon.core.errors import ConfigError
from andon.line.clock import SECOND
from andon.line.outbox import courier as module
from andon.line.outbox.courier import COUNT_SECONDS, LONGEST, REFUSALS, Courier
from andon.line.outbox.outbox import Outbox, Views
from andon.line.outbox.reports import Refused, Undelivered
from andon.line.outbox.settings import EmailSettings, MqttSettings, SecretSettings, WebhookSettings
from andon.line.store import StoreUnavailable
from andon.line.store.outbox import Position, Stream, position
from line.running import answer, running, settings, until
from line.storing import NOON, part
from line.telling import FakeSink

NOW = NOON + 10 * SECOND


class Time:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch):
    stands = Time()
    monkeypatch.setattr(module, "time", stands)
    return stands


@pytest.fixture
def sink():
    return FakeSink()


def record(store, first: int, last: int, **changes) -> list[int]:
    parts = [store.record(part(i, **changes)) for i in range(first, last + 1)]
    return [recorded.result().id for recorded in parts]


def rounds(courier: Courier) -> None:
    while courier.round():
        pass


def test_everything_from_now_on_in_order(store, sink, time):
    record(store, 1, 2)
    courier = Courier(sink, store, lambda: NOW)
    ids = record(store, 3, 2 * FakeSink.batch + 5)
    rounds(courier)
    assert (sink.ids(), sink.seqs()) == (ids, [*range(1, len(ids) + 1)])
    assert courier.figures().told == len(ids)
    assert sink.told[0].to_json()["request_id"] == "request-3"


def test_of_one_station_alone(store, time):
    sink = FakeSink("press")
    courier = Courier(sink, store, lambda: NOW)
    ids = record(store, 1, 1)
    record(store, 2, 2, station="oven")
    ids += record(store, 3, 3)
    rounds(courier)
    assert (sink.ids(), sink.seqs()) == (ids, [1, 2])


def test_a_restart_tells_what_was_not_confirmed_with_the_same_numbers(store, sink, time):
    courier = Courier(sink, store, lambda: NOW)
    ids = record(store, 1, 5)
    sink.fails, sink.most = Undelivered("gone"), 3
    courier.round()
    assert store.ask(lambda c: position(c, store.box.prefix + "fake", Stream.RESULT)) == Position(ids[2], 3)
    again = FakeSink()
    rounds(Courier(again, store, lambda: NOW))
    assert (again.ids(), again.seqs()) == (ids[3:], [4, 5])


def test_positions_are_stored_once_a_second(store, sink, time):
    courier = Courier(sink, store, lambda: NOW)
    ids = record(store, 1, 1)
    courier.round()
    ids += record(store, 2, 2)
    courier.round()
    assert store.ask(lambda c: position(c, store.box.prefix + "fake", Stream.RESULT)) == Position(ids[0], 1)
    time.now += 1.0
    courier.round()
    assert store.ask(lambda c: position(c, store.box.prefix + "fake", Stream.RESULT)) == Position(ids[1], 2)


def test_pauses_grow_up_to_a_minute_and_end_with_success(store, sink, time):
    courier = Courier(sink, store, lambda: NOW)
    record(store, 1, 3)
    sink.fails, sink.most, attempts = Undelivered("the broker is gone"), 0, []
    for _ in range(400):
        before = courier._next_try
        courier.round()
        if courier._next_try != before:
            attempts.append(time.now)
        time.now += 1.0
    assert [round(b - a) for a, b in pairwise(attempts)] == [
        1,
        2,
        4,
        8,
        16,
        32,
        60,
        60,
        60,
        60,
        60,
    ]
    figures = courier.figures()
    assert (figures.waiting, figures.oldest, figures.error, figures.since) == (
        3,
        part(1).t_done,
        "the broker is gone",
        NOW,
    )
    record(store, 4, 4)
    time.now += COUNT_SECONDS
    courier.round()
    assert courier.figures().waiting == 4  # counted in pauses too
    sink.fails = None
    time.now += 60.0
    rounds(courier)
    figures = courier.figures()
    assert (figures.waiting, figures.oldest, figures.error, figures.since, len(sink.told)) == (
        0,
        None,
        "",
        None,
        4,
    )


def test_a_refused_report_is_given_up_after_some_attempts(store, sink, time):
    courier = Courier(sink, store, lambda: NOW)
    ids = record(store, 1, 3)
    sink.fails, sink.most = Refused("answers 422"), 1
    for _ in range(REFUSALS):
        assert courier.figures().lost == 0
        courier.round()
        time.now += 60.0
    sink.fails = None
    rounds(courier)
    assert (sink.ids(), sink.seqs(), courier.figures().lost) == ([ids[0], ids[2]], [1, 3], 1)


def test_what_is_too_old_is_given_up(store, sink, time):
    courier = Courier(sink, store, lambda: part(2).t_done + LONGEST)
    ids = record(store, 1, 3)
    rounds(courier)
    assert (sink.ids(), sink.seqs(), courier.figures().lost) == (ids[1:], [2, 3], 1)


def test_a_fault_of_the_program_does_not_end_the_thread(store, sink, time):
    courier = Courier(sink, store, lambda: NOW)
    ids = record(store, 1, 1)
    sink.deliver = lambda reports, ending: 1 / 0
    courier.round()
    assert courier.figures().error == "ZeroDivisionError: division by zero"
    del sink.deliver
    time.now += 1.0
    courier.round()
    assert sink.ids() == ids


def test_without_the_database_the_sink_is_kept_up(store, sink, time, monkeypatch):
    courier, refreshed = Courier(sink, store, lambda: NOW), []
    sink.refresh = lambda: refreshed.append(1)

    def gone(question, **options):
        raise StoreUnavailable("the database is gone")

    monkeypatch.setattr(store, "ask", gone)
    for _ in range(3):
        assert not courier.round()
    assert (len(refreshed), courier.figures().error) == (3, "the database is gone")


class Hanging(FakeSink):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def refresh(self) -> None:
        self.go.wait()


def test_judging_waits_for_no_sink(tmp_path, monkeypatch):
    sink = Hanging()
    monkeypatch.setattr("andon.line.outbox.outbox._sinks", lambda *_: [sink])
    with running(tmp_path) as line:
        rows = [answer(line.stations["press"], i, "NG") for i in range(1, 4)]
        until(lambda: line.alarms.station("press").wants_stop)
        assert sink.told == []
        sink.go.set()
        until(lambda: any(each.data.get("rule") for each in sink.told))
    assert (sink.ids(), sink.closed) == ([row.id for row in rows], True)
    alarms = {
        (each.data["rule"], each.data["new"]): each.data for each in sink.told if each.stream is Stream.ALARM
    }
    raised = alarms["3 NG in a row", "active_unack"]
    assert (raised["event"], raised["stops"], raised["inspection_id"]) == ("raise", True, rows[-1].id)
    assert alarms[None, "stopped"]["stops"] is None


def test_receivers_of_the_settings(sqlite_store, tmp_path, monkeypatch):
    secret = SecretSettings(file=tmp_path / "secret")
    line = {
        "webhooks": (WebhookSettings(name="mes", url="https://mes.plant/", secret=secret),),
        "email": EmailSettings(host="mail", sender="a@x", to=("b@x",)),
    }

    def outbox(**more) -> Outbox:
        chosen = settings(tmp_path, "press", "oven", line={**line, **more})
        return Outbox(chosen, sqlite_store, Views(lambda name: None, lambda name: []), lambda: NOW, None)

    with pytest.raises(
        ConfigError, match=r"^webhook mes: .*secret cannot be read \(No such file or directory\): write"
    ):
        outbox()
    (tmp_path / "secret").write_text("hunter2")
    made = outbox()
    assert [each.sink for each in made.figures()] == ["webhook/mes", "email"]
    assert made.mailer is not None and "hunter2" not in repr(line)
    silent = line["email"].model_copy(update={"alarms": "none"})
    assert [each.sink for each in outbox(email=silent).figures()] == ["webhook/mes"]  # reports are mailed
    monkeypatch.setitem(sys.modules, "andon.line.outbox.mqtt", None)
    with pytest.raises(ConfigError, match=r"^\[mqtt\] needs paho-mqtt, .* pip install 'andon\[mqtt\]'$"):
        outbox(mqtt=MqttSettings(host="broker"))
