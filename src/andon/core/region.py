"""The inspected region of an image, for training, prediction, evaluation and exported networks.

A region file is a mask (white = inspected, black = ignored) or JSON with polygons in pixels of images of one size:

    {"size": [640, 480], "include": [[[20, 20], [620, 20], [620, 460], [20, 460]]], "ignore": [[[0, 0], [90, 0], [0, 90]]]}

Without `include` all pixels outside `ignore` are inspected. (0, 0) is the outer corner of the first pixel; a pixel belongs to a
polygon when its centre does. For images of another size the mask is resized by nearest neighbour.

Ignored pixels get a fixed colour in the decoded image, before it is resized or tiled, so that their content cannot affect a
score while anomalies next to them are still detected. The colour is the mean of ImageNet: normalised it is zero, like the
padding of a network.
"""

from __future__ import annotations

import base64
import hashlib
import reprlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.core.files import from_json
from andon.core.image_files import MAX_PIXELS, decode, max_pixels, read_size
from andon.core.records import Record

Mask = npt.NDArray[np.bool_]
Map = npt.NDArray[np.float32]
Polygon = list[tuple[float, float]]

FILL = (124, 116, 104)
"""Colour of ignored pixels (0-255): the mean of ImageNet."""
MAX_GREY = 0.2
"""Largest fraction of grey pixels in a mask."""
KEYS = ("size", "include", "ignore")
FARTHEST = 1e6
"""Largest coordinate of a polygon in pixels, on either side of 0."""


@dataclass(frozen=True, eq=False)
class InspectionRegion:
    """The inspected pixels of an image."""

    mask: Mask
    """(H, W), True for inspected pixels, at the image size for which the region was drawn."""
    fill: tuple[int, int, int] = FILL
    """Colour (0-255) of ignored pixels."""

    def __post_init__(self) -> None:
        if not self.mask.any():
            raise DataError(
                "the region leaves nothing to inspect: white is inspected and black ignored, `ignore` goes over `include`"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InspectionRegion) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @cached_property
    def sha256(self) -> str:
        """sha256 (hex) of mask and colour, part of the keys of cached features and resumed runs."""
        content = f"{self.mask.shape}{self.fill}".encode() + np.packbits(self.mask).tobytes()
        return hashlib.sha256(content).hexdigest()

    @property
    def share(self) -> float:
        """Inspected fraction of the image, in (0, 1]."""
        return float(self.mask.mean())

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether an image (H, W) has the aspect ratio of the region, up to rounding of a side to whole pixels."""
        off = abs(shape[0] * self.mask.shape[1] - shape[1] * self.mask.shape[0])
        return bool(off <= max(*shape, *self.mask.shape))

    def at(self, shape: tuple[int, int], who: object = "this picture") -> Mask:
        """(H, W) inspected pixels of an image of `shape`. Raises `DataError`, which names `who`, for another aspect ratio."""
        if not self.fits(shape):
            raise DataError(
                f"{who} is {shape[1]} x {shape[0]} pixels and the region was drawn for {self.mask.shape[1]} x "
                f"{self.mask.shape[0]}: pictures need the proportions of their region, draw one for these or leave them out"
            )
        return self.resized(shape)

    def filled(self, pixels: npt.NDArray[Any], who: object = "this picture") -> npt.NDArray[Any]:
        """(H, W, C), uint8 or float32 in [0, 1], with `fill` in ignored pixels and 0 in channels after the third."""
        inside = self.at((pixels.shape[0], pixels.shape[1]), who)
        colour: npt.NDArray[Any] = np.array([*self.fill, *[0] * max(0, pixels.shape[2] - 3)], np.uint8)
        if pixels.dtype != np.uint8:
            colour = colour.astype(np.float32) / np.float32(255)
        return np.where(inside[:, :, None], pixels, colour)

    def without_points(self, points: Map) -> Map:
        """(H, W, 3) points, 0 (missing) in ignored pixels."""
        inside = self.at((points.shape[0], points.shape[1]))
        return np.where(inside[:, :, None], points, np.float32(0))

    def lowered(self, anomaly_map: Map) -> Map:
        """(H, W) map with ignored pixels set to its minimum over inspected ones, so that they are never its maximum."""
        inside = self.at((anomaly_map.shape[0], anomaly_map.shape[1]))
        if not inside.any():
            return anomaly_map
        return np.where(inside, anomaly_map, anomaly_map[inside].min())

    def values(self, cells: Map) -> Map:
        """(N,) values of a map (h, w) at its inspected `cells`."""
        return cells[self.cells((cells.shape[0], cells.shape[1]))]

    def cells(self, shape: tuple[int, int]) -> Mask:
        """(h, w) inspected cells of a map of any size: with an inspected centre; if there is none, with an inspected pixel."""
        inside = self.resized(shape)
        if inside.any():
            return inside
        pixels = np.nonzero(self.mask)
        rows, columns = (
            at * cells // side for at, cells, side in zip(pixels, shape, self.mask.shape, strict=True)
        )
        inside = np.zeros(shape, np.bool_)
        inside[rows, columns] = True
        return inside

    def lowered_cells(self, cells: Map) -> Map:
        """A map (h, w) of any size with the lowest value of its inspected `cells` in the others: no score comes from them."""
        inside = self.cells((cells.shape[0], cells.shape[1]))
        return np.where(inside, cells, cells[inside].min())

    def check(self, records: Iterable[Record]) -> None:
        """Raise `DataError` for the first image with another aspect ratio; only headers are read."""
        for record in records:
            self.at(read_size(record.image), record.image)

    def resized(self, shape: tuple[int, int]) -> Mask:
        """(H, W) inspected pixels resized to `shape`, whatever its aspect ratio."""
        if shape == self.mask.shape:
            return self.mask
        rows, columns = (nearest_indices(new, old) for new, old in zip(shape, self.mask.shape, strict=True))
        return self.mask[np.ix_(rows, columns)]

    def to_json(self) -> dict[str, Any]:
        """JSON values for `detector.json` and the metadata of exported networks."""
        packed = base64.b64encode(zlib.compress(np.packbits(self.mask).tobytes(), 9)).decode("ascii")
        return {"size": [self.mask.shape[1], self.mask.shape[0]], "fill": list(self.fill), "bits": packed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InspectionRegion:
        """Inverse of `to_json`. Raises `ValueError` for a damaged one."""
        try:
            width, height = data["size"]
            mask = _unpacked(data["bits"], (height, width))
            red, green, blue = (int(value) for value in data["fill"])
            if not 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
                raise ValueError(f"its colour is {data['fill']}")
        except (KeyError, TypeError, ValueError, OverflowError, zlib.error) as error:
            raise ValueError(f"the stored region is damaged: {' '.join(str(error).split())}") from error
        return cls(mask, (red, green, blue))


def _unpacked(bits: str, shape: tuple[int, int]) -> Mask:
    """(H, W) of the bits that `to_json` gives. No more is unpacked than the shape says. Raises `ValueError`, `zlib.error`."""
    count = shape[0] * shape[1]
    if min(shape) < 1 or count > max(MAX_PIXELS, max_pixels()):
        raise ValueError(f"its size is {shape[1]} x {shape[0]}")
    size = -(-count // 8)
    unpacker = zlib.decompressobj()
    packed = unpacker.decompress(base64.b64decode(bits), size + 1)
    if len(packed) != size or not unpacker.eof:
        raise ValueError(f"its bits are not those of {shape[1]} x {shape[0]} pixels")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).reshape(shape).view(np.bool_)


def nearest_indices(new: int, old: int) -> npt.NDArray[np.int64]:
    """(new,) indices for nearest-neighbour resizing of `old` to `new` pixels with half-pixel centres, by integer arithmetic."""
    return (2 * np.arange(new, dtype=np.int64) + 1) * old // (2 * new)


def with_region(records: Sequence[Record], region: InspectionRegion | None) -> Sequence[Record]:
    """The records with `region` set; unchanged for None."""
    if region is None:
        return records
    return [replace(record, region=region) for record in records]


def inspected_pixels(record: Record, shape: tuple[int, int]) -> Mask | None:
    """(H, W) inspected pixels of a record's image, None for all."""
    return None if record.region is None else record.region.at(shape, record.image)


# Reading region files ------------------------------------------------------------------------------------------------


def read_region(path: str | Path) -> InspectionRegion:
    """The region in a mask file or in a JSON file with polygons.

    Raises `DataError`, which names the file, when it cannot be read, is not a mask, or no pixel is inspected.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"region {path} does not exist: give a mask picture or a JSON file with polygons")
    mask = _read_polygons(path) if path.suffix.lower() == ".json" else _read_mask(path)
    try:
        return InspectionRegion(mask)
    except DataError as error:
        raise DataError(f"region {path}: {error}") from None


def _read_mask(path: Path) -> Mask:
    """True above half of the largest value, so that masks of 0 and 1 work too."""
    try:
        brightness = decode(path).pixels.max(axis=2)
    except DataError as error:
        raise DataError(
            f"region {path} cannot be read: give a mask picture of at least 8 x 8 pixels (white = inspected, black = ignored) "
            "or a JSON file with polygons"
        ) from error
    largest = brightness.max()
    grey = float(((brightness > 0.25 * largest) & (brightness < 0.75 * largest)).mean())
    if grey > MAX_GREY:
        raise DataError(
            f"region {path} is no mask, {100 * grey:.0f} % of it is neither black nor white: paint what is inspected white and "
            "the rest black"
        )
    return np.asarray(brightness > largest / 2, np.bool_)


def _read_polygons(path: Path) -> Mask:
    try:
        data = from_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"region {path} cannot be read as JSON ({error}): correct it") from error
    if not isinstance(data, dict) or not set(data) <= set(KEYS) or "size" not in data:
        raise DataError(
            f"region {path} needs the keys size ([width, height] of the pictures it was drawn on) and include or ignore (lists "
            "of polygons), and no others"
        )
    width, height = _read_size(data["size"], path)
    include, ignore = (_polygons(data.get(key, []), f"region {path}, {key}") for key in KEYS[1:])
    inside = np.zeros((height, width), np.bool_) if include else np.ones((height, width), np.bool_)
    for polygon in include:
        inside |= polygon_pixels(polygon, (height, width))
    for polygon in ignore:
        inside &= ~polygon_pixels(polygon, (height, width))
    return inside


def _read_size(size: Any, path: Path) -> tuple[int, int]:
    whole = (
        isinstance(size, list) and len(size) == 2 and all(type(side) is int and side >= 8 for side in size)
    )
    if not whole:
        raise DataError(
            f"region {path}: size is {reprlib.repr(size)}, must be [width, height] in whole pixels, from 8 on"
        )
    width, height = size
    if width * height > max_pixels():
        raise DataError(
            f"region {path}: size is {reprlib.repr(size)}, more pixels than the limit of {max_pixels()}: give that of the "
            "pictures, or raise ANDON_MAX_PIXELS where the memory suffices"
        )
    return width, height


def _polygons(values: Any, where: str) -> list[Polygon]:
    if not isinstance(values, list):
        raise DataError(
            f"{where} is {type(values).__name__}, must be a list of polygons [[[x, y], ...], ...]"
        )
    return [_polygon(points, f"{where}, polygon {k}") for k, points in enumerate(values, start=1)]


def _polygon(points: Any, where: str) -> Polygon:
    pairs = isinstance(points, list) and all(isinstance(p, list) and len(p) == 2 for p in points)
    if not pairs or not all(type(v) in (int, float) and abs(v) <= FARTHEST for p in points for v in p):
        raise DataError(
            f"{where} must be a list of points [x, y], numbers in pixels from {-FARTHEST:.0f} to {FARTHEST:.0f}: correct it"
        )
    if len(points) < 3:
        raise DataError(f"{where} has {len(points)} points, a polygon has at least 3: add the missing ones")
    return [(float(x), float(y)) for x, y in points]


def polygon_pixels(polygon: Polygon, shape: tuple[int, int]) -> Mask:
    """(H, W), True for pixels whose centre is inside a closed polygon (even-odd rule)."""
    height, width = shape
    crossed = np.zeros((height, width + 1), np.bool_)  # where a row of pixel centres crosses an edge
    for (x0, y0), (x1, y1) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        low, high = np.clip(np.ceil(np.sort([y0, y1]) - 0.5), 0, height).astype(np.int64)
        if low == high:
            continue
        rows = np.arange(low, high)
        x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        crossed[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :width]
