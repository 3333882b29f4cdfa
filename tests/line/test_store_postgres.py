"""PostgreSQL goes away and comes back: parts are stored locally, and each is there once afterwards."""

from __future__ import annotations

import os
import time

import pytest
from sqlalchemy import text

from andon.core.errors import DataError
from andon.line.store import ImageState, RequestConflict, Store, StoreUnavailable
from andon.line.store.audit import Entry
from andon.line.store.inspections import JOINED, to_inspection
from andon.line.verdicts import Verdict
from line.storing import part

pytestmark = pytest.mark.service
CUT_SECONDS = float(os.environ.get("ANDON_TEST_CUT_SECONDS", "2"))
"""How long the connection is gone."""


@pytest.fixture
def opened(cluster, folder):
    """Arguments that open one and the same database."""
    return {"url_or_folder": cluster.new_database(), "folder": folder}


def until(condition) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def all_rows(store) -> dict[int, str]:
    query = text("SELECT id, request_id FROM inspection ORDER BY id")
    return {row: request for row, request in store.ask(lambda c: c.execute(query).all())}


def test_a_cut_connection_loses_and_doubles_nothing(cluster, opened):
    with Store.open(**opened) as store:
        answered = {f"request-{n}": store.record(part(n, image=b"x")).result().id for n in range(20)}
        waiting = [(n, store.record(part(n, image=b"x"))) for n in range(20, 40)]
        cluster.stop()
        try:
            begin, number = time.monotonic(), 40
            while time.monotonic() - begin < CUT_SECONDS:
                waiting.append((number, store.record(part(number, image=b"x"))))
                number += 1
                time.sleep(0.02)
            for n, future in waiting:
                recorded = future.result()
                assert recorded.row.verdict is Verdict.OK
                answered[f"request-{n}"] = recorded.id
            assert store.spooling
            again = store.record(part(3, image=b"x", verdict=Verdict.NG)).result()
            assert (again.replayed, again.id, again.row.verdict) == (True, answered["request-3"], Verdict.OK)
            assert store.record(part(number - 1, image=b"x")).result().replayed
            with pytest.raises(StoreUnavailable):
                store.audit(Entry("a", "b")).result()
            with pytest.raises(StoreUnavailable):
                store.inspections()
        finally:
            cluster.start()
        until(lambda: not store.spooling)
        assert all_rows(store) == {row: request for request, row in answered.items()}
        assert store.counts("press", since=0) == {Verdict.OK: len(answered)}
        store.audit(Entry("a", "b")).result()
        later = store.record(part(number)).result()
        assert later.id > max(answered.values())
        until(
            lambda: (
                {r.image_state for r in store.inspections(limit=1000)} <= {ImageState.STORED, ImageState.NONE}
            )
        )


def test_what_was_spooled_is_there_after_a_restart(cluster, opened):
    with Store.open(**opened) as store:
        store.record(part(1)).result()
        cluster.stop()
        try:
            rows = [store.record(part(n)).result().id for n in (2, 3)]
            with pytest.raises(DataError, match="in use by process"):
                Store.open(**opened)
            store.close()
            with pytest.raises(DataError, match="cannot be reached"):
                Store.open(**opened)
        finally:
            cluster.start()
    with Store.open(**opened) as store:
        assert all_rows(store) == {1: "request-1", rows[0]: "request-2", rows[1]: "request-3"}
        assert store.record(part(2)).result().replayed


def test_a_row_that_had_arrived_is_not_doubled(cluster, opened):
    """The connection broke after the commit: the part is spooled although it is in the database."""
    with Store.open(**opened) as store:
        row = store.record(part(1)).result().row
        other = store.record(part(2)).result().row
        spool = store._spool
        with spool.engine.begin() as connection:
            spool.inserter.insert(connection, part(1), lambda: row.id)
            spool.inserter.insert(connection, part(9, trigger_no=2), lambda: 77)
    with Store.open(**opened) as store:
        assert all_rows(store) == {row.id: "request-1", other.id: "request-2", 77: "request-9"}
        assert store.counts("press", since=0) == {Verdict.OK: 3}


def test_a_request_id_that_another_station_used_meanwhile_loses_no_part(cluster, opened):
    """While the database was away, a part got the request id of a part of another station: both are there."""
    with Store.open(**opened) as store:
        row = store.record(part(1)).result().row
        spool = store._spool
        with spool.engine.begin() as connection:
            spool.inserter.insert(connection, part(1, station="oven"), lambda: 78)
        for _ in range(2):  # the second time after a crash before the spool was emptied
            with spool.engine.connect() as connection:
                waiting = to_inspection(connection.execute(JOINED).one())
            with store._engine.begin() as connection:
                store._inserter.adopt(connection, waiting)
    with Store.open(**opened) as store:
        assert all_rows(store) == {row.id: "request-1", 78: "request-1 (78)"}
        assert (store.counts("press", since=0), store.counts("oven", since=0)) == (
            {Verdict.OK: 1},
            {Verdict.OK: 1},
        )
        with pytest.raises(RequestConflict):
            store.record(part(1, station="oven")).result()


def test_while_the_database_is_away_no_station_gets_the_verdict_of_another(cluster, opened):
    with Store.open(**opened) as store:
        store.record(part(1)).result()
        store.record(part(2, image=b"one", triggered=True)).result()
        cluster.stop()
        try:
            store.record(part(3)).result()
            for number in (1, 3):
                with pytest.raises(RequestConflict):
                    store.record(part(number, station="oven")).result()
            assert store.record(part(2, image=b"two", triggered=True)).result().replayed
        finally:
            cluster.start()
        until(lambda: not store.spooling)
