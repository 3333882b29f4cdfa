"""Structural defects that several sets share: a scratch and debris. Lengths are in pixels at f = 1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from andon.datasets.embedded.primitives import (
    Blob,
    Image,
    Mask,
    blend,
    box_around,
    box_grid,
    coverage,
    segment,
    value_noise,
)

DEBRIS = (0.16, 0.13, 0.11)


def scratch(
    canvas: Image,
    rng: np.random.Generator,
    centre: tuple[float, float],
    surface: Mask,
    colour: npt.ArrayLike,
    f: float,
) -> Mask:
    """Draw a straight scratch through `centre` where `surface` (H, W) is True. Returns its footprint."""
    height, width = canvas.shape[:2]
    length, angle = rng.uniform(25, 70) * f, rng.uniform(0, np.pi)
    dx, dy = length / 2 * np.cos(angle), length / 2 * np.sin(angle)
    (cx, cy), everywhere = centre, (slice(0, height), slice(0, width))
    x, y = box_grid(everywhere)
    distance = segment(x, y, (cx - dx, cy - dy), (cx + dx, cy + dy), 1.1 * f)
    blend(canvas, everywhere, coverage(distance) * surface, colour)
    return np.asarray((distance > 0) & surface)


def debris(canvas: Image, rng: np.random.Generator, centre: tuple[float, float], f: float) -> Mask:
    """Draw a dark lump at `centre` on top of everything. Returns its footprint."""
    height, width = canvas.shape[:2]
    blob = Blob.draw(rng, *centre, rng.uniform(4, 8) * f, rough=0.4, aspect=rng.uniform(1, 1.3))
    box = box_around(*centre, blob.reach + 2, height, width)
    assert box is not None  # the centre lies inside the image
    x, y = box_grid(box)
    distance = blob.distance(x, y)
    lumps = value_noise(rng, distance.shape[0], distance.shape[1], 3 * f, octaves=2)
    tone = np.array(DEBRIS, np.float32) * (1 + 0.35 * lumps)[:, :, None]
    blend(canvas, box, coverage(distance), np.clip(tone, 0.02, 0.4))
    footprint = np.zeros((height, width), np.bool_)
    footprint[box] = distance > 0
    return footprint
