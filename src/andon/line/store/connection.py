"""Connections to SQLite and PostgreSQL: settings, migrations, one writing process, time limit of queries."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Literal, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from andon.core.errors import ConfigError, DataError, OutputError
from andon.core.files import writing_errors
from andon.line.store.errors import QueryTimeout, StoreError, StoreFull, StoreUnavailable

T = TypeVar("T")
Durability = Literal["full", "relaxed"]
"""`full`: a commit survives power loss. `relaxed`: the last commits may be missing after power loss, never half of one."""

FILE_NAME = "andon.sqlite"
LOCK_NAME = "andon.lock"
QUERY_SECONDS = 1.0
"""Time limit of a query."""
BUSY_SECONDS = 10.0
"""How long a write waits for another process that holds the database (a backup, a shell)."""
UNUSABLE = ("locked", "unable to open", "attempt to write a readonly database")
"""Messages of SQLite about a file that cannot be used now; its other errors are about the statement."""
MIGRATING = 0x616E646F6F
"""Key of the lock of a transaction that changes tables."""
LOCKED_MS = 2000
"""How long a statement waits for rows of another process before the database counts as gone."""
PATIENCE = {
    "connect_timeout": 3,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
"""How soon a server that has gone silent counts as gone, in seconds; the last in milliseconds."""
SERVER_PATIENCE = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
"""How soon the server lets go of the lock of a computer that has gone silent."""
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "9p",
        "fuse.sshfs",
    }
)
"""File systems without the shared memory that the write-ahead log of SQLite needs."""


def sqlite_engine(path: Path, durability: Durability = "full", *, keys: bool = True) -> Engine:
    """Engine for writing: WAL, one transaction at a time, foreign keys checked unless `keys` is False."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # SQLAlchemy begins transactions, so that savepoints work
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def sqlite_reader(path: Path) -> Engine:
    """Engine for queries: sees the last commit, cannot write."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        pool_size=4,
        max_overflow=16,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def postgres_engine(url: str, durability: Durability = "full") -> Engine:
    """Engine for PostgreSQL through psycopg. Raises `ConfigError` for a URL that cannot be used."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise ConfigError(
                f"database {parsed.drivername!r} is not supported: use a folder or postgresql://USER@HOST/NAME"
            )
        commit = "on" if durability == "full" else "off"
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            connect_args={
                "options": f"-c synchronous_commit={commit} -c timezone=UTC -c lock_timeout={LOCKED_MS} {SERVER_PATIENCE}",
                **PATIENCE,
            },
            pool_pre_ping=True,
        )
    except ArgumentError:
        raise ConfigError("the database URL cannot be read: use postgresql://USER@HOST/NAME") from None
    except (NoSuchModuleError, ImportError):
        raise ConfigError(
            "PostgreSQL needs psycopg, which is not installed: pip install 'andon[postgres]'"
        ) from None


def _migrations() -> Config:
    """Where Alembic finds the migrations."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def _revisions() -> tuple[tuple[str, ...], frozenset[str]]:
    """Newest revision, as the heads of Alembic, and all of them; read from the scripts once."""
    scripts = ScriptDirectory.from_config(_migrations())
    return tuple(scripts.get_heads()), frozenset(script.revision for script in scripts.walk_revisions())


def migrate(engine: Engine, shown: str) -> None:
    """Create or update the tables. Raises `DataError` for tables of a newer andon and for what is no database of andon."""
    heads, known = _revisions()
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # several lines may start at once
                connection.execute(text("SET LOCAL lock_timeout = 60000"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})
            there = MigrationContext.configure(connection).get_current_heads()
            unknown = [revision for revision in there if revision not in known]
            if unknown:
                raise DataError(
                    f"{shown} was written by a newer andon (schema {unknown[0]}): install that version"
                )
            if there != heads:
                config = _migrations()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
    except OperationalError as error:
        failure = translated(error)
        if isinstance(failure, StoreFull):
            raise OutputError(f"no space left for {shown}: free some or choose another folder") from error
        raise OutputError(
            f"{shown} cannot be opened ({first_line(error)}): check that it can be written"
        ) from error
    except DatabaseError as error:
        raise DataError(
            f"{shown} is not a database of andon ({first_line(error)}): restore a backup or choose another folder"
        ) from error


def translated(error: DatabaseError, seconds: float = QUERY_SECONDS) -> StoreError:
    """The store's own error for an error of the database; `seconds` a query was given."""
    message = first_line(error)
    if "disk is full" in message or "disk I/O error" in message or "No space left" in message:
        return StoreFull(f"no space left for the database ({message}): free some")
    if "interrupted" in message or "statement timeout" in message:
        return QueryTimeout(f"the query took longer than {seconds:g} s: narrow it by part, lot or time")
    remote = not isinstance(error.orig, sqlite3.Error)
    if isinstance(error, OperationalError) and (remote or any(word in message for word in UNUSABLE)):
        return StoreUnavailable(f"the database cannot be used ({message}): check it")
    return StoreError(f"the database refused ({message})")


def first_line(error: DatabaseError) -> str:
    """What the database says, in one line."""
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


@contextmanager
def reading(engine: Engine, seconds: float = QUERY_SECONDS) -> Iterator[Connection]:
    """A connection for queries that end after `seconds` with `QueryTimeout`."""
    try:
        with engine.connect() as connection:
            raw: object = connection.connection.dbapi_connection
            if isinstance(raw, sqlite3.Connection):
                deadline = time.monotonic() + seconds
                raw.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
                try:
                    yield connection
                finally:
                    raw.set_progress_handler(None, 0)
            else:
                connection.execute(text("SET TRANSACTION READ ONLY"))
                connection.execute(text(f"SET LOCAL statement_timeout = {round(seconds * 1000)}"))
                yield connection
    except DatabaseError as error:
        raise translated(error, seconds) from error


def ask_database(
    url_or_folder: str | Path, question: Callable[[Connection], T], *, seconds: float = QUERY_SECONDS
) -> T:
    """Answer of `question(connection)`, which reads a PostgreSQL URL or a data folder; a line may write meanwhile.

    Raises `DataError` where there is no database, `StoreError` where it cannot be read.
    """
    if "://" in str(url_or_folder):
        engine = postgres_engine(str(url_or_folder))
    else:
        file = Path(url_or_folder) / FILE_NAME
        if not file.is_file():
            raise DataError(f"{url_or_folder} has no {FILE_NAME}: name the data folder of the line")
        engine = sqlite_reader(file)
    try:
        with reading(engine, seconds) as connection:
            return question(connection)
    finally:
        engine.dispose()


def lock_folder(folder: Path) -> IO[str]:
    """Hold the folder for this process. Raises `DataError` where another process holds it; closing the file lets go."""
    path = folder / LOCK_NAME
    with writing_errors(path):
        file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise DataError(
            f"{folder} is in use by process {owner}: stop it first, or choose another folder"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def answers(engine: Engine) -> bool:
    """Whether the database can be reached now."""
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except DatabaseError:
        return False
    return True


def check_local(folder: Path) -> None:
    """Raise `DataError` where the folder lies on a network share."""
    kind = file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        raise DataError(
            f"{folder} is on a network share ({kind}), where SQLite loses data: choose a folder on a local disk"
        )


def file_system(folder: Path, mounts: str | None = None) -> str:
    """Type of the file system that holds `folder`, as in the mount table; empty where there is no table."""
    try:
        table = Path("/proc/self/mounts").read_text(encoding="utf-8") if mounts is None else mounts
    except OSError:
        return ""
    place, best, kind = folder.resolve(), -1, ""
    for line in table.splitlines():
        _device, target, name, *_rest = line.split()
        where = Path(target.encode().decode("unicode_escape"))
        if (where == place or where in place.parents) and len(where.parts) >= best:
            best, kind = len(where.parts), name
    return kind
