"""Layouts: how the files of a data set are arranged. Each module of this package is one layout and defines `LAYOUT`.

A new module adds a layout; no list names them. `Layout.order` is its place in the detection of `layout="auto"`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from andon.datasets.dataset import Dataset
from andon.datasets.folder_names import RESERVED, FolderNames
from andon.datasets.folder_scan import folders_in


@dataclass(frozen=True, slots=True)
class Options:
    """Options of `open_dataset` that are passed to the layout."""

    seed: int = 0
    """Seed of the hold-out rule."""
    hold_out: bool = True
    """Hold out good images for validation where the data set has no validation images."""
    allow_outside: bool = False
    """Let a manifest name files outside its folder."""
    sessions: str = "auto"
    """How sessions are told apart (`sessions.with_sessions`)."""
    exclude: tuple[str, ...] = ()
    """Good images to leave out (`exclusion.find_excluded`)."""
    names: FolderNames = field(default_factory=FolderNames)
    """What names of folders mean."""
    lenient: bool = False
    """Accept names in `exclude` that no image has, and names of folders that are not there."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One arrangement of files."""

    name: str
    order: int
    """Position in the order of detection, lowest first."""
    expects: str
    """Required files, for the message that no layout matches."""
    find: Callable[[Path, Options], Mapping[str, Path]]
    """Categories at a path, each with the folder or file it is read from; empty where the layout does not match."""
    read: Callable[[Path, str, Options], Dataset]
    """Read one category: (folder or file, category, options)."""
    listed: bool = False
    """A table says which images belong to the data set; others beside them are none of its."""


@cache
def layouts() -> dict[str, Layout]:
    """All layouts by name, in the order of detection."""
    found: list[Layout] = [
        importlib.import_module(f"{__name__}.{module.name}").LAYOUT
        for module in pkgutil.iter_modules(__path__)
    ]
    return {layout.name: layout for layout in sorted(found, key=lambda layout: layout.order)}


def by_folder(fits: Callable[[Path, Options], bool]) -> Callable[[Path, Options], Mapping[str, Path]]:
    """`find` of a layout with one folder per category: the path itself, or its sub-folders for which `fits` holds."""

    def find(path: Path, options: Options) -> Mapping[str, Path]:
        if not path.is_dir():
            return {}
        if fits(path, options):
            return {path.name: path}
        return {
            folder.name: folder
            for folder in folders_in(path)
            if folder.name.lower() not in RESERVED and fits(folder, options)
        }

    return find
