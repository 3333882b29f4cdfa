"""The bare circuit board: solder mask, traces, pads, vias, holes and print."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from andon.datasets.embedded.pcb_layout import (
    BOARD_CORNER,
    BOARD_HALF,
    HEADER_PITCH,
    HOLE_RADIUS,
    HOLES,
    PARTS,
    PIN_PITCH,
    TITLE,
    TRACES,
    Part,
    Point,
)
from andon.datasets.embedded.pcb_parts import GOLD, Colour, Placed, folded, text_coverage
from andon.datasets.embedded.primitives import (
    Box,
    Image,
    Pose,
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

SOLDER_MASK = np.array((0.055, 0.27, 0.15), np.float32)
TRACE_GAIN = 1.45
"""Brightness of the solder mask over copper, relative to the board."""
SILK = (0.78, 0.79, 0.75)
TABLE = (0.56, 0.57, 0.59)


def bare_board(
    hue: np.random.Generator, texture: np.random.Generator, pose: Pose, light: Point, height: int
) -> Image:
    """(H, H, 3) bare board on a table.

    `hue` and `texture` generate the tint and the low-frequency noise of the solder mask; `light` is the direction of shadows.
    """
    f = pose.scale
    mask = SOLDER_MASK * hue.uniform(0.95, 1.05, 3).astype(np.float32)
    cloud = (
        1
        + 0.035 * value_noise(texture, height, height, 50 * f)
        + 0.03 * value_noise(texture, height, height, 2.5 * f)
    )

    everywhere = (slice(0, height), slice(0, height))
    x, y = box_grid(everywhere)
    half = (BOARD_HALF * f, BOARD_HALF * f)
    shadow = rectangle(
        x, y, pose.x + 4 * f * light[0], pose.y + 4 * f * light[1], half, pose.angle, BOARD_CORNER * f
    )
    table = 1 - 0.45 * coverage(shadow, 8 * f)
    canvas = np.asarray(table[:, :, None] * np.array(TABLE, np.float32), np.float32)
    board = rectangle(x, y, pose.x, pose.y, half, pose.angle, BOARD_CORNER * f)
    edge = 1 + 0.5 * np.exp(-(((board - 1.2 * f) / (0.9 * f)) ** 2))
    copper = _copper(pose, height)
    paint = (cloud * edge * (1 + np.float32(TRACE_GAIN - 1) * copper))[:, :, None] * mask
    blend(canvas, everywhere, coverage(board), paint)

    for _, end, via in TRACES:
        if via:
            _ring(canvas, *pose.to_image(*end), 3.2 * f, 1.4 * f, GOLD)
    for hole in HOLES:
        _ring(canvas, *pose.to_image(*hole), (HOLE_RADIUS + 3) * f, HOLE_RADIUS * f, GOLD)
    for part in PARTS:
        _pads(canvas, part, pose)
        _print(canvas, part.name, part.x + part.label[0], part.y + part.label[1], pose)
    _print(canvas, *TITLE, pose)
    return canvas


def _copper(pose: Pose, height: int) -> Image:
    """(H, H) coverage of the traces."""
    f = pose.scale
    copper = np.zeros((height, height), np.float32)
    for start, end, _ in TRACES:
        corners = [pose.to_image(*corner) for corner in _route(start, end)]
        for a, b in pairwise(corners):
            box = box_of((a, b), 3 * f, height)
            x, y = box_grid(box)
            np.maximum(copper[box], coverage(segment(x, y, a, b, 1.1 * f)), out=copper[box])
    return copper


def box_of(points: tuple[Point, Point], margin: float, height: int) -> Box:
    """Slices of the box around two points with a margin, clipped to the image."""
    (x0, x1), (y0, y1) = (sorted(axis) for axis in zip(*points, strict=True))
    return (
        slice(max(0, int(y0 - margin)), min(height, int(y1 + margin) + 2)),
        slice(max(0, int(x0 - margin)), min(height, int(x1 + margin) + 2)),
    )


def _route(start: Point, end: Point) -> list[Point]:
    """Corners of a trace: a straight, a 45-degree and a straight segment."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    diagonal = min(abs(dx), abs(dy))
    straight = (max(abs(dx), abs(dy)) - diagonal) / 2
    step = (np.sign(dx) * straight, 0.0) if abs(dx) > abs(dy) else (0.0, np.sign(dy) * straight)
    first = (float(start[0] + step[0]), float(start[1] + step[1]))
    last = (float(end[0] - step[0]), float(end[1] - step[1]))
    return [start, first, last, end]


def _ring(canvas: Image, x: float, y: float, outer: float, inner: float, colour: Colour) -> None:
    """Draw a plated hole."""
    box = box_around(x, y, outer + 2, *canvas.shape[:2])
    assert box is not None  # on the board
    gx, gy = box_grid(box)
    distance = disc(gx, gy, x, y, outer)
    blend(canvas, box, coverage(distance), 0.85 * np.array(colour, np.float32))
    blend(canvas, box, coverage(distance - np.float32(outer - inner)), 0.10)


def _pads(canvas: Image, part: Part, pose: Pose) -> None:
    """Draw the pads of a component, and for round ones the printed outline."""
    f = pose.scale
    angle = pose.angle + (np.pi / 2 if part.turned else 0)
    bare = Placed(part, *pose.to_image(part.x, part.y), angle, 0.0, 0.0, GOLD)
    box = box_around(bare.x, bare.y, bare.reach * f, *canvas.shape[:2])
    assert box is not None  # parts lie on the board
    u, v = bare.local(box, f)
    w, h = part.half
    if part.kind == "ic":
        across = np.abs(folded(u, PIN_PITCH, part.pins))
        distance = np.minimum(2.0 - across, 3.6 - np.abs(np.abs(v) - (h + 4.6)))
    elif part.kind == "header":
        distance = 3.2 - np.hypot(folded(u, HEADER_PITCH, part.pins), v)
    elif part.kind == "resistor":
        distance = np.minimum(3.2 - np.abs(np.abs(u) - (w + 0.2)), np.float32(h + 0.8) - np.abs(v))
    else:
        ring = 0.6 - np.abs(np.hypot(u, v) - np.float32(w - 0.8))
        blend(canvas, box, coverage(np.asarray(ring * f, np.float32)), SILK)
        distance = 2.6 - np.hypot(np.abs(u) - 0.5 * w, v)
    blend(canvas, box, coverage(np.asarray(distance * f, np.float32)), GOLD)


def _print(canvas: Image, text: str, x: float, y: float, pose: Pose) -> None:
    """Draw white text on the board."""
    f = pose.scale
    px, py = pose.to_image(x, y)
    box = box_around(px, py, (2.4 * len(text) + 4) * f, *canvas.shape[:2])
    assert box is not None  # on the board
    u, v = turned(*box_grid(box), px, py, pose.angle)
    blend(canvas, box, 0.85 * text_coverage(u, v, text, 1.15 * f), SILK)
