"""The next command where the folder of a run is given in place of images."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from andon.core.errors import DataError


def is_run(path: Path) -> bool:
    """Whether `path` is a folder made by `andon fit`."""
    return (path / "recipe.yaml").is_file() and any(
        (path / name).is_dir() for name in ("detector", "checkpoints")
    )


def check_no_run(data: Path) -> None:
    """Raise `DataError` where a run is given in place of images."""
    if is_run(data):
        raise DataError(
            f"{data} is a run, not a folder of pictures: `andon predict {quote(str(data))} IMAGES` judges pictures with it"
        )
