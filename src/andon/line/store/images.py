"""Images and maps outside the database: written after the commit of their row, never half, and found again at the start.

    images/2026/11/28/18/41_NG.png      original bytes, named by id and verdict
    maps/2026/11/28/18/41_NG.png        anomaly map
    thumbnails/2026/11/28/18/41_NG.jpg  made when first asked for
    quarantine/                         files that no row refers to

A row says `pending` until its file is on the disk, then `stored`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from shutil import disk_usage

from andon.core.errors import UsageError
from andon.core.files import write_bytes
from andon.line.clock import SECOND
from andon.line.store.records import ImageState, Inspection, NewInspection
from andon.line.store.thumbnails import thumbnail
from andon.line.verdicts import Verdict

LOG = logging.getLogger(__name__)

IMAGES, MAPS, QUARANTINE, THUMBNAILS = "images", "maps", "quarantine", "thumbnails"
PART = ".part"
"""Suffix of a file that is being written."""
WAITING_BYTES = 256 * 2**20
"""Most bytes that wait to be written; what comes beyond is lost, and its row says so."""
THREADS = 2
SETTLE_SECONDS = 0.5
"""Longest time between a file and the change of its row to `stored`, unless `SETTLE_ROWS` wait."""
SETTLE_ROWS = 64


class DiskLevel(IntEnum):
    """How full the disk is."""

    OK = 0
    LOW = 1
    """Worth a warning."""
    SHORT = 2
    """Images of parts that pass are left out."""
    FULL = 3
    """No image is written; the rest is for the database."""

    @property
    def says(self) -> str:
        """One line for people; empty while there is room."""
        return DISK_SAYS.get(self, "")


DISK_SAYS = {
    DiskLevel.LOW: "the disk is nearly full: make room, or images will be left out",
    DiskLevel.SHORT: "the disk is nearly full: images of parts that pass are left out",
    DiskLevel.FULL: "the disk is full: no image is stored",
}


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """Free space, as a share of the disk and in bytes, at which each level begins."""

    low_share: float = 0.05
    low_bytes: int = 2 * 10**9
    short_share: float = 0.01
    reserve_bytes: int = 64 * 2**20
    """Kept free of images for the database."""


@dataclass(frozen=True, slots=True)
class _File:
    row: int
    key: str
    data: bytes
    map_key: str | None
    map: bytes | None

    @property
    def size(self) -> int:
        return len(self.data) + len(self.map or b"")


class Images:
    """Files below `folder`. `settle` is called with ids and their new state, from a thread of this object."""

    def __init__(
        self, folder: Path, settle: Callable[[Sequence[int], ImageState], object], limits: DiskLimits
    ) -> None:
        self.folder = folder
        self.lost = 0
        """Images that could not be written since the start."""
        self._settle, self._limits = settle, limits
        # No SimpleQueue: its `get` may wait for ever in spite of a timeout.
        self._files: queue.Queue[_File | None] = queue.Queue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._threads = [
            threading.Thread(target=self._run, name=f"andon-images-{n}", daemon=True) for n in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def level(self, more: int = 0) -> DiskLevel:
        """How full the disk is, or would be with `more` bytes."""
        try:
            usage = disk_usage(self.folder)
        except OSError:
            return DiskLevel.FULL
        free = usage.free - self._waiting - more
        if free < self._limits.reserve_bytes:
            return DiskLevel.FULL
        if free < self._limits.short_share * usage.total:
            return DiskLevel.SHORT
        if free < max(self._limits.low_share * usage.total, self._limits.low_bytes):
            return DiskLevel.LOW
        return DiskLevel.OK

    def admit(self, new: NewInspection) -> ImageState:
        """Whether the image of a new part will be written."""
        if new.image is None:
            return ImageState.NONE
        level = self.level(len(new.image) + len(new.map or b""))
        if level is DiskLevel.FULL or (level is DiskLevel.SHORT and new.verdict is Verdict.OK):
            return ImageState.NOT_STORED
        return ImageState.PENDING

    def required(self, new: NewInspection) -> bool:
        """Whether a part whose image is not written is ERROR. Leaving out images of a nearly full disk is no error."""
        size = len(new.image or b"") + len(new.map or b"")
        return new.on_full_disk == "error" and self.level(size) is DiskLevel.FULL

    @staticmethod
    def keys(row: int, new: NewInspection, state: ImageState, now: int) -> tuple[str | None, str | None]:
        """Paths of image and map below the folder of the store; None where nothing is written."""
        if state is not ImageState.PENDING:
            return None, None
        hour = hour_name(now)
        name = f"{row}_{new.verdict.name}"
        key = f"{IMAGES}/{hour}/{name}{new.image_suffix.lower()}"
        return key, None if new.map is None else f"{MAPS}/{hour}/{name}.png"

    def put(self, row: Inspection, image: bytes, anomaly_map: bytes | None) -> None:
        """Write the files of a committed row soon; never waits."""
        assert row.image_key is not None
        file = _File(row.id, row.image_key, image, row.map_key, anomaly_map)
        with self._lock:
            fits = self._waiting + file.size <= WAITING_BYTES
            if fits:
                self._waiting += file.size
        if fits:
            self._files.put(file)
        else:
            self._lose(file.row, "more images wait than memory allows")

    def read(self, key: str | None) -> bytes | None:
        """Bytes of an image or map; None where the file is not there."""
        if key is None:
            return None
        try:
            return (self.folder / key).read_bytes()
        except OSError:
            return None

    def thumbnail(self, key: str | None) -> bytes | None:
        """JPEG of at most 320 px; made and kept when first asked for. None where the image is not there or not decodable."""
        small = thumbnail_key(key)
        if key is None or small is None:
            return None
        if (kept := self.read(small)) is not None:
            return kept
        made = thumbnail(self.folder / key)
        if made is not None and self.level() < DiskLevel.SHORT:
            with contextlib.suppress(UsageError, OSError):
                write_bytes(self.folder / small, made)
        return made

    def close(self) -> None:
        """Write what waits, then stop."""
        for _thread in self._threads:
            self._files.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        done: list[int] = []
        due = 0.0
        while True:
            with contextlib.suppress(queue.Empty):
                file = self._files.get(timeout=max(0.0, due - time.monotonic()) if done else None)
                if file is None:
                    break
                if self._written(file):
                    due = due if done else time.monotonic() + SETTLE_SECONDS
                    done.append(file.row)
            if done and (len(done) >= SETTLE_ROWS or time.monotonic() >= due):
                self._say_stored(done)
                done = []
        if done:
            self._say_stored(done)

    def _say_stored(self, rows: Sequence[int]) -> None:
        try:
            self._settle(rows, ImageState.STORED)
        except Exception:  # the next start finds the files of pending rows
            LOG.exception("rows of stored images stay pending")

    def _written(self, file: _File) -> bool:
        try:
            write_durably(self.folder / file.key, file.data)
            if file.map_key is not None and file.map is not None:
                write_durably(self.folder / file.map_key, file.map)
        except Exception as error:
            self._lose(file.row, getattr(error, "strerror", None) or str(error))
            return False
        finally:
            with self._lock:
                self._waiting -= file.size
        return True

    def _lose(self, row: int, why: str) -> None:
        LOG.error("image of inspection %d is lost: %s", row, why)
        with self._lock:
            self.lost += 1
        try:
            self._settle([row], ImageState.LOST)
        except Exception:
            LOG.exception("the row of a lost image stays pending")


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is there completely or not at all, even after power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(handle)


def thumbnail_key(image_key: str | None) -> str | None:
    """Path of the thumbnail that belongs to an image."""
    if image_key is None:
        return None
    return THUMBNAILS + image_key.removeprefix(IMAGES).rsplit(".", 1)[0] + ".jpg"


def delete_files(folder: Path, image_key: str | None, map_key: str | None) -> int:
    """Delete image, map and thumbnail of a row. Returns the bytes of what was there. Raises `OSError`."""
    freed = 0
    for key in (thumbnail_key(image_key), map_key, image_key):  # the image last: what is left has its row
        if key is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            size = (folder / key).stat().st_size
            (folder / key).unlink()
            freed += size
    return freed


def hourly_folders(top: Path) -> Iterator[Path]:
    """Folders `YYYY/MM/DD/HH` below `top`, newest first."""

    def below(folder: Path, depth: int) -> Iterator[Path]:
        if depth == 0:
            yield folder
            return
        for inner in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
            if inner.is_dir():
                yield from below(inner, depth - 1)

    return below(top, 4)


def hour_name(now: int) -> str:
    """Name of the folder of an hour, `YYYY/MM/DD/HH` in UTC."""
    return datetime.fromtimestamp(now // SECOND, UTC).strftime("%Y/%m/%d/%H")
