"""Ground truth masks: annotated defects of an image, and the saturation areas of MVTec LOCO AD.

docs/reference/data.md, "Masks"; saturation: Bergmann et al., "Beyond Dents and Scratches", IJCV 130, 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.core.files import from_json
from andon.core.image_files import read_mask
from andon.core.records import Defect, GroundTruth, Record
from andon.core.region import inspected_pixels
from andon.datasets.findings import first_few

SOFT_ABOVE = 127
"""Larger values are anomalous in masks with grey edges (MTD)."""
LARGEST_SHARE = 0.9
"""Share of an image from which on a mask is refused, since it seems inverted."""
CONFIG_KEYS = {"defect_name", "pixel_value", "saturation_threshold", "relative_saturation"}


@dataclass(frozen=True, slots=True)
class Saturation:
    """Area from which a defect counts as completely detected (sPRO)."""

    defect_name: str
    threshold: float
    """Pixels, or where `relative` a fraction in (0, 1] of the defect's area."""
    relative: bool

    def area(self, pixels: int) -> int:
        """Saturation area in pixels of a defect of `pixels` > 0 pixels, in [1, `pixels`]."""
        area = int(self.threshold * pixels) if self.relative else min(int(self.threshold), pixels)
        return max(1, area)


def load_ground_truth(
    record: Record, shape: tuple[int, int], saturation: Mapping[int, Saturation] | None = None
) -> GroundTruth:
    """Annotated defects of an image of `shape` = (H, W), one per mask file that is not empty.

    A pixel is anomalous where the stored value (palette index) is not 0, in `soft` masks where it is above 127. Pixels
    outside the inspected region are not. With `saturation` each file must hold one value besides 0, which selects the
    entry; without it a defect saturates at its own area. An anomalous image without a mask, or with an empty one, has no
    defects here: see `has_pixel_truth`. Raises `DataError` when a mask cannot be read, differs in size from the image, is
    not empty for an image labelled good, holds several values (grey edges), seems inverted, or holds a value that `saturation`
    does not list.
    """
    defects = []
    for path in record.masks:
        values = read_mask(path)
        if values.shape != tuple(shape):
            raise DataError(
                f"mask {path} is {values.shape[1]} x {values.shape[0]} pixels but {record.image} is "
                f"{shape[1]} x {shape[0]} (after EXIF rotation): masks are never resized, export it "
                "again at the picture's size"
            )
        mask = values > SOFT_ABOVE if record.mask_kind == "soft" else values != 0
        area = int(np.count_nonzero(mask))
        if not area:
            continue
        if record.label == 0:
            raise DataError(
                f"mask {path} marks {area} pixels of {record.image}, which is labelled good: correct "
                "label or mask"
            )
        if record.mask_kind in ("single", "channels"):
            _check_black_and_white(path, values, mask, saturation is not None)
        inspected = inspected_pixels(record, shape)
        if inspected is not None:
            mask &= inspected
            area = int(np.count_nonzero(mask))
        if area:
            defects.append(_defect(record, path, values, mask, area, saturation))
    return GroundTruth(tuple(defects), (shape[0], shape[1]))


def _check_black_and_white(
    path: Path, values: npt.NDArray[np.integer], mask: npt.NDArray[np.bool_], named: bool
) -> None:
    """Raise `DataError` for a mask with further values, unless they are `named`, and for one that seems inverted."""
    found = mask_values(values)
    if len(found) > 1 and not named:
        raise DataError(
            f"mask {path} holds {len(found)} values besides 0 ({first_few([str(value) for value in found])}): "
            "save it black and white, without loss (PNG)"
        )
    share = float(mask.mean())
    frame = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    if share > LARGEST_SHARE or (share > 0.5 and all(side.all() for side in frame)):
        raise DataError(
            f"mask {path} marks {100 * share:.0f} % of its picture, so it seems inverted (every value but 0 marks a defect, "
            "transparency is not read): save it white on black, or remove it where the whole picture is defective"
        )


def has_pixel_truth(record: Record, truth: GroundTruth) -> bool:
    """Whether the image can be used for pixel-level metrics: it is good, or its mask is not empty."""
    return record.label == 0 or bool(truth.defects)


def mask_values(values: npt.NDArray[np.integer]) -> list[int]:
    """Distinct values of a mask without 0, ascending."""
    marked = values[values != 0]
    if marked.size and marked.dtype.kind in "ui" and marked.min() >= 0 and marked.max() < 65536:
        return [int(value) for value in np.flatnonzero(np.bincount(marked.ravel()))]
    return [int(value) for value in np.unique(marked)]


def _defect(
    record: Record,
    path: Path,
    values: npt.NDArray[np.integer],
    mask: npt.NDArray[np.bool_],
    area: int,
    saturation: Mapping[int, Saturation] | None,
) -> Defect:
    found = mask_values(values)
    if saturation is None:
        return Defect(mask, record.defect_type, found[-1], area)
    if len(found) != 1:
        raise DataError(
            f"mask {path} holds the values {found}: a mask of this data set holds 0 and one other value"
        )
    if found[0] not in saturation:
        raise DataError(
            f"mask {path} holds the value {found[0]}, which defects_config.json does not list: correct "
            "one of them"
        )
    entry = saturation[found[0]]
    return Defect(mask, entry.defect_name, found[0], entry.area(area))


def read_saturation(path: Path) -> dict[int, Saturation]:
    """Saturation by pixel value from a `defects_config.json`. Raises `DataError` when it is malformed."""
    try:
        entries = from_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as JSON ({error}): copy it again from the data set"
        ) from error
    if not isinstance(entries, list):
        raise DataError(
            f"{path} holds no list: expected one object per defect with {', '.join(sorted(CONFIG_KEYS))}"
        )
    table: dict[int, Saturation] = {}
    for number, entry in enumerate(entries, start=1):
        value, saturation = _saturation(entry, f"{path}, entry {number}")
        if value in table:
            raise DataError(
                f"{path}, entry {number}: pixel value {value} occurs twice, give each defect its own"
            )
        table[value] = saturation
    return table


def _saturation(entry: Any, where: str) -> tuple[int, Saturation]:
    if not isinstance(entry, dict) or not set(entry) >= CONFIG_KEYS:
        raise DataError(f"{where}: expected the keys {', '.join(sorted(CONFIG_KEYS))}")
    value, threshold, relative = (
        entry["pixel_value"],
        entry["saturation_threshold"],
        entry["relative_saturation"],
    )
    if type(value) is not int or not 1 <= value <= 255:
        raise DataError(f"{where}: pixel_value is {value!r}, must be a whole number from 1 to 255")
    if type(relative) is not bool:
        raise DataError(f"{where}: relative_saturation is {relative!r}, must be true or false")
    if type(threshold) not in (int, float) or not threshold > 0 or (relative and threshold > 1):
        allowed = "a share above 0 and up to 1" if relative else "a number of pixels above 0"
        raise DataError(f"{where}: saturation_threshold is {threshold!r}, must be {allowed}")
    return value, Saturation(str(entry["defect_name"]), threshold, relative)
