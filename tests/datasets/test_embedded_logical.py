"""The screw kit and the terminal block: what good images contain, and what the masks of logical defects mark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from drawn import drawn, levels, union
from scipy import ndimage

from andon.datasets.embedded import Rendered, render, screw_kit, terminal_block
from andon.datasets.embedded.generation import category_module
from andon.datasets.embedded.random_streams import streams
from andon.datasets.embedded.screw_kit_parts import Part
from andon.datasets.embedded.terminal_block_parts import COLOURS, ROWS

KIT, BLOCK = "screw_kit", "terminal_block"


def own_streams(category: str, defect: str, index: int):
    """Streams of an image of the test split, as `render` takes them."""
    number = 1 + sorted(category_module(category).DEFECTS).index(defect)
    return streams(0, category, "test", number, index)


# Screw kit ----------------------------------------------------------------------------------------------------------


def kit(index: int, defect: str = "scratch") -> tuple[list[Part], tuple[float, float, float, float]]:
    """Parts and floor of a kit that keeps the rule."""
    own = own_streams(KIT, defect, index)
    floor, parts = screw_kit._floor(own, 256), list[Part]()
    for number, kind in enumerate(screw_kit.KIT):
        parts.append(screw_kit._place(own.element(10 + number), kind, parts, floor, 1.0))
    return parts, floor


def components(mask: np.ndarray) -> list[int]:
    """Areas of the connected regions of a mask."""
    found, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.bincount(found.ravel())[1:].tolist()


@pytest.mark.parametrize("index", range(3))
def test_parts_do_not_touch_each_other_or_the_walls(index: int) -> None:
    parts, floor = kit(index)
    outlines = [screw_kit._outline([part], 256) for part in parts]
    grown = [ndimage.binary_dilation(one) for one in outlines]
    assert not np.logical_and.reduce([grown[0], ~screw_kit._inside(floor, 256)]).any()
    for number, one in enumerate(outlines):
        assert not (one & ~screw_kit._inside(floor, 256)).any()
        assert not (one & np.logical_or.reduce([*grown[:number], *grown[number + 1 :]])).any()


def grey_parts(image: np.ndarray) -> list[int]:
    """Areas of the parts that are bluer than the cardboard, smallest first: screws and the key, without the border."""
    ratio = image[..., 2].astype(float) / image[..., 0]
    mask = ndimage.binary_closing(ratio > 1.35 * np.median(ratio))
    return sorted(area for area in components(mask[24:-24, 24:-24]) if area > 60)


def test_a_good_kit_has_two_short_screws_a_key_and_two_long_screws() -> None:
    """Counted in the image, without the drawing code."""
    short, other_short, key, long, other_long = grey_parts(drawn(KIT, "missing_washer").twin)
    assert 280 <= short <= other_short <= 320 and 390 <= key <= 430 and 470 <= long <= other_long <= 510


@pytest.mark.parametrize(
    ("defect", "count"), [("missing_screw", 4), ("additional_screw", 6), ("washer_for_screw", 4)]
)
def test_screws_that_are_too_few_or_too_many(defect: str, count: int) -> None:
    assert len(grey_parts(drawn(KIT, defect).image)) == count


@pytest.mark.parametrize(
    ("defect", "kind", "count"),
    [("additional_washer", "washer", 4), ("wrong_screw", "long", 3), ("additional_screw", None, 3)],
)
def test_masks_hold_every_part_of_the_kind_with_one_too_many(
    defect: str, kind: str | None, count: int
) -> None:
    areas = components(union(drawn(KIT, defect)))
    expected = {"washer": (380, 420), "long": (455, 495)}.get(str(kind), (270, 495))
    assert len(areas) == count and all(expected[0] <= area <= expected[1] for area in areas)
    saturation = {row.name: row.area for row in screw_kit.LOCO_DEFECTS}[defect]
    assert saturation <= min(areas)


@pytest.mark.parametrize(("defect", "least"), [("missing_screw", 250), ("missing_washer", 350)])
def test_a_missing_part_marks_the_floor(defect: str, least: int) -> None:
    """One part is gone and its place shows the floor; the mask is all of the floor, where it might lie."""
    rendered = drawn(KIT, defect)
    changed = ndimage.binary_dilation(levels(rendered) > 25)
    assert least <= changed.sum() <= 1500
    assert union(rendered).sum() > 0.7 * 256**2 and not (changed & ~union(rendered)).any()


def test_a_washer_in_place_of_a_screw_keeps_the_number_of_parts() -> None:
    (first, floor), (second, washers) = drawn(KIT, "washer_for_screw").masks
    assert (first, second) == (255, 252)
    assert len(components(washers)) == 4 and not (washers & ~floor).any()


# Terminal block -----------------------------------------------------------------------------------------------------


def seen(rendered: Rendered, defect: str, index: int) -> list[tuple[str | None, str | None]]:
    """Colours of label and wire of each row from the top, read from the image."""
    rows = terminal_block._rows(own_streams(BLOCK, defect, index), 256)
    x = np.array([[36.0], [200.0]]) + rows[0].shift
    found = []
    for row in rows:
        wire = row.wire_axis(x[1:].astype(np.float32), 1.0)[0, 0]
        found.append(tuple(nearest(rendered, *place) for place in ((x[0, 0], row.y), (x[1, 0], float(wire)))))
    return found


def nearest(rendered: Rendered, x: float, y: float) -> str | None:
    """Name of the colour around a point; None where it is grey or white."""
    square = rendered.image[round(y) - 2 : round(y) + 3, round(x) - 4 : round(x) + 5].astype(float)
    colour = square.mean(axis=(0, 1))
    if np.ptp(colour) < 0.35 * colour.max():
        return None
    unit = colour / np.linalg.norm(colour)
    return max(COLOURS, key=lambda name: float(unit @ COLOURS[name]) / float(np.linalg.norm(COLOURS[name])))


def faulty(rows: Sequence[tuple[str | None, str | None]]) -> list[int]:
    """Rows whose wire is not that of the label, or whose colour belongs to the other block."""
    allowed = [set(terminal_block.BLOCK_COLOURS[number // ROWS]) | {None} for number in range(len(rows))]
    return [
        number
        for number, (label, wire) in enumerate(rows)
        if label != wire or not {label, wire} <= allowed[number]
    ]


@pytest.mark.parametrize("index", range(3))
def test_good_terminal_blocks_keep_their_rules(index: int) -> None:
    rendered = render(BLOCK, "test", "scratch", index)
    good = Rendered(rendered.twin, rendered.twin, (), rendered.photometry)
    rows = seen(good, "scratch", index)
    assert faulty(rows) == []
    used = [label for label, _ in rows if label]
    assert len(set(used)) >= 2 and len(used) < len(rows)


@pytest.mark.parametrize(
    ("defect", "count"),
    [
        *(("missing_wire", 1), ("additional_wire", 1), ("wrong_colour", 1)),
        *(("swapped_wires", 2), ("wrong_terminal", 2), ("swapped_blocks", None)),
    ],
)
def test_masks_mark_label_and_wire_of_the_rows_that_violate_a_rule(defect: str, count: int | None) -> None:
    rendered = drawn(BLOCK, defect)
    rows = seen(rendered, defect, 0)
    wrong = faulty(rows)
    assert len(wrong) == count or (count is None and wrong == [k for k, row in enumerate(rows) if any(row)])
    marked = union(rendered)
    for number, row in enumerate(terminal_block._rows(own_streams(BLOCK, defect, 0), 256)):
        assert marked[round(row.y), round(36 + row.shift)] == (number in wrong)
    assert len(components(marked)) == 2 * len(wrong)
    areas = {row.name: row.area for row in terminal_block.LOCO_DEFECTS}
    if areas[defect]:
        assert areas[defect] < marked.sum()


def test_colours_of_labels_and_wires_are_the_same_number_after_a_swap() -> None:
    rows = seen(drawn(BLOCK, "swapped_wires"), "swapped_wires", 0)
    labels, wires = zip(*rows, strict=True)
    assert sorted(map(str, labels)) == sorted(map(str, wires)) and labels != wires


def test_every_combination_of_a_block_occurs_among_good_images() -> None:
    """So that the labels, or the wires, of a block tell a detector of patches nothing."""
    found = set()
    for index in range(600):
        colours = terminal_block._use(streams(0, BLOCK, "train", 0, index).element(3))
        found.add(tuple(colours[:ROWS]))
    assert len(found) == 27
