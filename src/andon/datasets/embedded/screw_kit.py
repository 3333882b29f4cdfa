"""Screw kit in a box, whose parts lie anywhere: faults of number and combination, and structural defects.

The rule is: two long screws, two short screws, three washers, one hex key. Parts lie anywhere, in any direction and without
touching, so every small neighbourhood of an image with a logical defect occurs in good images. The masks of logical defects
follow from the rule (docs/reference/data.md, "Embedded sets"). Lengths are in pixels at f = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from andon.datasets.embedded.damage import debris, scratch
from andon.datasets.embedded.loco_defects import LocoDefect, pixel_values
from andon.datasets.embedded.primitives import Mask, grid
from andon.datasets.embedded.random_streams import Streams
from andon.datasets.embedded.rendering import Scene, shadow_direction
from andon.datasets.embedded.screw_kit_parts import (
    HEAD_HALF_WIDTH,
    KEY_HALF_WIDTH,
    WASHER_RADIUS,
    Floor,
    Kind,
    Part,
    draw_box,
    draw_part,
)

SHORT_AREA, LONG_AREA, WASHER_AREA = 280, 470, 390
LOCO_DEFECTS = (
    LocoDefect("missing_screw", "logical", 255, SHORT_AREA),
    LocoDefect("missing_washer", "logical", 254, WASHER_AREA),
    LocoDefect("additional_screw", "logical", 253, SHORT_AREA),
    LocoDefect("additional_washer", "logical", 252, WASHER_AREA),
    LocoDefect("wrong_screw", "logical", 251, LONG_AREA),
    LocoDefect("broken_washer", "structural", 250),
    LocoDefect("contamination", "structural", 249),
    LocoDefect("scratch", "structural", 248),
    LocoDefect("washer_for_screw", "logical", None),  # missing_screw and additional_washer
)
DEFECTS: tuple[str, ...] = tuple(sorted(row.name for row in LOCO_DEFECTS))
MODE: Literal["RGB"] = "RGB"
PIXEL_VALUES = pixel_values(LOCO_DEFECTS)

KIT: tuple[Kind, ...] = ("key", "long", "long", "short", "short", "washer", "washer", "washer")
MARGIN = 17.0
"""Mean distance of the floor of the box from the border of the image."""
CLEARANCE = 2.5
"""Smallest gap between two parts, and between a part and the walls."""
STEP = 6.0
"""Largest distance of the discs that stand for a part when gaps are measured."""
SCRATCH = (0.25, 0.20, 0.16)

# Elements of the scene, each with its own random stream; part k draws from _FIRST_PART + k.
_FLOOR, _TEXTURE, _LIGHT = range(3)
_FIRST_PART = 10

Discs = npt.NDArray[np.float64]


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene (H, H, 3) with a `defect` of `DEFECTS` and its footprint or masks, or without a defect."""
    f = height / 256
    rng, floor, light = streams.defect, _floor(streams, height), shadow_direction(streams.element(_LIGHT))
    parts: list[Part] = []
    for number, kind in enumerate(KIT):
        parts.append(_place(streams.element(_FIRST_PART + number), kind, parts, floor, f))
    channels = _break_rule(rng, defect, parts, floor, height)

    footprint: Mask | None = None
    canvas = draw_box(streams.element(_TEXTURE), floor, light, height, f)
    if defect == "scratch":
        footprint = scratch(
            canvas, rng, _bare_place(rng, parts, floor, f), _inside(floor, height), SCRATCH, f
        )
    elif defect == "broken_washer":
        number = _choose(rng, parts, "washer")
        whole = parts[number]
        parts[number] = replace(whole, gap=rng.uniform(1.2, 2.0))
        footprint = _outline([whole], height) & ~_outline([parts[number]], height)
    for part in parts:
        draw_part(canvas, part, light, f)
    if defect == "contamination":
        footprint = debris(canvas, rng, _somewhere(rng, floor), f)
    return Scene(np.clip(canvas, 0, 1), footprint, channels)


# Layout -------------------------------------------------------------------------------------------------------------


def _floor(streams: Streams, height: int) -> Floor:
    """Left, top, right and bottom of the floor of the box."""
    f = height / 256
    dx, dy = streams.element(_FLOOR).uniform(-4, 4, 2) * f
    near, far = MARGIN * f - 0.5, height - 0.5 - MARGIN * f
    return near + dx, near + dy, far + dx, far + dy


def _place(rng: np.random.Generator, kind: Kind, others: Sequence[Part], floor: Floor, f: float) -> Part:
    """A part that touches neither the walls nor `others`; after 500 draws the one with the largest gap."""
    taken = np.concatenate([_discs(part, f) for part in others]) if others else np.empty((0, 3))
    tone = float(rng.normal(0, 0.04))
    best, best_gap = None, -np.inf
    for _ in range(500):
        x, y, angle = rng.uniform((*floor[:2], 0), (*floor[2:], 2 * np.pi))
        part = Part(kind, float(x), float(y), float(angle), tone)
        gap = _gap(_discs(part, f), taken, floor)
        if best is None or gap > best_gap:
            best, best_gap = part, gap
        if gap > CLEARANCE * f:
            break
    assert best is not None
    return best


def _discs(part: Part, f: float) -> Discs:
    """(N, 3) x, y and radius of discs along the axes of a part; a short screw has the room of a long one."""
    radius = {"washer": WASHER_RADIUS, "key": KEY_HALF_WIDTH}.get(part.kind, HEAD_HALF_WIDTH)
    roomy = replace(part, kind="long") if part.kind == "short" else part
    centres = []
    for start, end in roomy.axes(f):
        count = 1 + int(np.ceil(np.hypot(end[0] - start[0], end[1] - start[1]) / (STEP * f)))
        centres.append(np.linspace(start, end, count))
    places = np.concatenate(centres)
    return np.column_stack([places, np.full(len(places), radius * f)])


def _gap(discs: Discs, taken: Discs, floor: Floor) -> float:
    """Smallest gap in image pixels between a part, the discs of others and the walls; negative where they overlap."""
    walls = np.minimum(discs[:, :2] - floor[:2], np.subtract(floor[2:], discs[:, :2])) - discs[:, 2:]
    if not len(taken):
        return float(walls.min())
    distances = np.hypot(*(discs[:, None, k] - taken[None, :, k] for k in (0, 1)))
    return float(min(walls.min(), (distances - discs[:, None, 2] - taken[None, :, 2]).min()))


# Rule ---------------------------------------------------------------------------------------------------------------


def _break_rule(
    rng: np.random.Generator, defect: str | None, parts: list[Part], floor: Floor, height: int
) -> tuple[tuple[int, Mask], ...]:
    """Change `parts` so that the rule is violated. Returns the masks, empty for other defects."""
    f = height / 256
    if defect in ("missing_screw", "missing_washer"):
        del parts[_choose(rng, parts, "washer" if defect == "missing_washer" else _screw(rng))]
        return (_missing(defect, floor, height),)
    if defect in ("additional_screw", "additional_washer"):
        kind: Kind = "washer" if defect == "additional_washer" else _screw(rng)
        parts.append(_place(rng, kind, parts, floor, f))
        return (_too_many(defect, parts, kind, height),)
    if defect == "wrong_screw":
        number = _choose(rng, parts, "short")
        parts[number] = replace(parts[number], kind="long")
        return (_too_many(defect, parts, "long", height),)
    if defect == "washer_for_screw":
        removed = parts.pop(_choose(rng, parts, _screw(rng)))
        parts.append(replace(removed, kind="washer"))
        empty = _missing("missing_screw", floor, height)
        return (empty, _too_many("additional_washer", parts, "washer", height))
    return ()


def _choose(rng: np.random.Generator, parts: Sequence[Part], kind: Kind) -> int:
    """Index of a random part of a kind."""
    numbers = [number for number, part in enumerate(parts) if part.kind == kind]
    return numbers[int(rng.integers(len(numbers)))]


def _screw(rng: np.random.Generator) -> Kind:
    return "long" if rng.uniform() < 0.5 else "short"


# Masks and damage ---------------------------------------------------------------------------------------------------


def _inside(floor: Floor, height: int) -> Mask:
    """(H, H) True on the floor of the box."""
    x, y = grid(height, height)
    return np.asarray((x > floor[0]) & (x < floor[2]) & (y > floor[1]) & (y < floor[3]))


def _outline(parts: Sequence[Part], height: int) -> Mask:
    """(H, H) True on any of the parts."""
    x, y = grid(height, height)
    return np.asarray(np.logical_or.reduce([part.distance(x, y, height / 256) > 0 for part in parts]))


def _missing(defect: str, floor: Floor, height: int) -> tuple[int, Mask]:
    """Mask of a part that is missing: the floor of the box, where it might lie."""
    return PIXEL_VALUES[defect], _inside(floor, height)


def _too_many(defect: str, parts: Sequence[Part], kind: Kind, height: int) -> tuple[int, Mask]:
    """Mask of all parts of the kind of which there are too many."""
    return PIXEL_VALUES[defect], _outline([part for part in parts if part.kind == kind], height)


def _somewhere(rng: np.random.Generator, floor: Floor) -> tuple[float, float]:
    """A random point on the floor of the box."""
    x, y = rng.uniform(floor[:2], floor[2:])
    return float(x), float(y)


def _bare_place(
    rng: np.random.Generator, parts: Sequence[Part], floor: Floor, f: float
) -> tuple[float, float]:
    """A random point on the floor that no part hides."""
    discs = np.concatenate([_discs(part, f) for part in parts])
    while True:
        x, y = _somewhere(rng, floor)
        if (np.hypot(discs[:, 0] - x, discs[:, 1] - y) > discs[:, 2] + f).all():
            return x, y
