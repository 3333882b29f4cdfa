"""Hexagon head bolt on a light table, in any orientation.

Coordinates of the part are u along its axis and v across, in pixels at f = 1: head from u = -70 to -40, shank to +78,
thread from -22.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.datasets.embedded.primitives import (
    Blob,
    Box,
    Image,
    Mask,
    Pose,
    blend,
    box_around,
    box_grid,
    coverage,
    segment,
    turned,
    value_noise,
)
from andon.datasets.embedded.random_streams import Streams
from andon.datasets.embedded.rendering import Scene

DEFECTS: tuple[str, ...] = ("missing_tip", "rust", "scratch_head", "worn_thread")
MODE: Literal["RGB"] = "RGB"

HEAD = (-70.0, -40.0)
HEAD_HALF_WIDTH = 30.0
FACETS = (0.47, 0.66, 0.47)
FACET_EDGE = 15.0
SHANK_END = 78.0
SHANK_HALF_WIDTH = 13.0
THREAD_START = -22.0
THREAD_DEPTH = 2.6
THREAD_SLANT = 0.135
"""Slant of the thread: the two sides of the shank differ by half a period, as for a helix."""
STEEL = np.array((0.985, 1.0, 1.025), np.float32)
FRACTURE, FRACTURE_LENGTH = 0.25, 3.0
"""Tone of the fracture surface, and its extent along the axis."""

# Elements of the scene, each with its own random stream.
_TABLE, _POSE, _LIGHT, _THREAD, _FINISH, _SHADOW = range(6)


@dataclass(frozen=True, slots=True)
class Shape:
    """Geometry of one bolt, defects included."""

    period: float
    phase: float
    end: float = SHANK_END
    skew: float = 0.0
    """Slope of a broken end: du/dv."""
    worn: tuple[float, float, float] | None = None
    """Start and end in u of the worn thread, and its side (+1 or -1)."""

    @property
    def broken(self) -> bool:
        """Whether the tip is missing."""
        return self.end != SHANK_END


def scene(streams: Streams, defect: str | None, height: int) -> Scene:
    """Scene (H, H, 3) with a `defect` of `DEFECTS` and its footprint, or without a defect."""
    f = height / 256
    pose, shape = _draw_pose(streams, height), _draw_shape(streams)
    rng = streams.defect
    good = shape
    if defect == "missing_tip":
        slope = rng.uniform(0.15, 0.45) * rng.choice((-1.0, 1.0))
        shape = replace(shape, end=SHANK_END - rng.uniform(9, 20), skew=slope)
    elif defect == "worn_thread":
        length = rng.uniform(14, 26)
        start = rng.uniform(THREAD_START + 4, SHANK_END - 8 - length)
        shape = replace(shape, worn=(start, start + length, rng.choice((-1.0, 1.0))))

    box = box_around(pose.x, pose.y, 92 * pose.scale, height, height)
    assert box is not None  # the pose keeps the part near the centre
    u, v = _part_grid(box, pose)
    silhouette = coverage(_outline(u, v, shape) * np.float32(pose.scale))
    part = _shade(u, v, shape, streams)

    canvas = _table(streams, height)
    _cast_shadow(canvas, silhouette, box, streams, f)
    footprint: Mask | None = None
    if shape is not good:
        footprint = np.zeros((height, height), np.bool_)
        old = _outline(u, v, good) > 0
        if shape.worn is None:
            footprint[box] = old & ~(_outline(u, v, shape) > 0.5)
            # The fracture surface belongs to the defect.
            footprint[box] |= old & (u > np.float32(shape.end - FRACTURE_LENGTH) + np.float32(shape.skew) * v)
        else:
            footprint[box] = (old | (_outline(u, v, shape) > 0)) & (_wear(u, v, shape) > 0.3)
    elif defect == "rust":
        footprint = _rust(part, silhouette, box, pose, rng, height, f)
    elif defect == "scratch_head":
        footprint = _scratch_head(part, silhouette, box, pose, rng, height)
    blend(canvas, box, silhouette, part)
    return Scene(np.clip(canvas, 0, 1), footprint)


def _draw_pose(streams: Streams, height: int) -> Pose:
    rng, f = streams.element(_POSE), height / 256
    angle, dx, dy, scale = rng.uniform((0, -10, -10, 0.97), (2 * np.pi, 10, 10, 1.03))
    # The part extends from u = -70 to +78; its middle, u = 4, is placed near the image centre.
    c, s = np.cos(angle), np.sin(angle)
    middle = (height - 1) / 2
    return Pose(middle + f * (dx - 4 * c), middle + f * (dy - 4 * s), float(angle), float(scale) * f)


def _draw_shape(streams: Streams) -> Shape:
    rng = streams.element(_THREAD)
    return Shape(period=rng.uniform(6.8, 7.2), phase=rng.uniform(0, 2 * np.pi))


def _part_grid(box: Box, pose: Pose) -> tuple[Image, Image]:
    """Part coordinates u and v of every pixel of the box."""
    x, y = box_grid(box)
    u, v = turned(x, y, pose.x, pose.y, pose.angle)
    return u / np.float32(pose.scale), v / np.float32(pose.scale)


def _table(streams: Streams, height: int) -> Image:
    """(H, H, 3) light background with faint low-frequency noise."""
    f = height / 256
    clouds = value_noise(streams.element(_TABLE), height, height, 90 * f)
    return np.asarray(
        (0.80 + 0.02 * clouds)[:, :, None] * np.array((1.0, 1.0, 0.985), np.float32), np.float32
    )


def _cast_shadow(canvas: Image, silhouette: Image, box: Box, streams: Streams, f: float) -> None:
    """Soft shadow: the silhouette blurred, shifted and subtracted."""
    distance, angle = streams.element(_SHADOW).uniform((3, 0), (6, 2 * np.pi))
    height, width = canvas.shape[:2]
    shadow = np.zeros((height, width), np.float32)
    shadow[box] = silhouette
    shift = (distance * f * np.sin(angle), distance * f * np.cos(angle))
    shadow = ndimage.shift(shadow, shift, order=1)
    shadow = ndimage.gaussian_filter(shadow, 4 * f, truncate=3.0)
    canvas *= 1 - np.float32(0.30) * shadow[:, :, None]


def _wear(u: Image, v: Image, shape: Shape) -> Image:
    """Wear of the thread in [0, 1], with soft ends."""
    if shape.worn is None:
        return np.zeros((1, 1), np.float32)
    start, end, side = shape.worn
    along = np.minimum(u - np.float32(start), np.float32(end) - u)
    return np.asarray(coverage(along, 2.0) * coverage(v * np.float32(side), 2.0), np.float32)


def _thread(u: Image, v: Image, shape: Shape) -> tuple[Image, Image]:
    """Depth of the groove in [0, 1] (0 on the crest) and its slope along the axis in [-1, 1]."""
    phase = np.float32(2 * np.pi / shape.period) * (u - np.float32(THREAD_SLANT) * v) + np.float32(
        shape.phase
    )
    present = coverage(u - np.float32(THREAD_START), 6.0)
    depth = 1 - np.float32(0.92) * _wear(u, v, shape)
    slope = np.clip(2 * np.cos(phase), -1, 1)  # flanks are flat, crest and root are narrow
    groove = (0.5 + 0.5 * np.sin(phase) * depth) * present
    return np.asarray(groove, np.float32), np.asarray(slope * present * depth, np.float32)


def _outline(u: Image, v: Image, shape: Shape) -> Image:
    """Signed distance to the silhouette in part pixels, approximate at the thread."""
    across = np.abs(v)
    # The outer corners of the head are chamfered at 30 degrees.
    chamfer = (HEAD_HALF_WIDTH - across + 2.2 * (u - HEAD[0]) - 2.0) / np.float32(2.4)
    head = np.minimum.reduce([u - HEAD[0], HEAD[1] - u, HEAD_HALF_WIDTH - across, chamfer]).astype(np.float32)
    groove, _ = _thread(u, v, shape)
    radius = SHANK_HALF_WIDTH - np.float32(THREAD_DEPTH) * groove
    end = np.float32(shape.end) + np.float32(shape.skew) * v - u
    if not shape.broken:
        radius = np.minimum(radius, SHANK_HALF_WIDTH - 3.5 + np.maximum(end, 0))  # chamfered tip
    shank = np.minimum(np.minimum(radius - across, end), u - HEAD[1] + 1)
    return np.asarray(np.maximum(head, shank), np.float32)


def _shade(u: Image, v: Image, shape: Shape, streams: Streams) -> Image:
    """(h, w, 3) reflectance of the part over the whole box."""
    light = streams.element(_LIGHT).uniform(-0.3, 0.3)
    groove, slope = _thread(u, v, shape)
    phi = np.arcsin(np.clip(v / SHANK_HALF_WIDTH, -0.999, 0.999))
    facing = np.cos(phi - np.float32(light))
    shank = 0.20 + 0.40 * facing + 0.22 * np.exp(-(((phi - np.float32(light)) / 0.32) ** 2))
    shank += 0.14 * slope - 0.10 * groove
    end = np.float32(shape.end) + np.float32(shape.skew) * v - u
    if shape.broken:  # dark fracture surface
        face = coverage(FRACTURE_LENGTH - end, 1.5)
        shank += face * (FRACTURE - shank)
    else:
        shank *= 1 - 0.22 * coverage(3.0 - end, 2.0)
    shank *= 1 - 0.35 * np.exp(-np.maximum(u - HEAD[1], 0) / 3.0)  # contact shadow below the head

    tone = np.where(np.abs(v) < FACET_EDGE, FACETS[1], np.where(v < 0, FACETS[0], FACETS[2]))
    tone = tone * (1 + 0.25 * np.float32(light) * np.sign(v) * (np.abs(v) >= FACET_EDGE))
    tone = tone + 0.10 * np.exp(-(((np.abs(v) - FACET_EDGE) / 0.9) ** 2))  # bright edges between the facets
    arc = (
        u - HEAD[0] - 4.5 + 3.0 * np.cos(np.pi * v / HEAD_HALF_WIDTH * np.where(np.abs(v) < FACET_EDGE, 1, 2))
    )
    tone = tone + 0.13 * (1 - coverage(arc, 1.5))  # chamfer of the head
    tone = np.where(HEAD[1] - u < 3.0, 0.56 + 0.14 * np.cos(np.pi * v / 64), tone)  # washer face
    tone = tone - 0.18 * np.exp(-(((HEAD[1] - u - 3.0) / 0.8) ** 2))

    grey = np.where(u < HEAD[1], tone, shank) + _marks(u, v, streams)
    return np.asarray(grey[:, :, None] * STEEL, np.float32)


def _marks(u: Image, v: Image, streams: Streams) -> Image:
    """Turning marks around the shank and low-frequency noise everywhere, fixed to the part."""
    rng = streams.element(_FINISH)
    turning: npt.NDArray[np.float32] = rng.standard_normal(256, dtype=np.float32)
    mottle = value_noise(rng, 256, 256, 5, octaves=2)
    rows = np.clip(v + 128, 0, 255)
    columns = np.clip(u + 128, 0, 255)
    lines = np.interp(columns, np.arange(256), turning)
    cloudy = ndimage.map_coordinates(mottle, [rows, columns], order=1)
    return np.asarray(0.014 * lines * (u > HEAD[1]) + 0.014 * cloudy, np.float32)


def _rust(
    part: Image, silhouette: Image, box: Box, pose: Pose, rng: np.random.Generator, height: int, f: float
) -> Mask:
    """Add a brown spot. Returns its footprint."""
    on_head = rng.random() < 0.35
    u, v = rng.uniform((-66, -22), (-44, 22)) if on_head else rng.uniform((-34, -9), (70, 9))
    blob = Blob.draw(rng, *pose.to_image(u, v), radius=rng.uniform(6, 11) * f, rough=0.35)
    grain = value_noise(rng, height, height, 3 * f, octaves=2)[box]
    x, y = box_grid(box)
    alpha = coverage(blob.distance(x, y), 2 * f)
    rusty = part * np.array((1.0, 0.68, 0.45), np.float32) * (0.92 + 0.07 * grain[:, :, None])
    part += alpha[:, :, None] * (rusty - part)
    footprint = np.zeros((height, height), np.bool_)
    footprint[box] = (alpha > 0.5) & (silhouette > 0.5)
    return footprint


def _scratch_head(
    part: Image, silhouette: Image, box: Box, pose: Pose, rng: np.random.Generator, height: int
) -> Mask:
    """Add a bright or dark line on the head. Returns its footprint."""
    length, angle, tone = rng.uniform(10, 24), rng.uniform(0, np.pi), 0.28 * rng.choice((-1.0, 1.0))
    u, v = rng.uniform((-62, -18), (-48, 18))
    half = np.array((np.cos(angle), np.sin(angle))) * length / 2
    start, end = (pose.to_image(u + sign * half[0], v + sign * half[1]) for sign in (-1, 1))
    x, y = box_grid(box)
    own_u, _ = _part_grid(box, pose)
    distance = segment(x, y, start, end, rng.uniform(1.2, 1.6) * pose.scale)
    on_head = (own_u < HEAD[1]) & (silhouette > 0.5)
    part += (np.float32(tone) * coverage(distance) * on_head)[:, :, None]
    footprint = np.zeros((height, height), np.bool_)
    footprint[box] = (distance > 0) & on_head
    return footprint
