"""Heat maps, masks and float maps. The colour scale is the same for all images of a detector.

The scale is that of `Calibration.pixel_display`: 0 = a typical good pixel, 1 = the pixel threshold. Values below 0.5 are
transparent, values up to the threshold faint blue, values from the threshold on orange to yellow. The colours can be
told apart with any colour vision, and their lightness rises with the value. A white line surrounds the marked pixels.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from andon.core.deep_images import AlphaWarning
from andon.core.files import writing
from andon.core.image_files import decode
from andon.core.own_output import mark
from andon.core.records import Prediction, Record
from andon.core.region import inspected_pixels
from andon.report.file_names import single_place

if TYPE_CHECKING:
    from andon.report.report import Case
    from andon.thresholds.calibration import Calibration

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) or, for colours with opacity, (..., 4)."""
Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

TOP = 2.0
"""Upper end of the scale in display units; larger values have its colour."""
STEPS = 256
"""Number of colours between 0 and `TOP`; even, so that one of them begins at the threshold."""
BELOW = ((0.0, (30, 70, 180, 0.0)), (0.5, (30, 70, 180, 0.0)), (1.0, (62, 124, 224, 0.55)))
ABOVE = ((1.0, (214, 64, 16, 0.72)), (1.5, (246, 150, 28, 0.84)), (2.0, (255, 236, 110, 0.92)))
"""Display value, then red, green, blue (0-255) and opacity (0-1); linear in between, with a step at the threshold."""
FOUND = (236, 110, 20)
"""Colour of pixels that the detector marks."""
TRUTH = (32, 150, 170)
"""Colour of annotated pixels."""
UNDER_HEAT, UNDER_MARKS = 0.8, 0.5
"""Brightness factor of the grey image under heat-map colours and under marks, below that of the lightest colour."""
HATCH = (110, 60)
"""Grey values (0-255) of the stripes over pixels that are not inspected."""
LUMA = np.array((0.2989, 0.587, 0.114), np.float32)
PAGE_SIDE = 768
"""Longest side in pixels of an image inside the page."""


def _table() -> Pixels:
    """(STEPS, 4): colour and opacity of each step of the scale."""
    values = np.arange(STEPS) * (TOP / STEPS)
    halves = [_between(values[values < 1], BELOW), _between(values[values >= 1], ABOVE)]
    return (np.concatenate(halves) * (1, 1, 1, 255)).round().astype(np.uint8)


def _between(
    values: npt.NDArray[np.floating[Any]], anchors: Sequence[tuple[float, tuple[float, ...]]]
) -> npt.NDArray[np.float64]:
    """(n, 4) colours of values (n,), linearly interpolated between the anchors."""
    colours = np.array([colour for _, colour in anchors])
    at = [value for value, _ in anchors]
    return np.stack([np.interp(values, at, channel) for channel in colours.T], axis=1)


TABLE = _table()


# --- drawing ------------------------------------------------------------------------------------------------


def heat_colours(shown: npt.NDArray[np.floating[Any]]) -> Pixels:
    """(..., 4) colour and opacity of display values (...); does not depend on the image."""
    steps = np.minimum(np.clip(np.nan_to_num(shown), 0, TOP) * (STEPS / TOP), STEPS - 1)
    return np.asarray(TABLE[steps.astype(np.uint8)], np.uint8)


def heat_map(image: Pixels, shown: Map, inspected: Mask | None = None) -> Pixels:
    """(H, W, 3) display values (H, W) over the grey image, with a line around values >= 1, the threshold.

    Pixels that are not `inspected` (H, W) are hatched.
    """
    colours = heat_colours(shown)
    drawn = _blend(_dimmed(image, UNDER_HEAT), colours[..., :3], colours[..., 3:])
    drawn[outline(shown >= 1)] = 255
    return drawn if inspected is None else _hatched(drawn, ~inspected)


def _hatched(image: Pixels, where: Mask) -> Pixels:
    """(H, W, 3) with grey stripes over the darkened image where `where`; stripes are 1/60 of the image wide, >= 2 px."""
    width = max(2, round(max(where.shape) / 60))
    rows, columns = np.ogrid[0 : where.shape[0], 0 : where.shape[1]]
    stripes = np.where((rows + columns) // width % 2, HATCH[0], HATCH[1])[:, :, None]
    return np.where(where[:, :, None], image // 4 + stripes, image).astype(np.uint8)


def marked(image: Pixels, mask: Mask, colour: tuple[int, int, int]) -> Pixels:
    """(H, W, 3) the pixels of the mask (H, W) in one colour, with a line around them, on the darkened grey image."""
    drawn = _dimmed(image, UNDER_MARKS)
    drawn[mask] = colour
    drawn[outline(mask)] = 255
    return drawn


def outline(mask: Mask) -> Mask:
    """(H, W) a line just outside the mask, 1/400 of the image thick and at least one pixel."""
    if not mask.any():
        return np.zeros_like(mask)
    width = max(1, round(max(mask.shape) / 400))
    grown = ndimage.maximum_filter(mask, size=2 * width + 1)
    return np.asarray(grown & ~mask, np.bool_)


def _dimmed(image: Pixels, brightness: float) -> Pixels:
    """(H, W, 3) grey image, multiplied by `brightness`."""
    grey = (image.astype(np.float32) @ (LUMA * np.float32(brightness))).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _blend(below: Pixels, above: Pixels, opacity: Pixels) -> Pixels:
    """Alpha blending in integers; opacity 0 returns `below` unchanged."""
    share = opacity.astype(np.uint16)
    mixed = below * (255 - share) + above * share  # at most 255 * 255, which 16 bits hold
    return ((mixed + 127) // 255).astype(np.uint8)


def read_image(path: Path, bit_depth: int = 16) -> Pixels:
    """(H, W, 3) pixels of an image file, decoded as for the evaluation. Raises `DataError` if it is unreadable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AlphaWarning)  # already warned when the image was evaluated
        return (decode(path, bit_depth=bit_depth).pixels * 255).round().astype(np.uint8)


def case_pixels(case: Case) -> Pixels:
    """(H, W, 3) pixels of a case's image, from memory if the evaluation kept them."""
    return read_image(case.record.image, case.record.bit_depth) if case.pixels is None else case.pixels


def full_map(case: Case, calibration: Calibration) -> Map:
    """(H, W) raw map of a case at its image's own size; on inspected pixels the map that the metrics used."""
    import torch

    from andon.detectors._base import enlarge

    enlarged = enlarge(torch.from_numpy(np.ascontiguousarray(case.raw_map))[None], case.size)
    return calibration.quieted(enlarged)


def case_mask(case: Case, raw: Map, calibration: Calibration) -> Mask:
    """(H, W) pixels of the full-size map `raw` that reach the pixel threshold; none if a gate calls the image good."""
    mask = raw >= np.float32(calibration.pixel.value)
    return np.zeros_like(mask) if case.gated is False else mask


# --- files --------------------------------------------------------------------------------------------------


def save_case(
    case: Case, calibration: Calibration, folder: Path, place: str, *, heatmaps: bool, map_place: str | None
) -> None:
    """Writes heat map and mask of a case (with `heatmaps`) to `place`, `<defect>/<image>`, and its float map to `map_place`."""
    raw = full_map(case, calibration)
    if heatmaps:
        shown = np.asarray(calibration.pixel_display(raw), np.float32)
        mask = case_mask(case, raw, calibration)
        _save_images(case.record, shown, mask, folder, place, case_pixels(case))
    if map_place is not None:
        _save_map(raw, folder, map_place)


def save_prediction(
    prediction: Prediction,
    calibration: Calibration,
    folder: Path,
    *,
    maps: bool = False,
    image: Pixels | None = None,
) -> None:
    """Writes heat map, mask and, with `maps`, the float map of a predicted file into subfolders of `folder`.

    The path in each subfolder is the record's id. `calibration` must be that of the prediction. `image` is the
    decoded image (H, W, 3); without it the file is read again.
    """
    if prediction.record is None:
        raise ValueError(
            "only a prediction of a file can be saved, this one is of an array; draw it with heat_map"
        )
    place = single_place(prediction.record)
    mask = prediction.raw_map >= np.float32(calibration.pixel.value)
    record = replace(prediction.record, region=calibration.region)
    image = read_image(record.image, calibration.bit_depth) if image is None else image
    _save_images(record, prediction.anomaly_map, mask, folder, place, image)
    if maps:
        _save_map(prediction.raw_map, folder, place)


def _save_images(record: Record, shown: Map, mask: Mask, folder: Path, place: str, image: Pixels) -> None:
    inside = inspected_pixels(record, (shown.shape[0], shown.shape[1]))
    mark(folder / "heatmaps")
    mark(folder / "masks")
    _save_png(heat_map(image, shown, inside), folder / "heatmaps" / f"{place}.png")
    _save_png(mask.astype(np.uint8) * np.uint8(255), folder / "masks" / f"{place}.png")


def _save_png(pixels: Pixels, path: Path) -> None:
    with writing(path) as part:
        Image.fromarray(pixels).save(part, format="PNG", compress_level=4)


def _save_map(raw: Map, folder: Path, place: str) -> None:
    """Writes an uncompressed float32 TIFF, which every reader opens."""
    import tifffile

    mark(folder / "maps")
    with writing(folder / "maps" / f"{place}.tiff") as part:
        tifffile.imwrite(part, raw, photometric="minisblack", metadata=None)


# --- images inside the page -------------------------------------------------------------------------------


def data_uri(pixels: Pixels, side: int = PAGE_SIDE) -> str:
    """An image as a `data:` URI, at most `side` pixels on its longest side."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=88, subsampling=0)
    return _encoded(stream.getvalue(), "jpeg")


def png_uri(content: bytes) -> str:
    """A PNG file as a `data:` URI."""
    return _encoded(content, "png")


def scale_uri(width: int = 600, height: int = 24) -> str:
    """The colour scale from 0 to `TOP` on middle grey as a `data:` URI, drawn by `heat_map`."""
    shown = np.tile(np.linspace(0, TOP, width, endpoint=False, dtype=np.float32), (height, 1))
    return data_uri(heat_map(np.full((height, width, 3), 150, np.uint8), shown))


def _encoded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
