"""Local spool: while PostgreSQL cannot be reached, inspections are committed to a SQLite file and carried over afterwards.

A part keeps its id. What may have reached PostgreSQL before the connection broke is there once: carrying over skips parts
that exist. A crash in between repeats the last step and changes nothing.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, select

from andon.line.store.connection import migrate, sqlite_engine
from andon.line.store.inspections import JOINED, Inserter, to_inspection
from andon.line.store.records import NewInspection, Recorded
from andon.line.store.requests import Request, first_answer
from andon.line.store.schema import inspection, review_item

LOG = logging.getLogger(__name__)

FILE_NAME = "spool.sqlite"
CHUNK = 500
"""Rows carried over in one commit."""
RECENT = 2000
"""Newest answers that are remembered."""


class Spool:
    """A SQLite file with the tables of the store; used by the writer thread alone."""

    def __init__(self, folder: Path, inserter: Inserter) -> None:
        self.engine: Engine = sqlite_engine(folder / FILE_NAME, keys=False)
        migrate(self.engine, str(folder / FILE_NAME))
        self.inserter = inserter
        self._recent: OrderedDict[str, Recorded] = OrderedDict()

    def remember(self, recorded: Recorded) -> None:
        """Keep an answer for requests that are sent again while the database is gone."""
        self._recent[recorded.row.request_id] = recorded
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def insert(self, connection: Connection, new: NewInspection, number: Callable[[], int]) -> Recorded:
        """Insert a part, or return the first answer of the same request; `connection` is one to the spool."""
        if (first := self._recent.get(new.request_id)) is not None:
            return first_answer(first.row, Request.of(new))
        return self.inserter.insert(connection, new, number)

    def last(self) -> int:
        """Largest id that waits; 0 where none does."""
        with self.engine.connect() as connection:
            newest = select(inspection.c.id).order_by(inspection.c.id.desc()).limit(1)
            return connection.execute(newest).scalar() or 0

    def carry_over(self, engine: Engine, target: Inserter) -> int:
        """Move all rows to the database of `engine`. Returns how many were new there."""
        total = 0
        while True:
            with self.engine.connect() as spooled:
                query = JOINED.order_by(inspection.c.id).limit(CHUNK)
                rows = [to_inspection(row) for row in spooled.execute(query)]
            if not rows:
                if total:
                    LOG.warning("%d parts were carried over to the database", total)
                return total
            with engine.begin() as connection:
                total += sum(target.adopt(connection, row) for row in rows)
            with self.engine.begin() as spooled:
                spooled.execute(delete(review_item).where(review_item.c.id <= rows[-1].id))
                spooled.execute(delete(inspection).where(inspection.c.id <= rows[-1].id))

    def close(self) -> None:
        """Close the file."""
        self.engine.dispose()
