"""Opening image files: nothing is mapped, orientation and size agree in every format, damage of a PNG is found."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import texture, write_picture
from PIL import Image

from andon.core.errors import DataError
from andon.core.image_files import decode, read_mask, read_size
from andon.core.opening import open_image
from andon.line.rest.drawings import _size
from andon.runtime.arrays import as_pixels

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
SOURCES = {
    "L": Image.fromarray(RAMP),
    "RGB": Image.fromarray(np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)),
    "I;16": Image.fromarray(RAMP.astype(np.uint16) * 257),
}


def saved(path: Path, image: Image.Image, orientation: int, **how: object) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif, **how)
    return path


@pytest.mark.parametrize("mode", sorted(SOURCES))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_turned_as_png_is(tmp_path, mode, orientation):
    source = SOURCES[mode]
    expected = decode(saved(tmp_path / "a.png", source, orientation)).pixels
    for compression in (None, "tiff_lzw"):
        path = saved(tmp_path / "a.tif", source, orientation, compression=compression)
        np.testing.assert_array_equal(decode(path).pixels, expected)
        with Image.open(path) as opened:
            np.testing.assert_array_equal(as_pixels(opened), expected)
            assert opened.filename == str(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "deep.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_pixels(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    if suffix == "deep.tif":
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(path, np.zeros((12, 16, 3), np.uint16), photometric="rgb", extratags=[tag])
    else:
        saved(path, SOURCES["RGB"], orientation)
    assert read_size(path) == decode(path).pixels.shape[:2] == ((16, 12) if orientation > 4 else (12, 16))
    assert _size(path.read_bytes()) == read_size(path)[::-1]


@pytest.mark.parametrize("suffix", ["tif", "bmp"])
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_no_file_is_mapped(tmp_path, suffix, mode):
    path = tmp_path / f"a.{suffix}"
    SOURCES["L"].convert(mode).save(path)
    with open_image(path) as opened:
        opened.load()
        assert not opened.map
        assert opened.fp is None or not opened.fp.closed
        stream = opened.fp
    assert stream is None or stream.closed


def png(*, deep: bool = False) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise.astype(np.uint16) * 257 if deep else noise).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("deep", [False, True])
def test_no_flipped_bit_of_a_png_is_read(tmp_path, deep):
    content, path = png(deep=deep), tmp_path / "a.png"
    for place, bit in itertools.product(range(0, len(content), 17), (0, 5)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        for read in (decode, read_mask):
            with pytest.raises(DataError, match=r"a\.png cannot be read"):
                read(path)


def test_what_follows_the_end_of_a_png_is_nothing(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png() + b"more")
    assert decode(path).pixels.shape == (24, 24, 3)
    path.write_bytes(png()[:-12])  # without its last chunk
    with pytest.raises(DataError, match="truncated"):
        decode(path)


def test_pillow_images_are_refused_as_their_files_are(tmp_path):
    pages = [SOURCES["L"], SOURCES["L"].rotate(180)]
    for suffix in ("tif", "png", "webp", "gif"):
        path = tmp_path / f"a.{suffix}"
        pages[0].save(path, save_all=True, append_images=pages[1:])
        with Image.open(path) as opened, pytest.raises(DataError, match="this picture holds 2 pages"):
            as_pixels(opened)
    for suffix in ("png", "jpg", "tif", "bmp"):
        path = write_picture(tmp_path / f"cut.{suffix}", texture(0))
        path.write_bytes(path.read_bytes()[:900])
        with Image.open(path) as opened, pytest.raises(DataError, match="this picture cannot be read"):
            as_pixels(opened)


def test_a_loaded_pillow_image_needs_its_file_no_more(tmp_path):
    path = saved(tmp_path / "a.tif", SOURCES["L"], 6)
    with open_image(path) as opened:
        opened.load()
    np.testing.assert_array_equal(as_pixels(opened), decode(path).pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(tmp_path, dtype):
    path, values = tmp_path / "a.tif", RAMP.astype(dtype)
    tifffile.imwrite(path, values, photometric="miniswhite")
    full = np.iinfo(dtype).max
    expected = (full - values).astype(np.float32) / np.float32(full)
    np.testing.assert_array_equal(decode(path).pixels[:, :, 0], expected)
    np.testing.assert_array_equal(read_mask(path), full - values)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(as_pixels(opened)[:, :, 0], expected)
    tifffile.imwrite(
        path, values, photometric="miniswhite", tile=(16, 16), compression="zlib", predictor=True
    )
    np.testing.assert_array_equal(decode(path).pixels[:, :, 0], expected)


def test_other_colours_of_deep_tiff_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((12, 16, 4), np.uint16), photometric="separated")
    with pytest.raises(DataError, match=r"a\.tif is a TIFF whose colours are neither grey nor RGB"):
        decode(path)
    tifffile.imwrite(path, np.zeros((12, 16), np.float32), photometric="miniswhite")
    with pytest.raises(DataError, match=r"a\.tif is a TIFF of floats in which 0 is white"):
        decode(path)
