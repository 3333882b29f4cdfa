"""Mask files to annotated defects: values, palettes, saturation, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import DEFECTS, SIDE, write_image, write_mask

from andon.core.errors import DataError
from andon.core.records import MaskKind, Record
from andon.datasets import has_pixel_truth, load_ground_truth
from andon.datasets.masks import Saturation, read_saturation

SHAPE = (SIDE, SIDE)
TABLE = {255: Saturation("missing", 6, False), 240: Saturation("scratch", 0.34, True)}


def record_with(*masks: Path, label: int = 1, kind: MaskKind = "single") -> Record:
    return Record(
        Path("picture.png"), "a/test/crack/000", label=label, defect_type="crack", masks=masks, mask_kind=kind
    )


@pytest.mark.parametrize("value", [1, 127, 236, 240, 254, 255])
def test_any_value_but_zero_is_anomalous(tmp_path: Path, value: int) -> None:
    """Dividing by 255 and casting would lose all but 255."""
    truth = load_ground_truth(record_with(write_mask(tmp_path / "m.png", value)), SHAPE)
    assert truth.union.sum() == 20 and truth.union[3:7, 2:7].all()
    assert (truth.defects[0].pixel_value, truth.defects[0].saturation_area) == (value, 20)
    assert truth.defects[0].defect_name == "crack"


def test_palette_indices_are_taken_as_they_are(tmp_path: Path) -> None:
    """Index 1 is shown black here: a conversion to grey would lose the defect."""
    image = Image.frombytes("P", SHAPE, np.pad(np.ones((4, 4), np.uint8), 6).tobytes())
    image.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "m.png")
    assert load_ground_truth(record_with(tmp_path / "m.png"), SHAPE).union.sum() == 16


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_mask_modes_agree(tmp_path: Path, mode: str) -> None:
    """An opaque alpha channel is no ground truth."""
    values = np.pad(np.full((4, 4), 255, np.uint8), 6)
    Image.fromarray(values).convert(mode).save(tmp_path / "m.png")
    assert load_ground_truth(record_with(tmp_path / "m.png"), SHAPE).union.sum() == 16


def test_sixteen_bit_mask(tmp_path: Path) -> None:
    Image.fromarray(np.pad(np.full((2, 3), 700, np.uint16), ((7, 7), (7, 6)))).save(tmp_path / "m.png")
    assert load_ground_truth(record_with(tmp_path / "m.png"), SHAPE).defects[0].pixel_value == 700


def test_channels_give_one_region_each_and_may_overlap(tmp_path: Path) -> None:
    first, second = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    first[0:4, 0:5], second[2:6, 0:5] = 255, 240
    first[10, 10] = 255  # a second component, still the same region
    record = record_with(
        write_mask(tmp_path / "0.png", first), write_mask(tmp_path / "1.png", second), kind="channels"
    )
    truth = load_ground_truth(record, SHAPE, TABLE)
    assert [(r.defect_name, r.mask.sum(), r.saturation_area) for r in truth.defects] == [
        ("missing", 21, 6),
        ("scratch", 20, 6),
    ]
    assert truth.union.sum() == 31


@pytest.mark.parametrize(
    ("entry", "area", "expected"),
    [
        (Saturation("", 0.34, True), 20, 6),  # floor(6.8)
        (Saturation("", 1.0, True), 20, 20),
        (Saturation("", 0.01, True), 20, 1),  # never 0
        (Saturation("", 6300, False), 20, 20),  # above the area: the area
        (Saturation("", 6, False), 20, 6),
    ],
)
def test_saturation_areas(entry: Saturation, area: int, expected: int) -> None:
    assert entry.area(area) == expected


@given(st.floats(1e-6, 1, exclude_min=True), st.integers(1, 10**7))
@settings(deadline=None, max_examples=100)
def test_saturation_stays_within_the_defect(share: float, area: int) -> None:
    assert 1 <= Saturation("", share, True).area(area) <= area
    assert 1 <= Saturation("", max(1, int(share * 1e6)), False).area(area) <= area


def test_value_that_the_config_does_not_list(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"m\.png holds the value 17, which defects_config\.json does not list"
    ):
        load_ground_truth(record_with(write_mask(tmp_path / "m.png", 17)), SHAPE, TABLE)
    mixed = np.zeros(SHAPE, np.uint8)
    mixed[0], mixed[1] = 255, 240
    with pytest.raises(DataError, match=r"holds the values \[240, 255\]"):
        load_ground_truth(record_with(write_mask(tmp_path / "n.png", mixed)), SHAPE, TABLE)


def grey_edges() -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[4:8, 4:8], values[4, 4:8] = 255, 128
    return values


def most_of_it(*hole: slice) -> np.ndarray:
    values = np.full(SHAPE, 255, np.uint8)
    values[hole] = 0
    return values


@pytest.mark.parametrize("kind", ["single", "channels"])
def test_grey_edges_are_refused(tmp_path: Path, kind: MaskKind) -> None:
    mask = write_mask(tmp_path / "m.png", grey_edges())
    with pytest.raises(
        DataError, match=r"m\.png holds 2 values besides 0 \(128, 255\): save it black and white"
    ):
        load_ground_truth(record_with(mask, kind=kind), SHAPE)


@pytest.mark.parametrize("kind", ["soft", "classes"])
def test_further_values_mean_something_in_other_masks(tmp_path: Path, kind: MaskKind) -> None:
    mask = write_mask(tmp_path / "m.png", grey_edges())
    assert load_ground_truth(record_with(mask, kind=kind), SHAPE).union.sum() == 16


@pytest.mark.parametrize(
    "values", [most_of_it(slice(0, 1), slice(0, 20)), most_of_it(slice(3, 12), slice(3, 12))]
)
def test_inverted_masks_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    """Nearly all of the image, or more than half of it with the whole border."""
    mask = write_mask(tmp_path / "m.png", values)
    with pytest.raises(DataError, match=r"m\.png marks \d+ % of its picture, so it seems inverted"):
        load_ground_truth(record_with(mask), SHAPE)


def test_a_mask_in_the_transparency_is_refused(tmp_path: Path) -> None:
    values = np.full((*SHAPE, 4), 255, np.uint8)
    values[:, :, 3] = np.pad(np.full((4, 4), 255, np.uint8), 6)
    Image.fromarray(values).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"marks 100 % of its picture.*transparency is not read"):
        load_ground_truth(record_with(tmp_path / "m.png"), SHAPE)


@pytest.mark.parametrize("values", [most_of_it(slice(0, 3)), most_of_it(slice(0, 16), slice(0, 3))])
def test_large_defects_are_not_inverted_masks(tmp_path: Path, values: np.ndarray) -> None:
    """Most of the image, but not all of its border."""
    truth = load_ground_truth(record_with(write_mask(tmp_path / "m.png", values)), SHAPE)
    assert truth.union.sum() == 13 * 16


def test_masks_with_values_that_are_no_numbers(tmp_path: Path) -> None:
    Image.fromarray(np.full(SHAPE, np.nan, np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match="no finite numbers"):
        load_ground_truth(record_with(tmp_path / "m.tif"), SHAPE)


def test_size_mismatch_names_both_files_and_sizes(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "m.png", size=(20, 16))
    with pytest.raises(DataError, match=r"m\.png is 20 x 16 pixels but picture\.png is 16 x 16"):
        load_ground_truth(record_with(mask), SHAPE)


def test_mask_is_compared_with_the_rotated_image(tmp_path: Path) -> None:
    """A 20 x 16 file with orientation 6 is shown 16 wide and 20 high; its mask is not rotated."""
    from andon.core.image_files import decode

    image = write_image(tmp_path / "p.jpg", size=(20, 16))
    exif = Image.Exif()
    exif[274] = 6
    Image.open(image).save(tmp_path / "r.jpg", exif=exif)
    height, width, _ = decode(tmp_path / "r.jpg").pixels.shape
    assert (height, width) == (20, 16)
    with pytest.raises(DataError, match="after EXIF rotation"):
        load_ground_truth(record_with(write_mask(tmp_path / "m.png", size=(20, 16))), (height, width))
    assert load_ground_truth(
        record_with(write_mask(tmp_path / "n.png", size=(16, 20))), (height, width)
    ).union.any()


def test_good_images(tmp_path: Path) -> None:
    empty = load_ground_truth(record_with(label=0), SHAPE)
    assert empty.defects == () and empty.union.shape == SHAPE and not empty.union.any()
    blank = write_mask(tmp_path / "blank.png", 0)
    assert load_ground_truth(record_with(blank, label=0), SHAPE).defects == ()
    with pytest.raises(DataError, match=r"marks 20 pixels of picture\.png, which is labelled good"):
        load_ground_truth(record_with(write_mask(tmp_path / "m.png"), label=0), SHAPE)


def test_pixel_truth(tmp_path: Path) -> None:
    """Anomalous images without a marked pixel are left out of pixel metrics."""
    cases = [
        (record_with(write_mask(tmp_path / "m.png")), True),
        (record_with(write_mask(tmp_path / "blank.png", 0)), False),
        (record_with(), False),
        (record_with(label=0), True),
        (Record(Path("u.png"), "u"), False),
    ]
    for record, expected in cases:
        assert has_pixel_truth(record, load_ground_truth(record, SHAPE)) is expected


def test_unreadable_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"mask .*m\.png cannot be read"):
        load_ground_truth(record_with(tmp_path / "m.png"), SHAPE)


def test_defects_config(tmp_path: Path) -> None:
    path = tmp_path / "defects_config.json"
    path.write_text(json.dumps(DEFECTS), encoding="utf-8-sig")
    assert read_saturation(path) == {
        255: Saturation("1_additional_pushpin", 6, False),
        240: Saturation("scratch", 0.34, True),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_value": 0}, "pixel_value is 0"),
        ({"pixel_value": True}, "pixel_value is True"),
        ({"saturation_threshold": 1.5}, "share above 0 and up to 1"),
        ({"saturation_threshold": 0, "relative_saturation": False}, "pixels above 0"),
        ({"saturation_threshold": "1"}, "saturation_threshold is '1'"),
        ({"relative_saturation": "yes"}, "must be true or false"),
        ({"pixel_value": 255}, "255 occurs twice"),
    ],
)
def test_wrong_defects_config(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "defects_config.json"
    path.write_text(json.dumps([DEFECTS[0], DEFECTS[1] | change]))
    with pytest.raises(DataError, match=f"entry 2: .*{message}"):
        read_saturation(path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"defect_name": "x"}]', "[" * 4])
def test_defects_config_of_another_shape(tmp_path: Path, text: str) -> None:
    path = tmp_path / "defects_config.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"defects_config\.json"):
        read_saturation(path)
