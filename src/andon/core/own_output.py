"""Folders of images that andon draws carry a marker, so that a later run does not take them for images to judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from andon.core.errors import OutputError
from andon.core.files import write_text, writing_errors

MARKER = ".written-by-andon"
"""File in a folder of heat maps, masks, maps or figures."""
DRAWN = ("heatmaps", "masks", "maps", "figures")
"""Names of these folders."""
CONTENT = "Images in this folder and below were drawn by andon; andon does not read them as input.\n"


def mark(folder: Path) -> None:
    """Put the marker into a folder, which is made if needed. Raises `OutputError` when it cannot be written."""
    if not (folder / MARKER).is_file():
        write_text(folder / MARKER, CONTENT)


def is_own(folder: Path) -> bool:
    """Whether andon drew the images of `folder`."""
    return (folder / MARKER).is_file()


def note(folder: Path) -> str:
    """What is said about a folder that is passed by."""
    return f"{folder} was written by andon and is passed by: remove {MARKER} in it to read its pictures"


def check_drawn(folder: Path) -> None:
    """Raise `OutputError` where a folder that andon draws into holds files that andon did not draw."""
    for place in (folder / name for name in DRAWN):
        if not is_own(place) and _holds_anything(place):
            raise OutputError(
                f"{place} holds files that andon did not write, which would be overwritten: choose another folder"
            )


def _holds_anything(folder: Path) -> bool:
    """Whether there is a file or folder in `folder` that is not hidden."""
    with writing_errors(folder):
        return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def check_save(inputs: Sequence[Path], save: Path | None) -> None:
    """Raise `OutputError` where heat maps would lie among the images that are answered, or in place of the user's files."""
    if save is not None:
        check_drawn(save)
    for path in inputs:
        if save is not None and path.is_dir() and save.resolve().is_relative_to(path.resolve()):
            raise OutputError(
                f"--save {save} lies inside {path}, whose pictures are answered: choose a folder outside"
            )
