"""A simulated line: a camera that shoots photographs of the package every two seconds, and a fault that begins after a minute.

The line stands while the station wants it to; after a resume good parts come again, then the fault again.
"""

from __future__ import annotations

import logging
import threading
import uuid
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from andon.core.errors import AndonError
from andon.line.line import Line
from andon.line.station import Part

LOG = logging.getLogger(__name__)
STATION = "demo"
EVERY_SECONDS = 2.0
GOOD_PARTS = 30
"""Good parts before the fault begins: a minute."""


class Camera:
    """Shoots until it is stopped."""

    def __init__(
        self, line: Line, folder: Path, *, every: float = EVERY_SECONDS, good_parts: int = GOOD_PARTS
    ) -> None:
        """`folder`: of the photographs."""
        self._line, self._every, self._good_parts = line, every, good_parts
        self._good, self._faulty = images(folder)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="andon-camera", daemon=True)

    def start(self) -> None:
        """Shoot as soon as the station is ready."""
        self._thread.start()

    def stop(self) -> None:
        """Shoot no more."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        shot = 0
        for number in count(1):
            if self._ended.wait(self._every):
                return
            if self._stands():
                shot = 0
                continue
            try:
                self._shoot(shot, number)
            except AndonError as error:
                LOG.warning("the demo's part %d: %s", number, error)
            shot += 1

    def _stands(self) -> bool:
        view = self._line.stations[STATION].view()
        return view.wants_stop or not view.is_ready

    def _shoot(self, shot: int, number: int) -> None:
        fault = shot - self._good_parts
        chosen = self._good[shot % len(self._good)] if fault < 0 else self._faulty[fault % len(self._faulty)]
        part = Part(
            chosen.read_bytes(), f"demo-{uuid.uuid4().hex}", f"cookie {number:04d}", "demo", source="demo"
        )
        self._line.stations[STATION].submit(part)


def images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Test images: good ones, and cracked ones, the largest crack first. None of them was learned from."""
    good = sorted((folder / "test" / "good").iterdir(), reverse=True)
    cracked = sorted((folder / "test" / "cracked").iterdir(), key=lambda path: (-_area(path), path.name))
    return good, cracked


def _area(image: Path) -> int:
    """Pixels of the crack."""
    mask = image.parents[2] / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
    with Image.open(mask) as opened:
        return int(np.count_nonzero(np.asarray(opened.convert("L"))))
