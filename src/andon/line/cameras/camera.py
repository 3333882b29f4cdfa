"""What a camera is to a station. An adapter opens one kind; one thread alone uses it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from andon.core.errors import AndonError

Value = int | float | str
"""A setting of a camera."""
CLOSE = 1e-3
"""Relative difference up to which two numbers are the same setting: cameras round what they are told."""


class CameraFailed(AndonError):  # noqa: N818 (names what happened)
    """The camera cannot be opened or gives no images: it has to be opened again."""


class FrameLost(AndonError):  # noqa: N818
    """One image did not arrive whole; the camera works."""

    def __init__(self, why: str, frame_no: int | None = None) -> None:
        """`frame_no`: its number, where the camera counts."""
        super().__init__(why)
        self.frame_no = frame_no


class NoFrame(AndonError):  # noqa: N818
    """No image came in time."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a camera."""

    image: bytes | npt.NDArray[np.uint8]
    """As encoded, or pixels (H, W, 3) RGB or (H, W)."""
    t_exposure: int
    """Microseconds UTC, as far as the adapter knows it: at the latest when the image arrived."""
    frame_no: int | None = None
    """As the camera counts; None where it does not."""
    meta: Mapping[str, Value] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The image as it came, or its pixels as PNG."""
        if isinstance(self.image, bytes):
            return self.image
        stream = io.BytesIO()
        Image.fromarray(self.image).save(stream, "PNG", compress_level=1)
        return stream.getvalue()


class Camera(Protocol):
    """A camera. What fails raises `CameraFailed`, or anything that the library of the vendor raises."""

    on_demand: bool
    """An image is taken when `grab` is called; otherwise images come by themselves, and `grab` has the next one."""

    def open(self) -> None:
        """Connect, again after `close`."""

    def grab(self, timeout: float) -> Frame:
        """The next image. Raises `NoFrame` after `timeout` seconds, `FrameLost` for one that is not whole."""

    def settings(self) -> Mapping[str, Value]:
        """What is set now: `exposure`, `gain`, `pixel_format`, `width`, `height`, ... as far as the camera tells."""

    def health(self) -> Mapping[str, Value]:
        """Temperature, model, ... for people; empty where nothing is known."""

    def close(self) -> None:
        """Disconnect; also what was never open, or fails."""


def differences(expected: Mapping[str, Value], found: Mapping[str, Value]) -> list[str]:
    """What is set otherwise than expected, in words, by name; numbers may differ by `CLOSE`."""
    return [
        f"{name} is {found.get(name, 'not told')}, expected {value}"
        for name, value in sorted(expected.items())
        if not _same(value, found.get(name))
    ]


def _same(expected: Value, found: Value | None) -> bool:
    if isinstance(expected, str) or isinstance(found, str) or found is None:
        return expected == found
    return math.isclose(expected, found, rel_tol=CLOSE)


def lost_between(last: int | None, number: int | None) -> int:
    """Images that are missing between two numbers of a camera; 0 where it does not count or began again."""
    if last is None or number is None or number <= last:
        return 0
    return number - last - 1
