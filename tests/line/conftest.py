"""A home without PyTorch, and a store in a new folder. The tables are made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from andon.line.store import Store

collect_ignore_glob = [] if find_spec("sqlalchemy") else ["test_store*.py"]
"""The store needs the extra `serve`."""


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything andon keeps between runs goes here; a line computer has no PyTorch."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDON_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def backbones_built_once() -> None:
    """No backbones here."""


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a store without rows, to be copied."""
    from andon.line.store import Store

    folder = tmp_path_factory.mktemp("empty_store")
    Store.open(folder).close()
    return folder


@pytest.fixture
def folder(empty_store: Path, tmp_path: Path) -> Path:
    """Folder of a closed store without rows."""
    return shutil.copytree(empty_store, tmp_path / "store")


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    """An open store without rows."""
    from andon.line.store import Store

    with Store.open(folder) as opened:
        yield opened
