"""Two terminal blocks with labels on the left and wires on the right: faults of combination and place, and damage.

The rules are: (1) a row has a wire exactly where it has a label, (2) the wire has the colour of the label, (3) the upper block
carries red and blue, the lower one yellow and green. Which rows are used, and in which colour, differs from image to image.
Label and wire of a row are more than 100 px apart and the blocks alike, so every small neighbourhood of an image with a logical
defect occurs in good images. The masks of logical defects follow from the rules (docs/reference/data.md, "Embedded sets").
Lengths are in pixels at f = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

from andon.datasets.embedded.damage import debris, scratch
from andon.datasets.embedded.loco_defects import LocoDefect, pixel_values
from andon.datasets.embedded.primitives import Mask, grid
from andon.datasets.embedded.random_streams import Streams
from andon.datasets.embedded.rendering import Scene, shadow_direction
from andon.datasets.embedded.terminal_block_parts import (
    BLOCK_PITCH,
    BLOCKS,
    BODY,
    PITCH,
    ROWS,
    Row,
    bare_area,
    draw_bare_wire,
    draw_block,
    draw_label,
    draw_plate,
    draw_wire,
)

LABEL_AREA = 480
LOCO_DEFECTS = (
    LocoDefect("missing_wire", "logical", 255, LABEL_AREA),
    LocoDefect("additional_wire", "logical", 254, LABEL_AREA),
    LocoDefect("wrong_colour", "logical", 253, LABEL_AREA),
    LocoDefect("swapped_wires", "logical", 252, 2 * LABEL_AREA),
    LocoDefect("swapped_blocks", "logical", 251, 2 * LABEL_AREA),
    LocoDefect("bare_wire", "structural", 250),
    LocoDefect("contamination", "structural", 249),
    LocoDefect("scratch", "structural", 248),
    LocoDefect("wrong_terminal", "logical", None),  # missing_wire and additional_wire
)
DEFECTS: tuple[str, ...] = tuple(sorted(row.name for row in LOCO_DEFECTS))
MODE: Literal["RGB"] = "RGB"
PIXEL_VALUES = pixel_values(LOCO_DEFECTS)

T = TypeVar("T")

BLOCK_COLOURS = (("red", "blue"), ("yellow", "green"))
UNUSED = 0.3
"""Probability of a row without label and wire."""
SCRATCH = (0.30, 0.24, 0.20)

# Elements of the scene, each with its own random stream; row k, counted from the top, draws from _FIRST_ROW + k.
_PLACE, _TEXTURE, _LIGHT, _USE = range(4)
_FIRST_ROW = 10

Colours = list[str | None]
"""Colours of the labels, or of the wires, of all rows from the top; None where there is none."""


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene (H, H, 3) with a `defect` of `DEFECTS` and its footprint or masks, or without a defect."""
    f = height / 256
    rng, light, rows = streams.defect, shadow_direction(streams.element(_LIGHT)), _rows(streams, height)
    labels = _use(streams.element(_USE))
    wires = list(labels)
    channels = _break_rule(rng, defect, labels, wires, rows, height)

    footprint: Mask | None = None
    canvas = draw_plate(streams.element(_TEXTURE), height, f)
    for block in range(BLOCKS):
        draw_block(canvas, rows[block * ROWS : (block + 1) * ROWS], light, f)
    for row, label in zip(rows, labels, strict=True):
        draw_label(canvas, row, label, f)
    if defect == "scratch":  # left of the wires, which would hide it
        everywhere = np.ones((height, height), np.bool_)
        footprint = scratch(canvas, rng, _somewhere(rng, BODY[1] * f, height), everywhere, SCRATCH, f)
    for row, wire in zip(rows, wires, strict=True):
        if wire is not None:
            draw_wire(canvas, row, wire, light, f)
    if defect == "bare_wire":
        row = rows[_choose(rng, [k for k, wire in enumerate(wires) if wire])]
        footprint = bare_area(row, rng.uniform(18, 60), rng.uniform(8, 16), height, f)
        draw_bare_wire(canvas, row, footprint, f)
    elif defect == "contamination":
        footprint = debris(canvas, rng, _somewhere(rng, height, height), f)
    return Scene(np.clip(canvas, 0, 1), footprint, channels)


# Layout -------------------------------------------------------------------------------------------------------------


def _rows(streams: Streams, height: int) -> list[Row]:
    """All rows from the top, each with its own variation."""
    f = height / 256
    dx, dy = streams.element(_PLACE).uniform(-4, 4, 2) * f
    rows = []
    for number in range(BLOCKS * ROWS):
        block, row = divmod(number, ROWS)
        offset = (block - (BLOCKS - 1) / 2) * BLOCK_PITCH + (row - (ROWS - 1) / 2) * PITCH
        rng = streams.element(_FIRST_ROW + number)
        label = rng.uniform((-2, -1.5, -0.06), (2, 1.5, 0.06))
        bend, slots = rng.uniform(-6, 6, 2), rng.uniform(0, np.pi, 2)
        y = float((height - 1) / 2 + dy + f * offset)
        tone = float(rng.normal(0, 0.04))
        rows.append(Row(y, float(dx), tuple(label), tuple(bend), tone, tuple(slots)))
    return rows


def _use(rng: np.random.Generator) -> Colours:
    """Colours by the rules, drawn again until every fault is possible: a block with two colours, one with a free row."""
    while True:
        used = rng.uniform(size=BLOCKS * ROWS) >= UNUSED
        second = rng.integers(2, size=BLOCKS * ROWS)
        colours: Colours = [
            BLOCK_COLOURS[k // ROWS][second[k]] if used[k] else None for k in range(BLOCKS * ROWS)
        ]
        if _pairs(colours, swap=True) and _pairs(colours, swap=False):
            return colours


def _pairs(colours: Colours, swap: bool) -> list[tuple[int, int]]:
    """Pairs of rows of a block: both used, in different colours (`swap`), or the first used and the second, next to it, free."""
    used = [k for k, colour in enumerate(colours) if colour is not None]
    if swap:
        return [
            (i, k)
            for i in used
            for k in used
            if i < k and i // ROWS == k // ROWS and colours[i] != colours[k]
        ]
    return [
        (i, k)
        for i in used
        for k in (i - 1, i + 1)
        if 0 <= k < len(colours) and i // ROWS == k // ROWS and colours[k] is None
    ]


# Rules --------------------------------------------------------------------------------------------------------------


def _break_rule(
    rng: np.random.Generator,
    defect: str | None,
    labels: Colours,
    wires: Colours,
    rows: list[Row],
    height: int,
) -> tuple[tuple[int, Mask], ...]:
    """Change `labels` and `wires` so that a rule is violated. Returns the masks, empty for other defects."""
    if defect == "swapped_blocks":
        changed = [k for k, label in enumerate(labels) if label]
        for k in changed:
            upper_or_lower = k // ROWS
            second = BLOCK_COLOURS[upper_or_lower].index(str(labels[k]))
            labels[k] = wires[k] = BLOCK_COLOURS[1 - upper_or_lower][second]
        return (_mask(defect, changed, rows, height),)
    if defect == "swapped_wires":
        i, k = _choose(rng, _pairs(labels, swap=True))
        wires[i], wires[k] = wires[k], wires[i]
        return (_mask(defect, [i, k], rows, height),)
    if defect == "wrong_terminal":
        i, k = _choose(rng, _pairs(labels, swap=False))
        wires[i], wires[k] = None, wires[i]
        return (_mask("missing_wire", [i], rows, height), _mask("additional_wire", [k], rows, height))
    if defect in ("missing_wire", "additional_wire", "wrong_colour"):
        free = defect == "additional_wire"
        k = _choose(rng, [k for k, label in enumerate(labels) if (label is None) == free])
        possible = [colour for colour in BLOCK_COLOURS[k // ROWS] if colour != labels[k]]
        wires[k] = None if defect == "missing_wire" else _choose(rng, possible)
        return (_mask(defect, [k], rows, height),)
    return ()


def _choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


# Masks and damage ---------------------------------------------------------------------------------------------------


def _mask(defect: str, numbers: list[int], rows: list[Row], height: int) -> tuple[int, Mask]:
    """Mask of labels and wires of some rows, of a missing one too; finding either of the two is enough to saturate."""
    x, y = grid(height, height)
    f = height / 256
    mask = np.zeros((height, height), np.bool_)
    for row in (rows[k] for k in numbers):
        mask |= (row.label_distance(x, y, f) > 0) | (row.wire_distance(x, y, f) > 0)
    return PIXEL_VALUES[defect], mask


def _somewhere(rng: np.random.Generator, right: float, height: int) -> tuple[float, float]:
    """A random point of the image, left of `right`, a little away from the border."""
    edge = height * 0.06
    x, y = rng.uniform((edge, edge), (right - edge, height - edge))
    return float(x), float(y)
