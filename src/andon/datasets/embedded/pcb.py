"""Printed circuit board with a fixed layout.

`pcb_layout` has the positions, `pcb_board` draws the bare board and `pcb_parts` the components. Good boards vary in pose, in
position, angle and tone of each component, in the brightness of the solder, in the text on the ICs and in the hue of the
solder mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from andon.datasets.embedded.pcb_board import bare_board, box_of
from andon.datasets.embedded.pcb_layout import BOARD_HALF, PARTS, Part
from andon.datasets.embedded.pcb_parts import USUAL, Colour, Placed, body, draw_part, outline, solder_ball
from andon.datasets.embedded.primitives import (
    Image,
    Mask,
    Pose,
    blend,
    box_around,
    box_grid,
    coverage,
    segment,
)
from andon.datasets.embedded.random_streams import Streams
from andon.datasets.embedded.rendering import Scene, shadow_direction

DEFECTS: tuple[str, ...] = ("extra_part", "missing_part", "scratch", "wrong_colour", "wrong_position")
MODE: Literal["RGB"] = "RGB"

SCRATCH = (0.62, 0.58, 0.42)
BLUE: Colour = (0.10, 0.24, 0.72)
BROWN: Colour = (0.38, 0.19, 0.08)
WRONG: dict[str, Colour] = {"capacitor": BLUE, "led": BLUE, "resistor": BROWN}
"""Colours of the defect `wrong_colour` by kind; no good board has them."""
SMALL = tuple(k for k, part in enumerate(PARTS) if part.kind in WRONG)
"""Indices of the components that can have the wrong colour or position."""
REMOVABLE = tuple(k for k, part in enumerate(PARTS) if part.kind != "header")
LETTERS = "ACDEFHLMPRTUX"
DIGITS = "0123456789"

# Elements of the scene, each with its own random stream; part k draws from _FIRST_PART + k.
_POSE, _LIGHT, _HUE, _TEXTURE = range(4)
_FIRST_PART = 10


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene (H, H, 3) with a `defect` of `DEFECTS` and its footprint, or without a defect."""
    f = height / 256
    rng = streams.defect
    pose, light = _draw_pose(streams, height), shadow_direction(streams.element(_LIGHT))
    placed = [_place(streams.element(_FIRST_PART + k), part, pose) for k, part in enumerate(PARTS)]
    canvas = bare_board(streams.element(_HUE), streams.element(_TEXTURE), pose, light, height)
    footprint: Mask | None = None
    if defect == "missing_part":
        footprint = _covered(placed.pop(int(rng.choice(REMOVABLE))), height)
    elif defect == "wrong_colour":
        k = int(rng.choice(SMALL))
        placed[k] = replace(placed[k], colour=WRONG[PARTS[k].kind])
        footprint = _covered(placed[k], height, body)
    elif defect == "wrong_position":
        k = int(rng.choice(SMALL))
        moved = _move(rng, placed[k], f)
        footprint = _covered(placed[k], height) | _covered(moved, height)
        placed[k] = moved
    elif defect == "scratch":
        footprint = _scratch(canvas, rng, placed, pose)

    for part in placed:
        draw_part(canvas, part, light, f)
    if defect == "extra_part":
        x, y = pose.to_image(*rng.uniform(-BOARD_HALF + 10, BOARD_HALF - 10, 2))
        footprint = solder_ball(canvas, x, y, rng.uniform(3, 6) * f, rng.uniform(0.65, 0.9), light, f)
    return Scene(np.clip(canvas, 0, 1), footprint)


# Random draws --------------------------------------------------------------------------------------------------------


def _draw_pose(streams: Streams, height: int) -> Pose:
    f, middle = height / 256, (height - 1) / 2
    dx, dy, degrees = streams.element(_POSE).uniform((-9, -9, -4), (9, 9, 4))
    return Pose(middle + f * dx, middle + f * dy, float(np.deg2rad(degrees)), f)


def _place(rng: np.random.Generator, part: Part, pose: Pose) -> Placed:
    """A component with random offset, rotation, tone, solder brightness and text."""
    dx, dy, tone = rng.normal(0, (0.8, 0.8, 0.02))
    turn = np.deg2rad(rng.normal(0, 1.5)) + (np.pi / 2 if part.turned else 0)
    shine = rng.uniform(0.65, 0.90)
    x, y = pose.to_image(part.x + dx, part.y + dy)
    marking: tuple[str, ...] = ()
    if part.kind == "ic":
        length = 6 if part.half[0] < 25 else 9
        letters, digits = (rng.integers(len(pool), size=length) for pool in (LETTERS, DIGITS))
        text = "".join(LETTERS[k] for k in letters[:2]) + "".join(DIGITS[k] for k in digits[2:])
        code = "".join(DIGITS[k] for k in digits[:2]) + "".join(LETTERS[k] for k in letters[2:5])
        marking = (text, code)
    return Placed(part, x, y, pose.angle + turn, float(tone), float(shine), USUAL[part.kind], marking)


# Defects ------------------------------------------------------------------------------------------------------------


def _covered(placed: Placed, height: int, shape: Callable[[Part, Image, Image], Image] = outline) -> Mask:
    """(H, H), True where the component covers the board."""
    f = height / 256
    mask = np.zeros((height, height), np.bool_)
    box = box_around(placed.x, placed.y, placed.reach * f, height, height)
    assert box is not None  # parts lie on the board
    mask[box] = shape(placed.part, *placed.local(box, f)) > 0
    return mask


def _move(rng: np.random.Generator, placed: Placed, f: float) -> Placed:
    """Shift by 6 to 11 px; rotate by 10 to 35 degrees either way unless the component is round."""
    distance, direction = rng.uniform(6, 11) * f, rng.uniform(0, 2 * np.pi)
    turn = 0.0 if placed.part.round else np.deg2rad(rng.uniform(10, 35)) * rng.choice((-1, 1))
    return replace(
        placed,
        x=placed.x + distance * float(np.cos(direction)),
        y=placed.y + distance * float(np.sin(direction)),
        angle=placed.angle + float(turn),
    )


def _scratch(canvas: Image, rng: np.random.Generator, placed: list[Placed], pose: Pose) -> Mask:
    """A scratch of the solder mask, below the components and mostly between them. Returns its footprint."""
    height, f = canvas.shape[0], pose.scale
    covered = np.zeros((height, height), np.bool_)
    for part in placed:
        covered |= _covered(part, height)
    best, best_share = ((0.0, 0.0), (0.0, 0.0)), -1.0
    for _ in range(100):
        length, angle = rng.uniform(30, 80), rng.uniform(0, np.pi)
        half = np.array((np.cos(angle), np.sin(angle))) * length / 2
        middle = rng.uniform(-1, 1, 2) * (BOARD_HALF - 6 - np.abs(half))  # the ends stay on the board
        ends = (pose.to_image(*(middle - half)), pose.to_image(*(middle + half)))
        points = np.rint(np.linspace(*ends, 41)).astype(np.intp)
        share = 1 - float(covered[points[:, 1], points[:, 0]].mean())
        if share > best_share:
            best, best_share = ends, share
        if share > 0.7:
            break
    box = box_of(best, 4 * f, height)
    x, y = box_grid(box)
    distance = segment(x, y, *best, rng.uniform(0.8, 1.4) * f)
    blend(canvas, box, coverage(distance), SCRATCH)
    footprint = np.zeros((height, height), np.bool_)
    footprint[box] = distance > 0
    return footprint
