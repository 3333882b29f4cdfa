"""Image files in folders: suffixes, natural order, and the walk that every command takes. No file is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from andon.core.errors import DataError
from andon.core.own_output import MARKER, is_own

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp"})
"""Suffixes of JPEG files, in lower case."""
SUFFIXES = JPEG_SUFFIXES | {".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp"}
"""Suffixes of image files, in lower case."""
# fmt: off
OTHER_FORMATS = frozenset({
    ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".jxl", ".heic", ".heif", ".hif", ".avif", ".mpo",
    ".ico", ".icns", ".tga", ".pcx", ".psd", ".xcf", ".exr", ".hdr", ".dds", ".sgi", ".ras", ".svg", ".eps", ".dng", ".raw",
    ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".fit", ".fits", ".dcm", ".npy", ".czi", ".lsm",
    ".btf",
})
# fmt: on
"""Suffixes of images in formats that are not read, in lower case."""
IGNORED = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", ".ds_store", "@eadir", "$recycle.bin"}
)
"""Files and folders of operating systems, in lower case."""

OWN, FORMAT, FILE, HIDDEN, BROKEN, LINK = (
    "own_output",
    "other_format",
    "no_picture",
    "hidden",
    "not_there",
    "linked_again",
)
MEANING = {
    OWN: ("folder written by andon", f"remove {MARKER} in it to read its pictures"),
    FORMAT: ("picture of a format that is not read", "save it as PNG, JPEG, BMP, TIFF or WebP"),
    FILE: ("file that is no picture", ""),
    HIDDEN: ("hidden picture", "rename it, without the dot, to have it read"),
    BROKEN: ("link to a missing file, or special file", "copy it again or remove it"),
    LINK: ("link to a folder that is read at its own place", ""),
}
"""What is passed by, by kind: its noun, and what can be done."""
NAMED = 3
"""Names that are kept of each kind; the rest is counted."""


@dataclass(slots=True)
class PassedBy:
    """What a walk met and did not read: the number of each kind, and the first names."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: Path) -> None:
        """Count one file or folder; `kind` is a key of `MEANING`."""
        self.counts[kind] += 1
        named = self.names.setdefault(kind, [])
        if len(named) < NAMED:
            named.append(str(path))

    def lines(self, *kinds: str) -> list[str]:
        """A sentence for each of the kinds (all where none is given) that was met."""
        return [self._line(kind) for kind in kinds or MEANING if self.counts[kind]]

    def _line(self, kind: str) -> str:
        count, named = self.counts[kind], self.names[kind]
        noun, advice = MEANING[kind]
        more = f" and {count - len(named)} more" if count > len(named) else ""
        return f"passed by: {count} x {noun}: {', '.join(named)}{more}" + (f"; {advice}" if advice else "")

    def to_json(self) -> dict[str, Any]:
        """Plain data: count and first names by kind."""
        return {kind: {"count": n, "first": self.names[kind]} for kind, n in self.counts.items()}


def is_image(path: Path) -> bool:
    """Whether the name has an image suffix and is neither hidden nor a system file (`thumbs.db`)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not is_system(path.name)


def is_system(name: str) -> bool:
    """Whether an operating system puts files or folders of this name beside others."""
    return name.lower() in IGNORED or name.startswith("._")


def list_images(folder: Path) -> list[Path]:
    """Images directly inside `folder`, in natural order. Empty files are included; decoding reports them."""
    with os.scandir(folder) as found:
        paths = [folder / entry.name for entry in found if is_image(Path(entry.name)) and is_file(entry)]
    return sorted(paths, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key for natural order: `img2` before `img10`."""
    parts: list[tuple[int, int | str]] = []
    digits = ""
    for ch in name + "\0":
        if ch.isascii() and ch.isdigit():
            digits += ch
            continue
        if digits:
            parts.append((0, int(digits)))
            digits = ""
        if ch != "\0":
            parts.append((1, ch.lower()))
    parts.append((2, name))
    return tuple(parts)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in `folder`, in no order, without system files. Raises `DataError` where it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not is_system(entry.name)]
    except OSError as error:
        raise DataError(
            f"folder {folder} cannot be listed ({error.strerror}): check path and permissions"
        ) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; not where that cannot be told, as of a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a regular file or leads to one; not where that cannot be told."""
    try:
        return entry.is_file()
    except OSError:
        return False


def images_below(folder: Path, passed: PassedBy | None = None) -> Iterator[Path]:
    """Images in `folder`, then those of the folders in it, each in natural order; names are read as they are needed.

    Linked folders are followed, but nothing is given twice: a link to a folder inside `folder`, to one above it, or to one
    that another link led to is passed by. Hidden folders are not looked into. What is passed by is added to `passed`.
    """
    yield from _Walk(folder, PassedBy() if passed is None else passed).below(folder)


class _Walk:
    def __init__(self, folder: Path, passed: PassedBy) -> None:
        self.root = Path(os.path.realpath(folder))
        self.passed = passed
        self.reached: set[Path] = set()
        """Real paths of folders outside the root that links led to."""

    def below(self, folder: Path, *, outside: bool = False) -> Iterator[Path]:
        if is_own(folder):
            self.passed.add(OWN, folder)
            return
        found = sorted(entries(folder), key=lambda entry: natural_key(entry.name))
        for entry in found:
            if not is_folder(entry):
                yield from self._file(folder, entry)
        for entry in found:
            path = folder / entry.name
            if not is_folder(entry) or entry.name.startswith("."):
                continue
            linked = outside or entry.is_symlink()
            if linked and self._known(path):
                self.passed.add(LINK, path)
            else:
                yield from self.below(path, outside=linked)

    def _file(self, folder: Path, entry: os.DirEntry[str]) -> Iterator[Path]:
        path = folder / entry.name
        kind = _why_not(path, entry)
        if kind is None:
            yield path
        elif kind:
            self.passed.add(kind, path)

    def _known(self, path: Path) -> bool:
        """Whether the folder a link leads to is read elsewhere; it counts as reached from now on."""
        target = Path(os.path.realpath(path))
        if target in self.reached or target.is_relative_to(self.root) or self.root.is_relative_to(target):
            return True
        self.reached.add(target)
        return False


def _why_not(path: Path, entry: os.DirEntry[str]) -> str | None:
    """Kind of a file that is passed by; None for an image, empty for hidden files that are no images."""
    suffix = path.suffix.lower()
    if entry.name.startswith("."):
        return HIDDEN if suffix in SUFFIXES else ""
    if not is_file(entry):
        return BROKEN if suffix in SUFFIXES or entry.is_symlink() else FILE
    if suffix in SUFFIXES:
        return None
    return FORMAT if suffix in OTHER_FORMATS or not suffix else FILE
