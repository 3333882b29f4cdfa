"""Killed processes, power loss, full disks: nothing that was answered is lost, nothing is there twice."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from andon.line.store import DiskLimits, Store, StoreFull
from andon.line.verdicts import Verdict
from line.storing import part

SMALL = DiskLimits(low_share=0, low_bytes=0, short_share=0, reserve_bytes=0)


def rows_of(database: Path) -> list[tuple[int, str]]:
    """(id, request id) of all rows, after an integrity check and a comparison with the counters."""
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT id, request_id FROM inspection ORDER BY id").fetchall()
        assert connection.execute("SELECT coalesce(sum(n), 0) FROM counter").fetchone() == (len(rows),)
        return rows
    finally:
        connection.close()


def write_until_killed(folder: Path, first: int, answers: int) -> None:
    """Store parts, four at a time, and write the number of each committed one to the pipe `answers`."""
    with Store.open(folder, limits=SMALL) as store:
        for number in range(first, first + 100_000, 4):
            waiting = [
                (n, store.record(part(n, trigger_no=None, image=bytes([n % 256]) * 5000)))
                for n in range(number, number + 4)
            ]
            for n, future in waiting:
                assert future.result().row.verdict is Verdict.OK
                os.write(answers, f"{n}\n".encode())


def killed_at_random(folder: Path, first: int, seconds: float) -> list[int]:
    """Numbers of the parts that a killed process had answered."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            write_until_killed(folder, first, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert select.select([pipe], [], [], 30)[0], "the child does not answer"
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return [int(line) for line in pipe.read().split("\n")[:-1]]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.service)])
def test_killed_at_random_points(folder, kills):
    random.seed(kills)
    answered: list[int] = []
    for kill in range(kills):
        answered += killed_at_random(folder, 1_000_000 * kill, random.uniform(0.0, 0.15))
    rows = rows_of(folder / "andon.sqlite")
    requests = [request for _, request in rows]
    assert len(requests) == len(set(requests))
    assert {f"request-{number}" for number in answered} <= set(requests)
    assert answered
    with Store.open(folder) as store:
        last = store.inspections(limit=1000)
        for row in last:
            image = store.image(row)
            assert (image is not None) == (row.image_state.name == "STORED"), row
            assert image is None or len(image) == 5000


def test_power_loss_loses_no_answered_row_and_halves_none(sqlite_store, folder, tmp_path):
    """Database and log are copied while parts are stored, and the copy's log is cut at any byte."""
    for number in range(5):
        sqlite_store.record(part(number)).result()
    answered_before = 5
    waiting = [sqlite_store.record(part(number)) for number in range(5, 40)]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("andon.sqlite", "andon.sqlite-wal"):
        shutil.copy(folder / name, copy)
    assert len([future.result() for future in waiting]) == 35
    full = (copy / "andon.sqlite-wal").read_bytes()
    counts = []
    for cut in (len(full), len(full) - 1, len(full) - 5000, len(full) // 2, 100, 0):
        trial = tmp_path / f"cut-{cut}"
        shutil.copytree(copy, trial)
        (trial / "andon.sqlite-wal").write_bytes(full[:cut])
        rows = rows_of(trial / "andon.sqlite")
        assert [row for row, _ in rows] == [*range(1, len(rows) + 1)]
        counts.append(len(rows))
    assert counts[0] >= answered_before
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


def test_a_full_database_says_so_and_recovers_without_restart(sqlite_store):
    sqlite_store.record(part(0)).result()
    pages = sqlite_store.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar()).result()
    sqlite_store.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar()).result()
    futures = [sqlite_store.record(part(n, part_id="x" * 300)) for n in range(1, 60)]
    errors = [future.exception() for future in futures]
    refused = [error for error in errors if error is not None]
    assert refused
    assert {type(error) for error in refused} == {StoreFull}
    assert "\n" not in str(refused[0])
    sqlite_store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000").scalar()).result()
    sqlite_store.record(part(1000)).result()
    assert sqlite_store.counts("press", since=0) == {Verdict.OK: 2 + errors.count(None)}


@pytest.mark.service
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root")
def test_a_full_disk(tmp_path, empty_store, monkeypatch):
    """On a file system of 16 MB: images go first, then rows are refused; after space is freed it goes on."""
    monkeypatch.setattr("andon.line.store.images.disk_usage", shutil.disk_usage)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
    try:
        folder = shutil.copytree(empty_store, disk / "store")
        limits = DiskLimits(low_share=0, low_bytes=0, short_share=0, reserve_bytes=8_000_000)
        with Store.open(folder, limits=limits) as store:
            rows = [store.record(part(n, image=bytes(100_000))).result().row for n in range(100)]
            assert [row.verdict for row in (rows[0], rows[-1])] == [Verdict.OK, Verdict.ERROR]
            kept = store.record(part(100, image=bytes(100_000), on_full_disk="ok_without_image")).result()
            assert kept.row.verdict is Verdict.OK
            ballast = disk / "ballast"
            with contextlib.suppress(OSError):
                ballast.write_bytes(bytes(16_000_000))
            errors: list[BaseException | None] = []
            while not any(errors):  # one commit each: the log still has room inside its file
                assert len(errors) < 5000
                errors.append(
                    store.record(part(200 + len(errors), on_full_disk="ok_without_image")).exception()
                )
            assert isinstance(errors[-1], StoreFull)
            ballast.unlink()
            shutil.rmtree(folder / "images")
            again = store.record(part(9000, image=bytes(100_000))).result().row
            assert again.verdict is Verdict.OK
        assert len(rows_of(folder / "andon.sqlite")) == 102 + errors.count(None)
    finally:
        subprocess.run(["umount", disk], check=True)
