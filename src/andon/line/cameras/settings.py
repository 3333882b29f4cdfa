"""Settings of the camera of a station."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from andon.core.text import whole_number
from andon.line.cameras.camera import Value
from andon.line.config import DAY_SECONDS, LineConfig

REPLAYS = ("folder", "video")
"""Kinds that play files; the source is a path."""
LARGEST_CAMERA = 9999
"""Number of a USB camera."""


class CameraSettings(LineConfig):
    """The camera of one station, and what makes it shoot."""

    kind: Literal["folder", "video", "usb", "rtsp", "genicam", "pylon"]
    """`folder` plays image files and `video` a file, over and over; the others are cameras."""
    source: str = ""
    """Folder, video file, number of the USB camera, address of the stream, serial number (`pylon`) or that or id
    (`genicam`; both empty: the first)."""
    producer: Path | None = None
    """`genicam`: the `.cti` file of the vendor; by default those in the folders of `GENICAM_GENTL64_PATH`."""
    trigger: Literal["software", "hardware", "newest"] = "software"
    """`software`: an image exposed after the trigger of PLC or REST; `newest`: the newest that was not judged, up to a cycle old;
    `hardware`: the camera is triggered by a sensor, and each image is a part, or that of the PLC's trigger."""
    timeout_s: float = Field(default=1.0, gt=0, le=60)
    """Seconds from a trigger to the image; without one the part is ERROR."""
    every_s: float = Field(default=0.0, ge=0, le=DAY_SECONDS)
    """`folder` and `video` shoot by themselves so often, in seconds; needed unless `trigger` is `software`."""
    delay_ms: float = Field(default=0.0, ge=0, le=60_000)
    """`usb` and `rtsp`: milliseconds from exposure to arrival, by which an image is older than it seems."""
    login_file: Path | None = None
    """`rtsp`: file with `USER:PASSWORD`; the address must not contain them."""
    expect: dict[str, Value] = Field(default_factory=dict)
    """Settings that the camera has to have (`andon camera settings` prints them); others raise an alarm."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.kind in REPLAYS:
            self._replay()
        elif self.every_s:
            raise ValueError(f"every_s is for folder and video, not for {self.kind}: remove it")
        if self.kind == "usb" and whole_number(self.source, LARGEST_CAMERA) is None:
            raise ValueError(f"source {self.source!r} of a usb camera has to be its number, e.g. '0'")
        if self.kind == "rtsp":
            self._stream()
        elif self.login_file is not None:
            raise ValueError(f"login_file is for rtsp, not for {self.kind}: remove it")
        if self.producer is not None and self.kind != "genicam":
            raise ValueError(f"producer is for genicam, not for {self.kind}: remove it")
        if self.trigger == "hardware" and self.kind in ("usb", "rtsp"):
            raise ValueError(f"a {self.kind} camera has no hardware trigger: use software or newest")
        return self

    def _replay(self) -> None:
        if not self.source:
            raise ValueError(f"a {self.kind} camera needs source, the path of the {self.kind}")
        if self.trigger != "software" and not self.every_s:
            raise ValueError(f"trigger {self.trigger} of a {self.kind} needs every_s, e.g. every_s = 2.0")

    def _stream(self) -> None:
        address = urlsplit(self.source)
        if address.scheme not in ("rtsp", "rtsps") or not address.hostname:
            raise ValueError("source of an rtsp camera has to be an address, e.g. rtsp://192.168.0.20/stream")
        if address.username or address.password:
            raise ValueError("source must not contain user and password: put USER:PASSWORD into a login_file")
