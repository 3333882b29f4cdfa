"""Plays the image files of a folder as if a camera shot them, in the order of their names, over and over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from andon.line.cameras.camera import CameraFailed, Frame, NoFrame, Value
from andon.line.clock import Clock, now_us

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
"""Of the files that are played, and of those that `andon simulate` sends."""


class Pace:
    """When a camera that shoots by itself has its next image; at once where `every_s` is 0."""

    def __init__(self, every_s: float) -> None:
        self._every, self._next = every_s, time.monotonic()

    def wait(self, timeout: float) -> None:
        """Up to the next image; images that nobody took are left out. Raises `NoFrame` after `timeout` seconds."""
        ahead = self._next - time.monotonic()
        time.sleep(max(0.0, min(ahead, timeout)))
        if ahead > timeout:
            raise NoFrame(f"no image within {timeout:g} s")
        self._next = max(self._next, time.monotonic()) + self._every


class FolderCamera:
    """Adapter."""

    def __init__(self, folder: Path, *, every_s: float = 0.0, clock: Clock = now_us) -> None:
        """`every_s`: seconds between images that come by themselves; 0: images are taken on demand."""
        self.on_demand = not every_s
        self._folder, self._every, self._clock = folder, every_s, clock
        self._files: list[Path] = []
        self._taken = 0

    def open(self) -> None:
        """Read the names. Raises `CameraFailed` where there are no images."""
        try:
            self._files = sorted(path for path in self._folder.iterdir() if path.suffix.lower() in SUFFIXES)
        except OSError as error:
            raise CameraFailed(
                f"folder {self._folder} cannot be read ({error.strerror}): see its path"
            ) from None
        if not self._files:
            raise CameraFailed(
                f"folder {self._folder} has no images: put {', '.join(sorted(SUFFIXES))} into it"
            )
        self._pace = Pace(self._every)

    def grab(self, timeout: float) -> Frame:
        """The next file."""
        self._pace.wait(timeout)
        path = self._files[self._taken % len(self._files)]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CameraFailed(f"{path} cannot be read ({error.strerror}): put it back") from None
        self._taken += 1
        return Frame(content, self._clock(), self._taken, {"file": path.name})

    def settings(self) -> Mapping[str, Value]:
        """None."""
        return {}

    def health(self) -> Mapping[str, Value]:
        """Files that are played."""
        return {"files": len(self._files)}

    def close(self) -> None:
        """Nothing is held."""
