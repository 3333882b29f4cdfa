"""Drawing primitives of the embedded sets: shapes as signed distances, coverage, blending, value noise.

Coordinates are (x, y) = (column, row) in pixels, integers at pixel centres. A signed distance is positive inside a shape;
`coverage` turns it into an anti-aliased edge, a ramp of 1 pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Pose:
    """Position of a part in image pixels, its rotation in radians and its scale, which includes f."""

    x: float
    y: float
    angle: float
    scale: float

    def to_image(self, u: float, v: float) -> tuple[float, float]:
        """Image coordinates of the point (u, v) of the part."""
        c, s = float(np.cos(self.angle)), float(np.sin(self.angle))
        return self.x + self.scale * (u * c - v * s), self.y + self.scale * (u * s + v * c)


def grid(height: int, width: int) -> tuple[Image, Image]:
    """Pixel coordinates x (1, W) and y (H, 1), float32."""
    return np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]


def value_noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 1) -> Image:
    """(H, W) value noise of unit variance: normal values every `cell` px with smoothstep interpolation.

    Each further octave has half the cell and half the amplitude.
    """
    total = np.zeros((height, width), np.float32)
    power = 0.0
    for octave in range(octaves):
        spacing, amplitude = cell / 2**octave, 0.5**octave
        rows, columns = (np.arange(n, dtype=np.float32) / np.float32(spacing) for n in (height, width))
        values = rng.standard_normal((int(rows[-1]) + 2, int(columns[-1]) + 2), dtype=np.float32)
        along_rows = _smooth_interpolate(values, rows)  # (H, columns of the lattice)
        total += np.float32(amplitude) * _smooth_interpolate(along_rows.T, columns).T
        power += amplitude**2
    # Smoothstep interpolation keeps 26/35 of the variance per axis.
    return np.asarray(total / np.float32(np.sqrt(power) * 26 / 35), np.float32)


def _smooth_interpolate(values: Image, positions: Image) -> Image:
    """Rows of `values` interpolated at `positions` with smoothstep weights."""
    base = positions.astype(np.intp)
    t = positions - base
    weight = (t * t * (3 - 2 * t))[:, None]
    return np.asarray(values[base] * (1 - weight) + values[base + 1] * weight, np.float32)


def coverage(signed_distance: Image, ramp: float = 1.0) -> Image:
    """Coverage in [0, 1] from a signed distance, linear over `ramp` px."""
    return np.asarray(np.clip(signed_distance / np.float32(ramp) + np.float32(0.5), 0, 1), np.float32)


def blend(target: Image, box: Box, alpha: Image, colour: npt.ArrayLike) -> None:
    """Blend `colour` (scalar, 3 values, or an array of the shape of the box) into `target[box]` with weight `alpha`, in place."""
    weight = alpha[:, :, None] if target.ndim == 3 else alpha
    part = target[box]
    part += weight * (np.asarray(colour, np.float32) - part)


def box_around(x: float, y: float, radius: float, height: int, width: int) -> Box | None:
    """Slices of the square around (x, y) with half side `radius`, clipped to the image; None outside it."""
    top, bottom = max(0, int(np.floor(y - radius))), min(height, int(np.ceil(y + radius)) + 1)
    left, right = max(0, int(np.floor(x - radius))), min(width, int(np.ceil(x + radius)) + 1)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def box_grid(box: Box) -> tuple[Image, Image]:
    """Pixel coordinates x (1, w) and y (h, 1) of a box."""
    rows, columns = box
    return (
        np.arange(columns.start, columns.stop, dtype=np.float32)[None, :],
        np.arange(rows.start, rows.stop, dtype=np.float32)[:, None],
    )


def disc(x: Image, y: Image, cx: float, cy: float, radius: float) -> Image:
    """Signed distance to a disc."""
    return np.asarray(np.float32(radius) - np.hypot(x - np.float32(cx), y - np.float32(cy)), np.float32)


def rectangle(
    x: Image,
    y: Image,
    cx: float,
    cy: float,
    half: tuple[float, float],
    angle: float = 0.0,
    corner: float = 0.0,
) -> Image:
    """Signed distance to a rectangle of half sides `half`, rotated by `angle` (radians), with corner radius `corner`."""
    u, v = turned(x, y, cx, cy, angle)
    dx, dy = np.abs(u) - np.float32(half[0] - corner), np.abs(v) - np.float32(half[1] - corner)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(np.float32(corner) - outside - np.minimum(np.maximum(dx, dy), 0), np.float32)


def segment(
    x: Image, y: Image, start: tuple[float, float], end: tuple[float, float], half_width: float
) -> Image:
    """Signed distance to a line segment of width `2 * half_width` with round ends."""
    ax, ay, bx, by = (np.float32(v) for v in (*start, *end))
    length = max(float((bx - ax) ** 2 + (by - ay) ** 2), 1e-12)
    t = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / np.float32(length), 0, 1)
    return np.asarray(
        np.float32(half_width) - np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)), np.float32
    )


def turned(x: Image, y: Image, cx: float, cy: float, angle: float) -> tuple[Image, Image]:
    """Coordinates (u, v) in a frame at (cx, cy) rotated by `angle`."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    return np.asarray(dx * c + dy * s, np.float32), np.asarray(dy * c - dx * s, np.float32)


@dataclass(frozen=True, slots=True)
class Blob:
    """An irregular shape with outline r(φ) = radius · (1 + rough · Σ_k=2..5 n_k cos(kφ + p_k) / k)."""

    cx: float
    cy: float
    radius: float
    rough: float
    aspect: float
    angle: float
    waves: tuple[tuple[float, float], ...]
    """(amplitude, phase) for k = 2 to 5."""

    @classmethod
    def draw(
        cls, rng: np.random.Generator, cx: float, cy: float, radius: float, rough: float, aspect: float = 1.0
    ) -> Blob:
        """Draw the outline and its direction from `rng`."""
        waves = tuple((float(rng.standard_normal()), float(rng.uniform(0, 2 * np.pi))) for _ in range(4))
        return cls(cx, cy, radius, rough, aspect, float(rng.uniform(0, np.pi)), waves)

    @property
    def reach(self) -> float:
        """Radius of a circle that contains the shape."""
        wobble = 1 + self.rough * sum(abs(a) / k for k, (a, _) in enumerate(self.waves, start=2))
        return self.radius * wobble * self.aspect + 2

    def distance(self, x: Image, y: Image) -> Image:
        """Signed distance, exact on the outline and approximate elsewhere."""
        u, v = turned(x, y, self.cx, self.cy, self.angle)
        u = u / np.float32(self.aspect)
        phi = np.arctan2(v, u)
        outline = np.ones_like(phi)
        for k, (amplitude, phase) in enumerate(self.waves, start=2):
            outline += np.float32(self.rough * amplitude / k) * np.cos(k * phi + np.float32(phase))
        outline = np.float32(self.radius) * np.maximum(outline, np.float32(0.3))
        return np.asarray(outline - np.hypot(u, v), np.float32)
