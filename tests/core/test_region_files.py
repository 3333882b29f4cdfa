"""Region files: what is inspected of a image, at any size, and what is refused."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import texture, write_picture
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import DataError
from andon.core.images import read_pixels
from andon.core.records import Record
from andon.core.region import InspectionRegion, nearest_indices, polygon_pixels, read_region


def write_json(path: Path, **content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def left_half(side: int = 16) -> InspectionRegion:
    mask = np.zeros((side, side), np.bool_)
    mask[:, : side // 2] = True
    return InspectionRegion(mask)


def test_polygons_cover_the_pixels_whose_centre_they_hold():
    square = polygon_pixels([(1, 2), (4, 2), (4, 5), (1, 5)], (6, 7))
    expected = np.zeros((6, 7), np.bool_)
    expected[2:5, 1:4] = True
    np.testing.assert_array_equal(square, expected)


@given(st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15)), min_size=3, max_size=6))
def test_polygons_agree_with_a_ray_from_every_centre(points):
    rows, columns = np.mgrid[0:10, 0:12] + 0.5
    found = polygon_pixels(points, (10, 12))
    crossings = np.zeros(rows.shape, np.int64)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        spans = (y0 <= rows) != (y1 <= rows)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            crossings += spans & (x0 + (rows - y0) * (x1 - x0) / (y1 - y0) <= columns)
    np.testing.assert_array_equal(found, crossings % 2 == 1)


def test_ignore_goes_over_include(tmp_path):
    box = [[0, 0], [8, 0], [8, 8], [0, 8]]
    hole = [[2, 2], [4, 2], [4, 4], [2, 4]]
    both = read_region(write_json(tmp_path / "a.json", size=[16, 8], include=[box], ignore=[hole]))
    assert both.mask.shape == (8, 16)
    assert both.mask.sum() == 64 - 4
    alone = read_region(write_json(tmp_path / "b.json", size=[16, 8], ignore=[hole]))
    assert alone.mask.sum() == 128 - 4


@pytest.mark.parametrize("white", [1, 255])
def test_masks_of_any_white(tmp_path, white):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:, :8] = white
    assert read_region(write_picture(tmp_path / "mask.png", pixels)) == left_half()


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_pixel_takes_the_value_under_its_centre(new, old):
    expected = [int((k + 0.5) * old / new + 1e-9) for k in range(new)]
    assert nearest_indices(new, old).tolist() == expected


def test_the_region_scales_with_the_image():
    assert left_half().at((64, 64))[:, :32].all()
    assert not left_half().at((64, 64))[:, 32:].any()
    assert left_half().at((5, 5)).sum() == 5 * 3 - 5  # the centre column belongs to the right half


def test_saved_form():
    area = InspectionRegion(np.random.default_rng(0).random((13, 9)) > 0.5)
    back = InspectionRegion.from_json(json.loads(json.dumps(area.to_json())))
    assert back == area
    assert hash(back) == hash(area)
    assert back != left_half()


@pytest.mark.parametrize(
    "change",
    [
        {"bits": base64.b64encode(zlib.compress(bytes(10**7))).decode()},
        {"bits": base64.b64encode(zlib.compress(b"abc")).decode()},
        {"bits": base64.b64encode(b"no bits").decode()},
        {"bits": base64.b64encode(zlib.compress(bytes(32))[:-4]).decode()},
        {"bits": "x"},
        {"bits": None},
        {"size": [10**6, 10**6]},
        {"size": [-16, -16]},
        {"size": [16]},
        {"fill": [1, 2]},
    ],
)
def test_a_damaged_saved_form_is_refused(change):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="the stored region is damaged"):
            InspectionRegion.from_json(left_half().to_json() | change)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_ignored_pixels_become_one_colour(tmp_path):
    pixels = texture(0, 16)
    path = write_picture(tmp_path / "a.png", pixels)
    seen = read_pixels(Record(path, "a", region=left_half()))
    np.testing.assert_array_equal(seen[:, :8], pixels[:, :8].astype(np.float32) / np.float32(255))
    assert np.unique(seen[:, 8:].reshape(-1, 3), axis=0).shape[0] == 1
    depth = left_half().filled(np.ones((16, 16, 6), np.float32))
    assert (depth[:, 8:, 3:] == 0).all()
    assert (depth[:, :8] == 1).all()


def test_cells_and_maps():
    area = left_half()
    cells = np.arange(16, dtype=np.float32).reshape(4, 4)
    np.testing.assert_array_equal(area.values(cells), cells[:, :2].ravel())
    grown = np.tile(np.arange(16, dtype=np.float32), (16, 1))
    assert area.lowered(grown).max() == 7
    one = np.zeros((16, 16), np.bool_)
    one[0, 0] = True
    assert InspectionRegion(one).values(cells[:1, :1]).tolist() == [0]  # no cell has its centre there


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": [16, 16], "include": [[[0, 0], [9, 9]]]}, "include, polygon 1 has 2 points.*at least 3"),
        ({"size": [16, 16], "ignore": [[[0, 0], [9, "x"], [3, 3]]]}, "must be a list of points"),
        ({"size": [16, 16], "ignore": {}}, "must be a list of polygons"),
        ({"size": [16], "ignore": []}, "size is \\[16\\]"),
        ({"size": [10**6, 10**6], "ignore": []}, "more pixels than the limit of"),
        ({"size": [10**400, 16], "ignore": []}, "size is .{1,80}, more pixels than the limit of"),
        ({"size": [16, 16], "ignore": [[[0, 0], [9, 10**400], [3, 3]]]}, "must be a list of points"),
        ({"size": [16, 16], "ignore": [[[-1e308, 0.5], [1e308, 9], [3, 3]]]}, "must be a list of points"),
        ({"size": [16, 16], "ignore": [[[0, 0], [9, float("nan")], [3, 3]]]}, "must be a list of points"),
        ({"include": []}, "needs the keys size"),
        ({"size": [16, 16], "exclude": []}, "needs the keys size"),
        ({"size": [16, 16], "ignore": [[[0, 0], [16, 0], [16, 16], [0, 16]]]}, "leaves nothing to inspect"),
        ({"size": [16, 16], "include": [[[20, 20], [30, 20], [30, 30]]]}, "leaves nothing to inspect"),
    ],
)
def test_refused_polygons(tmp_path, content, message):
    with pytest.raises(DataError, match=f"region .*r.json.*{message}"):
        read_region(write_json(tmp_path / "r.json", **content))


def test_refused_files(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_region(tmp_path / "none.png")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_region(tmp_path / "bad.json")
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(DataError, match="cannot be read: give a mask picture"):
        read_region(tmp_path / "bad.png")
    with pytest.raises(DataError, match="leaves nothing to inspect"):
        read_region(write_picture(tmp_path / "black.png", np.zeros((16, 16), np.uint8)))
    with pytest.raises(DataError, match=r"is no mask, .* neither black nor white"):
        read_region(write_picture(tmp_path / "photo.png", texture(0)))


def test_other_proportions(tmp_path):
    area = left_half(100)
    assert area.at((50, 50)).shape == (50, 50)
    assert area.fits((333, 334))
    with pytest.raises(DataError, match=r"a\.png is 32 x 16 pixels and the region was drawn for 100 x 100"):
        area.check([Record(write_picture(tmp_path / "a.png", texture(0, 32)[:16]), "a")])
