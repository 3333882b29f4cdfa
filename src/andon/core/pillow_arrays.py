"""Values of Pillow images as arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

STRIP = 2**18
"""Bytes of an image in Pillow's memory that are converted at a time."""
PIXEL_BYTES = 4
"""In Pillow's memory, of an RGB image."""


def unit_values(image: Image.Image) -> npt.NDArray[np.float32]:
    """(H, W, 3) in [0, 1] of an RGB image.

    Strips of rows, which caches hold, take half the time of the whole image at once.
    """
    rows = max(1, STRIP // (PIXEL_BYTES * image.width))
    values = np.empty((image.height, image.width, 3), np.float32)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        np.divide(np.asarray(strip), np.float32(255), out=values[top : top + rows])
    return values
