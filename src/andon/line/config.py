"""What all settings of a line share: their base class, and how tables of a TOML file are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from andon.core.config import Config
from andon.core.errors import ConfigError

DAY_SECONDS = 86_400.0
HOUR_MS = 3_600_000
CENTURY_DAYS = 36_500
"""Longest times of settings: clocks, waits and databases fail at larger ones."""
Days = Annotated[float, Field(ge=0.0, le=CENTURY_DAYS)]
"""Days, at most a hundred years."""


def count(most: int) -> Any:
    """Bounds of a whole number from 1 to `most`."""
    return Field(ge=1, le=most, strict=True)


class LineConfig(Config):
    """Base of the settings of a line."""

    remedy: ClassVar[str] = "correct it"


def table(values: object, where: str) -> dict[str, Any]:
    """A copy of a table. Raises `ConfigError` for any other value."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {values!r}, has to be a table of settings")
    return dict(values)


def joined(file: Path, path: object) -> object:
    """A path relative to the folder of `file`; any other value as it is."""
    return file.parent / path if isinstance(path, str) else path


def first_twice(names: Iterable[str]) -> str | None:
    """The first name that is there twice."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
