"""Images that are given as objects and not as files: arrays and Pillow images, checked and brought to (H, W, C)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from andon.core.errors import DataError
from andon.core.image_files import MIN_SIDE, from_pillow
from andon.core.tiling import Pixels

ACCEPTED = (
    "a path, a Pillow image, a uint8 array (H, W, 3) or (H, W), a float array of the same shape with values in [0, 1], "
    "or a list of these"
)
WITH_POINTS = (
    "a path, or a float array (H, W, 6): colours in [0, 1], then x, y, z in metres, or a list of these"
)
ROUNDING = 1e-4
"""By how much floats may leave [0, 1], as they do after resizing."""


def as_pixels(image: Any, *, with_points: bool = False, bit_depth: int = 16) -> Pixels:
    """(H, W, 3) of an array or a Pillow image, uint8 or float32; grey ones repeated. `with_points`: (H, W, 6) float32.

    Values of more than 8 bits in a Pillow image use `bit_depth` bits. NaN and infinite values stay as they are. Raises
    `DataError` for everything else.
    """
    if isinstance(image, Image.Image) and not with_points:
        return from_pillow(image, bit_depth)
    if not isinstance(image, np.ndarray):
        raise _refused(f"a {type(image).__module__}.{type(image).__qualname__}", with_points)
    what = f"an array of shape {image.shape} and type {image.dtype}"
    floats = image.dtype.kind == "f"
    channels = image.shape[2:] == ((6,) if with_points else (3,))
    grey = image.ndim == 2 and not with_points
    if not (channels or grey) or not (floats or (image.dtype == np.uint8 and not with_points)):
        raise _refused(what, with_points)
    if min(image.shape[:2]) < MIN_SIDE:
        raise _refused(f"{what}, smaller than {MIN_SIDE} x {MIN_SIDE} pixels", with_points)
    if floats:
        image = image.astype(np.float32, copy=False)
        _check_range(image if grey else image[:, :, :3], with_points)
    return np.repeat(image[:, :, None], 3, axis=2) if grey else image


def _check_range(colours: npt.NDArray[np.float32], with_points: bool) -> None:
    finite = colours[np.isfinite(colours)]
    if finite.size and (finite.min() < -ROUNDING or finite.max() > 1 + ROUNDING):
        raise _refused(f"a float array with values from {finite.min():g} to {finite.max():g}", with_points)


def _refused(what: str, with_points: bool) -> DataError:
    return DataError(
        f"{what} is no picture that can be judged: give {WITH_POINTS if with_points else ACCEPTED}"
    )
