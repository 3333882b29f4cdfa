"""Sheet metal brushed along x, with the reflection of a lamp as a soft horizontal band."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

from andon.datasets.embedded.primitives import (
    Blob,
    Image,
    Mask,
    blend,
    box_around,
    box_grid,
    coverage,
    disc,
    grid,
    segment,
    turned,
    value_noise,
)
from andon.datasets.embedded.random_streams import Streams
from andon.datasets.embedded.rendering import Scene

DEFECTS: tuple[str, ...] = ("dent", "pits", "scratch", "stain")
MODE: Literal["L"] = "L"

BASE, STREAKS, HIGHLIGHT, CLOUDS = 0.46, 0.045, 0.16, 0.02
BRUSHES = ((61, 0.55), (15, 0.40))
"""Length in px and weight of long and of short brush marks."""
LATTICE = 288
"""Side in px of the square that marks are drawn on at f = 1; it covers the image at any of their angles."""
DENT, DENT_FOOT = 0.22, 2.0
"""Contrast of a dent, and its radius in standard deviations of the Gaussian."""

# Elements of the scene, each with its own random stream.
_MARKS, _LAMP, _CLOUDS = range(3)


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene (H, H) with a `defect` of `DEFECTS` and its footprint, or without a defect."""
    f, rng = height / 256, streams.defect
    metal = BASE + STREAKS * _marks(streams, height) + HIGHLIGHT * _lamp(streams, height)
    metal += CLOUDS * value_noise(streams.element(_CLOUDS), height, height, 70 * f)
    draw = {"dent": _dent, "pits": _pits, "scratch": _scratch, "stain": _stain}
    footprint = None if defect is None else draw[defect](metal, rng, f)
    return Scene(np.clip(metal, 0, 1), footprint)


def _marks(streams: Streams, height: int) -> Image:
    """(H, W) brush marks, standard deviation about 0.7, rotated by about a degree."""
    rng = streams.element(_MARKS)
    angle = np.deg2rad(rng.normal(0, 1))
    marks = np.zeros((LATTICE, LATTICE), np.float32)
    for length, weight in BRUSHES:
        noise = rng.standard_normal((LATTICE, LATTICE + length - 1), dtype=np.float32)
        sums = ndimage.uniform_filter1d(noise, length, axis=1)[:, length // 2 : length // 2 + LATTICE]
        marks += np.float32(weight * length**0.5) * sums  # the mean of n has 1/sqrt(n) of the noise
    x, y = grid(height, height)
    centre, f = (height - 1) / 2, height / 256
    u, v = turned(x, y, centre, centre, float(angle))
    middle = (LATTICE - 1) / 2
    return np.asarray(ndimage.map_coordinates(marks, [v / f + middle, u / f + middle], order=1), np.float32)


def _lamp(streams: Streams, height: int) -> Image:
    """(H, 1) reflection of the lamp, 1 where it is brightest."""
    rng, f = streams.element(_LAMP), height / 256
    centre, width = rng.uniform(-60, 316) * f, rng.uniform(40, 90) * f
    _, y = grid(height, height)
    return np.asarray(np.exp(-(((y - centre) / width) ** 2)), np.float32)


def _place(rng: np.random.Generator, f: float) -> tuple[float, float]:
    """Random position (x, y) of a defect, at least 30 px (at f = 1) from the border."""
    return rng.uniform(30, 226) * f, rng.uniform(30, 226) * f


def _dent(metal: Image, rng: np.random.Generator, f: float) -> Mask:
    """A round dent: one side brighter, the other darker."""
    x0, y0 = _place(rng, f)
    sigma, light = 0.55 * rng.uniform(8, 16) * f, rng.uniform(0, 2 * np.pi)
    footprint = np.zeros(metal.shape, np.bool_)
    box = box_around(x0, y0, 5 * sigma, *metal.shape)
    assert box is not None  # it is centred in the image
    u, v = turned(*box_grid(box), x0, y0, light)
    u, v = u / np.float32(sigma), v / np.float32(sigma)
    # The derivative of a Gaussian in the direction of the light.
    metal[box] += np.float32(DENT) * u * np.exp(-(u**2 + v**2) / 2)
    footprint[box] = np.hypot(u, v) < DENT_FOOT
    return footprint


def _pits(metal: Image, rng: np.random.Generator, f: float) -> Mask:
    """A group of small dark pits."""
    x0, y0 = _place(rng, f)
    footprint = np.zeros(metal.shape, np.bool_)
    for _ in range(rng.integers(3, 8)):
        x, y = x0 + rng.normal(0, 9) * f, y0 + rng.normal(0, 9) * f
        radius = rng.uniform(1.3, 2.6) * f
        box = box_around(x, y, radius + 2, *metal.shape)
        if box is not None:
            distance = disc(*box_grid(box), x, y, radius)
            blend(metal, box, coverage(distance), 0.45 * metal[box])
            footprint[box] |= distance > 0
    return footprint


def _scratch(metal: Image, rng: np.random.Generator, f: float) -> Mask:
    """A scratch across the brushing: a bright edge beside a dark one."""
    (x0, y0), length, angle = _place(rng, f), rng.uniform(30, 100) * f, np.deg2rad(rng.uniform(12, 168))
    half_width, bright = rng.uniform(0.8, 1.4) * f, 0.20 * rng.uniform(0.7, 1.1)
    dx, dy = length / 2 * float(np.cos(angle)), length / 2 * float(np.sin(angle))
    footprint = np.zeros(metal.shape, np.bool_)
    box = box_around(x0, y0, length / 2 + 4 * f + 2, *metal.shape)
    assert box is not None  # it is centred in the image
    x, y = box_grid(box)
    plain = metal[box].copy()
    for (shift_x, shift_y), tone in (((1.6 * f, 1.0 * f), -0.13), ((0.0, 0.0), bright)):
        start = (x0 - dx + shift_x, y0 - dy + shift_y)
        end = (x0 + dx + shift_x, y0 + dy + shift_y)
        distance = segment(x, y, start, end, half_width)
        blend(metal, box, coverage(distance), plain + np.float32(tone))
        footprint[box] |= distance > 0
    return footprint


def _stain(metal: Image, rng: np.random.Generator, f: float) -> Mask:
    """A dull, darker patch with a soft edge."""
    (x0, y0), radius, ramp = _place(rng, f), rng.uniform(9, 20) * f, 5 * f
    blob = Blob.draw(rng, x0, y0, radius, rough=0.35)
    footprint = np.zeros(metal.shape, np.bool_)
    box = box_around(x0, y0, blob.reach + ramp, *metal.shape)
    assert box is not None  # it is centred in the image
    distance = blob.distance(*box_grid(box))
    blend(metal, box, coverage(distance, ramp), 0.8 * metal[box])
    footprint[box] = distance > 0
    return footprint
