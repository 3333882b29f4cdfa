"""The next command where a run, images or a file is given in place of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from andon.core.errors import DataError
from andon.core.listing import images_below, is_image

ADDING, BEFORE = ".adding", "before"
"""Folder in which the new state of a run is prepared while images are added, and in it the one for the files it replaces."""


def is_run(path: Path) -> bool:
    """Whether `path` is a folder made by `andon fit`."""
    return (path / "recipe.yaml").is_file() and any(
        (path / name).is_dir() for name in ("detector", "checkpoints")
    )


def how_to_make(run: Path) -> str:
    """What to type where `run` is taken for a run and is none."""
    if (run / ADDING / BEFORE).is_dir():
        return f"adding pictures to it was cut short; add them again: `andon fit --add FOLDER {_word(run)}`"
    if run.is_dir() and next(images_below(run), None) is not None:
        return f"it holds pictures; learn from good ones first: `andon fit {_word(run)}`"
    return "give a folder made by `andon fit FOLDER`"


def check_order(run: Path, images: Sequence[Path]) -> None:
    """Raise `DataError` where an image stands in place of the run, or a run among the images that it is to judge."""
    found = next((path for path in images if is_run(path)), None)
    if found is not None and not is_run(run):
        raise DataError(
            f"{found} is a run and comes first, before the pictures: `andon predict {_word(found)} {_word(run)}`"
        )
    if run.is_file() and is_image(run):
        raise DataError(f"{run} is a picture, the run comes first: `andon predict RUN {_word(run)}`")


def check_no_run(data: Path) -> None:
    """Raise `DataError` where a run is given in place of images."""
    if is_run(data):
        raise DataError(
            f"{data} is a run, not a folder of pictures: `andon predict {_word(data)} IMAGES` judges pictures with it"
        )


def _word(path: Path) -> str:
    return quote(str(path))
