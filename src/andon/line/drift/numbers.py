"""Numbers of a judged image that show light, focus, position, colour and product.

The cost does not depend on the size of the image: it is thinned to about `THINNED` pixels a side and then averaged to `SIDE` x
`SIDE`. Sharpness is measured on neighbours of the full image, at `SAMPLED` x `SAMPLED` places.

Position is found by phase correlation with the mean good image (Kuglin and Hines, 1975, "The phase correlation image alignment
method"), low-passed so that its peak is a hill that a parabola interpolates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from andon.core.appearance import LUMA

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

SIDE, CELLS = 64, 4
"""Sides of the reduced image, and of the grid of cells that tells where an image changed."""
THINNED, SAMPLED = 512, 128
REACH = 16
"""Largest shift that is looked for, pixels of the reduced image: a quarter of a side."""
LOW_PASS = 0.12
"""Standard deviation of the low pass of the phase correlation, cycles per pixel."""
TRIED = 4
"""Pixels of the shift by which the two ways of measuring position are compared."""
DARKEST = 1 / 255
"""Keeps ratios of black images finite."""


class Numbers(NamedTuple):
    """What is measured on one image; each is one number that is watched."""

    brightness: float
    """Median luma, in [0, 1]."""
    contrast: float
    """Standard deviation of the luma over its mean."""
    sharpness: float
    """Decadic logarithm of the variance of the Laplacian over that of the pixels: blur lowers it, light does not."""
    red: float
    """Red over red + green + blue; 1/3 for grey."""
    blue: float
    """Blue over red + green + blue."""
    evenness: float
    """Difference of the cells' brightness, over that of the image, from the mean good image's: root of the mean square."""
    x: float
    """Offset to the right of the mean good image, share of the width."""
    y: float
    """Offset downwards, share of the height."""
    likeness: float
    """Correlation with the mean good image at that offset, in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """One image, small: what all numbers are computed from."""

    luma: Floats
    """(`SIDE`, `SIDE`) in [0, 1]."""
    colours: tuple[float, float, float]
    """Mean red, green, blue in [0, 1]."""
    sharpness: float

    @property
    def cells(self) -> Floats:
        """(`CELLS`, `CELLS`) mean luma."""
        return in_cells(self.luma)


def reduce(pixels: Pixels) -> Reduced:
    """The image (H, W, 3) or (H, W), reduced."""
    step = max(1, min(pixels.shape[:2]) // THINNED)
    thinned = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step])).convert("RGB")
    small = np.asarray(thinned.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64) / 255
    red, green, blue = small.mean((0, 1))
    return Reduced(small @ LUMA.astype(np.float64), (red, green, blue), _sharpness(pixels))


@dataclass(frozen=True)
class Template:
    """The mean good image, and how parts are found on an image."""

    luma: Floats
    """(`SIDE`, `SIDE`) in [0, 1]."""
    by_centroid: bool
    """Position is that of the centroid, for parts that lie at any angle; otherwise by phase correlation."""

    @classmethod
    def of(cls, images: Sequence[Floats]) -> Template:
        """From the luma of good images; position is measured in the way that tells a shift from their spread best."""
        mean = np.mean(images, 0)
        ways = [cls(mean, by_centroid) for by_centroid in (False, True)]
        return max(ways, key=lambda way: way._clarity(images))

    def _clarity(self, images: Sequence[Floats]) -> float:
        """Answer to a shift by `TRIED` pixels right and down over the spread of the images themselves."""
        found = np.array([self.offset(image) for image in images])
        moved = [np.pad(image, ((TRIED, 0), (TRIED, 0)), "edge")[:SIDE, :SIDE] for image in images]
        answer = np.median(np.array([self.offset(image) for image in moved]) - found, 0)
        low, high = np.quantile(found, (0.16, 0.84), axis=0)
        return float((answer / (high - low + 0.1)).min())

    def offset(self, image: Floats) -> tuple[float, float]:
        """How far (right, down) an image (`SIDE`, `SIDE`) lies from the mean good image, pixels."""
        if not self.by_centroid:
            return offset(image, self.luma)
        here, there = centroid(image), self._centroid
        return here[0] - there[0], here[1] - there[1]

    @cached_property
    def cells(self) -> Floats:
        """(`CELLS`, `CELLS`) mean luma over that of the image."""
        return in_cells(self.luma) / max(float(self.luma.mean()), DARKEST)

    @cached_property
    def _centroid(self) -> tuple[float, float]:
        return centroid(self.luma)


def measure(image: Reduced, template: Template) -> Numbers:
    """The numbers of an image."""
    brightness = max(float(image.luma.mean()), DARKEST)
    red, green, blue = image.colours
    total = max(red + green + blue, DARKEST)
    profile = image.cells / brightness - template.cells
    x, y = template.offset(image.luma)
    return Numbers(
        brightness=float(np.median(image.luma)),
        contrast=float(image.luma.std()) / brightness,
        sharpness=image.sharpness,
        red=red / total,
        blue=blue / total,
        evenness=float(np.sqrt((profile**2).mean())),
        x=x / SIDE,
        y=y / SIDE,
        likeness=likeness(image.luma, template.luma, x, y),
    )


def offset(image: Floats, mean: Floats) -> tuple[float, float]:
    """How far (right, down) an image (`SIDE`, `SIDE`) lies from another, pixels, at most `REACH`."""
    window, low_pass = _window(), _low_pass()
    cross = np.fft.rfft2((image - image.mean()) * window) * np.conj(
        np.fft.rfft2((mean - mean.mean()) * window)
    )
    hill = np.fft.irfft2(cross / (np.abs(cross) + 1e-9) * low_pass, (SIDE, SIDE))
    hill = np.roll(hill, (REACH, REACH), (0, 1))[: 2 * REACH + 1, : 2 * REACH + 1]
    top, left = np.unravel_index(int(hill.argmax()), hill.shape)
    return _peak(hill[top], int(left)) - REACH, _peak(hill[:, left], int(top)) - REACH


def likeness(image: Floats, mean: Floats, x: float, y: float) -> float:
    """Correlation of the inner part of two images, the first moved back by (x, y) pixels; 0 where one has no contrast."""
    moved = np.roll(image, (-round(y), -round(x)), (0, 1))
    inner = slice(REACH // 2, SIDE - REACH // 2)
    first, second = (part[inner, inner] - part[inner, inner].mean() for part in (moved, mean))
    power = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / power if power > 1e-9 else 0.0


def centroid(image: Floats) -> tuple[float, float]:
    """Place (right, down) of what differs from the rim of an image (`SIDE`, `SIDE`), pixels; the middle where nothing does."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    differs = np.abs(image - np.median(rim))
    weight = np.maximum(differs - differs.max() / 4, 0)
    total, places = max(float(weight.sum()), 1e-9), np.arange(SIDE) - (SIDE - 1) / 2
    return float((weight.sum(0) * places).sum()) / total, float((weight.sum(1) * places).sum()) / total


def in_cells(luma: Floats) -> Floats:
    """(`CELLS`, `CELLS`) means of an image (`SIDE`, `SIDE`)."""
    part = SIDE // CELLS
    return np.asarray(luma.reshape(CELLS, part, CELLS, part).mean((1, 3)))


def _sharpness(pixels: Pixels) -> float:
    """On the green channel, which carries most of the luma."""
    plane = pixels if pixels.ndim == 2 else pixels[:, :, 1]
    rows, columns = (
        _places(side)[:, None] if axis == 0 else _places(side) for axis, side in enumerate(plane.shape)
    )
    here, *around = (
        plane[rows + down, columns + across].astype(np.float64)
        for down, across in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    )
    laplacian = sum(around) - 4 * here
    return float(np.log10((laplacian.var() + 1e-3) / (here.var() + 1e-3)))


@cache
def _places(side: int) -> npt.NDArray[np.int64]:
    """Up to `SAMPLED` indices that have neighbours on both sides."""
    return np.linspace(1, max(side - 2, 1), min(SAMPLED, max(side - 2, 1))).astype(np.int64)


@cache
def _window() -> Floats:
    return np.outer(np.hanning(SIDE), np.hanning(SIDE))


@cache
def _low_pass() -> Floats:
    squares = np.fft.fftfreq(SIDE)[:, None] ** 2 + np.fft.rfftfreq(SIDE)[None] ** 2
    return np.asarray(np.exp(-squares / (2 * LOW_PASS**2)))


def _peak(values: Floats, top: int) -> float:
    """Place of the maximum, between the samples by a parabola through it and its neighbours."""
    if not 0 < top < len(values) - 1:
        return float(top)
    before, here, after = values[top - 1 : top + 2]
    bend = before - 2 * here + after
    return float(top) if bend >= 0 else top + float((before - after) / (2 * bend))
