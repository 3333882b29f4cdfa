"""Retention: what the rule no longer keeps goes, what it protects stays, and the audit says how much."""

from __future__ import annotations

import json
import shutil
import threading
import tracemalloc
from pathlib import Path

import pytest

from andon.line.clock import DAY, HOUR
from andon.line.review.reviews import Answer, Reviews
from andon.line.review.settings import ReviewSettings
from andon.line.settings import RetentionSettings
from andon.line.store import ImageState, Store, audit, retention, rows
from andon.line.verdicts import Opinion, Queued, Verdict
from line.running import until
from line.storing import part

NOW = 1000 * DAY
AGES = [400, 200, 100, 40, 20, 10, 2, 1]
"""Days; two parts of each age, the first OK, the second NG."""


@pytest.fixture(scope="module")
def aged(empty_store, tmp_path_factory) -> Path:
    """Folder of a store with old parts of 1,000 bytes each."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("aged") / "store")
    now = NOW
    with Store.open(folder, clock=lambda: now) as store:
        for number, age in enumerate(AGES):
            now = NOW - age * DAY
            for offset, verdict in enumerate((Verdict.OK, Verdict.NG)):
                store.record(
                    part(2 * number + offset, t_done=now, verdict=verdict, image=bytes(900), map=bytes(100))
                ).result()
    return folder


@pytest.fixture
def old(aged, tmp_path):
    with Store.open(shutil.copytree(aged, tmp_path / "store"), clock=lambda: NOW) as store:
        yield store


def kept(store) -> dict[str, list[int]]:
    """Ages in days of the parts whose image is there, by verdict."""
    ages: dict[str, list[int]] = {"OK": [], "NG": []}
    for row in store.inspections():
        there = store.image(row) is not None
        assert there == (row.image_state is ImageState.STORED)
        assert there == (store.map(row) is not None)
        if there:
            ages[row.verdict.name].append((NOW - row.t_done) // DAY)
    return {name: ages[::-1] for name, ages in ages.items()}


def apply(store, stop=None, **rule):
    return retention.run(
        store, RetentionSettings(**{"keep_ng": 1, **rule}), stop or threading.Event(), share=1.0
    )


def test_images_go_by_age(old):
    done = apply(old, ok_days=30, bad_days=150)
    assert kept(old) == {"OK": [20, 10, 2, 1], "NG": [100, 40, 20, 10, 2, 1]}
    assert (done.images, done.bytes, done.rows, done.complete) == (6, 6000, 0, True)
    assert len(old.inspections()) == 16
    assert not [*old.folder.glob("images/*/*/*/*")][7:]  # folders of the oldest hours are gone
    assert apply(old, ok_days=30, bad_days=150).images == 0


def test_a_run_is_in_the_audit(old):
    apply(old, ok_days=30)
    entry = old.ask(lambda c: rows.find(c, "audit"))[0]
    assert (entry["action"], json.loads(entry["new_json"])["images"]) == ("retention", 4 + 1)
    assert '"ok_days":30' in entry["reason"]
    old.ask(audit.check)


def test_the_newest_bad_parts_and_open_alarms_stay(old):
    station = old.ask(lambda c: rows.find(c, "station"))[0]["id"]
    common = {"station_id": station, "rule": "r", "state": "ACTIVE", "raised": 1}
    old.write(lambda c: rows.add(c, "alarm", **common, inspection_from=1, inspection_to=2)).result()
    old.write(
        lambda c: rows.add(c, "alarm", **common, inspection_from=4, inspection_to=4, resolved=2)
    ).result()
    apply(old, ok_days=0, bad_days=0, keep_ng=3)
    assert kept(old) == {"OK": [400], "NG": [400, 10, 2, 1]}


def test_the_oldest_passed_parts_go_first_when_there_is_too_much(old):
    apply(old, ok_days=500, bad_days=500, image_gb=10_500 / 1e9)
    assert kept(old) == {"OK": [2, 1], "NG": AGES}
    apply(old, ok_days=500, bad_days=500, image_gb=6_000 / 1e9)
    assert kept(old) == {"OK": [], "NG": AGES[2:]}


def test_rows_go_after_their_images_and_ids_go_on(old):
    done = apply(old, ok_days=500, bad_days=500, row_days=30)
    assert done.rows == 8
    assert [(NOW - row.t_done) // DAY for row in old.inspections()][::-2] == [20, 10, 2, 1]
    assert kept(old) == {"OK": [20, 10, 2, 1], "NG": [20, 10, 2, 1]}
    assert apply(old, row_days=0).rows == 7
    assert old.record(part(500)).result().id == 17


def test_a_run_can_be_stopped(old):
    stop = threading.Event()
    stop.set()
    done = apply(old, stop, ok_days=0, bad_days=0)
    assert (done.images, done.complete) == (0, False)


def test_a_run_leaves_the_disk_to_others(old, monkeypatch):
    waits = []
    monkeypatch.setattr(retention, "BATCH", 5)
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", waits.append)
    retention.run(old, RetentionSettings(ok_days=0, keep_ng=1), stop)
    assert len(waits) == 2
    assert min(waits) > 0


def test_folders_of_this_hour_stay(sqlite_store, folder):
    now = sqlite_store.clock()
    sqlite_store.record(part(1, image=b"x", t_done=now - HOUR)).result()
    sqlite_store.close()
    with Store.open(folder) as again:
        apply(again, ok_days=0)
        assert len([*folder.glob("images/*/*/*/*")]) == 1


def test_images_of_reviewed_parts_stay_and_parts_without_image_wait_no_more(old):
    reviews = Reviews(old, {"press": ReviewSettings()})
    rows_of = {row.id: row for row in old.inspections()}
    reviews.judge(rows_of[3], Answer("Ada", Opinion.GOOD), based_on=0)
    old.record(
        part(900, t_done=1, verdict=Verdict.REVIEW, image=bytes(9), map=bytes(9), review_why=Queued.BAND)
    ).result()
    until(lambda: old.inspections(limit=1)[0].image_state is ImageState.STORED)
    old.record(part(901, verdict=Verdict.NG)).result()
    apply(old, ok_days=0, bad_days=0)
    assert kept(old) == {"OK": [200], "NG": []}
    assert [item["id"] for item in old.ask(lambda c: rows.find(c, "review_item"))] == [3]
    apply(old, row_days=0)
    assert old.ask(lambda c: rows.find(c, "review_item")) == []
    assert len(reviews.history(3)) == 1


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error"), None]
)
def test_a_file_that_cannot_be_deleted_is_counted_and_keeps_no_other(old, error, monkeypatch):
    """None: a folder is in its place."""
    first = old.inspection(1)
    file = old.folder / first.image_key
    if error is None:
        file.unlink()
        file.mkdir()
    else:
        unlink = Path.unlink

        def refuse(path: Path, **options: bool) -> None:
            if path == file:
                raise error
            unlink(path, **options)

        monkeypatch.setattr(Path, "unlink", refuse)
    done = apply(old, ok_days=0, bad_days=0, row_days=30)
    assert (done.images, done.failed, done.rows) == (14, 1, 7)
    assert first.image_key in done.problem
    assert old.inspection(1).image_state is ImageState.STORED  # the next run tries it again
    entry = old.ask(lambda c: rows.find(c, "audit", action="retention"))[0]
    assert json.loads(entry["new_json"])["failed"] == 1
    monkeypatch.undo()
    if error is None:
        file.rmdir()
    done = apply(old, ok_days=0, bad_days=0, row_days=30)
    assert (done.images, done.failed, done.rows) == (1, 0, 1)


def test_an_alarm_that_is_open_for_long_protects_its_station_alone_and_takes_no_memory(old):
    """Numbers of parts are 1000 apart on PostgreSQL: a span has far more numbers than parts."""
    press = old.ask(lambda c: rows.find(c, "station", name="press"))[0]["id"]
    oven = old.write(lambda c: rows.add(c, "station", name="oven")).result()
    values = {"rule": "r", "state": "ACTIVE", "raised": 1, "inspection_from": 3, "inspection_to": 4 + 10**8}
    old.write(lambda c: rows.add(c, "alarm", **values, station_id=oven)).result()
    tracemalloc.start()
    protected = old.ask(lambda c: retention._protected(c, old.box, 1))
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest < 2**20
    assert protected.spans == {oven: [(3, 4 + 10**8)]}
    assert apply(old, ok_days=0, bad_days=0, keep_ng=1).images == 15
    old.write(lambda c: rows.add(c, "alarm", **values, station_id=press)).result()
    one = old.record(part(900, t_done=1, image=bytes(9), map=bytes(9))).result()
    until(lambda: old.inspection(one.id).image_state is ImageState.STORED)
    assert apply(old, ok_days=0, bad_days=0, keep_ng=1, row_days=36_500).images == 0
