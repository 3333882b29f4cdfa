"""Large images in tiles: where they lie, how their maps become one map, how that map becomes one score. NumPy only.

A tile is a square of the image at its own resolution, shown to the network at the network's input size. Tiles overlap; the last
one of each row and column is moved inwards, so that no tile reaches beyond the image. Networks pad at the edge of a
tile and their maps differ there, so the outermost part of every tile counts only at the edge of the image; further inside
a cosine ramp leads over from one tile to the next. Weights of all tiles add up to 1 everywhere. The score is the mean
of a fixed number of cells of the whole map: it knows no tiles, and a larger image with the same defect keeps its score.

The same functions serve detectors (torch) and exported networks (`andon.runtime`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from andon.core.config import Config, Count
from andon.core.errors import DataError
from andon.core.image_files import read_size, save_exactly
from andon.core.images import chunks, read_pixels
from andon.core.records import Record

CELLS = 64
"""Cells of the image's map along the side of a tile."""
SIXTEENTHS = 16
"""Tiles are moved by whole sixteenths of their side, so that the strides of networks divide the movement."""
BLIND = 0.25
"""Share of the overlap, at the edge of a tile, that does not count; the ramp takes the half between."""
BATCH = 4
"""Tiles that pass through a network at a time."""

ROWS = 256
"""Rows of a map that are enlarged at a time."""

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""(H, W, 3) image or (B, H, W, 3) tiles: uint8, or float32 in [0, 1]."""
Map = npt.NDArray[np.float32]
TileMaps = Callable[[Sequence[Pixels]], Map]
"""B tiles (size, size, 3) to their raw maps (B, h, w)."""


class TileConfig(Config):
    """Large images are cut into overlapping tiles instead of being resized as a whole; off without a size."""

    size: Annotated[int, Field(ge=32, strict=True)] | None = None
    """Side of a tile in pixels of the image. At the network's input size nothing is resized; at twice that, halved."""
    overlap: Annotated[float, Field(ge=0.1, le=0.75)] = 0.5
    """Share of a tile's side that it has in common with the next one, at least. Less is faster; then seams can be seen in maps of
    detectors that see zeros beyond the edge (`extractor.edges=zeros`)."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Image score: mean of the largest cells of the image's map, as many as this share of one tile holds."""
    learn: Count = 300
    """Tiles that are learned from at most, drawn evenly from all images; the seed chooses them."""

    def tiling(self) -> Tiling | None:
        """How images are cut, or None where they are analysed as a whole."""
        if self.size is None:
            return None
        sixteenths = max(1, int(SIXTEENTHS * (1 - self.overlap) + 1e-9))
        return Tiling(self.size, max(1, sixteenths * self.size // SIXTEENTHS), self.share)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut, and how the score follows."""

    size: int
    """Side of a tile, in pixels."""
    step: int
    """Pixels from one tile to the next."""
    share: float
    """Share of a tile's cells that the score is the mean of."""

    @property
    def counted(self) -> int:
        """Cells that the image score is the mean of."""
        return max(1, round(self.share * CELLS**2))

    @property
    def score_rule(self) -> str:
        """In words: how the image score follows from the map of the whole image."""
        pixels = round(self.counted * (self.size / CELLS) ** 2)
        return f"mean of the {self.counted} largest cells ({pixels} pixels) of the map blended from all tiles"

    def score(self, blended: Map) -> float:
        """Image score of a blended map (h, w)."""
        largest = np.partition(blended, blended.size - self.counted, axis=None)[-self.counted :]
        return float(largest.mean(dtype=np.float64))

    def check(self, shape: Sequence[int], where: str = "this picture") -> None:
        """Raise `DataError`, which names `where`, for an image (H, W) that is smaller than a tile."""
        height, width = shape[:2]
        if min(height, width) < self.size:
            raise DataError(
                f"{where} is {width} x {height} pixels, smaller than a tile of {self.size} x {self.size}: leave it out, or fit "
                f"with tile.size={min(height, width)} or less, or without tiles"
            )

    def describe(self) -> str:
        """In words."""
        return f"{self.size} × {self.size} pixels, one every {self.step}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for reports and exported networks."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self | None:
        """Inverse of `to_json`; None stays None."""
        return None if data is None else cls(**data)


@dataclass(frozen=True, slots=True)
class Line:
    """The tiles along one side of an image, and what each contributes to the cells of the image's map."""

    begins: npt.NDArray[np.int64]
    """(n,) first pixel of each tile."""
    centres: npt.NDArray[np.float64]
    """(cells,) centre of each cell, in pixels."""
    weights: npt.NDArray[np.float64]
    """(n, cells); each column adds up to 1."""
    size: int
    """Side of a tile, in pixels."""

    @classmethod
    def of(cls, length: int, tiling: Tiling) -> Line:
        """The tiles along `length` pixels, which must not be fewer than a tile's."""
        begins = np.append(np.arange(0, length - tiling.size, tiling.step), length - tiling.size)
        count = round(length * CELLS / tiling.size)
        centres = (np.arange(count, dtype=np.float64) + 0.5) * (length / count)
        overlap = tiling.size - tiling.step
        blind, ramp = BLIND * overlap, (1 - 2 * BLIND) * overlap
        inside = centres - begins[:, None]  # (n, cells): pixels from the beginning of each tile
        rise = np.where(begins[:, None] == 0, 1.0, _smooth((inside - blind) / ramp))
        fall = np.where(
            begins[:, None] == length - tiling.size, 1.0, _smooth((tiling.size - blind - inside) / ramp)
        )
        weights = np.where((inside >= 0) & (inside <= tiling.size), rise * fall, 0.0)
        return cls(begins, centres, weights / weights.sum(0), tiling.size)

    def contributions(self, cells: int) -> list[tuple[slice, npt.NDArray[np.float32]]]:
        """For each tile whose map has `cells` along this side: the cells of the image it reaches, and (reached, cells)."""
        found = []
        places = np.arange(cells) + 0.5
        for begin, weights in zip(self.begins, self.weights, strict=True):
            reached = np.flatnonzero(weights)
            span = slice(int(reached[0]), int(reached[-1]) + 1)
            inside = (self.centres[span] - begin) * (cells / self.size)
            reach = max(1.0, cells / CELLS)  # a coarser cell looks at all the finer ones it covers
            near = np.maximum(1 - np.abs(places - inside[:, None]) / reach, 0)
            matrix = weights[span, None] * near / near.sum(1, keepdims=True)
            found.append((span, matrix.astype(np.float32)))
        return found


def _smooth(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From 0 to 1 along half a cosine; `_smooth(x) + _smooth(1 - x)` is 1."""
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.clip(x, 0, 1)))


def lines(shape: Sequence[int], tiling: Tiling, where: str = "this picture") -> tuple[Line, Line]:
    """Tiles along height and width of an image (H, W). Raises `DataError` where a tile is larger than the image."""
    tiling.check(shape, where)
    height, width = shape[:2]
    return Line.of(height, tiling), Line.of(width, tiling)


def analyse_in_tiles(
    pixels: Pixels, tiling: Tiling, maps: TileMaps, *, batch: int = BATCH, where: str = "this picture"
) -> Map:
    """(H, W, 3) image to its raw map (h, w), `CELLS` cells for the side of a tile; `batch` tiles at a time."""
    rows, columns = lines(pixels.shape, tiling, where)
    blended = np.zeros((len(rows.centres), len(columns.centres)), np.float32)
    down: list[tuple[slice, npt.NDArray[np.float32]]] = []
    across: list[tuple[slice, npt.NDArray[np.float32]]] = []
    places = product(range(len(rows.begins)), range(len(columns.begins)))
    for chunk in chunks(places, batch):
        found = maps([_cut(pixels, rows.begins[r], columns.begins[c], tiling.size) for r, c in chunk])
        if not down:
            down, across = rows.contributions(found.shape[1]), columns.contributions(found.shape[2])
        for (r, c), cells in zip(chunk, found, strict=True):
            (over, left), (along, right) = down[r], across[c]
            blended[over, along] += left @ cells @ right.T
    return blended


def enlarge(blended: Map, size: tuple[int, int]) -> Map:
    """(h, w) to (H, W): bilinear, half-pixel centres, as `andon.detectors._base.enlarge` does it."""
    (low, high, towards), (left, right, along) = (
        _between(cells, pixels) for cells, pixels in zip(blended.shape, size, strict=True)
    )
    across = blended[:, left] * (1 - along) + blended[:, right] * along  # (h, W)
    whole = np.empty(size, np.float32)
    for k in range(0, size[0], ROWS):
        some = slice(k, k + ROWS)
        whole[some] = across[low[some]] * (1 - towards[some, None]) + across[high[some]] * towards[some, None]
    return whole


def _between(
    cells: int, pixels: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each pixel the two cells it lies between, and how far towards the second."""
    places = np.clip((np.arange(pixels) + 0.5) * (cells / pixels) - 0.5, 0, cells - 1)
    first = places.astype(np.int64)
    return first, np.minimum(first + 1, cells - 1), (places - first).astype(np.float32)


def _cut(pixels: npt.NDArray[Any], top: int, left: int, size: int) -> npt.NDArray[Any]:
    return pixels[top : top + size, left : left + size]


# Learning ------------------------------------------------------------------------------------------------------------


def cut_records(
    records: Sequence[Record], tiling: Tiling, most: int, seed: int, folder: Path
) -> Iterator[list[Record]]:
    """Write at most `most` tiles of the records' images into `folder`; yields the tiles of one image after the other.

    Each image is decoded once, and only one is held. Tiles of 8-bit images are PNG files, of deeper ones 16-bit TIFF.
    """
    sides = [lines(read_size(record.image), tiling, str(record.image)) for record in records]
    chosen = drawn([len(rows.begins) * len(columns.begins) for rows, columns in sides], most, seed)
    for k, (record, (rows, columns), places) in enumerate(zip(records, sides, chosen, strict=True)):
        pixels = read_pixels(record) if places else None
        found = []
        for place in places:
            row, column = divmod(place, len(columns.begins))
            top, left = int(rows.begins[row]), int(columns.begins[column])
            assert pixels is not None
            tile = pixels[top : top + tiling.size, left : left + tiling.size]
            file = save_exactly(folder / f"{k:05d}-{top:05d}-{left:05d}", tile)
            found.append(_tile_of(record, file, top, left))
        yield found


def drawn(counts: Sequence[int], most: int, seed: int) -> list[list[int]]:
    """Which tiles of each image are taken, ascending: of images with so many tiles, as evenly as possible, at most `most`."""
    rng = np.random.Generator(np.random.PCG64DXSM(seed))
    orders = [rng.permutation(count) for count in counts]
    turns = sorted((turn, k) for k, count in enumerate(counts) for turn in range(count))[:most]
    chosen: list[list[int]] = [[] for _ in counts]
    for turn, k in turns:
        chosen[k].append(int(orders[k][turn]))
    return [sorted(places) for places in chosen]


def image_of(tile: Record) -> str:
    """The id of the image that a tile of `cut_records` was cut from."""
    return tile.id.rpartition("@")[0]


def _tile_of(record: Record, file: Path, top: int, left: int) -> Record:
    return replace(
        record,
        image=file,
        id=f"{record.id}@{left},{top}",
        masks=(),
        mask_kind="none",
        depth=None,
        region=None,
        bit_depth=16,  # as `save_exactly` writes it
    )
