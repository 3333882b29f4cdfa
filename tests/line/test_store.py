"""The store: rows are committed before they are answered, once for each request, and found again by id."""

from __future__ import annotations

import hashlib
import math
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, text

from andon.core.errors import ConfigError, DataError
from andon.line.clock import HOUR, SECOND
from andon.line.store import (
    QueryTimeout,
    Request,
    RequestConflict,
    Store,
    StoreError,
    StoreUnavailable,
    connection,
    queries,
)
from andon.line.verdicts import Cause, Verdict
from line.storing import NOON, part


def test_only_ok_passes():
    assert [verdict for verdict in Verdict if verdict.passes] == [Verdict.OK]
    assert not Verdict(0).passes


def test_a_row_comes_back_as_it_was_answered(store):
    recorded = store.record(part(1, verdict=Verdict.NG, score=1.5, part_id="ä-1")).result()
    assert store.inspection(recorded.id) == recorded.row
    assert store.by_request("request-1") == recorded.row
    assert (recorded.row.verdict, recorded.row.part_id, recorded.row.recipe) == (
        Verdict.NG,
        "ä-1",
        "washer",
    )
    assert store.inspection(99) is None


def test_the_answer_comes_after_the_commit(store):
    for number in range(5):
        recorded = store.record(part(number)).result()
        newest = store.ask(lambda c: c.execute(text("SELECT max(id) FROM inspection")).scalar())
        assert newest == recorded.id


def test_a_request_sent_again_gets_its_first_answer(store):
    first = store.record(part(1, image=b"one")).result()
    again = store.record(part(1, image=b"one", verdict=Verdict.NG, trigger_no=7)).result()
    assert (again.id, again.replayed, again.row.verdict) == (first.id, True, Verdict.OK)
    for other in ({"image": b"two"}, {"image": b"one", "station": "oven"}, {"triggered": True}):
        with pytest.raises(RequestConflict, match=r"another part \(inspection 1 of press\)"):
            store.record(part(1, **other)).result()
    assert store.counts("press", since=0) == {Verdict.OK: 1}
    assert store.counts("oven", since=0) == {}


SHA = hashlib.sha256(b"one").hexdigest()


def test_a_trigger_gets_the_part_of_its_first_time_whatever_the_image(store):
    first = store.record(part(1, image=b"one", triggered=True)).result()
    again = store.record(part(1, image=b"two", triggered=True)).result()
    assert (again.replayed, again.id) == (True, first.id)
    assert store.answered(Request("press", "request-1", None)).id == first.id
    for wrong in (Request("press", "request-1", SHA), Request("oven", "request-1", None)):
        with pytest.raises(RequestConflict):
            store.answered(wrong)


def test_rows_of_an_earlier_andon_answer_both_kinds(store):
    store.record(part(1, image=b"one")).result()
    store.write(lambda c: c.execute(text("UPDATE inspection SET triggered = NULL"))).result()
    assert store.answered(Request("press", "request-1", None)).replayed
    assert store.answered(Request("press", "request-1", SHA)).replayed
    with pytest.raises(RequestConflict):
        store.answered(Request("oven", "request-1", SHA))


def test_many_equal_requests_at_once_give_one_row(store):
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda _: store.record(part(1)).result(), range(100))]
    assert {answer.id for answer in answers} == {1}
    assert sum(not answer.replayed for answer in answers) == 1
    assert store.counts("press", since=0) == {Verdict.OK: 1}


def test_a_trigger_number_counts_once_in_a_session(store, reopen):
    store.record(part(1)).result()
    with pytest.raises(RequestConflict, match="trigger 1 of press"):
        store.record(part(1, request_id="other")).result()
    store.record(part(1, request_id="elsewhere", station="lathe")).result()
    store.close()
    with reopen(clock=lambda: 5) as later:  # the clock was set back
        assert later.session > store.session
        later.record(part(1, request_id="other")).result()


@pytest.mark.parametrize(
    "changes",
    [
        {"score": math.nan},
        {"score_raw": math.inf},
        {"score": None},
        {"verdict": Verdict.NONE},
        {"verdict": Verdict.REVIEW, "score": -math.inf},
    ],
)
def test_without_a_finite_score_the_part_is_an_error(changes):
    checked = part(1, **changes).checked()
    assert (checked.verdict, checked.cause) == (Verdict.ERROR, Cause.NOT_FINITE)
    assert checked.score is checked.score_raw is None


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": ""},
        {"request_id": "ä" * 151},
        {"part_id": "a\0b"},
        {"lot": "\udcff"},
        {"trigger_no": 2**63},
        {"t_trigger": -1},
        {"image_suffix": "/../x"},
    ],
)
def test_what_no_database_stores_is_refused(changes):
    with pytest.raises(DataError):
        part(1, **changes)


def test_what_fails_takes_back_its_own_rows_only(store):
    def wrong(connection):
        connection.execute(text("INSERT INTO station (name) VALUES ('half')"))
        raise ValueError("half done")

    before, failing, refused, after = (
        store.record(part(1)),
        store.write(wrong),
        store.write(lambda connection: connection.execute(text("INSERT INTO nowhere VALUES (1)"))),
        store.record(part(2, station="new")),
    )
    with pytest.raises(ValueError, match="half done"):
        failing.result()
    with pytest.raises(StoreError, match="nowhere"):
        refused.result()
    assert (before.result().id, after.result().id) == (1, 1 + store.box.step)
    stations = store.ask(
        lambda connection: connection.execute(text("SELECT name FROM station ORDER BY id")).scalars().all()
    )
    assert stations == ["press", "new"]


def test_counts_agree_with_the_rows_at_every_time(store):
    done = [NOON, NOON + 1, NOON + HOUR - 1, NOON + HOUR, NOON + 2 * HOUR + 5]
    for number, t_done in enumerate(done):
        store.record(part(number, t_done=t_done, verdict=Verdict.NG if number % 2 else Verdict.OK))
    store.record(part(9, station="lathe")).result()
    for since in [0, NOON, NOON + 1, NOON + 2, NOON + HOUR, NOON + HOUR + 1, NOON + 3 * HOUR]:
        expected = {
            verdict: n
            for verdict, parity in ((Verdict.OK, 0), (Verdict.NG, 1))
            if (n := sum(t >= since for number, t in enumerate(done) if number % 2 == parity))
        }
        assert store.counts("press", since=since) == expected
    assert store.counts("nowhere", since=0) == {}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def filled(request, empty_store, tmp_path_factory):
    """60 parts of two stations; every third is NG."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("filled") / "store")
    url = folder if request.param == "sqlite" else request.getfixturevalue("cluster").new_database()
    with Store.open(url, folder=folder) as store:
        rows = [
            store.record(
                part(
                    n,
                    station=("press", "lathe")[n % 2],
                    verdict=(Verdict.NG, Verdict.OK, Verdict.OK)[n % 3],
                    lot=f"lot-{n // 10}",
                    part_id=f"part-{n // 2}",
                )
            )
            for n in range(60)
        ]
        rows[-1].result()
        yield store, [row.result().row for row in rows]


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"station": "press"},
        {"verdict": Verdict.NG},
        {"station": "lathe", "verdict": Verdict.NG},
        {"verdict": Verdict.OK},
        {"part_id": "part-7"},
        {"lot": "lot-3"},
        {"since": NOON + 20 * SECOND},
        {"since": NOON + 20 * SECOND, "station": "press", "lot": "lot-3"},
        {"station": "nowhere"},
        {"since": NOON + HOUR},
    ],
    ids=str,
)
def test_pages_list_every_row_once_newest_first(filled, filters):
    store, rows = filled
    expected = [
        row.id
        for row in rows[::-1]
        if all(getattr(row, name) == value for name, value in filters.items() if name != "since")
        and row.t_done >= filters.get("since", 0)
    ]
    seen: list[int] = []
    while page := store.inspections(**filters, before_id=seen[-1] if seen else None, limit=7):
        assert len(page) <= 7
        seen += [row.id for row in page]
    assert seen == expected


def test_filters_use_their_index(filled):
    """The partial indices are used, and no page sorts or scans the table."""
    store, _rows = filled
    if store.ask(lambda connection: connection.dialect.name) != "sqlite":
        pytest.skip("PostgreSQL scans tables of a few rows")
    plans = []

    def explain(conn):
        def note(_conn, _cursor, statement, parameters, *_):
            if "JOIN" in statement:
                plan = conn.connection.dbapi_connection.execute("EXPLAIN QUERY PLAN " + statement, parameters)
                plans.append(" ".join(row[3] for row in plan))

        event.listen(conn, "before_cursor_execute", note)
        common = {"verdict": None, "part_id": None, "lot": None, "since": None, "before_id": 50, "limit": 7}
        for changes in (
            {"verdict": Verdict.NG, "station_name": "press"},
            {"verdict": Verdict.NG, "station_name": None},
            {"station_name": "press", "since": NOON},
        ):
            queries.page(conn, **{**common, **changes})

    store.ask(explain)
    assert "ix_inspection_not_ok" in plans[0]
    assert "ix_inspection_verdict" in plans[1]
    assert "ix_inspection_station_id_id_verdict_t_done" in plans[2]
    assert not any("SCAN inspection" in plan or "TEMP B-TREE" in plan for plan in plans)


def test_last_verdicts_are_oldest_first(filled):
    store, rows = filled
    ours = [row for row in rows if row.station == "press"][-5:]
    assert [past.id for past in store.last_verdicts("press", 5)] == [row.id for row in ours]
    bad = [past for past in store.last_verdicts("press", 5) if past.verdict is Verdict.NG]
    assert bad
    assert all(past.regions == ours[0].regions for past in bad)
    assert store.last_verdicts("nowhere", 5) == []


def test_rows_are_ordered_by_id_when_the_clock_is_set_back(store):
    for number in range(6):
        back = HOUR if number >= 3 else 0
        store.record(part(number, t_done=NOON + number * SECOND - back))
    store.record(part(6)).result()
    ids = [1 + number * store.box.step for number in (6, 5, 4, 3, 2, 1, 0)]
    assert [row.id for row in store.inspections()] == ids
    assert [row.id for row in store.inspections(since=NOON - HOUR)] == ids
    assert [row.id for row in store.inspections(since=NOON)] == [ids[0], *ids[4:]]


def test_a_query_ends_after_its_time(store):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with (
        pytest.raises(QueryTimeout, match=r"longer than 0\.02 s: narrow it"),
        connection.reading(store._reader, 0.02) as conn,
    ):
        conn.execute(text(endless))
    assert store.inspections() == []


def test_queries_cannot_write(store):
    with pytest.raises(StoreError, match=r"read.?only"):
        store.ask(lambda connection: connection.execute(text("DELETE FROM station")))


def test_a_closed_store_takes_nothing(store):
    store.close()
    with pytest.raises(StoreUnavailable):
        store.record(part(1))
    store.close()


def test_one_process_at_a_time(store, reopen, tmp_path):
    with pytest.raises(DataError, match="in use by process"):
        reopen()
    if "folder" in reopen.keywords:  # PostgreSQL
        with pytest.raises(DataError, match="a line named 'line' runs on this database"):
            reopen(folder=tmp_path / "other")


def test_what_cannot_be_opened_is_said_in_one_line(folder, tmp_path):
    with sqlite3.connect(folder / "andon.sqlite") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    other = tmp_path / "other"
    other.mkdir()
    (other / "andon.sqlite").write_bytes(b"no database" * 1000)
    for place, error, words in [
        (folder, DataError, "newer andon"),
        (other, DataError, "not a database"),
        ("mysql://host/name", ConfigError, "folder"),
    ]:
        with pytest.raises(error, match=words) as caught:
            Store.open(place)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="'mysql' is not supported"):
        Store.open("mysql://host/name", folder=tmp_path)


def test_a_network_share_is_recognised(tmp_path, monkeypatch):
    table = "/dev/sda1 / ext4 rw 0 0\nnas:/export /mnt/my\\040share nfs4 rw 0 0\n"
    assert connection.file_system(tmp_path, table) == "ext4"
    monkeypatch.setattr(connection, "file_system", lambda folder: "nfs4")
    with pytest.raises(DataError, match="network share"):
        Store.open(tmp_path / "new")
