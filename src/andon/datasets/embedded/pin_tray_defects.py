"""Defect types of the sorting tray: group, pixel value of the mask and saturation area, as in MVTec LOCO AD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from andon.core.files import to_json


@dataclass(frozen=True, slots=True)
class TrayDefect:
    """One defect type of the tray."""

    name: str
    group: Literal["logical", "structural"]
    pixel_value: int | None
    """Value in the mask file; None for `displaced`, which has a mask of `missing_pin` and one of `additional_pin`."""
    pins: int = 0
    """Saturation area in multiples of `PIN_AREA`; 0 for the whole defect (relative saturation 1.0)."""


TRAY = "pin_tray"
PIN_AREA = 200
"""Area of one pin in pixels at f = 1."""
TRAY_DEFECTS = (
    TrayDefect("missing_pin", "logical", 255, pins=1),
    TrayDefect("additional_pin", "logical", 254, pins=1),
    TrayDefect("two_additional_pins", "logical", 253, pins=2),
    TrayDefect("wrong_colour", "logical", 252),
    TrayDefect("missing_separator", "logical", 251),
    TrayDefect("broken_pin", "structural", 250),
    TrayDefect("contamination", "structural", 249),
    TrayDefect("scratch", "structural", 248),
    TrayDefect("displaced", "logical", None),
)
STRUCTURAL_VALUES = {
    row.name: row.pixel_value
    for row in TRAY_DEFECTS
    if row.group == "structural" and row.pixel_value is not None
}
"""Pixel values of structural defects, whose masks are derived from images; scenes state those of logical ones."""


def defects_config(size: int) -> str:
    """`defects_config.json` of the tray: pixel value and saturation area of every defect type, as JSON."""
    scale = (size / 256) ** 2
    rows = [
        {
            "defect_name": row.name,
            "pixel_value": row.pixel_value,
            "saturation_threshold": round(row.pins * PIN_AREA * scale) if row.pins else 1.0,
            "relative_saturation": not row.pins,
        }
        for row in TRAY_DEFECTS
        if row.pixel_value is not None
    ]
    return to_json(rows) + "\n"
