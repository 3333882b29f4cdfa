"""Names of the standard features of cameras (GenICam SFNC), as pylon and GenICam adapters read them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Literal

from andon.line.cameras.camera import Value

SETTINGS = {
    "exposure": ("ExposureTime", "ExposureTimeAbs"),
    "gain": ("Gain", "GainRaw"),
    "pixel_format": ("PixelFormat",),
    "width": ("Width",),
    "height": ("Height",),
    "offset_x": ("OffsetX",),
    "offset_y": ("OffsetY",),
}
"""Names of the same setting in different cameras, the newer one first. `exposure` is in microseconds."""
HEALTH = {"temperature": ("DeviceTemperature", "TemperatureAbs")}
Trigger = Literal["software", "hardware", "newest"]


def values(
    names: Mapping[str, tuple[str, ...]], read: Callable[[str], Value], absent: type[Exception]
) -> dict[str, Value]:
    """What a camera has of `names`, each by the first feature that it knows; reading others raises `absent`."""
    found: dict[str, Value] = {}
    for ours, theirs in names.items():
        for name in theirs:
            with contextlib.suppress(absent, AttributeError):
                found.setdefault(ours, read(name))
    return found


def first_line(error: Exception) -> str:
    """The first line of what GenICam says, without its place in the library."""
    return (str(error).partition(" : ")[0].splitlines() or [type(error).__name__])[0]
