"""Relative depth and foreground of point clouds against plain loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from torch.nn import functional as F

from andon.core.errors import DataError
from andon.core.image_files import point_cloud_beside, read_points
from andon.core.images import points_of
from andon.core.records import Record
from andon.core.region import InspectionRegion
from andon.detectors._relief import (
    background,
    fill_holes,
    foreground,
    network_planes,
    relief,
    resize_map,
)

SIDES = st.integers(4, 9)


def cloud(z: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(z), np.ones_like(z), z], 2).astype(np.float32)


def tilted(height: int = 40, width: int = 48, twist: float = 0.01) -> np.ndarray:
    """A bilinear surface about half a metre away."""
    v, u = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    return (0.5 + 0.03 * u - 0.02 * v + twist * u * v).astype(np.float32)


@given(
    st.tuples(SIDES, SIDES).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    ),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
def test_holes_take_the_mean_of_their_measured_neighbours(z, passes):
    expected = z.astype(np.float64)
    for _ in range(passes):
        before = expected.copy()
        for r in range(z.shape[0]):
            for c in range(z.shape[1]):
                window = before[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]  # borders included
                if before[r, c] == 0 and window.any():
                    expected[r, c] = window[window != 0].mean()
        expected = expected.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(fill_holes(z, passes), expected, rtol=1e-6)


def test_the_first_row_and_column_are_filled():
    z = np.full((6, 6), 0.5, np.float32)
    z[0, :2] = z[:2, 0] = 0
    assert np.array_equal(fill_holes(z), np.full((6, 6), 0.5, np.float32))
    empty = np.zeros((5, 5), np.float32)
    assert np.array_equal(fill_holes(empty), empty)


def test_a_bilinear_surface_has_no_foreground_and_a_bump_is_exactly_the_bump():
    z = tilted()
    np.testing.assert_allclose(background(z), z, atol=2e-7)
    assert not foreground(z, 7e-3).any()
    bump = np.zeros(z.shape, bool)
    bump[10:20, 15:30] = True
    assert np.array_equal(foreground((z - 0.010 * bump).astype(np.float32), 7e-3), bump)
    assert np.array_equal(foreground((z + 0.010 * bump).astype(np.float32), 7e-3), bump)
    assert not foreground((z - 0.006 * bump).astype(np.float32), 7e-3).any()


@pytest.mark.parametrize("missing", [[0], [1], [2], [3], [0, 1], [1, 3], [0, 3], [0, 1, 2]])
def test_a_corner_without_points_is_put_on_the_plane_of_the_others(missing):
    plane = tilted(twist=0.0) if len(missing) == 1 else np.full((40, 48), 0.5, np.float32)
    squares = [(slice(0, 2), slice(0, 2)), (slice(0, 2), slice(-2, None))]
    squares += [(slice(-2, None), slice(0, 2)), (slice(-2, None), slice(-2, None))]
    gapped = plane.copy()
    for corner in missing:
        gapped[squares[corner]] = 0
    np.testing.assert_allclose(background(gapped), plane, atol=1e-6)


def test_two_corners_keep_their_depths_and_give_them_on():
    z = np.full((20, 20), 0.7, np.float32)
    z[:2, :2], z[:2, -2:], z[-2:, :2], z[-2:, -2:] = 0.5, 0.6, 0, 0
    surface = background(z)
    np.testing.assert_allclose(surface[-2:, :2].mean(), 0.5, atol=1e-6)
    np.testing.assert_allclose(surface[-2:, -2:].mean(), 0.6, atol=1e-6)


def test_without_any_corner_everything_that_was_measured_is_foreground():
    z = np.zeros((20, 20), np.float32)
    z[5:12, 5:12] = 0.5
    assert background(z) is None
    assert np.array_equal(foreground(z, 7e-3), z != 0)


def test_the_part_is_centred_and_the_background_is_zero():
    """In centimetres."""
    z = tilted().astype(np.float64)
    z[10:20, 10:30] -= 0.02
    z[10:15, 10:30] -= 0.01
    found = relief(cloud(z))
    assert found.foreground.sum() == 200
    assert np.count_nonzero(found.depth[~found.foreground]) == 0
    assert found.depth[found.foreground].mean(dtype=np.float64) == pytest.approx(0, abs=1e-5)
    assert found.depth[17, 15] - found.depth[12, 15] == pytest.approx(
        1 + 100 * (z[17, 15] - z[12, 15] - 0.01), abs=1e-4
    )


def test_no_part_means_that_everything_is_looked_at():
    for z in (tilted(), np.zeros((12, 12), np.float32)):
        found = relief(cloud(z))
        assert found.foreground.all()
        assert np.count_nonzero(found.depth) == 0


def test_points_that_are_not_numbers_are_missing():
    z = tilted()
    z[10:20, 10:30] -= 0.02
    gaps = cloud(z)
    gaps[12, 12:14] = np.nan
    gaps[30, 30] = np.inf
    zeros = np.where(np.isfinite(gaps), gaps, np.float32(0))
    assert np.array_equal(relief(gaps).depth, relief(zeros).depth)
    assert np.isfinite(relief(gaps).depth).all()


@given(st.integers(2, 30), st.integers(2, 30), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_resizing_is_bilinear_as_torch_has_it(height, width, rows, columns):
    values = np.random.default_rng(0).random((height, width)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(values)[None, None], size=(rows, columns), mode="bilinear")
    np.testing.assert_allclose(resize_map(values, (rows, columns)), expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 6, 7, 8])
def test_the_dilation_of_one_pixel_is_scipys(side):
    """The authors' code calls `scipy.ndimage.binary_dilation`; pixel 12 dilated by 8 becomes 8 to 15."""
    z = tilted(32, 32)
    z[12, 12] -= 0.02
    found = network_planes(cloud(z), 32, distance=7e-3, dilate=side)[1]
    pixel = np.zeros((32, 32), bool)
    pixel[12, 12] = True
    assert np.array_equal(found > 0, ndimage.binary_dilation(pixel, np.ones((side, side))))
    if side == 8:
        assert np.flatnonzero(found.any(0)).tolist() == list(range(8, 16))


def test_the_mask_is_widened_by_a_square():
    z = tilted(32, 32)
    z[10:14, 10:16] -= 0.02
    planes = network_planes(cloud(z), 32, distance=7e-3, dilate=8)
    assert planes.shape == (2, 32, 32)
    rows, columns = np.nonzero(planes[1])
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (4 + 7, 6 + 7)
    assert set(np.unique(planes[1])) == {0, 1}
    assert len(rows) == 11 * 13
    expected = ndimage.binary_dilation(relief(cloud(z)).foreground, np.ones((8, 8)))
    assert np.array_equal(planes[1] > 0, expected)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10 - 4, 13 + 3, 10 - 4, 15 + 3)
    bare = network_planes(cloud(z), 32, distance=7e-3, dilate=1)
    assert bare[1].sum() == 24
    half = network_planes(cloud(z), 16, distance=7e-3, dilate=1)
    assert half[1].sum() == 2 * 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((100, 3), np.float32), "100 x 3 float32, not organised"),
        (np.zeros((8, 9), np.float32), "8 x 9 float32, not organised"),
        (np.zeros((8, 9, 4), np.float32), "8 x 9 x 4 float32"),
        (np.zeros((8, 9, 3), np.float64), "8 x 9 x 3 float64"),
        (np.zeros((9, 8, 3), np.float32), "8 x 9 points but its picture is 9 x 8"),
    ],
)
def test_clouds_of_another_form_are_refused_by_name(tmp_path: Path, values, words):
    path = tmp_path / "cloud.tiff"
    tifffile.imwrite(path, values, photometric="minisblack")
    with pytest.raises(DataError, match=words) as caught:
        read_points(path, (8, 9))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("measured", [0, 1, 40])
def test_a_sensor_that_measures_nothing_is_no_verdict(tmp_path: Path, measured):
    """Its zeros are what MVTec 3D-AD writes for missing points; the mean over nothing scored lower than any good part."""
    points = np.zeros((64, 64, 3), np.float32)
    points.reshape(-1, 3)[:measured] = (0.1, 0.1, 0.5)
    tifffile.imwrite(tmp_path / "cloud.tiff", points, photometric="minisblack")
    with pytest.raises(
        DataError, match=rf"cloud\.tiff has {measured} points with 0 < z < 100 of 4096, too few"
    ):
        read_points(tmp_path / "cloud.tiff", (64, 64))
    points.reshape(-1, 3)[:41] = (0.1, 0.1, 0.5)
    tifffile.imwrite(tmp_path / "cloud.tiff", points, photometric="minisblack")
    assert read_points(tmp_path / "cloud.tiff", (64, 64)).any()


def test_a_sensor_that_measures_nothing_inside_the_region_is_no_verdict(tmp_path: Path):
    points = np.zeros((64, 64, 3), np.float32)
    points[:, 32:] = (0.1, 0.1, 0.5)
    tifffile.imwrite(tmp_path / "cloud.tiff", points, photometric="minisblack")
    left = InspectionRegion(np.tile(np.arange(64) < 32, (64, 1)))
    record = Record(image=tmp_path / "image.png", id="a", depth=tmp_path / "cloud.tiff", region=left)
    with pytest.raises(DataError, match=r"cloud\.tiff has 0 points with 0 < z < 100 of 2048, too few"):
        points_of(record, (64, 64))
    right = InspectionRegion(~left.mask)
    assert points_of(replace(record, region=right), (64, 64)).any()


def test_damaged_and_missing_clouds_are_named(tmp_path: Path):
    path = tmp_path / "cloud.tiff"
    with pytest.raises(DataError, match=r"cloud\.tiff does not exist"):
        read_points(path, (8, 8))
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.float32), photometric="rgb")
    whole = path.read_bytes()
    for damaged in (b"II*\0nonsense", b"no TIFF", b"", whole[: len(whole) - 300]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cloud\.tiff cannot be read"):
            read_points(path, (8, 8))


def test_a_cloud_is_found_beside_its_image(tmp_path: Path):
    (tmp_path / "xyz").mkdir()
    (tmp_path / "xyz" / "000.tiff").touch()
    assert point_cloud_beside(tmp_path / "rgb" / "000.png") == tmp_path / "xyz" / "000.tiff"
    assert point_cloud_beside(tmp_path / "rgb" / "001.png") is None
    assert point_cloud_beside(tmp_path / "other" / "000.png") is None
