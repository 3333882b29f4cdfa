"""Images and sub-folders of a folder. No image is opened, which keeps this fast on slow disks."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from andon.core.listing import entries, images_below, is_file, is_folder, is_image, natural_key
from andon.core.own_output import is_own, note
from andon.datasets.findings import FindingsLog
from andon.datasets.folder_names import MASKS


@dataclass(frozen=True, slots=True)
class FolderContent:
    """Images and sub-folders directly inside a folder, in natural order, without hidden and system files and without
    folders of images that andon drew."""

    images: tuple[Path, ...]
    folders: tuple[Path, ...]


def scan(folder: Path, log: FindingsLog | None = None) -> FolderContent:
    """List `folder`. Broken links and special files are left out, with a warning in `log`."""
    images, folders = [], []
    for entry in _entries(folder):
        path = folder / entry.name
        if is_folder(entry) and is_own(path):
            if log is not None:
                log.notes.append(note(path))
        elif is_folder(entry):
            folders.append(path)
        elif is_image(path):
            trouble = _trouble(entry)
            if trouble is None:
                images.append(path)
            elif log is not None:
                log.warnings.append(f"{path} is {trouble}: skipped, copy it again or remove it")
    return FolderContent(natural_order(images), natural_order(folders))


def folders_in(folder: Path) -> tuple[Path, ...]:
    """Folders directly inside `folder` in natural order; empty where `folder` is not a folder."""
    if not folder.is_dir():
        return ()
    found = [folder / entry.name for entry in _entries(folder) if is_folder(entry)]
    return natural_order([path for path in found if not is_own(path)])


def named(folders: Sequence[Path], names: Collection[str]) -> tuple[Path, ...]:
    """Those of `folders` whose name, in lower case, is one of `names`."""
    return tuple(folder for folder in folders if folder.name.lower() in names)


def has_images(folder: Path) -> bool:
    """Whether `folder` directly contains an image."""
    return any(is_image(Path(entry.name)) and is_file(entry) for entry in _entries(folder))


def image_folders(folder: Path, log: FindingsLog) -> list[tuple[Path, tuple[Path, ...]]]:
    """`folder` and the folders in it that hold images, without masks, each with its images in natural order."""
    for path in (folder, *folders_in(folder)):
        scan(path, log)  # says what is wrong with single files
    return [
        (inside, natural_order(list(listed)))
        for inside, listed in groupby(images_below(folder), key=lambda path: path.parent)
        if not any(part.lower() in MASKS for part in inside.relative_to(folder).parts)
    ]


def holds_images(folder: Path) -> bool:
    """Whether there is an image in `folder` or in the folders in it."""
    return any(True for _ in images_below(folder))


def natural_order(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Paths of one folder, sorted by stem (natural order), then by name."""
    return tuple(sorted(paths, key=lambda path: (natural_key(path.stem), path.name)))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in entries(folder) if not entry.name.startswith(".")]


def _trouble(entry: os.DirEntry[str]) -> str | None:
    if not is_file(entry):
        return "a link to a missing file" if entry.is_symlink() else "no regular file"
    return None
