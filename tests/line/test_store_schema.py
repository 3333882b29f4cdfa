"""Tables: migrations and definitions agree; append-only tables refuse changes."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from andon.line.store import StoreError, rows
from andon.line.store.schema import metadata

CHAIN = {"role": "", "action": "a", "object": "", "reason": "", "prev_hash": "", "hash": ""}


def test_migrations_make_the_tables_of_the_schema(store):
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.parametrize("statement", ["UPDATE audit SET who = 'b'", "DELETE FROM audit"])
def test_audit_rows_stay(store, statement):
    store.write(lambda c: rows.add(c, "audit", seq=1, at=1, who="a", **CHAIN)).result()
    with pytest.raises(StoreError, match="never changed or deleted"):
        store.write(lambda c: c.execute(text(statement))).result()


def test_rows_by_table_name(store):
    first = store.write(lambda c: rows.add(c, "station", name="press")).result()
    second = store.write(lambda c: rows.add(c, "station", name="lathe", takt_ms=500)).result()
    assert store.write(lambda c: rows.change(c, "station", first, line="3")).result()
    assert not store.write(lambda c: rows.change(c, "station", 99, line="3")).result()
    newest = store.ask(lambda c: rows.find(c, "station"))
    assert [row["id"] for row in newest] == [second, first]
    assert store.ask(lambda c: rows.find(c, "station", line="3", takt_ms=None))[0]["name"] == "press"
    assert store.ask(lambda c: rows.find(c, "station", before=second, limit=1))[0]["id"] == first
