"""From a scene to an image, and from a difference to a mask (spec C.3, C.4).

A scene is reflectance in [0, 1], float32, (H, W) or (H, W, 3), with any defect already drawn into it. Lengths are given
in pixels of a 256-pixel image and scaled by `f` = height / 256. Coordinates are (x, y) = (column, row), pixel centres
at integers. Edges are anti-aliased by a 1-pixel ramp of the signed distance (positive inside).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.datasets.embedded.streams import Streams

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Scene:
    """What stands before the camera."""

    radiance: Image
    """(H, W) or (H, W, 3) reflectance in [0, 1], defect included."""
    footprint: Mask | None = None
    """(H, W) geometric footprint of the defect; None for a good scene."""
    channels: tuple[tuple[int, Mask], ...] = ()
    """Ready-made mask files (pixel value, mask) where a rule defines them (logical defects of the tray)."""


@dataclass(frozen=True, slots=True)
class Photometry:
    """Light and sensor of one image; drawn alike for good and bad images."""

    light: float
    angle: float
    vignette: float
    centre: tuple[float, float]
    gain: float
    balance: tuple[float, float, float]
    gamma: float
    blur: float
    """Sigma in pixels at f = 1."""
    noise: float
    """Read noise r; the variance is r² + 0.00025 · radiance."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One finished image with its good twin."""

    image: npt.NDArray[np.uint8]
    """(H, W) or (H, W, 3)."""
    twin: npt.NDArray[np.uint8]
    """The same image without its defect."""
    masks: tuple[tuple[int, Mask], ...]
    """(pixel value, (H, W)) of each mask file; empty for a good image."""
    photometry: Photometry


def draw_photometry(rng: np.random.Generator) -> Photometry:
    """Draw light, gain, white balance, gamma, blur and noise."""
    return Photometry(
        light=rng.uniform(0.2, 1.0),
        angle=rng.uniform(0.0, 2 * np.pi),
        vignette=rng.uniform(0.02, 0.15),
        centre=(rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)),
        gain=rng.uniform(0.85, 1.15),
        balance=(rng.uniform(0.97, 1.03), rng.uniform(0.97, 1.03), rng.uniform(0.97, 1.03)),
        gamma=rng.uniform(0.92, 1.08),
        blur=rng.uniform(0.5, 0.9),
        noise=rng.uniform(0.004, 0.010),
    )


def expose(radiance: Image, photometry: Photometry) -> Image:
    """Illumination, gain, white balance and gamma: noise-free, unblurred radiance."""
    height, width = radiance.shape[:2]
    x = (np.arange(width, dtype=np.float32) + 0.5) / width - 0.5
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height - 0.5
    p = photometry
    slope = 0.12 * p.light * 2 * (x * np.float32(np.cos(p.angle)) + y * np.float32(np.sin(p.angle)))
    falloff = 2 * p.vignette * ((x - p.centre[0]) ** 2 + (y - p.centre[1]) ** 2)
    light: Image = ((1 + slope - falloff) * p.gain).astype(np.float32)
    if radiance.ndim == 3:  # per channel; grey cameras have no white balance
        light = light[:, :, None] * np.asarray(p.balance, np.float32)
    return np.asarray(np.clip(radiance * light, 0.0, 1.2) ** np.float32(p.gamma), np.float32)


def sense(
    exposed: Image, photometry: Photometry, rng: np.random.Generator, f: float
) -> npt.NDArray[np.uint8]:
    """Blur, noise and 8 bits."""
    sigma = photometry.blur * f
    blurred = ndimage.gaussian_filter(exposed, (sigma, sigma, 0)[: exposed.ndim], truncate=3.0)
    noise = rng.standard_normal(blurred.shape, dtype=np.float32)
    noisy = blurred + noise * np.sqrt(
        np.float32(photometry.noise**2) + np.float32(0.00025) * np.maximum(blurred, 0)
    )
    return np.asarray(np.clip(np.rint(255 * noisy), 0, 255), np.uint8)


def finish(scene: Scene, good: Scene, make: Callable[[], Streams], f: float) -> Rendered:
    """Render a scene and its good twin with the same photometry and noise, and derive the masks.

    `make()` returns the `Streams` of the image anew, so that both see identical draws.
    """
    first = make()
    photometry = draw_photometry(first.photometry)
    exposed = expose(scene.radiance, photometry)
    image = sense(exposed, photometry, first.sensor, f)
    if scene is good:
        return Rendered(image, image, (), photometry)
    exposed_twin = expose(good.radiance, photometry)
    twin = sense(exposed_twin, photometry, make().sensor, f)
    if scene.channels:
        return Rendered(image, twin, scene.channels, photometry)
    assert scene.footprint is not None
    return Rendered(
        image, twin, ((255, difference_mask(scene.footprint, exposed, exposed_twin)),), photometry
    )


def difference_mask(footprint: Mask, exposed: Image, twin: Image) -> Mask:
    """M = (footprint and dilate3x3(D >= 3/255)) or D >= 15/255, holes of up to 4 px filled (spec C.4)."""
    difference = np.abs(exposed - twin)
    if difference.ndim == 3:
        difference = difference.max(axis=2)
    visible = ndimage.binary_dilation(difference >= 3 / 255, np.ones((3, 3), bool))
    mask = (footprint & visible) | (difference >= 15 / 255)
    holes, count = ndimage.label(~mask)
    if count > 1:
        sizes = np.bincount(holes.ravel())
        mask |= np.isin(holes, np.flatnonzero((sizes <= 4) & (np.arange(sizes.size) > 0)))
    return np.asarray(mask, np.bool_)


# Primitives ---------------------------------------------------------------------------------------------------------


def grid(height: int, width: int) -> tuple[Image, Image]:
    """x (1, W) and y (H, 1) pixel coordinates, float32, for broadcasting."""
    return np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]


def value_noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 1) -> Image:
    """(H, W) of unit variance: normal values every `cell` px, smoothstep between them, amplitudes halved per octave."""
    total = np.zeros((height, width), np.float32)
    power = 0.0
    for octave in range(octaves):
        spacing, amplitude = cell / 2**octave, 0.5**octave
        rows, columns = (np.arange(n, dtype=np.float32) / np.float32(spacing) for n in (height, width))
        values = rng.standard_normal((int(rows[-1]) + 2, int(columns[-1]) + 2), dtype=np.float32)
        along_rows = _smooth_interpolate(values, rows)  # (H, columns of the lattice)
        total += np.float32(amplitude) * _smooth_interpolate(along_rows.T, columns).T
        power += amplitude**2
    return np.asarray(
        total / np.float32(np.sqrt(power) * 26 / 35), np.float32
    )  # smoothstep keeps 26/35 of the variance per axis


def _smooth_interpolate(values: Image, positions: Image) -> Image:
    """Rows of `values` at fractional `positions`, smoothstep weights."""
    base = positions.astype(np.intp)
    t = positions - base
    weight = (t * t * (3 - 2 * t))[:, None]
    return np.asarray(values[base] * (1 - weight) + values[base + 1] * weight, np.float32)


def coverage(signed_distance: Image, ramp: float = 1.0) -> Image:
    """Signed distance (positive inside) to coverage in [0, 1], over a ramp of `ramp` px."""
    return np.asarray(np.clip(signed_distance / np.float32(ramp) + np.float32(0.5), 0, 1), np.float32)


def blend(target: Image, box: Box, alpha: Image, colour: npt.ArrayLike) -> None:
    """Paint `colour` (number, 3 numbers, or an array of the box's shape) over `target[box]` with coverage `alpha`, in place."""
    weight = alpha[:, :, None] if target.ndim == 3 else alpha
    part = target[box]
    part += weight * (np.asarray(colour, np.float32) - part)


def box_around(x: float, y: float, radius: float, height: int, width: int) -> Box | None:
    """Slices of the square of half side `radius` around (x, y), cut to the image; None when outside."""
    top, bottom = max(0, int(np.floor(y - radius))), min(height, int(np.ceil(y + radius)) + 1)
    left, right = max(0, int(np.floor(x - radius))), min(width, int(np.ceil(x + radius)) + 1)
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def box_grid(box: Box) -> tuple[Image, Image]:
    """x (1, w) and y (h, 1) coordinates inside a box."""
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
    """Signed distance to a rectangle of half sides `half`, turned by `angle` (radians), with rounded corners."""
    u, v = turned(x, y, cx, cy, angle)
    dx, dy = np.abs(u) - np.float32(half[0] - corner), np.abs(v) - np.float32(half[1] - corner)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(np.float32(corner) - outside - np.minimum(np.maximum(dx, dy), 0), np.float32)


def segment(
    x: Image, y: Image, start: tuple[float, float], end: tuple[float, float], half_width: float
) -> Image:
    """Signed distance to a line segment with round ends."""
    ax, ay, bx, by = (np.float32(v) for v in (*start, *end))
    length = max(float((bx - ax) ** 2 + (by - ay) ** 2), 1e-12)
    t = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / np.float32(length), 0, 1)
    return np.asarray(
        np.float32(half_width) - np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)), np.float32
    )


def turned(x: Image, y: Image, cx: float, cy: float, angle: float) -> tuple[Image, Image]:
    """Coordinates in a frame at (cx, cy) turned by `angle`: u along it, v across."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    return np.asarray(dx * c + dy * s, np.float32), np.asarray(dy * c - dx * s, np.float32)


@dataclass(frozen=True, slots=True)
class Blob:
    """An irregular patch: r(φ) = radius · (1 + rough · Σ_k=2..5 n_k cos(kφ + p_k) / k)."""

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
        """Draw outline and direction."""
        waves = tuple((float(rng.standard_normal()), float(rng.uniform(0, 2 * np.pi))) for _ in range(4))
        return cls(cx, cy, radius, rough, aspect, float(rng.uniform(0, np.pi)), waves)

    @property
    def reach(self) -> float:
        """Radius of a circle that surely holds the blob."""
        wobble = 1 + self.rough * sum(abs(a) / k for k, (a, _) in enumerate(self.waves, start=2))
        return self.radius * wobble * self.aspect + 2

    def distance(self, x: Image, y: Image) -> Image:
        """Signed distance (approximate off the outline), positive inside."""
        u, v = turned(x, y, self.cx, self.cy, self.angle)
        u = u / np.float32(self.aspect)
        phi = np.arctan2(v, u)
        outline = np.ones_like(phi)
        for k, (amplitude, phase) in enumerate(self.waves, start=2):
            outline += np.float32(self.rough * amplitude / k) * np.cos(k * phi + np.float32(phase))
        outline = np.float32(self.radius) * np.maximum(outline, np.float32(0.3))
        return np.asarray(outline - np.hypot(u, v), np.float32)
