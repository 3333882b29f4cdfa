"""The bolt, the circuit board and the pin tray: what is drawn, and what the masks of its defects contain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from drawn import drawn, levels, union
from scipy import ndimage

from andon.datasets.embedded import Rendered, pcb, pcb_layout, pin_tray, render
from andon.datasets.embedded.generation import category_module
from andon.datasets.embedded.loco_defects import LocoDefect
from andon.datasets.embedded.random_streams import streams

BoolArray = npt.NDArray[np.bool_]

OBJECTS = ("bolt", "pcb", "pin_tray")
LOGICAL = tuple(row.name for row in pin_tray.LOCO_DEFECTS if row.group == "logical")
PIXEL_VALUES = {row.name: row.pixel_value for row in pin_tray.LOCO_DEFECTS}


def hues(rendered: Rendered) -> tuple[BoolArray, BoolArray]:
    """(H, W) where a tray image is clearly yellow, and clearly blue."""
    red, _, blue = (rendered.image[:, :, k].astype(np.int64) for k in range(3))
    return red - blue > 60, blue - red > 60


def pins_seen(mask: BoolArray) -> int:
    """Connected patches of at least 40 px: heads of pins, which have about 177 px."""
    found, count = ndimage.label(mask)
    return int((np.bincount(found.ravel(), minlength=count + 1)[1:] >= 40).sum())


# Every object -------------------------------------------------------------------------------------------------------


def test_defect_types() -> None:
    assert set(category_module("bolt").DEFECTS) == {"missing_tip", "rust", "scratch_head", "worn_thread"}
    board = {"extra_part", "missing_part", "scratch", "wrong_colour", "wrong_position"}
    assert set(category_module("pcb").DEFECTS) == board
    assert set(category_module("pin_tray").DEFECTS) == {*PIXEL_VALUES} and len(PIXEL_VALUES) == 9


@pytest.mark.parametrize(
    ("category", "defect"), [(name, category_module(name).DEFECTS[0]) for name in OBJECTS]
)
def test_the_same_image_every_time(category: str, defect: str) -> None:
    first, again = (render(category, "test", defect, 3, size=128, seed=5) for _ in range(2))
    assert np.array_equal(first.image, again.image) and first.photometry == again.photometry
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first.masks, again.masks, strict=True))
    others = [
        render(category, "test", defect, 4, size=128, seed=5),
        render(category, "test", defect, 3, size=128),
    ]
    assert all(not np.array_equal(first.image, other.image) for other in others)


# Bolt ---------------------------------------------------------------------------------------------------------------


def test_bolts_lie_in_every_direction() -> None:
    """The long axis of the dark part, over 16 images, falls into at least 6 of 8 sectors of half a turn."""
    sectors = set()
    for index in range(16):
        image = render("bolt", "train", None, index, size=128).image.mean(axis=2)
        rows, columns = np.nonzero(image < 0.75 * np.median(image))
        _, axes = np.linalg.eigh(np.cov(columns, rows))
        sectors.add(int(np.arctan2(axes[1, -1], axes[0, -1]) % np.pi / np.pi * 8) % 8)
    assert len(sectors) >= 6


def test_a_missing_tip_shows_the_table() -> None:
    rendered = drawn("bolt", "missing_tip")
    mask = union(rendered)
    brighter = rendered.image.mean(axis=2) - rendered.twin.mean(axis=2)
    assert (brighter[mask] > 20).mean() > 0.4  # the rest is shadow and the face of the break


def test_rust_is_brown() -> None:
    rendered = drawn("bolt", "rust")
    red, _, blue = rendered.image[union(rendered)].astype(float).mean(axis=0)
    twin = rendered.twin[union(rendered)].astype(float).mean(axis=0)
    assert red / blue > 1.6 * twin[0] / twin[2]


# Circuit board ------------------------------------------------------------------------------------------------------


def test_what_is_on_the_board() -> None:
    kinds = [part.kind for part in pcb_layout.PARTS]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "ic": 3,
        "resistor": 6,
        "capacitor": 5,
        "led": 1,
        "header": 1,
    }
    assert len(pcb_layout.TRACES) == 26 and any(via for *_, via in pcb_layout.TRACES)


def test_the_board_is_the_same_for_every_seed_but_its_text_is_not() -> None:
    poses = []
    for seed in range(3):
        own = streams(seed, "pcb", "train", 0, 0)
        pose = pcb._draw_pose(own, 256)
        placed = [pcb._place(own.element(10 + k), part, pose) for k, part in enumerate(pcb_layout.PARTS)]
        for one in placed:
            expected = pose.to_image(one.part.x, one.part.y)
            assert np.hypot(one.x - expected[0], one.y - expected[1]) < 5  # jitter of 0.8 px
        poses.append((round(pose.x, 3), placed[0].marking))
    assert len({x for x, _ in poses}) == len({marking for _, marking in poses}) == 3


def test_blue_appears_only_as_a_wrong_colour() -> None:
    """Wrong capacitors and LEDs are blue, and no good board is."""

    def blue(image: npt.NDArray[np.uint8], where: BoolArray) -> float:
        pixels = image[where].astype(int)
        return float((pixels[:, 2] - pixels[:, :2].max(axis=1) > 40).mean())

    found = [drawn("pcb", "wrong_colour", index) for index in range(4)]
    assert all(blue(one.twin, np.ones(one.twin.shape[:2], bool)) < 0.0005 for one in found)
    assert max(blue(one.image, union(one)) for one in found) > 0.3


# Pin tray -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [row for row in pin_tray.LOCO_DEFECTS if row.pixel_value is not None], ids=lambda row: row.name
)
def test_tray_masks_carry_their_value(row: LocoDefect) -> None:
    name = row.name
    assert [value for value, _ in drawn("pin_tray", name).masks] == [PIXEL_VALUES[name]]


def test_displaced_pins_mark_where_they_lack_and_where_they_are() -> None:
    (first, empty), (second, crowded) = drawn("pin_tray", "displaced").masks
    assert (first, second) == (PIXEL_VALUES["missing_pin"], PIXEL_VALUES["additional_pin"])
    assert not (empty & crowded).any()


@pytest.mark.parametrize("index", range(3))
def test_a_good_tray_keeps_its_rules(index: int) -> None:
    """Six yellow pins left, six blue ones right."""
    rendered = render("pin_tray", "test", None, index)
    yellow, blue = hues(rendered)
    middle = rendered.image.shape[1] // 2
    assert (pins_seen(yellow[:, :middle]), pins_seen(blue[:, :middle])) == (6, 0)
    assert (pins_seen(yellow[:, middle:]), pins_seen(blue[:, middle:])) == (0, 6)


@pytest.mark.parametrize(
    ("defect", "pins"),
    [("missing_pin", 0), ("additional_pin", 2), ("two_additional_pins", 3), ("wrong_colour", 1)],
)
def test_masks_hold_the_pins_their_rule_counts(defect: str, pins: int) -> None:
    rendered = drawn("pin_tray", defect)
    yellow, blue = hues(rendered)
    mask = ndimage.binary_dilation(union(rendered), iterations=2)
    assert pins_seen((yellow | blue) & mask) == pins
    if defect == "wrong_colour":
        left = np.nonzero(mask)[1].mean() < mask.shape[1] / 2
        assert pins_seen((blue if left else yellow) & mask) == 1


def test_saturation_fits_the_area_of_a_pin() -> None:
    """A pin has about 200 px, on which the absolute saturation areas rest, and an empty compartment far more."""
    area = {name: int(union(drawn("pin_tray", name)).sum()) for name in LOGICAL}
    assert 180 <= area["wrong_colour"] <= 220
    assert 360 <= area["additional_pin"] <= 440 and 540 <= area["two_additional_pins"] <= 660
    assert area["missing_pin"] > 4000


def test_additional_pins_keep_their_distance() -> None:
    for index in range(3):
        own = streams(0, "pin_tray", "test", 1 + sorted(PIXEL_VALUES).index("two_additional_pins"), index)
        places = pin_tray._compartments(own, 256, 320)
        pins = [pin_tray._draw_pin(own.element(10), 0, places[0], 1.0)]
        for _ in range(2):
            pins.append(pin_tray._draw_neighbour(own.defect, 0, pins, places[0], 1.0))
        heads = np.array([(pin.x, pin.y) for pin in pins])
        gaps = np.linalg.norm(heads[:, None] - heads[None], axis=2)[np.triu_indices(3, 1)]
        assert gaps.min() > pin_tray.PIN_DISTANCE


def test_a_missing_separator_marks_a_vertical_wall() -> None:
    rows, columns = np.nonzero(union(drawn("pin_tray", "missing_separator")))
    assert np.ptp(columns) + 1 <= 6 and np.ptp(rows) > 60


def test_a_scratch_is_not_mistaken_for_a_needle() -> None:
    """Needles are grey; the dirt in a scratch is brown, also after the white balance."""
    rendered = drawn("pin_tray", "scratch")
    core = union(rendered) & (levels(rendered) > 60)
    red, _, blue = rendered.image[core].astype(float).mean(axis=0)
    around = rendered.twin[core].astype(float).mean(axis=0)
    assert core.sum() >= 20 and red / blue > 1.3 * around[0] / around[2]
