"""USB cameras, network streams and video files by OpenCV. OpenCV is imported here."""

from __future__ import annotations

import os
from collections.abc import Mapping

import cv2
import numpy as np

from andon.line.cameras.camera import CameraFailed, Frame, Value
from andon.line.cameras.folder import Pace
from andon.line.clock import Clock, now_us

SETTINGS = {
    "exposure": cv2.CAP_PROP_EXPOSURE,
    "gain": cv2.CAP_PROP_GAIN,
    "width": cv2.CAP_PROP_FRAME_WIDTH,
    "height": cv2.CAP_PROP_FRAME_HEIGHT,
}
OPEN_MS, READ_MS = 5000, 5000
"""After which a stream counts as lost."""

os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")


class OpenCvCamera:
    """A camera that shoots by itself. It does not count its images; their time is that of arrival less `delay_ms`."""

    on_demand = False

    def __init__(
        self, source: int | str, *, name: str = "", delay_ms: float = 0.0, clock: Clock = now_us
    ) -> None:
        """`source`: number of a USB camera or address; `name`: what people see instead, where it is secret."""
        self._source, self._name = source, name or str(source)
        self._delay, self._clock = round(delay_ms * 1000), clock
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Connect. Raises `CameraFailed`."""
        if isinstance(self._source, int):
            capture = cv2.VideoCapture(self._source)
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
            capture = cv2.VideoCapture(self._source, cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            raise CameraFailed(f"camera {self._name} does not open: see cable, address and rights")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._capture = capture

    def grab(self, timeout: float) -> Frame:
        """The next image. OpenCV waits by its own limits (streams: 5 s), whatever `timeout` is."""
        there, pixels = self._opened().read()
        if not there:
            raise CameraFailed(f"camera {self._name} gives no images any more: see cable and power")
        return Frame(_rgb(pixels), self._clock() - self._delay)

    def settings(self) -> Mapping[str, Value]:
        """In the units of the driver."""
        capture = self._opened()
        found: dict[str, Value] = {name: capture.get(number) for name, number in SETTINGS.items()}
        return {**found, "pixel_format": _letters(int(capture.get(cv2.CAP_PROP_FOURCC)))}

    def health(self) -> Mapping[str, Value]:
        """Which part of OpenCV reads the camera."""
        return {"backend": self._opened().getBackendName()}

    def close(self) -> None:
        """Disconnect."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _opened(self) -> cv2.VideoCapture:
        if self._capture is None:
            raise CameraFailed(f"camera {self._name} is not open")
        return self._capture


class VideoCamera(OpenCvCamera):
    """Plays a video file, over and over."""

    def __init__(self, file: str, *, every_s: float = 0.0, clock: Clock = now_us) -> None:
        """`every_s`: as for `FolderCamera`."""
        super().__init__(file, clock=clock)
        self.on_demand, self._every, self._taken = not every_s, every_s, 0

    def open(self) -> None:
        """Open the file."""
        super().open()
        self._pace = Pace(self._every)

    def grab(self, timeout: float) -> Frame:
        """The next image of the file."""
        self._pace.wait(timeout)
        capture = self._opened()
        there, pixels = capture.read()
        if not there:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            there, pixels = capture.read()
        if not there:
            raise CameraFailed(f"{self._name} holds no images that can be read: give another file")
        self._taken += 1
        return Frame(_rgb(pixels), self._clock(), self._taken)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's order is BGR."""
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])


def _letters(code: int) -> str:
    """Four letters of a pixel format."""
    return code.to_bytes(4, "little", signed=code < 0).decode("latin-1").strip("\0 ")
