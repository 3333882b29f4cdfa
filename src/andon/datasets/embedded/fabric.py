"""Plain weave in two colours, seen from above.

(u, v) are coordinates of the weave in yarn periods, with cells (i, j). Warp yarn i runs along v and is on top where i + j is
even, weft yarn j runs along u. Each yarn has its own brightness.
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
"""Mean brightness of the centre line of a warp and of a weft yarn."""
WARP_COLOUR = np.array((0.55, 0.62, 0.80), np.float32) / np.float32(0.66)
WEFT_COLOUR = np.array((0.75, 0.72, 0.66), np.float32) / np.float32(0.71)
"""Tints with mean 1, so that `WARP` and `WEFT` are the resulting brightness. Without the division the cloth is so dark that
the relative difference to the mean image already detects bright fibres (AUROC 0.87)."""
UNDER = 0.83
"""Brightness of a yarn below another one, relative to its centre line."""
BARE = 0.72
"""Brightness of the weft where the warp yarn above it is missing."""
FIBRE_COLOUR = np.array((0.86, 0.84, 0.80), np.float32)
STAIN_COLOUR = np.array((0.80, 0.72, 0.55), np.float32)

YARNS, FIRST = 80, 16
"""Number of yarns per direction with a drawn brightness, and the index of the yarn at the image corner."""

# Elements of the scene, each with its own random stream.
_POSE, _DISPLACEMENT, _WARP_YARNS, _WEFT_YARNS, _FUZZ = range(5)


@dataclass(frozen=True, slots=True)
class Weave:
    """Weave coordinates of every pixel, arrays of (H, W)."""

    i: npt.NDArray[np.intp]
    """Index of the warp yarn."""
    j: npt.NDArray[np.intp]
    """Index of the weft yarn."""
    u: Image
    """Offset from the axis of the warp yarn in yarn periods, in [-0.5, 0.5]."""
    v: Image
    """Offset from the axis of the weft yarn, likewise."""


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene (H, H, 3) with a `defect` of `DEFECTS` and its footprint, or without a defect."""
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
    """Weave with random period, direction and phase, distorted by smooth noise."""
    f, rng = height / 256, streams.element(_POSE)
    period, angle = rng.uniform(7.6, 8.4) * f, float(np.deg2rad(rng.normal(0, 1.5)))
    # Phases of two periods, so that either direction may be on top at the corner.
    phase_u, phase_v = (
        rng.uniform(0, 2),
        rng.uniform(0, 2),
    )
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
    """(H, W, 3) reflectance of both sets of yarns, without warp where `absent`."""
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
    """Random position (x, y) of a defect, at least 30 px (at f = 1) from the border."""
    return rng.uniform(30, 226) * f, rng.uniform(30, 226) * f


def _absent_yarn(weave: Weave, rng: np.random.Generator, height: int) -> Mask:
    """(H, W) pixels of one warp yarn over part of its length."""
    f = height / 256
    x, y = _place(rng, f)
    length = rng.uniform(25, 60) * f
    top = min(max(y - length / 2, 8 * f), height - 8 * f - length)
    rows = np.arange(height)[:, None]
    number = weave.i[int(top + length / 2), int(x)]
    return np.asarray((weave.i == number) & (rows >= top) & (rows < top + length), np.bool_)


def _hole(cloth: Image, rng: np.random.Generator, f: float) -> Mask:
    """A dark hole."""
    blob = Blob.draw(rng, *_place(rng, f), rng.uniform(5, 10) * f, rough=0.3)
    return _paint_blob(cloth, blob, 1.0, 0.07)


def _stain(cloth: Image, rng: np.random.Generator, f: float) -> Mask:
    """A brownish stain with a soft edge."""
    centre, radius, aspect = _place(rng, f), rng.uniform(9, 22) * f, rng.uniform(1, 1.8)
    blob = Blob.draw(rng, *centre, radius, rough=0.35, aspect=aspect)
    stained = cloth * STAIN_COLOUR * np.float32(rng.uniform(0.95, 1.1))
    return _paint_blob(cloth, blob, 4 * f, stained)


def _paint_blob(cloth: Image, blob: Blob, ramp: float, colour: float | Image) -> Mask:
    """Blend `colour` (a scalar, or an image of the shape of the cloth) into the blob. Returns its footprint."""
    height, width = cloth.shape[:2]
    footprint = np.zeros((height, width), np.bool_)
    box = box_around(blob.cx, blob.cy, blob.reach + ramp, height, width)
    assert box is not None  # it is centred in the image
    distance = blob.distance(*box_grid(box))
    blend(cloth, box, coverage(distance, ramp), colour if isinstance(colour, float) else colour[box])
    footprint[box] = distance > 0
    return footprint


def _thread(cloth: Image, rng: np.random.Generator, f: float) -> Mask:
    """A loose fibre on the cloth."""
    centre, length, half_width = _place(rng, f), rng.uniform(35, 90) * f, rng.uniform(1, 1.7) * f
    direction, bend, drift = rng.uniform(0, 2 * np.pi), rng.uniform(-0.02, 0.02), rng.normal(0, 0.0004)
    tone = rng.uniform(0.8, 1.05)
    step = 0.25  # px between points of the curve, whose distances are measured
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
