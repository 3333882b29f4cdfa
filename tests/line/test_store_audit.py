"""Audit: every change of a stored row shows, and so does a missing one."""

from __future__ import annotations

import json
import logging
import sqlite3

import pytest

from andon.core.errors import DataError, UsageError
from andon.line.clock import DAY, SECOND, JumpWatch
from andon.line.store import Store, audit
from andon.line.store.audit import Entry, Head
from line.storing import part


@pytest.fixture
def chain(sqlite_store, folder):
    """A closed store with five audit rows; returns its file and the head."""
    for number in range(5):
        head = sqlite_store.audit(
            Entry(
                f"Åsa {number}",
                "threshold",
                "station press",
                old={"accept": 1.0},
                new={"accept": 0.9},
                reason="why",
            )
        ).result()
    sqlite_store.close()
    return folder / "andon.sqlite", head


def tampered(file, *statements):
    """Change rows behind the triggers."""
    database = sqlite3.connect(file)
    for action in ("update", "delete"):
        database.execute(f"DROP TRIGGER audit_no_{action}")
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def problem(folder, known=None) -> str:
    with Store.open(folder) as store:
        return store.ask(lambda connection: audit.verify(connection, known)).problem


def test_a_sound_chain(chain):
    file, head = chain
    assert head.seq == 5
    with Store.open(file.parent) as store:
        assert store.ask(audit.head) == store.ask(audit.check) == head
        assert store.ask(lambda c: audit.check(c, Head.parse(str(head)))) == head
        assert store.audit(Entry("b", "more")).result().seq == 6
    assert problem(file.parent, head) == ""


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE audit SET who = 'somebody' WHERE seq = 3", "row 3 was changed"),
        ("UPDATE audit SET new_json = '{\"accept\":0.8}' WHERE seq = 1", "row 1 was changed"),
        ("UPDATE audit SET at = at + 1 WHERE seq = 5", "row 5 was changed"),
        ("DELETE FROM audit WHERE seq = 2", "row 2 is missing"),
        ("DELETE FROM audit WHERE seq = 1", "row 1 is missing"),
        ("UPDATE audit SET prev_hash = hash WHERE seq = 4", "row 4 does not follow"),
        ("DELETE FROM audit WHERE seq > 3", "rows 4 to 5 at the end are missing"),
    ],
)
def test_a_change_shows(chain, statement, words):
    file, head = chain
    tampered(file, statement)
    assert words in problem(file.parent, head)
    with Store.open(file.parent) as store, pytest.raises(DataError, match="not sound"):
        store.ask(lambda connection: audit.check(connection, head))


def test_a_chain_written_anew_differs_from_its_head(chain):
    file, head = chain
    database = sqlite3.connect(file)
    database.row_factory = sqlite3.Row
    rows, previous = [], audit.BEGIN
    for row in map(dict, database.execute("SELECT * FROM audit ORDER BY seq")):
        row |= {"who": "nobody", "prev_hash": previous}
        previous = audit.row_hash(row)
        rows.append((row["who"], row["prev_hash"], previous, row["seq"]))
    database.close()
    tampered(file)
    database = sqlite3.connect(file)
    database.executemany("UPDATE audit SET who = ?, prev_hash = ?, hash = ? WHERE seq = ?", rows)
    database.commit()
    database.close()
    assert problem(file.parent) == ""
    assert "rewritten" in problem(file.parent, head)


def test_a_head_is_read_back():
    head = Head(3, "a" * 64)
    assert Head.parse(f" {head}\n") == head
    with pytest.raises(UsageError, match="NUMBER:HASH"):
        Head.parse("3:abc")


def test_the_head_is_logged_each_day(folder, caplog):
    now = 100 * DAY
    with caplog.at_level(logging.INFO), Store.open(folder, clock=lambda: now) as store:
        heads = []
        for day in (100, 100, 101):
            now = day * DAY
            heads.append(store.audit(Entry("a", "b")).result())
    assert [r.getMessage() for r in caplog.records if "audit head" in r.getMessage()] == [
        f"audit head {heads[0]}",
        f"audit head {heads[2]}",
    ]


def test_a_clock_that_was_set_is_in_the_audit(folder):
    now = 100 * DAY
    with Store.open(folder, clock=lambda: now) as store:
        store.record(part(1)).result()
        now -= 3600 * SECOND
        store.record(part(2)).result()
        store.record(part(3)).result()
        rows = store.ask(lambda c: c.exec_driver_sql("SELECT action, new_json FROM audit").all())
    assert [row[0] for row in rows] == ["clock set"]
    assert json.loads(rows[0][1])["seconds"] == pytest.approx(-3600, abs=5)


def test_jumps_are_differences_from_the_steady_clock():
    wall, steady = [0], [0]
    watch = JumpWatch(lambda: wall[0], lambda: steady[0])
    assert watch.jump() == 0
    wall[0] = steady[0] = 100 * SECOND
    assert watch.jump() == 0
    wall[0] += 10 * SECOND
    assert (watch.jump(), watch.jump()) == (10 * SECOND, 0)
