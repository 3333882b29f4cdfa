"""Sorting tray with one pin in each of 3 x 4 compartments: logical and structural defects.

The rules are: (1) one pin per compartment, (2) yellow pins in columns 1-2 and blue ones in columns 3-4, (3) all separators
are present. Logical defects violate a rule; their masks follow from the rule (docs/reference/data.md, "Embedded sets").
Structural defects are damages. Lengths are in pixels at f = 1; the aspect ratio of the image is 5:4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from andon.datasets.embedded.damage import debris, scratch
from andon.datasets.embedded.loco_defects import LocoDefect, pixel_values
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
    Mask,
    box_grid,
    disc,
    segment,
)
from andon.datasets.embedded.random_streams import Streams
from andon.datasets.embedded.rendering import Scene, shadow_direction

PIN_AREA = 200
LOCO_DEFECTS = (
    LocoDefect("missing_pin", "logical", 255, PIN_AREA),
    LocoDefect("additional_pin", "logical", 254, PIN_AREA),
    LocoDefect("two_additional_pins", "logical", 253, 2 * PIN_AREA),
    LocoDefect("wrong_colour", "logical", 252),
    LocoDefect("missing_separator", "logical", 251),
    LocoDefect("broken_pin", "structural", 250),
    LocoDefect("contamination", "structural", 249),
    LocoDefect("scratch", "structural", 248),
    LocoDefect("displaced", "logical", None),  # missing_pin and additional_pin
)
DEFECTS: tuple[str, ...] = tuple(sorted(row.name for row in LOCO_DEFECTS))
MODE: Literal["RGB"] = "RGB"
PIXEL_VALUES = pixel_values(LOCO_DEFECTS)

CLEARANCE = 3.0
"""Distance between a pin and the walls."""
PIN_DISTANCE = 16.0
"""Smallest distance between the heads in one compartment."""
SCRATCH = (0.36, 0.24, 0.15)
"""Colour of a scratch; it differs in hue from the grey needles."""

# Elements of the scene, each with its own random stream; compartment k draws from _FIRST_PIN + k.
_PLACE, _TEXTURE, _LIGHT = range(3)
_FIRST_PIN = 10


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene (H, 5/4 H, 3) with a `defect` of `DEFECTS` and its footprint or masks, or without a defect."""
    f, width = height / 256, round(height * 5 / 4)
    rng = streams.defect
    compartments = _compartments(streams, height, width)
    pins = [[_draw_pin(streams.element(_FIRST_PIN + k), k, place, f)] for k, place in enumerate(compartments)]
    target = int(rng.integers(ROWS * COLUMNS))
    removed_wall: int | None = None  # index of the compartment on its left
    if defect == "missing_separator":
        removed_wall = int(rng.integers(ROWS)) * COLUMNS + int(rng.integers(COLUMNS - 1))
        channels: tuple[tuple[int, Mask], ...] = (_separator(compartments, removed_wall, height, width),)
    else:
        channels = _misplace(rng, defect, target, pins, compartments, height, width)

    footprint: Mask | None = None
    light = shadow_direction(streams.element(_LIGHT))
    canvas = draw_tray(streams.element(_TEXTURE), compartments, removed_wall, light, height, width, f)
    if defect == "scratch":
        surface = _tray_surface(compartments, height, width)
        footprint = scratch(canvas, rng, _somewhere(rng, compartments), surface, SCRATCH, f)
    elif defect == "broken_pin":
        (pin,) = pins[target]
        broken = replace(pin, length=NEEDLE_LENGTH * rng.uniform(0.25, 0.55))
        pins[target] = [broken]
        x, y = box_grid((slice(0, height), slice(0, width)))
        footprint = segment(x, y, *pin.needle(f, broken.length), NEEDLE_HALF_WIDTH * f) > -0.25
    for pin in (pin for group in pins for pin in group):
        draw_pin(canvas, pin, light, f)
    if defect == "contamination":
        footprint = debris(canvas, rng, _somewhere(rng, compartments), f)
    return Scene(np.clip(canvas, 0, 1), footprint, channels)


# Layout -------------------------------------------------------------------------------------------------------------


def _compartments(streams: Streams, height: int, width: int) -> list[Compartment]:
    """Interiors of the compartments, row by row."""
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
    """A pin at a random position and angle, with head and needle clear of the walls."""
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
    """A further pin whose head is more than `PIN_DISTANCE` from the other heads and does not touch their needles.

    After 500 draws the pin with the largest gap is taken; nearly always a few draws suffice.
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
    """Gap between two pins beyond the required distance, in image pixels; negative when they are too close."""
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
    """Violate rule 1 or 2 by changing `pins` at the compartment `target`. Returns the masks, empty for other defects."""
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
        # To a compartment of the same colour, so that rule 2 holds.
        others = [k for k in range(ROWS * COLUMNS) if _colour(k) == _colour(target) and k != target]
        goal = others[int(rng.integers(len(others)))]
        pins[target] = []
        pins[goal].append(_draw_neighbour(rng, goal, pins[goal], compartments[goal], f))
        empty = _interior(compartments[target], height, width)
        return (empty, _pins_mask("additional_pin", pins[goal], height, width))
    return ()


# Masks --------------------------------------------------------------------------------------------------------------


def _interior(place: Compartment, height: int, width: int) -> tuple[int, Mask]:
    """Mask of `missing_pin`: the interior of the compartment."""
    x, y = box_grid((slice(0, height), slice(0, width)))
    return PIXEL_VALUES["missing_pin"], np.asarray(place.distance(x, y, 0.0) > 0)


def _pins_mask(defect: str, pins: list[Pin], height: int, width: int) -> tuple[int, Mask]:
    """Mask of the pins of a compartment, with the pixel value of `defect`."""
    f = height / 256
    x, y = box_grid((slice(0, height), slice(0, width)))
    mask = np.zeros((height, width), np.bool_)
    for pin in pins:
        mask |= disc(x, y, pin.x, pin.y, HEAD_RADIUS * f) > 0
        mask |= segment(x, y, *pin.needle(f), NEEDLE_HALF_WIDTH * f) > 0
    return PIXEL_VALUES[defect], mask


def _separator(compartments: list[Compartment], number: int, height: int, width: int) -> tuple[int, Mask]:
    """Mask of `missing_separator`: the wall to the right of a compartment."""
    left, right = compartments[number], compartments[number + 1]
    wall = Compartment(left.right, left.top, right.left, left.bottom)
    x, y = box_grid((slice(0, height), slice(0, width)))
    return PIXEL_VALUES["missing_separator"], np.asarray(wall.distance(x, y, 0.0) > 0)


# Damage -------------------------------------------------------------------------------------------------------------


def _somewhere(rng: np.random.Generator, compartments: list[Compartment]) -> tuple[float, float]:
    """A random point on the tray."""
    first, last = compartments[0], compartments[-1]
    x, y = rng.uniform((first.left, first.top), (last.right, last.bottom))
    return float(x), float(y)


def _tray_surface(compartments: list[Compartment], height: int, width: int) -> Mask:
    """(H, W) True on the tray inside its rim."""
    x, y = box_grid((slice(0, height), slice(0, width)))
    first, last = compartments[0], compartments[-1]
    return (x > first.left) & (x < last.right) & (y > first.top) & (y < last.bottom)
