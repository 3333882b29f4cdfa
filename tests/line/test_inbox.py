"""Drop folder: every file is judged once, whatever happens to it, to the folder and to the process."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from andon.line.faults import Fault
from andon.line.inbox import Inbox, files, inbox
from andon.line.inbox.table import AnswerTable, _begun
from andon.line.judge import Judgement, Thresholds
from andon.line.line import Line
from andon.line.settings import FolderSettings
from andon.line.station import NotReady
from andon.line.store import Inspection, StoreUnavailable
from andon.line.verdicts import Cause, Verdict
from line.running import PATIENCE, PICTURE, BadModel, FakeJudge, part, running, until


class Judge(FakeJudge):
    """Looks at the image, and calls `before` first."""

    before: Callable[[], object] = staticmethod(lambda: None)

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        self.before()
        if not files.is_image(image):
            return Judgement.failed(Cause.NOT_AN_IMAGE, "no image")
        return super().judge(image, thresholds)


@pytest.fixture(scope="module")
def line(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("line") / "store")
    with running(folder, judge=Judge, rules=()) as opened:
        yield opened


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def looking(line: Line, drop: Path, **changes: Any) -> Inbox:
    """An inbox that looks when a test says so; files are complete at once."""
    settings = FolderSettings(**{"path": drop, "poll_ms": 20, **changes})
    if "stable_ms" not in changes:
        settings = settings.model_copy(update={"stable_ms": 0})
    return Inbox(settings, line.stations["press"], line.store, line.alarms)


def put(drop: Path, name: str, word: str = "OK") -> bytes:
    content = PICTURE + f"|{word}|{name}".encode(errors="replace")
    (drop / name).write_bytes(content)
    return content


def rows(line: Line, drop: Path, seen: int = 0) -> dict[str, Inspection]:
    """Inspections by part id, which no two share; the part ids of a test begin with its folder's name where needed."""
    found = line.store.inspections(limit=1000)
    new = {row.part_id: row for row in found if row.id > seen}
    assert len(new) == len([row for row in found if row.id > seen])
    return new


@pytest.fixture
def seen(line: Line) -> int:
    """The last id before the test."""
    found = line.store.inspections(limit=1)
    return found[0].id if found else 0


def moved(drop: Path) -> list[str]:
    return sorted(path.name for path in drop.glob("done/????-??-??/*"))


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def answer(drop: Path, name: str) -> dict[str, Any]:
    return json.loads((drop / "answers" / f"{name}.json").read_text(encoding="utf-8"))


def test_a_file_is_judged_answered_and_moved(line, drop, seen):
    content = put(drop, "L7_041.png", "NG")
    looking(line, drop, names=r"(?P<lot>L\d+)_(?P<part_id>\d+)").look()
    row = rows(line, drop, seen)["041"]
    assert (row.verdict, row.lot) == (Verdict.NG, "L7")
    day = time.strftime("%Y-%m-%d", time.localtime(row.t_done / 1e6))
    assert (drop / "done" / day / "L7_041.png").read_bytes() == content
    assert sorted(path.name for path in drop.iterdir()) == ["answers", "done"]
    told = answer(drop, "L7_041.png")
    assert (told["id"], told["verdict"], told["file"]) == (row.id, "NG", "L7_041.png")


@pytest.mark.parametrize("broken", ["write_answer", "put_away"])
def test_killed_after_the_row(line, drop, seen, monkeypatch, broken):
    put(drop, "a.png")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, broken, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        looking(line, drop).look()
    (row,) = rows(line, drop, seen).values()
    judged = len(line.stations["press"].model.judged)
    looking(line, drop).look()
    assert list(rows(line, drop, seen).values()) == [row]
    assert len(line.stations["press"].model.judged) == judged
    assert moved(drop) == ["a.png"]
    assert answer(drop, "a.png")["id"] == row.id


def test_names(line, drop, seen):
    names = [
        "ä 中文 😀.png",
        "x" * 251 + ".png",
        "y" * 246 + ".png",
        "no suffix",
        os.fsdecode(b"\xff" * 200 + b".png"),
    ]
    for name in names:
        put(drop, name)
    looking(line, drop).look()
    assert moved(drop) == sorted(names)
    found = rows(line, drop, seen)
    assert set(found) > {"ä 中文 😀", "no suffix", "x" * 251}
    assert answer(drop, "ä 中文 😀.png")["part_id"] == "ä 中文 😀"
    assert len(list((drop / "answers").glob("*.json"))) == len(names)


def test_what_is_no_part(line, drop, seen):
    for name in (".hidden.png", "~a.png", "a.png.tmp", "a.PART", "a.png.done", "Thumbs.db"):
        put(drop, name)
    (drop / "folder.png").mkdir()
    (drop / "link.png").symlink_to(drop / ".hidden.png")
    before = sorted(drop.iterdir())
    looking(line, drop).look()
    assert sorted(drop.iterdir()) == before
    assert not rows(line, drop, seen)


@pytest.mark.parametrize("after", ["move", "delete", "keep"])
@pytest.mark.parametrize("then", ["damaged", "waiting"])
def test_an_answer_is_never_older_than_the_file(line, drop, seen, monkeypatch, after, then):
    watched = looking(line, drop, after=after)
    good = put(drop, "a.png")
    watched.look()
    assert answer(drop, "a.png")["image_sha256"] == hashlib.sha256(good).hexdigest()
    if then == "damaged":
        (drop / "a.png").write_bytes(PICTURE[:-40])
    else:
        put(drop, "a.png", "REVIEW")
        monkeypatch.setattr(line.stations["press"], "offer", raising(NotReady("FAULT")))
    watched.look()
    assert not (drop / "answers" / "a.png.json").exists()
    monkeypatch.undo()
    put(drop, "a.png", "NG")  # changed before it was judged
    watched.look()
    assert answer(drop, "a.png")["verdict"] == "NG"


def test_a_file_of_equal_name_size_and_time_is_another_part(line, drop, seen):
    watched = looking(line, drop)
    put(drop, "a.png", "OK")
    time_of_all = (drop / "a.png").stat().st_mtime_ns
    watched.look()
    put(drop, "a.png", "NG")
    os.utime(drop / "a.png", ns=(time_of_all, time_of_all))
    watched.look()
    assert answer(drop, "a.png")["verdict"] == "NG"


def test_an_answer_to_a_file_that_was_replaced_meanwhile_does_not_stay(line, drop, monkeypatch):
    add = AnswerTable.add

    def replacing(table: AnswerTable, name: str, row: Inspection) -> None:
        add(table, name, row)
        put(drop, "a.png", "REVIEW")

    put(drop, "a.png")
    monkeypatch.setattr(AnswerTable, "add", replacing)
    looking(line, drop).look()
    assert not (drop / "answers" / "a.png.json").exists()


def test_a_file_waits_while_its_old_answer_cannot_be_removed(line, drop, seen):
    watched, old = looking(line, drop), drop / "answers" / "a.png.json"
    (old / "inside").mkdir(parents=True)
    put(drop, "a.png")
    watched.look()
    assert "cannot be removed" in line.stations["press"].faults["folder"]
    assert not rows(line, drop, seen)
    (old / "inside").rmdir()
    old.rmdir()
    watched.look()
    assert answer(drop, "a.png")["verdict"] == "OK"
    assert not line.stations["press"].faults


def test_equal_bytes_and_equal_names_are_further_parts(line, drop, seen):
    look = looking(line, drop).look
    content = put(drop, "a.png")
    (drop / "b.png").write_bytes(content)
    look()
    first = rows(line, drop, seen)
    assert len({row.request_id for row in first.values()}) == 2
    put(drop, "a.png")
    look()
    again = line.store.inspections(part_id="a")[0]
    assert again.id > first["b"].id
    assert moved(drop) == [f"a.{again.id}.png", "a.png", "b.png"]
    a = first["a"].same_as or first["a"].id  # the first of the line, which tests share
    assert (first["b"].same_as, again.same_as, answer(drop, "b.png")["same_as"]) == (a, a, a)


def test_a_table_of_answers_with_lines_that_are_not_ours_is_continued(tmp_path):
    table = tmp_path / "answers/answers-2026-11-29.csv"
    table.parent.mkdir()
    table.write_text(f"id,file\n7,a.png\n8,{'x' * 200_000}\n{'9' * 5000},b\n10,c.png\n11,d")
    assert _begun(table) == {7, 10}
    assert table.read_bytes().endswith(b"11,d\r\n")


def test_answers_are_a_table_with_one_line_for_each_part(line, drop, seen):
    look = looking(line, drop, after="keep").look
    for name, word in (("=1+1.png", "OK"), ("bad.png", "NG")):
        put(drop, name, word)
    look()
    (file,) = drop.glob("answers/answers-????-??-??.csv")
    with file.open(encoding="utf-8", newline="") as table:
        told = list(csv.DictReader(table))
    assert [(row["file"], row["part_id"], row["verdict"], row["same_as"]) for row in told] == [
        ("./=1+1.png", "./=1+1", "OK", ""),
        ("bad.png", "bad", "NG", ""),
    ]
    assert [int(row["id"]) for row in told] == [row.id for row in rows(line, drop, seen).values()][::-1]
    whole = file.read_bytes()
    looking(line, drop, after="keep").look()  # after a restart all are told again
    assert file.read_bytes() == whole
    file.write_bytes(whole[:-9])  # a line that a power failure left half
    looking(line, drop, after="keep").look()
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[-1] == whole.decode().splitlines()[-1]
    assert len(lines) == 4


def test_many_files_in_order(line, drop, seen):
    for k in range(20):
        put(drop, f"{k * 7 % 20:03}.png")
    looking(line, drop).look()
    found = sorted(rows(line, drop, seen).values(), key=lambda row: row.id)
    assert [row.part_id for row in found] == [f"{k:03}" for k in range(20)]
    assert len(moved(drop)) == 20


def test_order_by_time(line, drop, seen):
    for k, name in enumerate(["c.png", "a.png", "b.png"]):
        put(drop, name)
        os.utime(drop / name, ns=(k, k))
    looking(line, drop, order="time").look()
    assert list(rows(line, drop, seen)) == ["b", "a", "c"]  # newest first


def test_files_that_are_being_written_wait(line, drop, seen):
    watched = looking(line, drop, stable_ms=30)
    put(drop, "a.png")
    watched.look()
    time.sleep(0.035)
    with (drop / "a.png").open("ab") as file:
        file.write(b" ")
    watched.look()  # changed: the time begins again
    assert not rows(line, drop, seen)
    time.sleep(0.035)
    watched.look()
    assert len(rows(line, drop, seen)) == 1


@pytest.mark.parametrize("missing", [4, 20, 40])
def test_half_an_image_waits_for_the_rest(line, drop, seen, missing):
    watched = looking(line, drop)
    (drop / "a.png").write_bytes(PICTURE[:-missing])
    watched.look()
    watched.look()
    assert not rows(line, drop, seen)
    put(drop, "a.png")
    watched.look()
    assert rows(line, drop, seen)["a"].verdict is Verdict.OK


@pytest.mark.parametrize("content", [PICTURE[:-40], b"", b"hello"], ids=["half", "empty", "text"])
def test_what_stays_unreadable_is_error(line, drop, seen, monkeypatch, content):
    monkeypatch.setattr(inbox, "UNREADABLE_SECONDS", 0.02)
    watched = looking(line, drop, after="keep")
    (drop / "a.png").write_bytes(content)
    watched.look()
    time.sleep(0.025)
    watched.look()
    row = rows(line, drop, seen)["a"]
    assert (row.verdict, row.cause) == (Verdict.ERROR, Cause.NOT_AN_IMAGE)
    assert (drop / "bad" / "a.png").read_bytes() == content
    assert answer(drop, "a.png")["verdict"] == "ERROR"
    assert inbox.BAD_FILES in [alarm.rule for alarm in line.alarms.active("press")]


def test_a_file_that_is_too_large_is_error(line, drop, seen, monkeypatch):
    monkeypatch.setattr(inbox, "UNREADABLE_SECONDS", 0.0)
    monkeypatch.setattr(files, "LARGEST", 50)
    watched = looking(line, drop)
    put(drop, "a.png")
    watched.look()
    watched.look()
    assert rows(line, drop, seen)["a"].cause == Cause.NOT_AN_IMAGE


def test_replaced_while_it_is_judged(line, drop, seen, monkeypatch):
    def replace() -> None:
        monkeypatch.undo()
        (drop / ".new").write_bytes(PICTURE + b"|NG|new")
        (drop / ".new").rename(drop / "a.png")

    monkeypatch.setattr(Judge, "before", staticmethod(replace))
    watched = looking(line, drop)
    put(drop, "a.png")
    watched.look()
    assert (drop / "a.png").exists()
    watched.look()
    found = [row for row in line.store.inspections(part_id="a") if row.id > seen]
    assert [row.verdict for row in found] == [Verdict.NG, Verdict.OK]
    assert moved(drop) == ["a.png"]


@pytest.mark.parametrize("again", [False, True])
def test_replaced_in_the_last_moment(line, drop, seen, monkeypatch, again):
    rename = Path.rename

    def replacing(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        path.write_bytes(PICTURE + b"|NG|new and longer")
        done = rename(path, target)
        if again:
            put(drop, "a.png", "REVIEW")
        return done

    watched = looking(line, drop)
    put(drop, "a.png")
    monkeypatch.setattr(Path, "rename", replacing)
    watched.look()
    watched.look()
    found = [row.verdict for row in line.store.inspections() if row.id > seen]
    assert sorted(found) == sorted([Verdict.OK, Verdict.NG, *([Verdict.REVIEW] if again else [])])


def test_deleted_meanwhile(line, drop, seen, monkeypatch):
    put(drop, "a.png")
    put(drop, "b.png")
    monkeypatch.setattr(Judge, "before", staticmethod(lambda: (drop / "a.png").unlink(missing_ok=True)))
    read = files.read

    def reading(folder: Path, file: files.Found) -> bytes | None:
        if file.name == "b.png":
            (drop / "b.png").unlink()
        return read(folder, file)

    monkeypatch.setattr(files, "read", reading)
    looking(line, drop).look()
    assert list(rows(line, drop, seen)) == ["a"]
    assert not line.stations["press"].faults
    assert moved(drop) == []


def test_delete_and_keep(line, drop, seen):
    put(drop, "a.png")
    looking(line, drop, after="delete").look()
    assert not list(drop.rglob("a.png"))
    put(drop, "b.png")
    kept = looking(line, drop, after="keep")
    kept.look()
    kept.look()
    looking(line, drop, after="keep").look()  # as after a restart
    assert (drop / "b.png").exists()
    put(drop, "b.png", "NG")  # a new part
    kept.look()
    found = [row.verdict for row in line.store.inspections(part_id="b") if row.id > seen]
    assert found == [Verdict.NG, Verdict.OK]


def test_a_mark_of_completeness(line, drop, seen):
    watched = looking(line, drop, ready_file=True)
    put(drop, "a.png")
    watched.look()
    assert not rows(line, drop, seen)
    (drop / "a.png.done").touch()
    watched.look()
    assert len(rows(line, drop, seen)) == 1
    assert not list(drop.glob("*.done"))


def test_what_cannot_be_moved_is_moved_later(line, drop, seen):
    station, watched = line.stations["press"], looking(line, drop)
    (drop / "done").touch()
    put(drop, "a.png")
    watched.look()
    watched.look()
    assert "cannot be put away" in station.faults["folder"]
    (drop / "done").unlink()
    watched.look()
    assert len(rows(line, drop, seen)) == 1
    assert moved(drop) == ["a.png"]
    assert not station.faults


def test_a_locked_file_is_tried_again(line, drop, seen, monkeypatch):
    station, watched = line.stations["press"], looking(line, drop)
    put(drop, "a.png")
    monkeypatch.setattr(inbox, "UNREADABLE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(files, "read", lambda *_: (_ for _ in ()).throw(PermissionError(13, "locked")))
        watched.look()
        assert "locked" in station.faults["folder"]
    watched.look()
    assert len(rows(line, drop, seen)) == 1
    assert not station.faults


def test_a_folder_that_vanishes_and_returns(line, drop, seen):
    station, watched = line.stations["press"], looking(line, drop)
    put(drop, "a.png")
    drop.rename(drop.with_name("away"))
    watched.look()
    assert "bring the folder back" in station.faults["folder"]
    until(lambda: "fault: folder" in [alarm.rule for alarm in line.alarms.active("press")])
    drop.with_name("away").rename(drop)
    watched.look()
    assert len(rows(line, drop, seen)) == 1
    assert not station.faults


def test_a_backlog_is_an_alarm(line, drop):
    def present() -> bool:
        return any(
            a.rule == inbox.BACKLOG and a.state.value.startswith("active")
            for a in line.alarms.active("press")
        )

    for k in range(3):
        put(drop, f"{k}.png")
    watched = looking(line, drop, backlog=2)
    watched.look()
    assert present()
    watched.look()
    assert not present()


def test_a_part_without_a_row_is_judged_again(line, drop, seen, monkeypatch):
    watched = looking(line, drop)
    put(drop, "a.png")
    with monkeypatch.context() as patch:
        patch.setattr(line.store, "record", lambda new: (_ for _ in ()).throw(StoreUnavailable("gone")))
        watched.look()
    assert not rows(line, drop, seen)
    assert (drop / "a.png").exists()
    line.store_watch.look_at_store()
    until(lambda: Fault.STORE not in line.stations["press"].faults)
    watched.look()
    assert len(rows(line, drop, seen)) == 1


def test_a_full_queue_makes_files_wait(folder, drop):
    with running(folder, rules=(), queue=1, cycle_s=30.0) as line:
        station = line.stations["press"]
        futures = [station.submit(part(1, "hang"))]
        until(lambda: station.waiting == 0)
        futures.append(station.submit(part(2)))
        watched = looking(line, drop)
        put(drop, "a.png")
        watched.look()
        station.model.go.set()
        assert [future.result(PATIENCE).recorded.row.verdict for future in futures] == [Verdict.OK] * 2
        watched.look()
        assert [row.verdict for row in line.store.inspections()] == [Verdict.OK] * 3


def test_a_model_that_fails_makes_files_wait(folder, drop):
    with running(folder, judge=BadModel) as line:
        put(drop, "a.png")
        looking(line, drop).look()
        assert line.store.inspections() == []
        assert (drop / "a.png").exists()


def test_a_running_line_judges_what_a_slow_writer_writes(folder, drop):
    content = PICTURE + b"|NG|" + bytes(4000)

    def write() -> None:
        with (drop / "a.png").open("wb", buffering=0) as file:
            for k in range(0, len(content), 1500):
                file.write(content[k : k + 1500])
                time.sleep(0.01)

    settings = FolderSettings(path=drop, stable_ms=60, poll_ms=5000)  # woken by changes
    with running(folder, folder=settings) as line:
        writer = threading.Thread(target=write)
        writer.start()
        until(lambda: moved(drop))
        writer.join()
        assert [row.verdict for row in line.store.inspections()] == [Verdict.NG]
        assert [image for image, _ in line.stations["press"].model.judged] == [content]
