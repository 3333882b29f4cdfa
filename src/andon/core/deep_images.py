"""Images with more than 8 bits per value: their stored values, the scale that turns these into [0, 1], and transparency.

Cameras with 10, 12 or 14 bits write files of 16. Which of them a data set uses follows from the largest value of its training
images (docs/reference/data.md, "Images").
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from andon.core.errors import DataError

Values = npt.NDArray[np.integer]
"""(H, W) or (H, W, C) values as stored."""
BIT_DEPTHS = (10, 12, 14, 16)
"""Of cameras whose files have more than 8 bits per value."""
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""TIFF tags."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
"""Values of the tag `PHOTOMETRIC` that are read."""
TURNS: dict[int, Callable[[Values], Values]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}
"""From stored rows and columns to the upright image, by EXIF orientation."""


class AlphaWarning(UserWarning):
    """An image has transparent pixels; they were composited on black."""


def bit_depth_of(largest: int) -> int:
    """The fewest bits of a camera that hold a value; 16 for anything larger."""
    return next((bits for bits in BIT_DEPTHS if largest < 2**bits), BIT_DEPTHS[-1])


def describe_bit_depth(bit_depth: int, largest: int) -> str:
    """In words: how values of more than 8 bits are read, and the largest one of the training images."""
    return f"bit depth: {bit_depth} (0 to {2**bit_depth - 1}), the largest value of the training pictures is {largest}"


def is_deep_png(opened: Image.Image) -> bool:
    """Whether a PNG in colour, or with transparency, has 16 bits per value, of which Pillow gives 8."""
    return opened.format == "PNG" and _raw_mode(opened).endswith(";16B") and not opened.mode.startswith("I")


def is_deep_tiff(opened: Image.Image) -> bool:
    """Whether a TIFF in colour has more than 8 bits per value, of which Pillow gives 8 or none."""
    if opened.format != "TIFF" or opened.mode == "F" or opened.mode.startswith("I"):
        return False
    bits = getattr(opened, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    return int(max(bits)) > 8


def white_is_zero(opened: Image.Image, path: Path) -> bool:
    """Whether a grey TIFF of more than 8 bits stores white as 0; Pillow inverts those of 8 bits alone.

    Raises `DataError`, which names the file, for one of floats, whose white has no value.
    """
    found = bool(getattr(opened, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO)
    if found and opened.mode == "F":
        raise DataError(f"{path} is a TIFF of floats in which 0 is white: save it with 0 as black")
    return found and opened.mode.startswith("I")


def grey_values(image: Image.Image, inverted: bool) -> Values:
    """The values of a Pillow image as stored, black as 0 where they are `inverted`."""
    values = np.asarray(image)
    return np.iinfo(values.dtype).max - values if inverted else values


def black_is_zero(values: Values, path: Path, photometric: int | None, bits: int | None) -> Values:
    """Values (H, W, C) of a TIFF with black as 0, by its tags. Raises `DataError` for other than grey and RGB."""
    if photometric in (None, BLACK_IS_ZERO, RGB):
        return values
    if photometric == WHITE_IS_ZERO and values.shape[2] == 1:
        inverted: Values = (2 ** (bits or 8 * values.itemsize) - 1 - values).astype(values.dtype)
        return inverted
    raise DataError(
        f"{path} is a TIFF whose colours are neither grey nor RGB (photometric interpretation {photometric}; 5 is CMYK): "
        "save it as RGB"
    )


def _raw_mode(opened: Image.Image) -> str:
    tiles = getattr(opened, "tile", None)
    raw = tiles[0][3] if tiles else ""
    return raw if isinstance(raw, str) else ""


def png_values(reopen: Callable[[], AbstractContextManager[Image.Image]]) -> npt.NDArray[np.uint16]:
    """(H, W, 2, 3 or 4) upright values of a PNG for which `is_deep_png`; `reopen` opens it anew.

    Pillow reads the upper byte of each value as "...;16B", and the lower one when it takes them for the upper bytes of "...;16L".
    """
    with reopen() as opened:
        raw = _raw_mode(opened)
    if raw == "LA;16B":  # no "LA;16L" is known, but four bytes of a pixel are
        halves = _read_as(reopen, "RGBA")
        upper, lower = halves[..., ::2], halves[..., 1::2]
    else:
        upper, lower = _read_as(reopen, raw), _read_as(reopen, f"{raw[:-1]}L")
    return upper * np.uint16(256) + lower


def _read_as(reopen: Callable[[], AbstractContextManager[Image.Image]], raw: str) -> npt.NDArray[np.uint16]:
    with reopen() as opened:
        opened.tile = [(*opened.tile[0][:3], raw)]  # type: ignore[attr-defined]
        return np.asarray(ImageOps.exif_transpose(opened)).astype(np.uint16)


def upright(values: Values, orientation: int) -> Values:
    """Values (H, W, ...) turned as their EXIF orientation (1 to 8) says."""
    return TURNS[orientation](values) if orientation in TURNS else values


def in_unit_range(values: Values, path: Path, bit_depth: int) -> npt.NDArray[np.float32]:
    """Values divided by the largest one of `bit_depth`. Raises `DataError`, which names the file, for values above that."""
    full, largest = 2**bit_depth - 1, int(values.max())
    if values.min() < 0 or largest > 65535:
        raise DataError(
            f"{path} holds values from {values.min()} to {largest}, outside 0 to 65535: save it as 8- or 16-bit"
        )
    if largest > full:
        raise DataError(
            f"{path} holds values up to {largest}, more than the {bit_depth} bits (0 to {full}) of the training pictures: take "
            f"it with their settings, or fit again with --set bit_depth={bit_depth_of(largest)}"
        )
    return values.astype(np.float32) / np.float32(full)


def colours_of(values: Values, path: Path, bit_depth: int) -> npt.NDArray[np.float32]:
    """(H, W, 3) in [0, 1] of 16-bit values (H, W, 1 to 4); grey is repeated, alpha composited on black with an `AlphaWarning`."""
    count = values.shape[2]
    colours = in_unit_range(values[:, :, : count - 1 + count % 2], path, bit_depth)
    if count in (2, 4):
        alpha = values[:, :, -1:]
        if alpha.min() < 65535:
            warn_of_alpha(path)
            colours = colours * (alpha.astype(np.float32) / np.float32(65535))
    return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours


def warn_of_alpha(path: Path) -> None:
    """Warn that an image has transparent pixels."""
    warnings.warn(f"{path} has transparent pixels: shown on black", AlphaWarning, stacklevel=4)
