"""Primitives of the embedded data sets against independent, slower computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from andon.datasets.embedded.primitives import (
    Blob,
    box_around,
    box_grid,
    coverage,
    disc,
    grid,
    rectangle,
    segment,
    value_noise,
)
from andon.datasets.embedded.rendering import Photometry, difference_mask, expose, sense

PLAIN = Photometry(
    light=0.0,
    angle=0.0,
    vignette=0.0,
    centre=(0.0, 0.0),
    gain=1.0,
    balance=(1.0, 1.0, 1.0),
    gamma=1.0,
    blur=0.0,
    noise=0.0,
)
angles = st.floats(-7, 7)
places = st.floats(-20, 60)


def test_illumination_by_hand() -> None:
    """One pixel of the camera model, in double precision."""
    light = Photometry(
        light=0.7,
        angle=0.4,
        vignette=0.1,
        centre=(0.05, -0.02),
        gain=1.1,
        balance=(0.98, 1.0, 1.02),
        gamma=0.95,
        blur=0.5,
        noise=0.005,
    )
    exposed = expose(np.full((10, 20, 3), 0.5, np.float32), light)
    x, y = (4 + 0.5) / 20 - 0.5, (7 + 0.5) / 10 - 0.5
    slope = 0.12 * 0.7 * 2 * (x * np.cos(0.4) + y * np.sin(0.4))
    falloff = 2 * 0.1 * ((x - 0.05) ** 2 + (y + 0.02) ** 2)
    expected = (0.5 * (1 + slope - falloff) * 1.1 * np.array(light.balance)) ** 0.95
    assert np.allclose(exposed[7, 4], expected, rtol=1e-5)
    assert np.allclose(exposed[7, 4, 1], expose(np.full((10, 20), 0.5, np.float32), light)[7, 4])
    assert expose(np.full((4, 4), 9.0, np.float32), PLAIN).max() == np.float32(1.2)


@pytest.mark.parametrize(("read_noise", "level"), [(0.0, 0.5), (0.01, 0.2), (0.02, 0.8)])
def test_variance_of_the_noise(read_noise: float, level: float) -> None:
    photometry = Photometry(
        **{name: getattr(PLAIN, name) for name in PLAIN.__slots__ if name != "noise"}, noise=read_noise
    )
    image = sense(np.full((300, 300), level, np.float32), photometry, np.random.default_rng(0), f=1.0)
    expected = 255**2 * (read_noise**2 + 0.00025 * level) + 1 / 12  # and rounding
    assert image.astype(np.float64).var() == pytest.approx(expected, rel=0.03)
    assert image.mean() == pytest.approx(255 * level, abs=0.1)


@pytest.mark.parametrize(("cell", "octaves"), [(3, 2), (8, 1), (16, 3)])
def test_value_noise_has_unit_variance(cell: float, octaves: int) -> None:
    rng = np.random.default_rng(0)
    stack = np.stack([value_noise(rng, 96, 64, cell, octaves) for _ in range(60)])
    assert stack.shape[1:] == (96, 64) and stack.dtype == np.float32
    assert abs(stack.mean()) < 0.1 and stack.var() == pytest.approx(1.0, rel=0.08)


def test_value_noise_meets_its_lattice() -> None:
    """Smoothstep is 0 and 1 at the lattice: there the noise is the normal values, scaled."""
    noise = value_noise(np.random.default_rng(5), 33, 33, 8)
    values = np.random.default_rng(5).standard_normal((6, 6), dtype=np.float32)
    assert np.allclose(noise[::8, ::8], values[:5, :5] * 35 / 26, rtol=1e-5)
    middle = (values[0, 0] + values[0, 1]) / 2 * 35 / 26
    assert noise[0, 4] == pytest.approx(middle, rel=1e-4)


@settings(deadline=None, max_examples=25)
@given(places, places, places, places, st.floats(0.5, 4))
def test_distance_to_a_segment(ax: float, ay: float, bx: float, by: float, half_width: float) -> None:
    x, y = grid(12, 16)
    points = np.linspace((ax, ay), (bx, by), 4001)
    expected = half_width - np.hypot(x[:, :, None] - points[:, 0], y[:, :, None] - points[:, 1]).min(axis=2)
    assert np.allclose(
        segment(x, y, (ax, ay), (bx, by), half_width), expected, atol=0.02
    )  # points lie 0.03 px apart


@settings(deadline=None, max_examples=25)
@given(places, places, st.floats(3, 15), st.floats(3, 15), angles, st.floats(0, 2.5))
def test_distance_to_a_rectangle(
    cx: float, cy: float, half_u: float, half_v: float, angle: float, corner: float
) -> None:
    """A rectangle smaller by `corner`, grown by `corner`."""
    x, y = grid(20, 20)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    u, v = turn @ np.stack(np.broadcast_arrays(x - cx, y - cy)).reshape(2, -1)
    inner_u, inner_v = half_u - corner, half_v - corner
    outside = np.hypot(u - np.clip(u, -inner_u, inner_u), v - np.clip(v, -inner_v, inner_v))
    inside = np.minimum(inner_u - np.abs(u), inner_v - np.abs(v))
    expected = corner + np.where(outside > 0, -outside, inside)
    found = rectangle(x, y, cx, cy, (half_u, half_v), angle, corner)
    assert np.allclose(found.ravel(), expected, atol=1e-3)


def test_insides_are_positive() -> None:
    x, y = grid(41, 41)
    square = rectangle(x, y, 20, 20, (8, 4))
    assert np.array_equal(square > 0, (np.abs(x - 20) < 8) & (np.abs(y - 20) < 4))
    assert np.array_equal(disc(x, y, 20, 20, 6) > 0, np.hypot(x - 20, y - 20) < 6)
    assert np.count_nonzero(coverage(disc(x, y, 20, 20, 10))) > np.count_nonzero(disc(x, y, 20, 20, 10) > 0)
    assert coverage(disc(x, y, 20, 20, 10)).sum() == pytest.approx(np.pi * 100, rel=0.01)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.floats(2, 12), st.floats(0, 0.5), st.floats(1, 2))
def test_blobs_end_within_their_reach(seed: int, radius: float, rough: float, aspect: float) -> None:
    blob = Blob.draw(np.random.default_rng(seed), 50, 50, radius, rough, aspect)
    inside = blob.distance(*grid(101, 101)) > 0
    box = box_around(50, 50, blob.reach, 101, 101)
    assert inside[50, 50] and box is not None
    part = blob.distance(*box_grid(box)) > 0
    assert np.count_nonzero(part) == np.count_nonzero(inside)


def test_a_smooth_blob_is_a_disc() -> None:
    blob = Blob.draw(np.random.default_rng(0), 20, 20, 8, rough=0.0)
    x, y = grid(41, 41)
    assert np.allclose(blob.distance(x, y), disc(x, y, 20, 20, 8), atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_the_mask_rule(seed: int) -> None:
    """M = (G and dilate3x3(D >= 3/255)) or D >= 15/255, holes up to 4 px filled, pixel by pixel."""
    rng = np.random.default_rng(seed)
    levels = rng.choice([0.0, 2.0, 4.0, 20.0], (9, 11, 3), p=[0.85, 0.06, 0.05, 0.04])
    twin = rng.uniform(0.2, 0.8, levels.shape).astype(np.float32)
    footprint = rng.random((9, 11)) < 0.6
    exposed = (twin + levels / 255 * rng.choice([-1, 1], levels.shape)).astype(np.float32)
    strongest = levels.max(axis=2)
    expected = np.zeros((9, 11), bool)
    for row, column in np.ndindex(9, 11):
        near = strongest[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        expected[row, column] = (footprint[row, column] and near.max() >= 3) or strongest[row, column] >= 15
    holes, count = ndimage.label(~expected)
    for hole in range(1, count + 1):
        if np.count_nonzero(holes == hole) <= 4:
            expected |= holes == hole
    assert np.array_equal(difference_mask(footprint, exposed, twin), expected)


def test_boxes_outside_the_image() -> None:
    assert box_around(-10, 5, 3, 20, 20) is None and box_around(5, 30, 3, 20, 20) is None
    assert box_around(1, 18, 3, 20, 20) == (slice(15, 20), slice(0, 5))
