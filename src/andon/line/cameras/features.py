"""Names of the standard features of cameras (GenICam SFNC), as pylon and GenICam adapters read them."""

from __future__ import annotations

from typing import Literal

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


def first_line(error: Exception) -> str:
    """The first line of what GenICam says, without its place in the library."""
    return (str(error).partition(" : ")[0].splitlines() or [type(error).__name__])[0]
