"""Images with more than 8 bits per value: every bit is read, and the scale is that of the training images."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from conftest import texture, write_picture
from PIL import Image

from andon.core.appearance import RangeWarning, look_at, measure
from andon.core.deep_images import AlphaWarning, bit_depth_of
from andon.core.errors import DataError
from andon.core.image_files import _tiff_values, decode, from_pillow
from andon.core.records import Record
from andon.core.tiling import Tiling, cut_records

Deep = npt.NDArray[np.uint16]
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Of PNG, by the number of channels."""


def png(values: Deep, orientation: int = 1) -> bytes:
    """A PNG of (H, W, C) values with 16 bits; Pillow writes none in colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    exif = Image.Exif()
    exif[274] = orientation
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"eXIf", exif.tobytes()[6:])
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def deep(channels: int, top: int = 65535) -> Deep:
    return np.random.default_rng(channels).integers(0, top + 1, (12, 16, channels)).astype(np.uint16)


def in_colour(values: Deep) -> npt.NDArray[np.float64]:
    """(H, W, 3) in [0, 1], on black."""
    colours = values[:, :, : 1 if values.shape[2] < 3 else 3] / 65535
    alpha = values[:, :, -1:] / 65535 if values.shape[2] in (2, 4) else 1.0
    return np.broadcast_to(colours * alpha, (*values.shape[:2], 3))


@pytest.mark.filterwarnings("ignore::andon.core.deep_images.AlphaWarning")
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_bit_of_a_png_is_read(tmp_path, channels):
    values = deep(channels)
    (tmp_path / "a.png").write_bytes(png(values))
    found = decode(tmp_path / "a.png")
    np.testing.assert_allclose(found.pixels, in_colour(values), atol=2e-7)
    assert (found.bits, found.largest) == (16, values[:, :, : 1 if channels < 3 else 3].max())


@pytest.mark.filterwarnings("ignore::andon.core.deep_images.AlphaWarning")
@pytest.mark.parametrize(
    ("channels", "how"),
    [
        (3, {}),
        (3, {"compression": "zlib"}),
        (3, {"compression": "zlib", "predictor": True}),
        (3, {"byteorder": ">"}),
        (3, {"planarconfig": "separate"}),
        (4, {"extrasamples": ["unassalpha"]}),
    ],
)
def test_every_bit_of_a_tiff_is_read(tmp_path, channels, how):
    values = deep(channels)
    stored = np.moveaxis(values, 2, 0) if "planarconfig" in how else values
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **how)
    found = decode(tmp_path / "a.tif")
    np.testing.assert_allclose(found.pixels, in_colour(values), atol=2e-7)
    assert found.bits == 16


def test_pixels_of_planes_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    tifffile.imwrite(
        tmp_path / "a.tif", np.moveaxis(deep(3), 2, 0), photometric="rgb", planarconfig="separate"
    )
    monkeypatch.setenv("ANDON_MAX_PIXELS", "100")
    with pytest.raises(DataError, match="has 192 pixels"):
        _tiff_values(tmp_path / "a.tif")


def test_transparency_is_said(tmp_path):
    (tmp_path / "a.png").write_bytes(png(deep(4)))
    with pytest.warns(AlphaWarning, match=r"a\.png has transparent pixels"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned_as_others_are(tmp_path, orientation):
    values = deep(3)
    (tmp_path / "a.png").write_bytes(png(values, orientation))
    tag = (274, "H", 1, orientation, False)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=[tag])
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray((values >> 8).astype(np.uint8)).save(tmp_path / "b.png", exif=exif)
    expected = np.round(decode(tmp_path / "b.png").pixels * 255)
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(np.floor(decode(tmp_path / name).pixels * 65535 / 256 + 1e-3), expected)


def test_a_damaged_deep_png_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(png(deep(3))[:400])
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 10), (1023, 10), (1024, 12), (4095, 12), (16383, 14), (16384, 16)]
)
def test_the_fewest_bits_that_hold_a_value(largest, bits):
    assert bit_depth_of(largest) == bits


def test_values_above_the_bit_depth_are_refused(tmp_path):
    values = deep(1, 4095)[:, :, 0]
    path = write_picture(tmp_path / "a.png", values)
    np.testing.assert_allclose(decode(path, bit_depth=12).pixels[:, :, 0], values / 4095, atol=1e-6)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(from_pillow(opened, 12), decode(path, bit_depth=12).pixels)
    values[3, 3] = 5000
    path = write_picture(tmp_path / "b.png", values)
    with pytest.raises(
        DataError, match=r"b\.png holds values up to 5000, more than the 12 bits .* bit_depth=14"
    ):
        decode(path, bit_depth=12)


def records_of(folder: Path, bits: int, count: int = 4) -> list[Record]:
    """Grey textures whose values use `bits` of 16."""
    found = []
    for k in range(count):
        grey = texture(k)[:, :, 0].astype(np.uint16) << (bits - 8)
        grey[0, 0] = 2**bits - 1
        path = write_picture(folder / f"{k}.png", grey)
        found.append(Record(path, path.stem, split="train", label=0))
    return found


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_bit_depth_is_that_of_the_training_images(tmp_path, bits):
    records = records_of(tmp_path, bits)
    seen = look_at(records)
    assert seen is not None
    assert (seen.bit_depth, seen.largest, seen.brightest) == (bits, 2**bits - 1, pytest.approx(1))
    eight = look_at(
        [Record(write_picture(tmp_path / "8" / f"{k}.png", texture(k)[:, :, 0]), str(k)) for k in range(4)]
    )
    assert eight is not None
    assert (eight.bit_depth, eight.largest) == (16, None)
    assert seen.lowest.brightness == pytest.approx(eight.lowest.brightness, abs=0.01)


def test_dark_deep_images_without_contrast_are_like_themselves(tmp_path):
    records = []
    for k in range(4):
        grey = 30 + np.random.default_rng(k).normal(0, 1.5, (64, 64)) + np.linspace(0, 4, 64)
        grey[0, 0] = 1000
        records.append(Record(write_picture(tmp_path / f"{k}.png", grey.astype(np.uint16)), str(k)))
    seen = look_at(records)
    assert seen is not None
    assert seen.bit_depth == 10
    for record in records:
        assert seen.differences(measure(decode(record.image, bit_depth=10).pixels, 16)) == ()


def test_little_of_the_range_is_said(tmp_path):
    records = records_of(tmp_path, 10)
    with pytest.warns(RangeWarning, match=r"brightest value of 4 pictures is 6\.2% of the range"):
        seen = look_at(records, bit_depth=14)
    assert seen is not None
    assert seen.bit_depth == 14


def test_a_deep_image_among_many_others_is_found(tmp_path):
    others = [Record(write_picture(tmp_path / "o" / f"{k}.png", texture(0)), f"o{k}") for k in range(100)]
    (odd,) = records_of(tmp_path, 12, 1)
    seen = look_at([*others[:30], odd, *others[30:]])
    assert seen is not None
    assert (seen.bit_depth, seen.bits) in {(12, (8,)), (12, (8, 16))}


def test_tiles_keep_the_values(tmp_path):
    (record,) = records_of(tmp_path / "in", 12, 1)
    with_depth = Record(record.image, record.id, bit_depth=12)
    (tmp_path / "tiles").mkdir()
    (tiles,) = cut_records([with_depth], Tiling(64, 32, 0.01), 1, 0, tmp_path / "tiles")
    expected = decode(record.image, bit_depth=12).pixels
    np.testing.assert_allclose(
        decode(tiles[0].image, bit_depth=tiles[0].bit_depth).pixels, expected, atol=1e-5
    )
