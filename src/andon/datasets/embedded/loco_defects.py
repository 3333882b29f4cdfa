"""Defect types of sets in the layout of MVTec LOCO AD: group, pixel value of the mask and saturation area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from andon.core.files import to_json


@dataclass(frozen=True, slots=True)
class LocoDefect:
    """One defect type."""

    name: str
    group: Literal["logical", "structural"]
    pixel_value: int | None
    """Value in the mask file; None for a defect that is two others at once, whose masks have the values of those."""
    area: int = 0
    """Saturation area in pixels at f = 1; 0 for the whole defect (relative saturation 1.0)."""


def pixel_values(rows: Sequence[LocoDefect], group: str | None = None) -> dict[str, int]:
    """{defect type: pixel value} of the rows that have one, of one group or of both."""
    return {
        row.name: row.pixel_value
        for row in rows
        if row.pixel_value is not None and group in (None, row.group)
    }


def defects_config(rows: Sequence[LocoDefect], size: int) -> str:
    """`defects_config.json`: pixel value and saturation area of every defect type, as JSON."""
    scale = (size / 256) ** 2
    listed = [
        {
            "defect_name": row.name,
            "pixel_value": row.pixel_value,
            "saturation_threshold": round(row.area * scale) if row.area else 1.0,
            "relative_saturation": not row.area,
        }
        for row in rows
        if row.pixel_value is not None
    ]
    return to_json(listed) + "\n"
