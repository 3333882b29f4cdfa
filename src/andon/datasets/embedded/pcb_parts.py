"""Drawing of the components of the circuit board, each inside its bounding box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.datasets.embedded.pcb_layout import GLYPHS, HEADER_PITCH, PIN_PITCH, Part
from andon.datasets.embedded.primitives import (
    Box,
    Image,
    blend,
    box_around,
    box_grid,
    coverage,
    rectangle,
    turned,
)

Colour = tuple[float, float, float]

PLASTIC: Colour = (0.115, 0.115, 0.125)
CERAMIC: Colour = (0.085, 0.085, 0.10)
CAN: Colour = (0.66, 0.67, 0.68)
RED: Colour = (0.72, 0.10, 0.07)
GOLD: Colour = (0.80, 0.66, 0.34)
TIN: Colour = (1.0, 0.99, 0.96)
"""Multiplied by the brightness of the solder."""
USUAL: dict[str, Colour] = {
    "ic": PLASTIC,
    "resistor": CERAMIC,
    "capacitor": CAN,
    "led": RED,
    "header": PLASTIC,
}
HEIGHT = {"ic": 0.8, "resistor": 0.45, "capacitor": 1.4, "led": 1.0, "header": 1.2}
"""Height of each kind, as the length of its shadow in units of 3 px."""
LEG = 7.0
"""Length of the pins of an IC outside its body."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A component in the image: position in image pixels, angle in radians."""

    part: Part
    x: float
    y: float
    angle: float
    tone: float
    """Added to the brightness of the body."""
    shine: float
    """Brightness of its solder."""
    colour: Colour
    marking: tuple[str, ...] = ()
    """Lines printed on an IC."""

    def local(self, box: Box, f: float) -> tuple[Image, Image]:
        """Coordinates u and v of the pixels of a box in the frame of the component, in pixels at f = 1."""
        x, y = box_grid(box)
        u, v = turned(x, y, self.x, self.y, self.angle)
        return u / np.float32(f), v / np.float32(f)

    @property
    def reach(self) -> float:
        """Radius of a circle that contains the component and its shadow, at f = 1."""
        return float(np.hypot(self.part.half[0] + 3, self.part.half[1] + LEG)) + 5


def outline(part: Part, u: Image, v: Image) -> Image:
    """Signed distance to the component with its pins and solder."""
    w, h = part.half
    if part.round:
        return np.asarray(np.float32(w) - np.hypot(u, v), np.float32)
    if part.kind == "ic":
        return np.asarray(np.maximum(rectangle(u, v, 0, 0, (w, h)), _legs(part, u, v)), np.float32)
    grown = (w + 2.5, h + 0.6) if part.kind == "resistor" else (w, h)
    return rectangle(u, v, 0, 0, grown, corner=1.0)


def body(part: Part, u: Image, v: Image) -> Image:
    """Signed distance to the coloured body of the component."""
    if part.kind == "resistor":
        return rectangle(u, v, 0, 0, (part.half[0] - 2.4, part.half[1] - 0.2))
    return outline(part, u, v)


def draw_part(canvas: Image, placed: Placed, light: tuple[float, float], f: float) -> None:
    """Draw a component and its shadow; `light` is the direction of shadows."""
    height, width = canvas.shape[:2]
    box = box_around(placed.x, placed.y, placed.reach * f, height, width)
    assert box is not None  # parts lie on the board
    _shadow(canvas, box, placed, light, f)
    u, v = placed.local(box, f)
    c, s = float(np.cos(placed.angle)), float(np.sin(placed.angle))
    own_light = (light[0] * c + light[1] * s, light[1] * c - light[0] * s)
    _PAINTERS[placed.part.kind](canvas, box, placed, u, v, own_light, f)


def text_coverage(u: Image, v: Image, text: str, pitch: float) -> Image:
    """Coverage of one line of dot-matrix text centred at (0, 0), with `pitch` px between dots."""
    dots = _bitmap(text)
    rows = v / np.float32(pitch) + np.float32((dots.shape[0] - 1) / 2)
    columns = u / np.float32(pitch) + np.float32((dots.shape[1] - 1) / 2)
    rows, columns = np.broadcast_arrays(rows, columns)
    return np.asarray(ndimage.map_coordinates(dots, [rows, columns], order=1, mode="constant"), np.float32)


def _bitmap(text: str) -> Image:
    """(7, 4n + 1) dots of n characters, with an empty margin."""
    dots = np.zeros((7, 4 * len(text) + 1), np.float32)
    for k, character in enumerate(text):
        for row, bits in enumerate(GLYPHS[character], start=1):
            for column in range(3):
                dots[row, 4 * k + 1 + column] = bits >> (2 - column) & 1
    return dots


def _shadow(canvas: Image, box: Box, placed: Placed, light: tuple[float, float], f: float) -> None:
    length = 3 * HEIGHT[placed.part.kind] * f
    x, y = box_grid(box)
    shifted = (placed.x + length * light[0], placed.y + length * light[1])
    u, v = turned(x, y, *shifted, placed.angle)
    w, h = placed.part.half
    corner = w if placed.part.round else 1.5
    distance = rectangle(u, v, 0, 0, (w * f, h * f), corner=corner * f)
    canvas[box] *= (1 - np.float32(0.45) * coverage(distance, 4 * f))[:, :, None]


def folded(u: Image, pitch: float, count: int) -> Image:
    """Offset along u from the nearest of `count` positions at `pitch`, centred at 0."""
    first = (count - 1) / 2
    nearest = np.clip(np.rint(u / np.float32(pitch) + np.float32(first)), 0, count - 1) - np.float32(first)
    return np.asarray(u - nearest * np.float32(pitch), np.float32)


def _legs(part: Part, u: Image, v: Image) -> Image:
    """Signed distance to the pins of an IC."""
    across = np.float32(1.5) - np.abs(folded(u, PIN_PITCH, part.pins))
    return np.asarray(np.minimum(across, np.float32(part.half[1] + LEG) - np.abs(v)), np.float32)


def _paint_ic(
    canvas: Image, box: Box, placed: Placed, u: Image, v: Image, light: tuple[float, float], f: float
) -> None:
    part, (w, h) = placed.part, placed.part.half
    out = np.abs(v) - np.float32(h)
    metal = placed.shine * (0.72 + 0.38 * np.exp(-(((out - 1.5) / 1.2) ** 2)) - 0.22 * coverage(out - 4.2))
    blend(canvas, box, coverage(_legs(part, u, v) * f), metal[:, :, None] * np.array(TIN, np.float32))

    package = rectangle(u, v, 0, 0, (w, h), corner=0.8)
    side = -(np.clip(u / (w - 2), -1, 1) ** 9 * light[0] + np.clip(v / (h - 2), -1, 1) ** 9 * light[1])
    bevel = 1 - coverage(package - 1.6, 1.5)
    grey = 1 + 8 * placed.tone + 0.9 * bevel * side - 0.10 * (u * light[0] + v * light[1]) / w
    dimple = np.hypot(u + w - 5, v - h + 5)
    grey = grey - 0.45 * coverage((2.0 - dimple) * f) * (1 + 0.9 * (u + w - 5) * light[0])
    paint = grey[:, :, None] * np.array(placed.colour, np.float32)
    lines = len(placed.marking)
    for k, line in enumerate(placed.marking):
        offset = np.float32((k - (lines - 1) / 2) * 9)
        ink = 0.75 * text_coverage(u - 2, v - offset, line, 1.25)
        paint = paint + ink[:, :, None] * (np.float32(0.50) - paint)
    blend(canvas, box, coverage(package * f), paint)


def _paint_resistor(
    canvas: Image, box: Box, placed: Placed, u: Image, v: Image, light: tuple[float, float], f: float
) -> None:
    w, h = placed.part.half
    ends = np.abs(u) - np.float32(w)
    solder = rectangle(u, v, 0, 0, (w + 2.5, h + 0.6), corner=1.2)
    glow = placed.shine * (0.55 + 0.4 * np.exp(-(((ends - 0.6) / 1.0) ** 2)) - 0.1 * (u * light[0]) / w)
    blend(canvas, box, coverage(solder * f), glow[:, :, None] * np.array(TIN, np.float32))
    cap = 0.62 + 0.12 * placed.shine - 0.10 * v * light[1] / h
    blend(
        canvas, box, coverage(rectangle(u, v, 0, 0, (w, h)) * f), cap[:, :, None] * np.array(TIN, np.float32)
    )
    tone = 1 + 6 * placed.tone - 0.35 * (v * light[1] / h + u * light[0] / w)
    tone = tone + 0.5 * np.exp(-(((v + 0.65 * h * np.sign(light[1])) / 0.7) ** 2))
    blend(
        canvas,
        box,
        coverage(body(placed.part, u, v) * f),
        tone[:, :, None] * np.array(placed.colour, np.float32),
    )


def _paint_capacitor(
    canvas: Image, box: Box, placed: Placed, u: Image, v: Image, light: tuple[float, float], f: float
) -> None:
    radius = placed.part.half[0]
    rho = np.asarray(np.hypot(u, v), np.float32)
    lit = -(u * light[0] + v * light[1]) / np.maximum(rho, 1)
    sleeve = 0.16 + 0.10 * np.maximum(lit, 0)
    sleeve_colour = sleeve[:, :, None] * np.array((0.95, 0.95, 1.1), np.float32)
    blend(canvas, box, coverage((radius - rho) * f), sleeve_colour)
    rim = np.exp(-(((rho - radius + 2.6) / 0.9) ** 2))
    # Light and dark sectors of brushed metal.
    brushed = np.abs(u * light[1] - v * light[0]) / np.maximum(rho, 1)
    tone = 0.86 + placed.tone + 0.16 * (1 - 2 * brushed) + 0.30 * rim * lit
    groove = np.minimum(np.abs(u), np.abs(v)) + 10 * (rho > radius * 0.62)
    tone = tone - 0.20 * np.exp(-((groove / 0.7) ** 2))
    paint = tone[:, :, None] * np.array(placed.colour, np.float32)
    mark = coverage((-u - 0.45 * radius) * f)  # dark segment that marks the negative pole
    paint = paint * (1 - 0.80 * mark[:, :, None])
    blend(canvas, box, coverage((radius - 1.8 - rho) * f), paint)


def _paint_led(
    canvas: Image, box: Box, placed: Placed, u: Image, v: Image, light: tuple[float, float], f: float
) -> None:
    radius = placed.part.half[0]
    rho = np.asarray(np.hypot(u, v), np.float32)
    colour = np.array(placed.colour, np.float32)
    blend(canvas, box, coverage((radius - rho) * f), 0.62 * colour)  # flange
    dx, dy = u / (radius - 1.6), v / (radius - 1.6)
    up = np.sqrt(np.maximum(1 - dx**2 - dy**2, 0))
    dome = 0.70 + 0.30 * up + 0.25 * (dx * light[0] + dy * light[1]) + 4 * placed.tone
    core = np.exp(-(dx**2 + dy**2) / 0.10)
    paint = dome[:, :, None] * colour
    paint = paint + (0.30 * core)[:, :, None] * (np.array((0.85, 0.8, 0.75), np.float32) - paint)
    shine = np.exp(-((dx + 0.42 * light[0]) ** 2 + (dy + 0.42 * light[1]) ** 2) / 0.03)
    paint = paint + (0.75 * shine)[:, :, None] * (1 - paint)
    blend(canvas, box, coverage((radius - 1.6 - rho) * f), paint)


def _paint_header(
    canvas: Image, box: Box, placed: Placed, u: Image, v: Image, light: tuple[float, float], f: float
) -> None:
    part, (w, h) = placed.part, placed.part.half
    along = folded(u, HEADER_PITCH, part.pins)
    # Notches between the pins.
    notch = 1.6 * coverage(np.abs(along) - np.float32(HEADER_PITCH / 2 - 1.2), 2.0)
    strip = np.minimum(rectangle(u, v, 0, 0, (w, h)), np.float32(h) - notch - np.abs(v)).astype(np.float32)
    edge = 1 - coverage(strip - 1.2, 1.5)
    grey = 1.05 + 8 * placed.tone - 0.7 * edge * np.sign(v) * light[1]
    blend(canvas, box, coverage(strip * f), grey[:, :, None] * np.array(placed.colour, np.float32))
    pin = np.minimum(1.9 - np.abs(along), 1.9 - np.abs(v)).astype(np.float32)
    metal = 0.85 + 0.35 * placed.shine - 0.18 * (along * light[0] + v * light[1])
    blend(canvas, box, coverage(pin * f), metal[:, :, None] * np.array(GOLD, np.float32))


_PAINTERS = {
    "ic": _paint_ic,
    "resistor": _paint_resistor,
    "capacitor": _paint_capacitor,
    "led": _paint_led,
    "header": _paint_header,
}


def solder_ball(
    canvas: Image, x: float, y: float, radius: float, shine: float, light: tuple[float, float], f: float
) -> npt.NDArray[np.bool_]:
    """Draw a loose solder ball (lengths in image pixels). Returns its footprint (H, W)."""
    height, width = canvas.shape[:2]
    box = box_around(x, y, 2 * radius + 4 * f, height, width)
    assert box is not None  # it lies on the board
    gx, gy = box_grid(box)
    dx, dy = (gx - np.float32(x)) / radius, (gy - np.float32(y)) / radius
    rho = np.asarray(np.hypot(dx, dy), np.float32)
    shadow = coverage((1 - np.hypot(dx - 0.45 * light[0], dy - 0.45 * light[1])) * radius, 3 * f)
    canvas[box] *= (1 - 0.45 * shadow)[:, :, None]
    up = np.sqrt(np.maximum(1 - rho**2, 0))
    tone = 0.22 + 0.55 * np.maximum(0.7 * up - 0.7 * (dx * light[0] + dy * light[1]), 0)
    tone = tone + 0.9 * np.exp(-((dx + 0.4 * light[0]) ** 2 + (dy + 0.4 * light[1]) ** 2) / 0.05)
    blend(canvas, box, coverage((1 - rho) * radius), (shine * tone)[:, :, None] * np.array(TIN, np.float32))
    footprint = np.zeros((height, width), np.bool_)
    footprint[box] = rho < 1
    return footprint
