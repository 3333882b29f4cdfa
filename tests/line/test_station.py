"""Stations: no answer leaves before its row, and whatever goes wrong is never OK."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.errors import DataError
from andon.line.judge import Thresholds
from andon.line.line import Line
from andon.line.station import NotReady, QueueFull
from andon.line.store import ImageState, RequestConflict, Store, StoreError, StoreFull, StoreUnavailable
from andon.line.verdicts import Cause, Verdict
from line.running import PATIENCE, BadModel, FakeJudge, answer, part, running, until
from line.running import settings as line_settings

NUMBERS = itertools.count(1000)
"""Of parts on the line that tests share."""


@pytest.fixture(scope="module")
def line(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A running line without rules, for tests that leave it as it was."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("line") / "store")
    with running(folder, rules=(), queue=20) as started:
        yield started


@pytest.mark.parametrize("word", ["OK", "NG", "REVIEW"])
def test_answer_is_the_committed_row(line, word):
    number = next(NUMBERS)
    row = answer(line.stations["press"], number, word, lot="L7", trigger_no=number)
    assert row.verdict is Verdict[word]
    assert line.store.inspection(row.id).verdict is Verdict[word]
    assert (row.part_id, row.lot, row.trigger_no) == (f"part-{number}", "L7", number)
    assert row.model_sha256.startswith("press")
    assert set(row.ms) == {"queue", "judge"}
    assert row.image_state is ImageState.PENDING


@pytest.mark.parametrize(
    ("word", "cause"),
    [("raise", Cause.JUDGE_FAILED), ("nan", Cause.NOT_FINITE), ("ERROR", Cause.JUDGE_FAILED)],
)
def test_a_failing_judge_is_error(line, word, cause):
    row = answer(line.stations["press"], next(NUMBERS), word)
    assert (row.verdict, row.cause, row.score) == (Verdict.ERROR, cause.value, None)
    assert answer(line.stations["press"], next(NUMBERS)).verdict is Verdict.OK


def test_a_hanging_judge_is_error_at_the_cycle_limit(folder):
    with running(folder, cycle_s=0.05) as line:
        station = line.stations["press"]
        first, second = station.submit(part(1, "hang")), station.submit(part(2))
        rows = [future.result(PATIENCE).recorded.row for future in (first, second)]
        assert [(row.verdict, row.cause) for row in rows] == [(Verdict.ERROR, Cause.TIMEOUT.value)] * 2
        assert "judge" in station.faults
        station.model.go.set()
        until(lambda: not station.faults)
        assert line.store.by_request("request-1").verdict is Verdict.ERROR  # the late OK changes nothing


def test_a_full_queue_is_error_and_a_row(folder):
    with running(folder, queue=2) as line:
        station = line.stations["press"]
        hanging = station.submit(part(0, "hang"))
        until(lambda: not station.waiting)
        waiting = [station.submit(part(k)) for k in (1, 2)]
        with pytest.raises(QueueFull, match="2 parts waiting"):
            station.submit(part(3))
        row = line.store.by_request("request-3")
        assert (row.verdict, row.cause) == (Verdict.ERROR, Cause.OVERRUN.value)
        assert not any(future.done() for future in [hanging, *waiting])
        station.model.go.set()
        assert all(f.result(PATIENCE).recorded.row.verdict is Verdict.OK for f in [hanging, *waiting])


def test_a_request_that_is_being_judged_has_one_future(folder):
    with running(folder) as line:
        station = line.stations["press"]
        first = station.submit(part(1, "hang"))
        assert station.submit(part(1, "hang")) is first
        with pytest.raises(RequestConflict):
            station.submit(part(1, "OK"))
        station.model.go.set()
        row = first.result(PATIENCE).recorded.row
        again = station.submit(part(1, "hang")).result(PATIENCE).recorded
        assert (again.replayed, again.id) == (True, row.id)
        with pytest.raises(RequestConflict):
            station.submit(part(1, "OK")).result(PATIENCE)
        assert sum(line.store.counts("press", since=0).values()) == 1
        assert not station.faults


def test_a_model_that_fails_its_check_judges_nothing(folder):
    with running(folder, judge=BadModel) as line:
        station = line.stations["press"]
        with pytest.raises(NotReady, match="does not answer here"):
            station.submit(part(1))
        assert line.store.by_request("request-1").cause == Cause.NOT_READY.value
        assert not line.health().ready
        with pytest.raises(DataError):
            station.set_model(BadModel(Path("other.andon")))
        station.set_model(FakeJudge(Path("good.andon")))
        assert answer(station, 2).model_sha256.startswith("good")
        until(lambda: line.health().ready)


def test_what_cannot_be_stored_is_refused_before_it_waits(line):
    with pytest.raises(DataError):
        line.stations["press"].submit(part(1, lot="x" * 400))


@pytest.mark.parametrize("error", [StoreFull("full"), StoreUnavailable("gone"), StoreError("no")])
def test_no_answer_without_a_row(line, monkeypatch, error):
    station, number, failed = line.stations["press"], next(NUMBERS), Future()
    failed.set_exception(error)
    with monkeypatch.context() as patch:
        patch.setattr(line.store, "record", lambda new: failed)
        with pytest.raises(type(error)):
            station.submit(part(number)).result(PATIENCE)
        assert "store" in station.faults
    assert line.store.by_request(f"request-{number}") is None
    with pytest.raises(NotReady, match=str(error)):
        station.submit(part(next(NUMBERS)))
    until(lambda: not station.faults)  # recovers without a restart, and without a part
    assert answer(station, number).verdict is Verdict.OK


def is_replayed(station, sent):
    try:
        return station.submit(sent).result(PATIENCE).recorded.replayed
    except StoreUnavailable:  # the row is committed, the station has not heard of it yet
        return False


def test_a_commit_that_hangs_gives_no_answer(folder):
    with running(folder, rules=(), cycle_s=0.05) as line:
        station, release = line.stations["press"], threading.Event()
        line.store.write(lambda connection: release.wait(PATIENCE))
        future = station.submit(part(1))
        with pytest.raises(StoreUnavailable, match="not stored within"):
            future.result(PATIENCE)
        assert station.submit(part(1)) is future  # the commit still hangs
        release.set()
        until(lambda: is_replayed(station, part(1)))  # as after a crash between commit and answer


def test_stopping_judges_what_waits(folder):
    with running(folder, queue=20) as line:
        station = line.stations["press"]
        futures = [station.submit(part(k)) for k in range(10)]
        line.stop(PATIENCE)
        assert all(future.result(0).recorded.row.verdict is Verdict.OK for future in futures)
        with pytest.raises(NotReady):
            station.submit(part(11))


def test_stopping_in_time_loses_no_part(folder):
    with running(folder) as line:
        station = line.stations["press"]
        futures = [station.submit(part(1, "hang")), station.submit(part(2))]
        line.stop(0.05)
        rows = [future.result(0).recorded.row for future in futures]
        assert [row.cause for row in rows] == [Cause.RESULTS_LOST.value] * 2
    with Store.open(folder) as store:
        assert [row.verdict for row in store.inspections()] == [Verdict.ERROR] * 2


def test_thresholds_and_model_change_between_two_parts(folder):
    with running(folder) as line:
        station, first = line.stations["press"], line.stations["press"].model
        hanging = station.submit(part(1, "hang"))
        until(lambda: first.judged)
        version = line.activate_thresholds("press", 0.8, 1.2, who="eva", why="fewer false rejects")
        station.set_model(FakeJudge(Path("new.andon")), version.thresholds)
        waiting = station.submit(part(2))
        first.go.set()
        rows = [future.result(PATIENCE).recorded.row for future in (hanging, waiting)]
        assert [row.model_sha256[:5] for row in rows] == ["press", "new00"]
        assert [row.threshold_version for row in rows] == [None, version.id]
        assert station.model.judged[0][1] == Thresholds(0.8, 1.2, version.id)


def test_images_of_unwanted_verdicts_are_not_kept(folder):
    with running(folder, rules=(), keep_images=("NG",)) as line:
        rows = [answer(line.stations["press"], k, word) for k, word in enumerate(["OK", "NG", "raise"])]
        assert [row.image_key is not None for row in rows] == [False, True, False]
        assert all(row.image_sha256 for row in rows)


def test_answer_says_how_long_it_took_and_why_it_is_error(line):
    station = line.stations["press"]
    good, bad = (station.submit(part(next(NUMBERS), word)).result(PATIENCE) for word in ("OK", "ERROR"))
    assert good.ms >= sum(good.recorded.row.ms.values()) - good.recorded.row.ms["judge"] > 0
    assert (good.why, bad.why) == ("", "told to")


def test_two_stations_are_independent(folder):
    with running(folder, "press", "saw") as line:
        press, saw = line.stations.values()
        hanging = press.submit(part(1, "hang"))
        assert [answer(saw, k).verdict for k in range(2, 6)] == [Verdict.OK] * 4
        for k in range(6, 9):
            answer(saw, k, "NG")
        until(lambda: saw.view().wants_stop)
        assert not press.view().wants_stop
        assert not hanging.done()


@settings(max_examples=10, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(["OK", "NG", "REVIEW", "raise", "nan", "ERROR", "full", "again"]), max_size=10
    )
)
def test_no_ok_without_its_row(line: Line, words: list[str]):
    """At the moment a future resolves with OK, another connection reads the row."""
    station, record, number = line.stations["press"], line.store.record, next(NUMBERS)
    rows_at_ok, futures = [], []

    def look(future: Future) -> None:
        if future.exception() is None and future.result().recorded.row.verdict is Verdict.OK:
            rows_at_ok.append(line.store.by_request(future.result().recorded.row.request_id))

    def full(new: object) -> Future:
        raise StoreFull("full")

    for word in words:
        number = number if word == "again" else next(NUMBERS)
        try:
            line.store.record = full if word == "full" else record
            futures.append(station.submit(part(number, "OK" if word in ("full", "again") else word)))
            futures[-1].add_done_callback(look)
            if word == "full":
                futures[-1].exception(PATIENCE)
                line.store_watch.look_at_store()
                until(lambda: not station.faults)
        except RequestConflict:
            continue
        finally:
            line.store.record = record
    for future in futures:
        if future.exception(PATIENCE) is None:
            row = future.result().recorded.row
            assert line.store.inspection(row.id) == row or row.image_state is ImageState.PENDING
    assert all(row is not None and row.verdict is Verdict.OK for row in rows_at_ok)


def test_a_missing_model_closes_the_store(folder):
    def no_model(pack: Path, *, threads: int) -> FakeJudge:
        raise DataError(f"{pack} is no packed detector")

    with pytest.raises(DataError):
        Line(line_settings(folder), open_judge=no_model)
    Store.open(folder).close()
