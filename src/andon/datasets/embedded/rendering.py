"""Render a scene to an image, and derive the mask from the difference to its defect-free twin.

A scene is reflectance in [0, 1], float32, (H, W) or (H, W, 3), defect included. Lengths are given in pixels of an image
256 px high and scaled by `f` = height / 256. Steps and constants: docs/reference/data.md, "Embedded sets".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.datasets.embedded.primitives import Image, Mask
from andon.datasets.embedded.random_streams import Streams


@dataclass(frozen=True, slots=True)
class Scene:
    """Input of the camera model."""

    radiance: Image
    """(H, W) or (H, W, 3) reflectance in [0, 1], defect included."""
    footprint: Mask | None = None
    """(H, W) geometric footprint of the defect; None for a good scene."""
    channels: tuple[tuple[int, Mask], ...] = ()
    """Masks (pixel value, (H, W)) where a rule defines them: logical defects."""


@dataclass(frozen=True, slots=True)
class Photometry:
    """Illumination and sensor of one image, from the same distribution for good and anomalous images."""

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
    """One image with its defect-free twin."""

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


def shadow_direction(rng: np.random.Generator) -> tuple[float, float]:
    """Draw the direction in which shadows fall, a unit vector towards the lower right."""
    angle = rng.uniform(np.pi / 12, 5 * np.pi / 12)
    return float(np.cos(angle)), float(np.sin(angle))


def expose(radiance: Image, photometry: Photometry) -> Image:
    """Apply illumination, gain, white balance and gamma; the result has neither blur nor noise."""
    height, width = radiance.shape[:2]
    x = (np.arange(width, dtype=np.float32) + 0.5) / width - 0.5
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height - 0.5
    p = photometry
    slope = 0.12 * p.light * 2 * (x * np.float32(np.cos(p.angle)) + y * np.float32(np.sin(p.angle)))
    falloff = 2 * p.vignette * ((x - p.centre[0]) ** 2 + (y - p.centre[1]) ** 2)
    light: Image = ((1 + slope - falloff) * p.gain).astype(np.float32)
    if radiance.ndim == 3:  # white balance per channel, for colour images only
        light = light[:, :, None] * np.asarray(p.balance, np.float32)
    return np.asarray(np.clip(radiance * light, 0.0, 1.2) ** np.float32(p.gamma), np.float32)


def sense(
    exposed: Image, photometry: Photometry, rng: np.random.Generator, f: float
) -> npt.NDArray[np.uint8]:
    """Apply blur and noise and quantise to 8 bits."""
    sigma = photometry.blur * f
    blurred = ndimage.gaussian_filter(exposed, (sigma, sigma, 0)[: exposed.ndim], truncate=3.0)
    noise = rng.standard_normal(blurred.shape, dtype=np.float32)
    noisy = blurred + noise * np.sqrt(
        np.float32(photometry.noise**2) + np.float32(0.00025) * np.maximum(blurred, 0)
    )
    return np.asarray(np.clip(np.rint(255 * noisy), 0, 255), np.uint8)


def finish(scene: Scene, good: Scene, make: Callable[[], Streams], f: float) -> Rendered:
    """Render a scene and its twin `good` with the same photometry and noise, and derive the masks.

    `make()` returns new `Streams` of the image, so that both are rendered with identical draws.
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
    """(H, W) mask (footprint and dilate3x3(D >= 3/255)) or D >= 15/255, holes of up to 4 pixels filled.

    D is the largest absolute difference of the channels.
    """
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
