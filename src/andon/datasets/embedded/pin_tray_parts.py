"""Drawing of the sorting tray and its pins. Lengths are in pixels at f = 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from andon.datasets.embedded.primitives import (
    Image,
    blend,
    box_around,
    box_grid,
    coverage,
    disc,
    rectangle,
    segment,
    value_noise,
)

ROWS, COLUMNS = 3, 4
PITCH = (74.0, 78.0)
"""Distance between the centres of neighbouring compartments in x and y."""
WALL = 4.4
CORNER = 5.0
HEAD_RADIUS = 7.5
NEEDLE_LENGTH = 17.0
NEEDLE_HALF_WIDTH = 0.7
COLOURS = {"yellow": (0.88, 0.70, 0.14), "blue": (0.16, 0.35, 0.75)}
TABLE, PLASTIC, FLOOR = 0.46, (0.90, 0.89, 0.86), (0.80, 0.79, 0.76)
NEEDLE = 0.42


@dataclass(frozen=True, slots=True)
class Compartment:
    """Interior of a compartment in image pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def distance(self, x: Image, y: Image, corner: float) -> Image:
        """Signed distance to the interior, positive inside."""
        half = ((self.right - self.left) / 2, (self.bottom - self.top) / 2)
        return rectangle(x, y, self.left + half[0], self.top + half[1], half, corner=corner)


@dataclass(frozen=True, slots=True)
class Pin:
    """One pin: centre of its head and direction of its needle, in image pixels."""

    x: float
    y: float
    angle: float
    tone: float
    colour: str
    length: float = NEEDLE_LENGTH

    def needle(self, f: float, start: float = 0.0) -> tuple[tuple[float, float], tuple[float, float]]:
        """Points of the needle at `start` (measured from the edge of the head) and at its tip."""
        c, s = float(np.cos(self.angle)), float(np.sin(self.angle))
        near, far = (f * (HEAD_RADIUS + reach) for reach in (start, self.length))
        return (self.x + near * c, self.y + near * s), (self.x + far * c, self.y + far * s)


def draw_tray(
    rng: np.random.Generator,
    compartments: list[Compartment],
    removed_wall: int | None,
    light: tuple[float, float],
    height: int,
    width: int,
    f: float,
) -> Image:
    """(H, W, 3) empty tray on a table: a plastic plate with a pocket for each compartment.

    `rng` generates the texture; `removed_wall` is the index of the compartment to the left of a missing separator; `light`
    is the direction of shadows.
    """
    grain = 0.010 * value_noise(rng, height, width, 60 * f) + 0.006 * value_noise(rng, height, width, 2.5 * f)
    x, y = box_grid((slice(0, height), slice(0, width)))
    first, last = compartments[0], compartments[-1]
    rim = WALL * f
    plate = Compartment(first.left - rim, first.top - rim, last.right + rim, last.bottom + rim)
    distance = plate.distance(x, y, 8 * f)
    shade = coverage(plate.distance(x - 4 * f * light[0], y - 4 * f * light[1], 8 * f), 8 * f)
    table = TABLE * (1 - 0.35 * shade)
    canvas = np.asarray(table[:, :, None] * np.array((1.0, 1.0, 1.03), np.float32), np.float32)
    blend(canvas, (slice(0, height), slice(0, width)), coverage(distance), PLASTIC)

    pockets = list(compartments)
    if removed_wall is not None:
        left, right = pockets[removed_wall], pockets.pop(removed_wall + 1)
        pockets[removed_wall] = Compartment(left.left, left.top, right.right, right.bottom)
    for pocket in pockets:
        _pocket(canvas, pocket, light, f)
    canvas += grain[:, :, None]
    return canvas


def _pocket(canvas: Image, pocket: Compartment, light: tuple[float, float], f: float) -> None:
    """Draw the floor of a compartment with the soft shadow of its walls and a bright opposite edge."""
    reach = 2
    box = (
        slice(max(0, int(pocket.top) - reach), int(pocket.bottom) + reach + 2),
        slice(max(0, int(pocket.left) - reach), int(pocket.right) + reach + 2),
    )
    x, y = box_grid(box)
    inside = pocket.distance(x, y, CORNER * f)
    lit = coverage(pocket.distance(x - 4 * f * light[0], y - 4 * f * light[1], CORNER * f), 7 * f)
    bounce = 1 - coverage(pocket.distance(x + 2 * f * light[0], y + 2 * f * light[1], CORNER * f), 3 * f)
    tone = 0.72 + 0.28 * lit + 0.10 * bounce * lit
    blend(canvas, box, coverage(inside), tone[:, :, None] * np.array(FLOOR, np.float32))


def draw_pin(canvas: Image, pin: Pin, light: tuple[float, float], f: float) -> None:
    """Draw one pin with its shadow."""
    height, width = canvas.shape[:2]
    box = box_around(pin.x, pin.y, f * (HEAD_RADIUS + NEEDLE_LENGTH + 6), height, width)
    assert box is not None  # pins lie in compartments
    x, y = box_grid(box)
    radius = HEAD_RADIUS * f
    shift = (3.2 * f * light[0], 3.2 * f * light[1])
    shadow = 0.34 * coverage(disc(x, y, pin.x + shift[0], pin.y + shift[1], radius), 6 * f)
    near, far = pin.needle(f)
    low = [(end[0] + 0.5 * shift[0], end[1] + 0.5 * shift[1]) for end in (near, far)]
    shadow = np.maximum(shadow, 0.16 * coverage(segment(x, y, low[0], low[1], 0.8 * f), 1.5 * f))
    canvas[box] *= (1 - shadow)[:, :, None]
    blend(canvas, box, coverage(segment(x, y, near, far, NEEDLE_HALF_WIDTH * f)), NEEDLE)

    dx, dy = (x - np.float32(pin.x)) / radius, (y - np.float32(pin.y)) / radius
    up = np.sqrt(np.maximum(1 - dx**2 - dy**2, 0))
    facing = np.maximum(0.75 * up - 0.66 * (dx * light[0] + dy * light[1]), 0)
    shine = np.exp(-((dx + 0.36 * light[0]) ** 2 + (dy + 0.36 * light[1]) ** 2) / 0.035)
    colour = np.array(COLOURS[pin.colour], np.float32) * (1 + pin.tone)
    ball = (0.42 + 0.72 * facing)[:, :, None] * colour
    ball = ball + (0.55 * shine)[:, :, None] * (1 - ball)
    blend(canvas, box, coverage(disc(x, y, pin.x, pin.y, radius)), ball)
