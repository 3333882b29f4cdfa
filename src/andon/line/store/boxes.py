"""Line PCs that share a database: each has its own stations, and gives numbers that no other one gives.

The last three digits of a number are the line's, so that a line that cannot reach the database numbers parts without asking.
On SQLite there is one line, and numbers count up by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Table, func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from andon.core.errors import DataError
from andon.line.store import rows
from andon.line.store.connection import first_line
from andon.line.store.schema import box, station

STEP = 1000
"""Distance of two numbers of one line; at most as many lines less one share a database."""
CLAIMING = 0x616E646F6E
"""Key of the lock of a transaction that claims stations."""
OF_LINE, OF_STATION = 0x616E6C6E, 0x616E7374
"""First keys of the locks that a process holds on its line and its stations."""
TOO_MANY = f"{STEP - 1} lines have used this database: use another one, or the name of a line that is gone"


class Box(NamedTuple):
    """One line of a database."""

    id: int
    line: str
    step: int
    """Distance of two of its numbers."""

    def next_id(self, last: int) -> int:
        """The smallest number of this line above `last`."""
        return last + 1 + (self.id - last - 1) % self.step

    @property
    def prefix(self) -> str:
        """What tells names of this line from those of others in tables they share; empty on a database of one process."""
        return "" if self.step == 1 else f"{self.id}/"

    def own(self, table: Table) -> list[ColumnElement[bool]]:
        """Condition of rows of `table` (with `station_id`) that belong to stations of this line."""
        if self.step == 1:
            return []
        return [table.c.station_id.in_(select(station.c.id).where(station.c.box_id == self.id))]

    def touch(self, connection: Connection) -> None:
        """Write the own row as it is, so that a commit proves that rows are written."""
        connection.execute(update(box).where(box.c.id == self.id).values(name=box.c.name))


class PostgresLock:
    """Holds a line and its stations for this process, as long as its connection lasts."""

    def __init__(self, engine: Engine, shown: str) -> None:
        """Raises `DataError` where the database cannot be reached, as all methods."""
        self._engine, self._shown = engine, shown
        self._held: dict[tuple[int, int], str] = {}
        self._connection = self._connect()

    def take(self, claimed: Mapping[tuple[int, int], str]) -> None:
        """Hold what is claimed: keys of the lock, and what to say where another process holds it.

        Raises `DataError` with that text.
        """
        for (kind, number), refusal in claimed.items():
            lock = text("SELECT pg_try_advisory_lock(:kind, :number)")
            try:
                held = self._connection.execute(lock, {"kind": kind, "number": number}).scalar_one()
                self._connection.commit()
            except OperationalError as error:
                raise self._unreachable(error) from error
            if not held:
                raise DataError(refusal)
            self._held[kind, number] = refusal

    def renew(self) -> None:
        """Take everything again after the connection was lost."""
        self.close()
        self._connection = self._connect()
        self.take(dict(self._held))

    def close(self) -> None:
        """Let go."""
        self._connection.invalidate()
        self._connection.close()

    def _connect(self) -> Connection:
        try:
            return self._engine.connect()
        except OperationalError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: OperationalError) -> DataError:
        return DataError(f"{self._shown} cannot be reached ({first_line(error)}): check address and server")


def claim(engine: Engine, line: str, stations: Sequence[str], lock: PostgresLock | None) -> Box:
    """The line of this name and its stations, for this process; both are added where they are new.

    `lock`: None for a database of one process. Raises `DataError` where another process runs a line of this name, or one
    of the stations.
    """
    try:
        with engine.begin() as connection:
            if lock is not None:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CLAIMING})
            number = _line(connection, line) if lock is not None else _only_line(connection, line)
            ids = {name: rows.ensure(connection, "station", {"name": name}) for name in stations}
            if lock is not None:
                lock.take(_keys(connection, number, line, ids))
            connection.execute(update(station).where(_of_claim(ids, lock)).values(box_id=number))
    except OperationalError as error:
        raise DataError(f"the database cannot be used ({first_line(error)}): try again") from error
    return Box(number, line, 1 if lock is None else STEP)


def _of_claim(ids: Mapping[str, int], lock: PostgresLock | None) -> ColumnElement[bool]:
    """Stations that change hands: those named, and on a database of one process those that nobody had."""
    return station.c.id.in_(ids.values()) if lock is not None else station.c.box_id.is_(None)


def _only_line(connection: Connection, line: str) -> int:
    if not rows.change(connection, "box", 1, name=line):
        connection.execute(insert(box).values(id=1, name=line))
    return 1


def _line(connection: Connection, line: str) -> int:
    found = connection.execute(select(box.c.id).where(box.c.name == line)).scalar()
    if found is not None:
        return int(found)
    number = (connection.execute(select(func.max(box.c.id))).scalar() or 0) + 1
    if number >= STEP:
        raise DataError(TOO_MANY)
    connection.execute(insert(box).values(id=number, name=line))
    return int(number)


def _keys(
    connection: Connection, number: int, line: str, ids: Mapping[str, int]
) -> dict[tuple[int, int], str]:
    """Keys of the locks with the refusal of each."""
    owners: dict[int, Any] = {
        id: owner
        for id, owner in connection.execute(
            select(station.c.id, box.c.name).join(box, station.c.box_id == box.c.id)
        )
    }
    keys = {
        (OF_LINE, number): f"a line named {line!r} runs on this database: set another name in the settings, "
        "or stop that one first"
    }
    for name, id in ids.items():
        keys[OF_STATION, id] = (
            f"station {name} runs on line {owners.get(id, '?')!r} of this database: stop it there first, or rename it"
        )
    return keys
