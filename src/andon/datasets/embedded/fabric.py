"""Plain weave in two colours, seen from above (spec C.5).

Yarns of period p cross in cells (i, j) of the weave's own coordinates (u, v), counted in yarns: warp yarn i runs along v
and is on top where i + j is even, weft yarn j runs along u. Every yarn has its own brightness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from andon.datasets.embedded.primitives import (
    Blob,
    Image,
    Mask,
    blend,
    box_around,
    box_grid,
    coverage,
    grid,
    value_noise,
)
from andon.datasets.embedded.random_streams import Streams
from andon.datasets.embedded.rendering import Scene

DEFECTS: tuple[str, ...] = ("hole", "missing_yarn", "stain", "thread")
MODE: Literal["RGB"] = "RGB"

WARP, WEFT = 0.62, 0.56
"""Mean brightness on the crown of a yarn."""
WARP_COLOUR = np.array((0.55, 0.62, 0.80), np.float32) / np.float32(0.66)
WEFT_COLOUR = np.array((0.75, 0.72, 0.66), np.float32) / np.float32(0.71)
"""Tints of mean one, so that `WARP` and `WEFT` are the brightness that is seen. Taken as they are, the colours make cloth
so dark that the difference from the mean image, relative to its brightness, finds the bright fibres (AUROC 0.87)."""
UNDER = 0.83
"""Brightness of a yarn below another, relative to its crown."""
BARE = 0.72
"""Brightness of the weft where the warp yarn above it is missing."""
FIBRE_COLOUR = np.array((0.86, 0.84, 0.80), np.float32)
STAIN_COLOUR = np.array((0.80, 0.72, 0.55), np.float32)

YARNS, FIRST = 80, 16
"""Brightness is drawn for this many yarns of each direction, of which number `FIRST` lies at the image's corner."""

# Elements of the scene, each with its own random stream.
_POSE, _DISPLACEMENT, _WARP_YARNS, _WEFT_YARNS, _FUZZ = range(5)


@dataclass(frozen=True, slots=True)
class Weave:
    """Position of every pixel in the weave; arrays of (H, W)."""

    i: npt.NDArray[np.intp]
    """Number of the warp yarn."""
    j: npt.NDArray[np.intp]
    """Number of the weft yarn."""
    u: Image
    """Distance from the axis of the warp yarn, in yarns, in [-0.5, 0.5]."""
    v: Image
    """Distance from the axis of the weft yarn, likewise."""


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene of (H, H, 3) reflectance; with a `defect` of `DEFECTS` drawn into it and its footprint."""
    f, rng = height / 256, streams.defect
    weave = _weave(streams, height)
    absent = _absent_yarn(weave, rng, height) if defect == "missing_yarn" else None
    cloth = _cloth(weave, absent, streams)
    cloth += (0.025 * value_noise(streams.element(_FUZZ), height, height, 3 * f, octaves=2))[:, :, None]
    footprint = absent
    if defect == "hole":
        footprint = _hole(cloth, rng, f)
    elif defect == "stain":
        footprint = _stain(cloth, rng, f)
    elif defect == "thread":
        footprint = _thread(cloth, rng, f)
    return Scene(np.clip(cloth, 0, 1), footprint)


def _weave(streams: Streams, height: int) -> Weave:
    """Period, direction and phase of the weave, and how it is drawn out of shape."""
    f, rng = height / 256, streams.element(_POSE)
    period, angle = rng.uniform(7.6, 8.4) * f, float(np.deg2rad(rng.normal(0, 1.5)))
    phase_u, phase_v = (
        rng.uniform(0, 2),
        rng.uniform(0, 2),
    )  # two yarns: either kind may be on top at the corner
    rng = streams.element(_DISPLACEMENT)
    x, y = grid(height, height)
    x = x + 1.2 * f * value_noise(rng, height, height, 64 * f)
    y = y + 1.2 * f * value_noise(rng, height, height, 64 * f)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    along_u, along_v = (x * c + y * s) / period + phase_u, (y * c - x * s) / period + phase_v
    i, j = np.floor(along_u), np.floor(along_v)
    return Weave(
        i=i.astype(np.intp) + FIRST,
        j=j.astype(np.intp) + FIRST,
        u=np.asarray(along_u - i - 0.5, np.float32),
        v=np.asarray(along_v - j - 0.5, np.float32),
    )


def _cloth(weave: Weave, absent: Mask | None, streams: Streams) -> Image:
    """(H, W, 3) reflectance of both sets of yarns, the warp left out where `absent`."""
    warp, weft = (
        (mean + streams.element(number).normal(0, 0.05, YARNS)).astype(np.float32)
        for mean, number in ((WARP, _WARP_YARNS), (WEFT, _WEFT_YARNS))
    )
    warp_on_top = (weave.i + weave.j) % 2 == 0
    across_u, across_v = weave.u**2, weave.v**2
    warp_yarns = warp[weave.i] * (1 - 1.9 * across_u) * (0.80 + 0.20 * (1 - 2.4 * across_v))
    weft_yarns = weft[weave.j] * (1 - 1.9 * across_v)
    shade = np.where(warp_on_top, UNDER, 0.80 + 0.20 * (1 - 2.4 * across_u))
    if absent is not None:
        shade = np.where(absent, BARE * shade, shade)
        warp_on_top &= ~absent
    weft_yarns = weft_yarns * shade.astype(np.float32)
    warp_light, weft_light = warp_yarns[:, :, None] * WARP_COLOUR, weft_yarns[:, :, None] * WEFT_COLOUR
    return np.asarray(np.where(warp_on_top[:, :, None], warp_light, weft_light), np.float32)


def _place(rng: np.random.Generator, f: float) -> tuple[float, float]:
    """Where a defect is: anywhere but at the border."""
    return rng.uniform(30, 226) * f, rng.uniform(30, 226) * f


def _absent_yarn(weave: Weave, rng: np.random.Generator, height: int) -> Mask:
    """(H, W) pixels of one warp yarn over some of its length."""
    f = height / 256
    x, y = _place(rng, f)
    length = rng.uniform(25, 60) * f
    top = min(max(y - length / 2, 8 * f), height - 8 * f - length)
    rows = np.arange(height)[:, None]
    number = weave.i[int(top + length / 2), int(x)]
    return np.asarray((weave.i == number) & (rows >= top) & (rows < top + length), np.bool_)


def _hole(cloth: Image, rng: np.random.Generator, f: float) -> Mask:
    """A hole with the dark ground behind it."""
    blob = Blob.draw(rng, *_place(rng, f), rng.uniform(5, 10) * f, rough=0.3)
    return _paint_blob(cloth, blob, 1.0, 0.07)


def _stain(cloth: Image, rng: np.random.Generator, f: float) -> Mask:
    """A brownish stain that soaked in, with a soft edge."""
    centre, radius, aspect = _place(rng, f), rng.uniform(9, 22) * f, rng.uniform(1, 1.8)
    blob = Blob.draw(rng, *centre, radius, rough=0.35, aspect=aspect)
    stained = cloth * STAIN_COLOUR * np.float32(rng.uniform(0.95, 1.1))
    return _paint_blob(cloth, blob, 4 * f, stained)


def _paint_blob(cloth: Image, blob: Blob, ramp: float, colour: float | Image) -> Mask:
    """Paint `colour` (a tone, or an image of the cloth's shape) inside the blob and return where that is."""
    height, width = cloth.shape[:2]
    footprint = np.zeros((height, width), np.bool_)
    box = box_around(blob.cx, blob.cy, blob.reach + ramp, height, width)
    assert box is not None  # it is centred in the image
    distance = blob.distance(*box_grid(box))
    blend(cloth, box, coverage(distance, ramp), colour if isinstance(colour, float) else colour[box])
    footprint[box] = distance > 0
    return footprint


def _thread(cloth: Image, rng: np.random.Generator, f: float) -> Mask:
    """A loose fibre that lies on the cloth."""
    centre, length, half_width = _place(rng, f), rng.uniform(35, 90) * f, rng.uniform(1, 1.7) * f
    direction, bend, drift = rng.uniform(0, 2 * np.pi), rng.uniform(-0.02, 0.02), rng.normal(0, 0.0004)
    tone = rng.uniform(0.8, 1.05)
    step = 0.25  # px between points of the curve, fine enough to measure distances to it
    way = np.arange(0, length, step)
    heading = direction + bend * (way / f) + drift * (way / f - 0.5 * length / f) ** 2
    curve = np.cumsum(step * np.stack((np.cos(heading), np.sin(heading)), axis=1), axis=0)
    curve += np.asarray(centre) - curve.mean(axis=0)

    height, width = cloth.shape[:2]
    footprint = np.zeros((height, width), np.bool_)
    box = box_around(*centre, length / 2 + half_width + 2, height, width)
    assert box is not None  # it is centred in the image
    x, y = np.meshgrid(*(axis.ravel() for axis in box_grid(box)))
    near, _ = KDTree(curve).query(np.stack((x, y), axis=2), distance_upper_bound=half_width + 1)
    away = np.minimum(near, half_width + 1).astype(np.float32)
    shade = tone * (1 - 0.3 * np.minimum(away / np.float32(half_width), 1) ** 2)
    blend(cloth, box, coverage(np.float32(half_width) - away), shade[:, :, None] * FIBRE_COLOUR)
    footprint[box] = away < half_width
    return footprint
