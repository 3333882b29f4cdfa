"""Drawing of two terminal blocks with their labels and wires. Lengths are in pixels at f = 1."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from andon.datasets.embedded.primitives import (
    Box,
    Image,
    Mask,
    blend,
    box_around,
    box_grid,
    coverage,
    disc,
    grid,
    rectangle,
    value_noise,
)

BLOCKS, ROWS = 2, 3
PITCH, BLOCK_PITCH = 27.0, 126.0
"""Distance between the rows of a block, and between the centres of the blocks."""
LABEL_X, LABEL_HALF = 36.0, (17.0, 7.5)
BODY = (76.0, 172.0)
"""Left and right edge of a block."""
SCREWS_X, SCREW_RADIUS = (96.0, 140.0), 6.5
ENTRY_X, ENTRY_HALF = 162.0, (6.0, 7.5)
WIRE_START, WIRE_HALF_WIDTH = 160.0, 5.5
COLOURS = {
    "red": (0.74, 0.13, 0.12),
    "blue": (0.13, 0.30, 0.70),
    "yellow": (0.86, 0.70, 0.12),
    "green": (0.12, 0.50, 0.24),
}
PLATE, PLASTIC, HOLDER, ENTRY = (0.62, 0.64, 0.65), (0.44, 0.46, 0.47), (0.86, 0.86, 0.84), (0.10, 0.10, 0.11)
COPPER = (0.80, 0.46, 0.27)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a block: place and variation; what it carries is decided elsewhere."""

    y: float
    """Of its centre, in image pixels."""
    shift: float
    """Of the whole plate along x, in image pixels."""
    label: tuple[float, float, float]
    """Shift in x and y (pixels at f = 1) and angle of the label."""
    bend: tuple[float, float]
    """Deviation of the wire from a straight line along x, pixels at f = 1: in the middle and at the border."""
    tone: float
    slots: tuple[float, float]
    """Directions of the slots of the screws."""

    def label_distance(self, x: Image, y: Image, f: float, grow: float = 0.0) -> Image:
        """Signed distance to the label, larger by `grow` on every side."""
        dx, dy, angle = self.label
        half = (f * (LABEL_HALF[0] + grow), f * (LABEL_HALF[1] + grow))
        centre = (self.shift + f * (LABEL_X + dx), self.y + f * dy)
        return rectangle(x, y, *centre, half, angle, corner=2 * f)

    def wire_distance(self, x: Image, y: Image, f: float) -> Image:
        """Signed distance to the wire, across its axis; it leaves the image on the right."""
        start = np.float32(self.shift + f * WIRE_START)
        across = np.float32(f * WIRE_HALF_WIDTH) - np.abs(y - self.wire_axis(x, f))
        return np.asarray(np.minimum(across, x - start), np.float32)

    def wire_axis(self, x: Image, f: float) -> Image:
        """y of the axis of the wire at x."""
        t = np.clip((x - np.float32(self.shift + f * WIRE_START)) / np.float32(f * 96), 0, 1.2)
        middle, end = self.bend
        return np.asarray(self.y + f * (end * t**2 + middle * 4 * t * t * (1 - t)), np.float32)


def draw_plate(rng: np.random.Generator, height: int, f: float) -> Image:
    """(H, H, 3) painted sheet metal; `rng` generates its texture."""
    grain = 0.010 * value_noise(rng, height, height, 2.5 * f) + 0.016 * value_noise(
        rng, height, height, 50 * f, 2
    )
    return np.asarray(grain[:, :, None] + np.array(PLATE, np.float32), np.float32)


def draw_block(canvas: Image, rows: list[Row], light: tuple[float, float], f: float) -> None:
    """Draw the plastic body of a block with screws and empty entries; `light` is the direction of shadows."""
    middle = (rows[0].y + rows[-1].y) / 2
    centre = (rows[0].shift + f * (BODY[0] + BODY[1]) / 2, middle)
    half = (f * (BODY[1] - BODY[0]) / 2, (rows[-1].y - rows[0].y) / 2 + f * PITCH / 2)
    box = box_around(*centre, max(half) + 8 * f, *canvas.shape[:2])
    assert box is not None  # blocks lie in the image
    x, y = box_grid(box)
    shift = (4 * f * light[0], 4 * f * light[1])
    _shade(canvas, box, rectangle(x - shift[0], y - shift[1], *centre, half, corner=3 * f), f)
    body = rectangle(x, y, *centre, half, corner=3 * f)
    bevel = 0.10 * (1 - coverage(body - np.float32(2 * f), 2 * f))
    blend(canvas, box, coverage(body), (1 + bevel)[:, :, None] * np.array(PLASTIC, np.float32))
    for upper, lower in pairwise(rows):
        groove = rectangle(x, y, centre[0], (upper.y + lower.y) / 2, (half[0], 0.9 * f))
        blend(canvas, box, 0.55 * coverage(groove), 0.12)
    for row in rows:
        _draw_terminal(canvas, row, light, f)


def _draw_terminal(canvas: Image, row: Row, light: tuple[float, float], f: float) -> None:
    box = _band(row, BODY, canvas.shape[0], f)
    x, y = box_grid(box)
    entry = rectangle(
        x, y, row.shift + f * ENTRY_X, row.y, (f * ENTRY_HALF[0], f * ENTRY_HALF[1]), corner=2 * f
    )
    blend(canvas, box, coverage(entry), ENTRY)
    for place, angle in zip(SCREWS_X, row.slots, strict=True):
        cx, radius = row.shift + f * place, f * SCREW_RADIUS
        blend(canvas, box, coverage(disc(x, y, cx, row.y, radius + 1.5 * f)), 0.20)
        slope = ((x - np.float32(cx)) * light[0] + (y - np.float32(row.y)) * light[1]) / np.float32(radius)
        tone = 0.66 - 0.16 * slope
        blend(canvas, box, coverage(disc(x, y, cx, row.y, radius)), np.repeat(tone[:, :, None], 3, axis=2))
        slot = rectangle(x, y, cx, row.y, (radius, 1.1 * f), angle)
        blend(canvas, box, coverage(np.minimum(slot, disc(x, y, cx, row.y, radius))), 0.22)


def draw_label(canvas: Image, row: Row, colour: str | None, f: float) -> None:
    """Draw the label of a row in its holder, or the empty holder."""
    box = _band(row, (0.0, BODY[0]), canvas.shape[0], f)
    x, y = box_grid(box)
    blend(canvas, box, coverage(row.label_distance(x, y, f, grow=2.0)), HOLDER)
    if colour is not None:
        paint = (0.9 + row.tone) * np.array(COLOURS[colour], np.float32)
        blend(canvas, box, coverage(row.label_distance(x, y, f)), paint)


def draw_wire(canvas: Image, row: Row, colour: str, light: tuple[float, float], f: float) -> None:
    """Draw the wire of a row with its shadow."""
    box = _band(row, (WIRE_START - 8, 264.0), canvas.shape[0], f)
    x, y = box_grid(box)
    _shade(canvas, box, row.wire_distance(x, y - np.float32(5 * f * light[1]), f), f)
    paint = np.array(COLOURS[colour], np.float32) * (1 + row.tone)
    _paint_round(canvas, box, row, row.wire_distance(x, y, f), paint, f)


def draw_bare_wire(canvas: Image, row: Row, where: Mask, f: float) -> None:
    """Draw copper strands on the wire of a row inside `where` (H, H)."""
    box = _band(row, (WIRE_START - 8, 264.0), canvas.shape[0], f)
    x, y = box_grid(box)
    across = y - row.wire_axis(x, f)
    strands = np.float32(0.22) * np.sin((2.2 * across + x) / np.float32(f))
    paint = np.asarray((1 + strands)[:, :, None] * np.array(COPPER), np.float32)
    inside = np.where(where[box], row.wire_distance(x, y, f), np.float32(-1))
    _paint_round(canvas, box, row, np.asarray(inside, np.float32), paint, f)


def bare_area(row: Row, start: float, length: float, height: int, f: float) -> Mask:
    """(H, H) True on the wire from `start` (pixels at f = 1 from its begin) over `length`."""
    x, y = grid(height, height)
    along = (x - np.float32(row.shift + f * WIRE_START)) / np.float32(f)
    return np.asarray((row.wire_distance(x, y, f) > 0) & (along > start) & (along < start + length))


def _paint_round(canvas: Image, box: Box, row: Row, distance: Image, paint: Image, f: float) -> None:
    """Paint a cylinder along the axis of a wire where `distance` is positive."""
    x, y = box_grid(box)
    v = np.clip((y - row.wire_axis(x, f)) / np.float32(f * WIRE_HALF_WIDTH), -1, 1)
    tone = 0.52 + 0.48 * np.sqrt(1 - v**2) + 0.30 * np.exp(-((v + 0.4) ** 2) / 0.05)
    blend(canvas, box, coverage(distance), tone[:, :, None] * paint)


def _shade(canvas: Image, box: Box, distance: Image, f: float) -> None:
    """Darken with a soft edge where `distance` is positive."""
    canvas[box] *= (1 - 0.30 * coverage(distance, 5 * f))[:, :, None]


def _band(row: Row, columns: tuple[float, float], height: int, f: float) -> Box:
    """Box around a row between two columns (pixels at f = 1)."""
    reach = f * (PITCH / 2 + 8)
    left, right = (round(row.shift + f * column) for column in columns)
    rows = slice(max(0, int(row.y - reach)), min(height, int(row.y + reach) + 1))
    return rows, slice(max(0, left), min(height, right))
