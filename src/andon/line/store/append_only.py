"""Triggers that refuse to change or delete rows, for migrations."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, text


def protect(connection: Connection, tables: Iterable[str]) -> None:
    """Rows of `tables` can neither be changed nor deleted from now on, by no program."""
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite:
        connection.execute(
            text(
                "CREATE OR REPLACE FUNCTION andon_refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'rows of % are never changed or deleted', TG_TABLE_NAME; END $$"
            )
        )
    for table in tables:
        for statement in _sqlite(table) if sqlite else _postgresql(table):
            connection.execute(text(statement))


def _sqlite(table: str) -> list[str]:
    refusal = f"SELECT RAISE(ABORT, 'rows of {table} are never changed or deleted')"
    return [
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} BEGIN {refusal}; END"
        for action in ("UPDATE", "DELETE")
    ]


def _postgresql(table: str) -> list[str]:
    each = {"UPDATE": "ROW", "DELETE": "ROW", "TRUNCATE": "STATEMENT"}
    return [
        f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
        f"FOR EACH {unit} EXECUTE FUNCTION andon_refuse()"
        for action, unit in each.items()
    ]
