"""Thumbnails of stored images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from andon.core.image_files import max_pixels
from andon.core.opening import open_image

SIDE = 320
"""Longest side in pixels."""


def thumbnail(source: Path | BinaryIO, side: int = SIDE) -> bytes | None:
    """JPEG of at most `side` x `side` pixels; None for what cannot be decoded."""
    small = reduced(source, side)
    if small is None:
        return None
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def reduced(source: Path | BinaryIO, side: int) -> Image.Image | None:
    """RGB image, upright, of at most `side` x `side` pixels; None for what cannot be decoded.

    Deep images are scaled to their brightest pixel.
    """
    try:
        with open_image(source) as opened:
            if opened.width * opened.height > max_pixels():
                return None
            opened.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded at a fraction of its size
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I") or image.mode == "F":
                values = np.nan_to_num(np.asarray(image, np.float32)).clip(0)
                image = Image.fromarray((values * (255 / max(float(values.max()), 1e-9))).astype(np.uint8))
            image.thumbnail((side, side))
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
