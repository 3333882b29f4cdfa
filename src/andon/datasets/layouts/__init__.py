"""Layouts: how the files of a data set lie. One file of this package is one layout.

A layout file defines `LAYOUT`. Nothing else learns its name: adding a file adds a layout, and `order` says
where `layout="auto"` tries it (spec A.10).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from andon.datasets.dataset import Dataset
from andon.datasets.folder_names import RESERVED
from andon.datasets.folder_scan import folders_in


@dataclass(frozen=True, slots=True)
class Options:
    """What a reader may be told."""

    seed: int = 0
    """Seed of the hold-out rule."""
    hold_out: bool = True
    """Hold good images out for validation where the data set has no validation images of its own."""
    allow_outside: bool = False
    """Let a manifest name files outside its folder."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way files may lie."""

    name: str
    order: int
    """Place in the order of detection, lowest first."""
    expects: str
    """What must lie where, for the message that nothing fits."""
    find: Callable[[Path, Options], Mapping[str, Path]]
    """Categories at a path with the folder or file each is read from; empty where the layout does not fit."""
    read: Callable[[Path, str, Options], Dataset]
    """Read (that folder or file, category)."""


@cache
def layouts() -> dict[str, Layout]:
    """All layouts by name, in the order of detection."""
    found: list[Layout] = [
        importlib.import_module(f"{__name__}.{module.name}").LAYOUT
        for module in pkgutil.iter_modules(__path__)
    ]
    return {layout.name: layout for layout in sorted(found, key=lambda layout: layout.order)}


def by_folder(fits: Callable[[Path], bool]) -> Callable[[Path, Options], Mapping[str, Path]]:
    """`find` of a layout where one folder is one category: the folder itself, or its sub-folders that fit."""

    def find(path: Path, options: Options) -> Mapping[str, Path]:
        if not path.is_dir():
            return {}
        if fits(path):
            return {path.name: path}
        return {
            folder.name: folder
            for folder in folders_in(path)
            if folder.name.lower() not in RESERVED and fits(folder)
        }

    return find
