"""Sorting tray with one pin in each of 3 x 4 compartments: a scene with rules (spec C.7).

The rules: (1) one pin per compartment, (2) yellow pins in columns 1-2 and blue ones in columns 3-4, (3) all separators
are present. Logical defects break a rule and mark what breaks it; structural ones are damage anywhere. Lengths are in
pixels at f = 1; the image is 5:4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from andon.datasets.embedded.pin_tray_defects import TRAY_DEFECTS
from andon.datasets.embedded.pin_tray_parts import (
    COLUMNS,
    HEAD_RADIUS,
    NEEDLE_HALF_WIDTH,
    NEEDLE_LENGTH,
    PITCH,
    ROWS,
    WALL,
    Compartment,
    Pin,
    draw_pin,
    draw_tray,
)
from andon.datasets.embedded.primitives import (
    Blob,
    Image,
    Mask,
    blend,
    box_around,
    box_grid,
    coverage,
    disc,
    segment,
    value_noise,
)
from andon.datasets.embedded.random_streams import Streams
from andon.datasets.embedded.rendering import Scene

DEFECTS: tuple[str, ...] = tuple(sorted(row.name for row in TRAY_DEFECTS))
MODE: Literal["RGB"] = "RGB"
PIXEL_VALUES = {row.name: row.pixel_value for row in TRAY_DEFECTS if row.pixel_value is not None}
"""Of the mask file of each defect type."""

CLEARANCE = 3.0
"""Between a pin and the walls."""
PIN_DISTANCE = 16.0
"""Smallest distance between the heads in one compartment."""
DEBRIS, SCRATCH = (0.16, 0.13, 0.11), (0.36, 0.24, 0.15)
"""Colours of a crumb and of the dirt in a scratch; the latter is unlike the grey of a needle."""

# Elements of the scene, each with its own random stream; compartment k draws from _FIRST_PIN + k.
_PLACE, _TEXTURE, _LIGHT = range(3)
_FIRST_PIN = 10


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene of (H, 5/4 H, 3) reflectance; with a `defect` of `DEFECTS` in it, and its footprint or its masks."""
    f, width = height / 256, round(height * 5 / 4)
    rng = streams.defect
    compartments = _compartments(streams, height, width)
    pins = [[_draw_pin(streams.element(_FIRST_PIN + k), k, place, f)] for k, place in enumerate(compartments)]
    target = int(rng.integers(ROWS * COLUMNS))
    removed_wall: int | None = None  # the compartment on its left
    if defect == "missing_separator":
        removed_wall = int(rng.integers(ROWS)) * COLUMNS + int(rng.integers(COLUMNS - 1))
        channels: tuple[tuple[int, Mask], ...] = (_separator(compartments, removed_wall, height, width),)
    else:
        channels = _misplace(rng, defect, target, pins, compartments, height, width)

    footprint: Mask | None = None
    light = _light(streams)
    canvas = draw_tray(streams.element(_TEXTURE), compartments, removed_wall, light, height, width, f)
    if defect == "scratch":
        footprint = _scratch(canvas, rng, compartments, f)
    elif defect == "broken_pin":
        (pin,) = pins[target]
        broken = replace(pin, length=NEEDLE_LENGTH * rng.uniform(0.25, 0.55))
        pins[target] = [broken]
        x, y = box_grid((slice(0, height), slice(0, width)))
        footprint = segment(x, y, *pin.needle(f, broken.length), NEEDLE_HALF_WIDTH * f) > -0.25
    for pin in (pin for group in pins for pin in group):
        draw_pin(canvas, pin, light, f)
    if defect == "contamination":
        footprint = _contaminate(canvas, rng, compartments, f)
    return Scene(np.clip(canvas, 0, 1), footprint, channels)


# Layout -------------------------------------------------------------------------------------------------------------


def _compartments(streams: Streams, height: int, width: int) -> list[Compartment]:
    """Interiors, row by row."""
    f = height / 256
    dx, dy = streams.element(_PLACE).uniform(-3, 3, 2)
    left = (width - 1) / 2 + f * (dx - COLUMNS / 2 * PITCH[0])
    top = (height - 1) / 2 + f * (dy - ROWS / 2 * PITCH[1])
    half = f * WALL / 2
    found = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            x, y = left + column * f * PITCH[0], top + row * f * PITCH[1]
            found.append(Compartment(x + half, y + half, x + f * PITCH[0] - half, y + f * PITCH[1] - half))
    return found


def _colour(compartment: int) -> str:
    return "yellow" if compartment % COLUMNS < 2 else "blue"


def _draw_pin(rng: np.random.Generator, number: int, place: Compartment, f: float) -> Pin:
    """A pin with head and needle clear of the walls."""
    angle, across, down = rng.uniform((0, 0, 0), (2 * np.pi, 1, 1))
    margin = f * (HEAD_RADIUS + CLEARANCE)
    tip = f * (HEAD_RADIUS + NEEDLE_LENGTH + CLEARANCE) * np.array((np.cos(angle), np.sin(angle)))
    before, after = np.maximum(margin, -tip), np.maximum(margin, tip)
    x = place.left + before[0] + across * (place.right - place.left - before[0] - after[0])
    y = place.top + before[1] + down * (place.bottom - place.top - before[1] - after[1])
    return Pin(float(x), float(y), float(angle), float(rng.normal(0, 0.02)), _colour(number))


def _draw_neighbour(
    rng: np.random.Generator, number: int, others: list[Pin], place: Compartment, f: float
) -> Pin:
    """A further pin whose head is more than 16 px away from the others' and does not touch their needles.

    A compartment has room for it in nearly every draw; the limit only makes the loop end, with the best one found.
    """
    best, best_gap = None, -np.inf
    for _ in range(500):
        pin = _draw_pin(rng, number, place, f)
        gap = min(_gap(pin, other, f) for other in others)
        if best is None or gap > best_gap:
            best, best_gap = pin, gap
        if gap > 0:
            break
    assert best is not None
    return best


def _gap(pin: Pin, other: Pin, f: float) -> float:
    """What is left of the distance between two pins, in image pixels; negative when they are too close."""
    heads = float(np.hypot(pin.x - other.x, pin.y - other.y)) - PIN_DISTANCE * f
    gaps = [heads]
    for first, second in ((pin, other), (other, pin)):
        x, y = np.full((1, 1), first.x, np.float32), np.full((1, 1), first.y, np.float32)
        gaps.append(-float(segment(x, y, *second.needle(f), (HEAD_RADIUS + 1) * f)[0, 0]))
    return min(gaps)


def _misplace(
    rng: np.random.Generator,
    defect: str | None,
    target: int,
    pins: list[list[Pin]],
    compartments: list[Compartment],
    height: int,
    width: int,
) -> tuple[tuple[int, Mask], ...]:
    """Break rule 1 or 2 by changing `pins` of the compartment `target`; returns the masks, none for other defects."""
    f = height / 256
    if defect == "missing_pin":
        pins[target] = []
        return (_interior(compartments[target], height, width),)
    if defect in ("additional_pin", "two_additional_pins"):
        for _ in range(1 if defect == "additional_pin" else 2):
            pins[target].append(_draw_neighbour(rng, target, pins[target], compartments[target], f))
        return (_pins_mask(defect, pins[target], height, width),)
    if defect == "wrong_colour":
        (pin,) = pins[target]
        pins[target] = [replace(pin, colour="blue" if pin.colour == "yellow" else "yellow")]
        return (_pins_mask(defect, pins[target], height, width),)
    if defect == "displaced":
        # Within its own colour, so that no other rule is broken.
        others = [k for k in range(ROWS * COLUMNS) if _colour(k) == _colour(target) and k != target]
        goal = others[int(rng.integers(len(others)))]
        pins[target] = []
        pins[goal].append(_draw_neighbour(rng, goal, pins[goal], compartments[goal], f))
        empty = _interior(compartments[target], height, width)
        return (empty, _pins_mask("additional_pin", pins[goal], height, width))
    return ()


def _light(streams: Streams) -> tuple[float, float]:
    """Direction in which shadows fall: to the lower right, more or less."""
    angle = streams.element(_LIGHT).uniform(np.pi / 12, 5 * np.pi / 12)
    return float(np.cos(angle)), float(np.sin(angle))


# Masks --------------------------------------------------------------------------------------------------------------


def _interior(place: Compartment, height: int, width: int) -> tuple[int, Mask]:
    """The whole interior of an empty compartment."""
    x, y = box_grid((slice(0, height), slice(0, width)))
    return PIXEL_VALUES["missing_pin"], np.asarray(place.distance(x, y, 0.0) > 0)


def _pins_mask(defect: str, pins: list[Pin], height: int, width: int) -> tuple[int, Mask]:
    """All pins of a compartment."""
    f = height / 256
    x, y = box_grid((slice(0, height), slice(0, width)))
    mask = np.zeros((height, width), np.bool_)
    for pin in pins:
        mask |= disc(x, y, pin.x, pin.y, HEAD_RADIUS * f) > 0
        mask |= segment(x, y, *pin.needle(f), NEEDLE_HALF_WIDTH * f) > 0
    return PIXEL_VALUES[defect], mask


def _separator(compartments: list[Compartment], number: int, height: int, width: int) -> tuple[int, Mask]:
    """The place of the wall right of a compartment."""
    left, right = compartments[number], compartments[number + 1]
    wall = Compartment(left.right, left.top, right.left, left.bottom)
    x, y = box_grid((slice(0, height), slice(0, width)))
    return PIXEL_VALUES["missing_separator"], np.asarray(wall.distance(x, y, 0.0) > 0)


# Damage -------------------------------------------------------------------------------------------------------------


def _somewhere(rng: np.random.Generator, compartments: list[Compartment]) -> tuple[float, float]:
    """A point on the tray."""
    first, last = compartments[0], compartments[-1]
    x, y = rng.uniform((first.left, first.top), (last.right, last.bottom))
    return float(x), float(y)


def _scratch(canvas: Image, rng: np.random.Generator, compartments: list[Compartment], f: float) -> Mask:
    """Dull line in the plastic, below the pins."""
    height, width = canvas.shape[:2]
    cx, cy = _somewhere(rng, compartments)
    length, angle = rng.uniform(25, 70) * f, rng.uniform(0, np.pi)
    dx, dy = length / 2 * np.cos(angle), length / 2 * np.sin(angle)
    x, y = box_grid((slice(0, height), slice(0, width)))
    distance = segment(x, y, (cx - dx, cy - dy), (cx + dx, cy + dy), 1.1 * f)
    first, last = compartments[0], compartments[-1]
    on_tray = (x > first.left) & (x < last.right) & (y > first.top) & (y < last.bottom)
    blend(canvas, (slice(0, height), slice(0, width)), coverage(distance) * on_tray, SCRATCH)
    return np.asarray((distance > 0) & on_tray)


def _contaminate(canvas: Image, rng: np.random.Generator, compartments: list[Compartment], f: float) -> Mask:
    """Crumb of dark debris on top of whatever lies there."""
    height, width = canvas.shape[:2]
    cx, cy = _somewhere(rng, compartments)
    blob = Blob.draw(rng, cx, cy, rng.uniform(4, 8) * f, rough=0.4, aspect=rng.uniform(1, 1.3))
    box = box_around(cx, cy, blob.reach + 2, height, width)
    assert box is not None  # the tray lies inside the image
    x, y = box_grid(box)
    distance = blob.distance(x, y)
    lumps = value_noise(rng, distance.shape[0], distance.shape[1], 3 * f, octaves=2)
    tone = np.array(DEBRIS, np.float32) * (1 + 0.35 * lumps)[:, :, None]
    blend(canvas, box, coverage(distance), np.clip(tone, 0.02, 0.4))
    footprint = np.zeros((height, width), np.bool_)
    footprint[box] = distance > 0
    return footprint
