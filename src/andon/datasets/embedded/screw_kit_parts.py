"""Drawing of the box and the parts of the screw kit. Lengths are in pixels at f = 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from andon.datasets.embedded.primitives import (
    Box,
    Image,
    blend,
    box_around,
    box_grid,
    coverage,
    disc,
    rectangle,
    segment,
    turned,
    value_noise,
)

Kind = Literal["long", "short", "washer", "key"]
Floor = tuple[float, float, float, float]
"""Left, top, right and bottom of the floor of the box in image pixels."""

LENGTH = {"long": 62.0, "short": 36.0}
"""Length of a screw, head included."""
HEAD_LENGTH, HEAD_HALF_WIDTH, SHAFT_HALF_WIDTH, TIP = 8.0, 7.5, 3.6, 7.0
THREAD_PERIOD = 4.4
WASHER_RADIUS, HOLE_RADIUS = 13.0, 6.5
KEY_ARMS, KEY_HALF_WIDTH = (48.0, 21.0), 3.0
REACH = 34.0
"""Radius of a circle that contains any part."""
STEEL, ZINC, KEY = (0.74, 0.75, 0.78), (0.80, 0.74, 0.58), (0.17, 0.17, 0.19)
CARD, FLOOR, TABLE = (0.66, 0.53, 0.38), (0.60, 0.47, 0.33), 0.42


@dataclass(frozen=True, slots=True)
class Part:
    """One part: kind, centre in image pixels, direction and brightness."""

    kind: Kind
    x: float
    y: float
    angle: float
    tone: float
    gap: float = 0.0
    """Width of a gap in a washer, radians."""

    def axes(self, f: float) -> tuple[tuple[tuple[float, float], tuple[float, float]], ...]:
        """Axes of the part in image pixels: one of a screw, two of a key, a point of a washer."""
        if self.kind == "washer":
            return (((self.x, self.y), (self.x, self.y)),)
        if self.kind == "key":
            half, arm = KEY_ARMS[0] / 2, KEY_ARMS[1]
            ends = [self._point(u, v, f) for u, v in ((-half, 0), (half, 0), (half, arm))]
            return ((ends[0], ends[1]), (ends[1], ends[2]))
        half = LENGTH[self.kind] / 2
        return ((self._point(-half, 0, f), self._point(half, 0, f)),)

    def _point(self, u: float, v: float, f: float) -> tuple[float, float]:
        """Image coordinates of a point in the frame of the part, given in pixels at f = 1."""
        c, s = float(np.cos(self.angle)), float(np.sin(self.angle))
        return self.x + f * (u * c - v * s), self.y + f * (u * s + v * c)

    def distance(self, x: Image, y: Image, f: float) -> Image:
        """Signed distance to the outline."""
        if self.kind == "washer":
            return _ring(self, x, y, f)
        if self.kind == "key":
            return np.maximum(*(segment(x, y, *arm, KEY_HALF_WIDTH * f) for arm in self.axes(f)))
        u, v = turned(x, y, self.x, self.y, self.angle)
        return np.maximum(*_screw(u / np.float32(f), v / np.float32(f), LENGTH[self.kind])) * np.float32(f)


def _screw(u: Image, v: Image, length: float) -> tuple[Image, Image]:
    """Signed distances to head and shaft in the frame of the screw; the shaft ends in a point."""
    head = rectangle(u, v, (HEAD_LENGTH - length) / 2, 0.0, (HEAD_LENGTH / 2, HEAD_HALF_WIDTH), corner=3.0)
    taper = np.minimum(1, (length / 2 - u) / np.float32(TIP))
    shaft = np.minimum(SHAFT_HALF_WIDTH * taper - np.abs(v), u + np.float32(length / 2 - 2))
    return head, np.asarray(shaft, np.float32)


def _ring(part: Part, x: Image, y: Image, f: float) -> Image:
    """Signed distance to a washer, less its gap."""
    outer = disc(x, y, part.x, part.y, WASHER_RADIUS * f)
    ring = np.minimum(outer, -disc(x, y, part.x, part.y, HOLE_RADIUS * f))
    if not part.gap:
        return ring
    u, v = turned(x, y, part.x, part.y, part.angle)
    beside = np.abs(v) * np.cos(part.gap / 2) - u * np.sin(part.gap / 2)  # distance to the edges of the gap
    return np.asarray(np.minimum(ring, beside), np.float32)


def draw_box(
    rng: np.random.Generator,
    inside: Floor,
    light: tuple[float, float],
    height: int,
    f: float,
) -> Image:
    """(H, H, 3) empty cardboard box on a table; `inside` is its floor.

    `rng` generates the texture; `light` is the direction of shadows.
    """
    everywhere = (slice(0, height), slice(0, height))
    x, y = box_grid(everywhere)
    left, top, right, bottom = inside
    centre, half = ((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2)
    canvas = np.full((height, height, 3), TABLE, np.float32)
    rim = rectangle(x, y, *centre, (half[0] + 7 * f, half[1] + 7 * f), corner=4 * f)
    floor = rectangle(x, y, *centre, half, corner=2 * f)
    lit = coverage(rectangle(x - 5 * f * light[0], y - 5 * f * light[1], *centre, half, corner=2 * f), 8 * f)
    blend(canvas, everywhere, coverage(rim), CARD)
    blend(canvas, everywhere, coverage(floor), (0.70 + 0.30 * lit)[:, :, None] * np.array(FLOOR, np.float32))
    fibres = 0.016 * value_noise(rng, height, height, 3 * f, 2) + 0.016 * value_noise(
        rng, height, height, 40 * f
    )
    canvas += (fibres * (0.35 + 0.65 * coverage(rim)))[:, :, None]
    return canvas


def draw_part(canvas: Image, part: Part, light: tuple[float, float], f: float) -> None:
    """Draw one part with its shadow."""
    box = box_around(part.x, part.y, f * (REACH + 6), *canvas.shape[:2])
    assert box is not None  # parts lie in the box
    x, y = box_grid(box)
    shift = (2.4 * f * light[0], 2.4 * f * light[1])
    shadow = 0.42 * coverage(part.distance(x - shift[0], y - shift[1], f), 4 * f)
    canvas[box] *= (1 - shadow)[:, :, None]
    paint = {"washer": _paint_washer, "key": _paint_key}.get(part.kind, _paint_screw)
    paint(canvas, box, part, light, f)


def _paint_screw(canvas: Image, box: Box, part: Part, light: tuple[float, float], f: float) -> None:
    u, v = (axis / np.float32(f) for axis in turned(*box_grid(box), part.x, part.y, part.angle))
    head, shaft = _screw(u, v, LENGTH[part.kind])
    across = -light[0] * np.sin(part.angle) + light[1] * np.cos(part.angle)  # of the light, in the frame
    colour = np.array(STEEL, np.float32) * (1 + part.tone)
    thread = 0.20 * np.sin(2 * np.pi * (u / THREAD_PERIOD + 0.22 * v / SHAFT_HALF_WIDTH))
    for distance, half, relief in ((shaft, SHAFT_HALF_WIDTH, thread), (head, HEAD_HALF_WIDTH, 0.0)):
        round_part = np.sqrt(np.clip(1 - (v / half) ** 2, 0, 1))
        tone = 0.34 + 0.56 * round_part - 0.24 * across * v / half + relief * round_part
        tone = tone + 0.35 * np.exp(-((v / half + 0.45 * across) ** 2) / 0.06)
        blend(canvas, box, coverage(distance * np.float32(f)), tone[:, :, None] * colour)


def _paint_washer(canvas: Image, box: Box, part: Part, light: tuple[float, float], f: float) -> None:
    x, y = box_grid(box)
    distance = part.distance(x, y, f)
    phi = np.arctan2(y - np.float32(part.y), x - np.float32(part.x))
    sheen = 0.16 * np.cos(2 * (phi - np.arctan2(light[1], light[0])))
    edge = 0.30 * (1 - coverage(distance - np.float32(1.3 * f), 2 * f))
    tone = 0.86 + sheen - edge
    blend(canvas, box, coverage(distance), tone[:, :, None] * np.array(ZINC, np.float32) * (1 + part.tone))


def _paint_key(canvas: Image, box: Box, part: Part, light: tuple[float, float], f: float) -> None:
    x, y = box_grid(box)
    distance = part.distance(x, y, f)
    low = part.distance(x + f * light[0], y + f * light[1], f)
    shine = 0.9 * coverage(low - np.float32(1.4 * f), 1.5 * f)
    blend(
        canvas, box, coverage(distance), (1 + shine)[:, :, None] * np.array(KEY, np.float32) * (1 + part.tone)
    )
