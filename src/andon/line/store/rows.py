"""Rows by table name, for modules that know no SQL: add, change, remove, select."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from andon.line.store.schema import metadata


def add(connection: Connection, table: str, **values: Any) -> int:
    """Insert a row and return its id."""
    done = connection.execute(insert(metadata.tables[table]).values(**values))
    key = done.inserted_primary_key
    assert key is not None
    return int(key[0])


def ensure(connection: Connection, table: str, named: Mapping[str, Any], **also: Any) -> int:
    """Id of the newest row with the values `named`; it is added, with `also`, where there is none.

    Two processes that add the same unique row get the same one.
    """
    target = metadata.tables[table]
    same = select(target.c.id).where(*(target.c[name] == value for name, value in named.items()))
    same = same.order_by(target.c.id.desc()).limit(1)
    found = connection.execute(same).scalar()
    if found is None:
        new = dialect(connection).insert(target).values(**named, **also)
        connection.execute(new.on_conflict_do_nothing())
        found = connection.execute(same).scalar_one()
    return int(found)


def dialect(connection: Connection) -> Any:
    """Module with the `insert` that handles conflicts."""
    return sqlite if connection.dialect.name == "sqlite" else postgresql


def change(connection: Connection, table: str, row: int, **values: Any) -> bool:
    """Set columns of the row with id `row`; False where there is none."""
    target = metadata.tables[table]
    return connection.execute(update(target).where(target.c.id == row).values(**values)).rowcount == 1


def remove(connection: Connection, table: str, **equal: Any) -> int:
    """Delete the rows whose columns equal the given values. Returns their number."""
    target = metadata.tables[table]
    where = [target.c[name] == value for name, value in equal.items()]
    return connection.execute(delete(target).where(*where)).rowcount


def find(
    connection: Connection, table: str, *, before: int | None = None, limit: int | None = None, **equal: Any
) -> list[dict[str, Any]]:
    """Rows whose columns equal the given values (None: NULL), newest first, with an id below `before`."""
    target = metadata.tables[table]
    key = next(iter(target.primary_key.columns))
    query = select(target).where(*(target.c[name] == value for name, value in equal.items()))
    if before is not None:
        query = query.where(key < before)
    return [dict(row) for row in connection.execute(query.order_by(key.desc()).limit(limit)).mappings()]
