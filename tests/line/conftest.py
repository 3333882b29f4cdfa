"""A home without PyTorch, and a store in a new folder. The tables are made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from line.disk import with_room
from line.postgres import BINARIES, Cluster

if TYPE_CHECKING:
    from andon.line.store import Store
    from line.asking import Client

collect_ignore_glob = [] if find_spec("sqlalchemy") else ["test_store*.py", "test_inbox*.py"]
if find_spec("fastapi") is None:
    collect_ignore_glob += ["test_rest*.py", "test_page*.py", "test_server*.py", "test_client*.py"]
    collect_ignore_glob += ["test_access*.py", "test_accounts*.py", "test_reports*.py"]
if find_spec("paho") is None:
    collect_ignore_glob += ["test_mqtt*.py"]
"""Store, REST and pages need the extra `serve`, MQTT the extra `mqtt`."""


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything andon keeps between runs goes here; a line computer has no PyTorch."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDON_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def a_line_of_the_tests() -> Iterator[None]:
    """A line looks after itself more often than in a factory, an image settles sooner, and the disk has room."""
    if find_spec("sqlalchemy") is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("andon.line.line.TICK_SECONDS", 0.1)
        patch.setattr("andon.line.store.images.SETTLE_SECONDS", 0.02)
        with_room(patch)
        yield


@pytest.fixture(scope="module", autouse=True)
def backbones_built_once() -> None:
    """No backbones here."""


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """SQLite stores share compiled statements: compiling them takes half of the start of a line."""
    if find_spec("sqlalchemy") is None:
        yield
        return
    from sqlalchemy import Engine
    from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite as Dialect

    from andon.line.store import connection

    create, compiled = connection.create_engine, {}

    def sharing(*arguments: Any, **options: Any) -> Engine:
        engine = create(*arguments, **options)
        engine.update_execution_options(compiled_cache=compiled)
        return engine

    with pytest.MonkeyPatch.context() as patch:  # the dialect is part of a statement's key
        patch.setattr(Dialect, "__eq__", lambda one, other: type(one) is type(other))
        patch.setattr(Dialect, "__hash__", lambda one: hash(type(one)))
        patch.setattr(connection, "create_engine", sharing)
        yield


@pytest.fixture(scope="session")
def cheap_hashes() -> Iterator[None]:
    """Passwords are hashed fast."""
    from argon2 import PasswordHasher

    from andon.line.accounts import hashing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


@pytest.fixture(scope="module")
def client_of() -> Iterator[Callable[..., Client]]:
    """Makes clients of lines."""
    from line import asking

    with asking.start() as portal:
        yield lambda line, **options: asking.Client(line, portal, **options)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a store without rows, to be copied."""
    from andon.line.store import Store

    folder = tmp_path_factory.mktemp("empty_store")
    Store.open(folder).close()
    return folder


@pytest.fixture
def folder(empty_store: Path, tmp_path: Path) -> Path:
    """Folder of a closed store without rows, on SQLite."""
    return shutil.copytree(empty_store, tmp_path / "store")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server."""
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed")
    server = Cluster()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def reopen(request: pytest.FixtureRequest, folder: Path) -> Callable[..., Store]:
    """Opens the store of the test; it must be closed before it is opened again. Both databases pass the same tests."""
    from andon.line.store import Store

    if request.param == "sqlite":
        return partial(Store.open, folder)
    url = request.getfixturevalue("cluster").new_database()
    return partial(Store.open, url, folder=folder)


@pytest.fixture
def store(reopen: Callable[..., Store]) -> Iterator[Store]:
    """An open store without rows."""
    with reopen() as opened:
        yield opened


@pytest.fixture
def sqlite_store(folder: Path) -> Iterator[Store]:
    """An open store without rows, on SQLite."""
    from andon.line.store import Store

    with Store.open(folder) as opened:
        yield opened
