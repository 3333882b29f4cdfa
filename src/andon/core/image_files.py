"""Image files: decoding to arrays. Pillow and tifffile are imported here.

Formats and value ranges: docs/reference/data.md, "Images".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from andon.core import deep_images
from andon.core.deep_images import BITS_PER_SAMPLE, PHOTOMETRIC, AlphaWarning, Values
from andon.core.errors import ConfigError, DataError
from andon.core.memory_budget import machine_memory
from andon.core.opening import (
    FORMATS,
    ORIENTATION,
    check_pages,
    load,
    open_image,
    several_pages,
    upright_size,
)
from andon.core.pillow_arrays import unit_values

MIN_SIDE = 8
"""Smallest width and height in pixels that are accepted."""
REMEDY = "replace or remove it, or pass --skip-unreadable"
"""What to do about a file that cannot be read, on the command line."""
MAX_PIXELS = 500_000_000
"""Largest default of `max_pixels`."""
FEWEST_PIXELS = 24_000_000
"""Smallest default of `max_pixels`: a large camera image."""
BYTES_PER_PIXEL = 64
"""Memory that a prediction with heat map takes for each pixel of its image, rounded up."""
FARTHEST = 100.0
"""Coordinates in metres from which a point counts as missing; cameras mark missing points by large numbers, too."""
LEAST_MEASURED = 0.01
"""Share of the points of a cloud that is measured at least: a sensor that fails gives zeros."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image."""

    pixels: npt.NDArray[Any]
    """(H, W, 3) float32 in [0, 1], or uint8 where that was asked for."""
    mode: str
    """Pillow mode of the file; `RGB;16` for colours with 16 bits."""
    reduction: int = 1
    """Factor by which width and height were divided while decoding."""
    largest: int | None = None
    """Largest stored value, without alpha, of a file with more than 8 bits; None for others."""

    @property
    def bits(self) -> int:
        """Bits of a stored value: 8, 16 or 32 (float)."""
        if self.mode == "F":
            return 32
        return 16 if self.mode.startswith("I") or ";16" in self.mode else 8


@cache
def _default_limit() -> int:
    """Pixels for which a quarter of this machine's memory suffices, within `FEWEST_PIXELS` and `MAX_PIXELS`."""
    memory = machine_memory()
    room = MAX_PIXELS if memory is None else int(memory / 4 / BYTES_PER_PIXEL)
    return min(MAX_PIXELS, max(FEWEST_PIXELS, room))


def max_pixels() -> int:
    """Largest number of pixels of an image that is decoded: `ANDON_MAX_PIXELS`, or a default from the machine's memory.

    Raises `ConfigError` where the variable is no whole number above 0.
    """
    text = os.environ.get("ANDON_MAX_PIXELS", "").strip()
    if not text:
        return _default_limit()
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigError(f"ANDON_MAX_PIXELS is {text!r}: give a number of pixels above 0, such as 100000000")
    return int(text)


def decode(path: Path, *, bit_depth: int = 16, reduce: bool = False, eight_bits: bool = False) -> Decoded:
    """Read an image as (H, W, 3) float32 in [0, 1], with its EXIF orientation applied.

    Grey images are repeated to three channels. Values of more than 8 bits are divided by `2**bit_depth - 1` (`bit_depth` is 12
    for many industrial cameras). Transparent pixels are composited on black with an `AlphaWarning`. With `reduce` a JPEG above
    `max_pixels` is decoded at 1/2, 1/4 or 1/8 of its width and height. With `eight_bits` images that have no more bits are
    uint8, as stored. Raises `DataError`, which names the file, when it cannot be read, is above `max_pixels`, or holds values
    above those of `bit_depth`.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes): {REMEDY}")
        with open_image(path, checked=True) as opened:
            check_pages(opened, path)
            reduction = _reduce(opened) if reduce else 1
            _check_size(path, *opened.size)  # before anything is decoded
            if deep_images.is_deep_tiff(opened):
                return _decode_tiff(path, bit_depth)
            if deep_images.is_deep_png(opened):
                return _deep(deep_images.png_values(lambda: open_image(path)), path, bit_depth)
            mode, inverted = opened.mode, deep_images.white_is_zero(opened, path)
            ImageOps.exif_transpose(opened, in_place=True)
        if mode.startswith("I"):
            return _deep(deep_images.grey_values(opened, inverted)[:, :, None], path, bit_depth, mode)
        if eight_bits and mode in {"L", "RGB"}:
            colours = opened if mode == "RGB" else opened.convert("RGB")
            return Decoded(np.array(colours), mode, reduction)
        return Decoded(_to_float(opened, path), mode, reduction)
    except (DataError, ConfigError, AlphaWarning):
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: check the path") from error
    except UnidentifiedImageError as error:
        if path.suffix.lower() in {".tif", ".tiff"}:
            return _decode_tiff(path, bit_depth)
        raise DataError(
            f"{path} cannot be read as a picture (damaged, or none of {', '.join(FORMATS)} inside): {REMEDY}"
        ) from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(f"{path} cannot be read ({_reason(error)}): {REMEDY}") from error


def _deep(values: Values, path: Path, bit_depth: int, mode: str = "RGB;16") -> Decoded:
    """Of values (H, W, 1 to 4) with more than 8 bits."""
    colours = values[:, :, :1] if values.shape[2] < 3 else values[:, :, :3]
    return Decoded(deep_images.colours_of(values, path, bit_depth), mode, largest=int(colours.max()))


def _reduce(opened: Image.Image) -> int:
    """Let a JPEG above `max_pixels` be decoded at the largest of 1/2, 1/4, 1/8 that is below it; the factor, else 1."""
    width, height = opened.size
    factors = (1, 2, 4, 8)
    wanted = next((f for f in factors if width * height <= f * f * max_pixels()), factors[-1])
    if wanted > 1:
        opened.draft(opened.mode, (width // wanted, height // wanted))  # other formats ignore it
    return round(width / opened.width)


def _check_size(path: Path, width: int, height: int) -> None:
    """Raise `DataError` for images below `MIN_SIDE` or above `max_pixels`."""
    if min(width, height) < MIN_SIDE:
        raise DataError(
            f"{path} is {width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} are needed: remove it"
        )
    _check_count(path, width * height)


def _check_count(path: Path, count: int) -> None:
    if count > max_pixels():
        raise DataError(
            f"{path} has {count} pixels, more than the limit of {max_pixels()}: cut it into tiles, "
            "or raise ANDON_MAX_PIXELS where the memory suffices"
        )


def _reason(error: Exception) -> str:
    """Message of a decoder in one line, or its class name where there is no message."""
    return " ".join(str(error).split()) or type(error).__name__


def _to_float(image: Image.Image, path: Path) -> npt.NDArray[np.float32]:
    if image.mode == "F":
        return np.repeat(_scale_float(np.asarray(image), path)[:, :, None], 3, axis=2)
    if image.mode in {"LA", "RGBA", "PA", "La", "RGBa"} or (
        image.mode == "P" and "transparency" in image.info
    ):
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            deep_images.warn_of_alpha(path)
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return unit_values(image)


def from_pillow(image: Image.Image, bit_depth: int = 16) -> npt.NDArray[np.float32]:
    """(H, W, 3) float32 in [0, 1] of an opened image, as `decode` reads it from a file. Raises `DataError`."""
    where = Path("this picture")
    try:
        check_pages(image, where)
        _check_size(where, *image.size)
        inverted = deep_images.white_is_zero(image, where)
        load(image)
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            values = deep_images.grey_values(upright, inverted)
            return deep_images.colours_of(values[:, :, None], where, bit_depth)
        return _to_float(upright, where)
    except (DataError, ConfigError, AlphaWarning):
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(f"this picture cannot be read ({_reason(error)}): open it again") from error


def _scale_float(values: npt.NDArray[np.float32], path: Path) -> npt.NDArray[np.float32]:
    """Check that float values are in [0, 1] and return them."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise DataError(f"{path} holds float values outside [0, 1]: scale them or save as 16-bit")
    return values


def _decode_tiff(path: Path, bit_depth: int) -> Decoded:
    """Read a TIFF that Pillow does not support or reads with half its bits, such as 16-bit RGB."""
    try:
        values, tags = np.atleast_3d(_tiff_values(path)), _tiff_tags(path)
    except (DataError, ConfigError):
        raise
    except Exception as error:  # tifffile raises many kinds for damaged files
        raise DataError(f"{path} cannot be read ({_reason(error)}): {REMEDY}") from error
    if values.ndim == 3 and values.shape[2] not in (1, 3, 4) and values.shape[0] in (3, 4):
        values = np.moveaxis(values, 0, 2)  # one plane after the other
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or values.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path} is a TIFF of shape {values.shape} and type {values.dtype}: save it as 8- or 16-bit RGB"
        )
    _check_size(path, values.shape[1], values.shape[0])
    values = deep_images.black_is_zero(values, path, tags.get(PHOTOMETRIC), tags.get(BITS_PER_SAMPLE))
    found = deep_images.upright(values, tags.get(ORIENTATION, 1))
    if found.dtype == np.uint8:
        colours = found[:, :, :3].astype(np.float32) / np.float32(255)
        return Decoded(np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours, "RGB")
    return _deep(found, path, bit_depth)


def _tiff_values(path: Path) -> npt.NDArray[Any]:
    """Values of the first series of a TIFF; its size is checked before anything is decoded."""
    import tifffile

    with tifffile.TiffFile(path) as opened:
        series = opened.series[0]
        if len(opened.series) > 1:
            raise several_pages(path, len(opened.series))
        channels = min(series.shape[0], series.shape[-1])  # planes may come first
        _check_count(path, series.size // (channels if series.ndim == 3 else 1))
        return np.asarray(series.asarray())


def _tiff_tags(path: Path) -> dict[int, int]:
    """Those tags of a TIFF's first page that say how its values are shown; of several values the first."""
    import tifffile

    with tifffile.TiffFile(path) as opened:
        found = {
            tag: opened.pages.first.tags.valueof(tag) for tag in (ORIENTATION, PHOTOMETRIC, BITS_PER_SAMPLE)
        }
    return {tag: int(np.ravel(value)[0]) for tag, value in found.items() if value is not None}


def save_exactly(stem: Path, pixels: npt.NDArray[np.float32]) -> Path:
    """Write (H, W, 3) in [0, 1] as `stem`.png where 8 bits are lossless, else as 16-bit `stem`.tif. Returns the path."""
    eight = np.round(pixels * np.float32(255)).astype(np.uint8)
    if np.array_equal(eight.astype(np.float32) / np.float32(255), pixels):
        path = stem.with_name(f"{stem.name}.png")
        Image.fromarray(eight).save(path, compress_level=1)
        return path
    import tifffile

    path = stem.with_name(f"{stem.name}.tif")
    tifffile.imwrite(path, np.round(pixels * np.float32(65535)).astype(np.uint16), photometric="rgb")
    return path


def read_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image after EXIF orientation; only the header is read where Pillow can."""
    try:
        with open_image(path) as opened:
            return upright_size(opened)
    except Exception:  # `decode` names the file, or reads it with tifffile
        pixels = decode(path).pixels
        return pixels.shape[0], pixels.shape[1]


def read_mask(path: Path) -> npt.NDArray[np.integer]:
    """(H, W) values of a mask file as stored: palette indices are kept, EXIF orientation is not applied.

    Of several channels the maximum is taken, without alpha. Raises `DataError` when the file cannot be read or holds NaN.
    """
    try:
        with open_image(path, checked=True) as opened:
            check_pages(opened, path)
            _check_count(path, opened.width * opened.height)
            inverted = deep_images.white_is_zero(opened, path)
            values = deep_images.grey_values(opened, inverted)
    except (DataError, ConfigError):
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(f"mask {path} cannot be read ({_reason(error)}): replace or remove it") from error
    if not np.isfinite(values).all():
        raise DataError(f"mask {path} holds values that are no finite numbers: save it as 8-bit PNG")
    if values.ndim == 3:
        colours = 1 if values.shape[2] == 2 else 3  # without alpha
        values = values[:, :, :colours].max(axis=2)
    return values.astype(np.int64) if values.dtype == np.bool_ else values


def read_points(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Organised point cloud of an image of `shape` = (H, W): (H, W, 3) float32 with x, y, z in metres, 0 where missing.

    Raises `DataError`, which names the file, when it cannot be read or does not have one point per pixel.
    """
    try:
        values = _tiff_values(path)
        if not values.size:
            raise ValueError("it holds no values")
    except (DataError, ConfigError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"point cloud {path} does not exist: check the path") from error
    except Exception as error:  # tifffile raises many kinds for damaged files
        raise DataError(
            f"point cloud {path} cannot be read ({_reason(error)}): replace it by a float32 TIFF"
        ) from error
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.float32:
        raise DataError(
            f"point cloud {path} is {' x '.join(map(str, values.shape))} {values.dtype}, not organised as "
            "H x W x 3 float32: export one point (x, y, z in metres) per pixel"
        )
    if values.shape[:2] != tuple(shape):
        raise DataError(
            f"point cloud {path} is {values.shape[1]} x {values.shape[0]} points but its picture is "
            f"{shape[1]} x {shape[0]}: export one point per pixel"
        )
    points = np.asarray(values, np.float32)
    check_measured(points, path, shape[0] * shape[1])
    return points


def check_measured(points: npt.NDArray[np.float32], who: object, number: int) -> None:
    """Raise `DataError`, which names `who`, where hardly one of the points (H, W, 3), `number` with a meaning, is measured."""
    measured = int(np.count_nonzero(measured_points(points)))
    if measured < LEAST_MEASURED * number:
        raise DataError(
            f"point cloud {who} has {measured} points with 0 < z < {FARTHEST:g} of {number}, too few to judge by: "
            "check the sensor, and that x, y, z are in metres, z away from the camera"
        )


def measured_points(points: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(H, W), True where a point (H, W, 3) is measured: all coordinates below `FARTHEST` in size, and z > 0; NaN is missing."""
    return np.asarray((np.abs(points) < FARTHEST).all(axis=2) & (points[:, :, -1] > 0))


def point_cloud_beside(image: Path) -> Path | None:
    """`xyz/NAME.tiff` of an image `rgb/NAME.png` (MVTec 3D-AD), None where there is no such file."""
    if image.parent.name.lower() != "rgb":
        return None
    path = image.parent.parent / "xyz" / f"{image.stem}.tiff"
    return path if path.is_file() else None
