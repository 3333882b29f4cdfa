"""Image files: every mode gives the right values or is refused by name; masks; natural order."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import texture, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from andon.core import image_files
from andon.core.deep_images import AlphaWarning
from andon.core.errors import ConfigError, DataError
from andon.core.image_files import (
    decode,
    from_pillow,
    read_mask,
    read_points,
    read_size,
)
from andon.core.opening import read_day

RAMP = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
"""(12, 16) grey values, all different."""
COLOURS = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        decode(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for word in words:
        assert word in message


# Modes -----------------------------------------------------------------------------------------------------------


def test_eight_bit_values_are_exact(tmp_path):
    path = write_picture(tmp_path / "a.png", COLOURS)
    pixels = decode(path).pixels
    assert pixels.dtype == np.float32
    assert pixels.shape == (12, 16, 3)
    np.testing.assert_array_equal(pixels, COLOURS.astype(np.float32) / np.float32(255))


def test_values_stay_bytes_where_that_loses_nothing(tmp_path):
    grey = decode(write_picture(tmp_path / "grey.png", RAMP), eight_bits=True).pixels
    np.testing.assert_array_equal(grey, np.repeat(RAMP[:, :, None], 3, axis=2))
    deep = decode(write_picture(tmp_path / "deep.png", RAMP.astype(np.uint16) * 257), eight_bits=True).pixels
    assert deep.dtype == np.float32


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jpg"])
def test_grey_becomes_three_equal_channels(tmp_path, suffix):
    path = write_picture(
        tmp_path / f"a.{suffix}", RAMP, **({"lossless": True} if suffix == "webp" else {"quality": 100})
    )
    pixels = decode(path).pixels
    tolerance = 0.01 if suffix == "jpg" else 1e-7
    np.testing.assert_allclose(
        pixels, np.repeat(RAMP[:, :, None] / 255, 3, axis=2), atol=tolerance, rtol=1e-6
    )


def test_bilevel(tmp_path):
    values = RAMP % 3 == 0
    path = write_picture(tmp_path / "a.png", values)
    decoded = decode(path)
    assert decoded.mode == "1"
    np.testing.assert_array_equal(decoded.pixels[:, :, 1], values.astype(np.float32))


def test_palette_colours_are_looked_up(tmp_path):
    palette = Image.new("P", (16, 12))
    palette.putdata((RAMP % 3).flatten().tolist())
    palette.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    palette.save(tmp_path / "a.png")
    expected = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.float32)[RAMP % 3] / np.float32(255)
    np.testing.assert_array_equal(decode(tmp_path / "a.png").pixels, expected)
    palette.save(tmp_path / "b.png", transparency=1)  # the green entry is transparent
    with pytest.warns(AlphaWarning, match="b.png"):
        pixels = decode(tmp_path / "b.png").pixels
    np.testing.assert_array_equal(pixels, np.where((RAMP % 3 == 1)[:, :, None], 0, expected))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_shown_on_black(tmp_path, mode):
    alpha = RAMP[:, ::-1]
    colours = COLOURS if mode == "RGBA" else RAMP[:, :, None]
    path = write_picture(tmp_path / "a.png", np.concatenate([colours, alpha[:, :, None]], axis=2))
    with pytest.warns(AlphaWarning, match=r"a\.png"):
        decoded = decode(path)
    assert decoded.mode == mode
    pixels = decoded.pixels
    expected = np.broadcast_to(colours / 255 * alpha[:, :, None] / 255, (12, 16, 3))
    np.testing.assert_allclose(pixels, expected, atol=1.01 / 255)


def test_opaque_alpha_changes_nothing_and_warns_of_nothing(tmp_path):
    path = write_picture(
        tmp_path / "a.png", np.concatenate([COLOURS, np.full((12, 16, 1), 255, np.uint8)], axis=2)
    )
    np.testing.assert_array_equal(decode(path).pixels, COLOURS.astype(np.float32) / np.float32(255))


def test_cmyk(tmp_path):
    inks = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1], RAMP // 2], axis=2)
    Image.frombytes("CMYK", (16, 12), inks.tobytes()).save(tmp_path / "a.tif")
    cmy, key = inks[:, :, :3].astype(float) / 255, inks[:, :, 3:].astype(float) / 255
    np.testing.assert_allclose(decode(tmp_path / "a.tif").pixels, (1 - cmy) * (1 - key), atol=2 / 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    deep = np.linspace(0, 65535, 12 * 16).round().astype(np.uint16).reshape(12, 16)
    path = write_picture(tmp_path / f"a.{suffix}", deep)
    decoded = decode(path)
    assert decoded.mode.startswith("I;16")
    np.testing.assert_allclose(decoded.pixels[:, :, 2], deep / 65535, atol=1e-7)
    assert len(np.unique(decoded.pixels)) == 12 * 16


def test_big_endian_sixteen_bit(tmp_path):
    deep = np.linspace(0, 65535, 12 * 16).round().astype(">u2").reshape(12, 16)
    tifffile.imwrite(tmp_path / "a.tif", deep, byteorder=">")
    np.testing.assert_allclose(decode(tmp_path / "a.tif").pixels[:, :, 0], deep / 65535, atol=1e-7)


def test_float_tiff_is_read_in_the_unit_interval_only(tmp_path):
    values = (RAMP / 255).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif").pixels[:, :, 0], values)
    tifffile.imwrite(tmp_path / "b.tif", values * 2)
    refused(tmp_path / "b.tif", "outside [0, 1]")
    values[2, 2] = np.nan
    tifffile.imwrite(tmp_path / "c.tif", values)
    refused(tmp_path / "c.tif", "outside [0, 1]")


def test_tiff_that_is_no_image_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 12, 16), np.float64))
    refused(tmp_path / "a.tif")


# Geometry ---------------------------------------------------------------------------------------------------------

TURNED = {
    1: COLOURS,
    2: COLOURS[:, ::-1],
    3: COLOURS[::-1, ::-1],
    4: COLOURS[::-1],
    5: COLOURS.transpose(1, 0, 2),
    6: np.rot90(COLOURS, -1),
    7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(COLOURS, 1),
}


@pytest.mark.parametrize("orientation", sorted(TURNED))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = write_picture(tmp_path / "a.png", COLOURS, exif=exif)
    pixels = decode(path).pixels
    np.testing.assert_array_equal(np.round(pixels * 255), TURNED[orientation])
    stored = decode(path, eight_bits=True).pixels
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, TURNED[orientation])
    assert read_size(path) == pixels.shape[:2]
    np.testing.assert_array_equal(read_mask(path), COLOURS.max(axis=2))  # masks are never turned


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (40, 7)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_that_are_too_small_are_refused_with_their_size(tmp_path, size, suffix):
    path = write_picture(tmp_path / f"a.{suffix}", np.zeros((*size, 3), np.uint8))
    refused(path, f"{size[1]} x {size[0]} pixels, at least 8 x 8")


def test_too_small_deep_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 12, 3), np.uint16), photometric="rgb")
    refused(tmp_path / "a.tif", "12 x 4 pixels")


def test_smallest_image_is_read(tmp_path):
    assert decode(write_picture(tmp_path / "a.png", COLOURS[:8, :8])).pixels.shape == (8, 8, 3)


def test_images_above_the_limit_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = write_picture(tmp_path / "a.png", COLOURS)
    deep, cloud = tmp_path / "deep.tif", tmp_path / "cloud.tiff"
    tifffile.imwrite(deep, np.zeros((12, 16, 3), np.uint16), photometric="rgb")
    tifffile.imwrite(cloud, np.ones((12, 16, 3), np.float32), photometric="rgb")
    monkeypatch.setenv("ANDON_MAX_PIXELS", "192")
    assert decode(path).pixels.shape == decode(deep).pixels.shape == (12, 16, 3)
    assert read_points(cloud, (12, 16)).shape == (12, 16, 3)
    monkeypatch.setenv("ANDON_MAX_PIXELS", "191")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda self: pytest.fail("decoded"))
    for file in (path, deep):
        refused(file, "has 192 pixels, more than the limit of 191", "tiles", "ANDON_MAX_PIXELS")
    with pytest.raises(DataError, match="has 192 pixels"):
        read_mask(path)
    with pytest.raises(DataError, match="has 192 pixels"):
        read_points(cloud, (12, 16))


@pytest.mark.parametrize(
    ("memory", "limit"),
    [(None, 500_000_000), (2**30, 24_000_000), (2**34, 2**26), (2**40, 500_000_000)],
)
def test_the_limit_follows_the_memory_of_the_machine(monkeypatch, memory, limit):
    monkeypatch.delenv("ANDON_MAX_PIXELS", raising=False)
    monkeypatch.setattr(image_files, "machine_memory", lambda: memory)
    image_files._default_limit.cache_clear()
    assert image_files.max_pixels() == limit
    image_files._default_limit.cache_clear()


@pytest.mark.parametrize("text", ["0", "-5", "many", "1e9", "²"])
def test_a_limit_that_is_no_number_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setenv("ANDON_MAX_PIXELS", text)
    with pytest.raises(ConfigError, match="ANDON_MAX_PIXELS is"):
        decode(write_picture(tmp_path / "a.png", COLOURS))


@pytest.mark.parametrize(("limit", "factor"), [(64 * 64, 1), (64 * 64 - 1, 2), (1000, 4), (100, 8)])
def test_a_jpeg_above_the_limit_may_be_reduced(tmp_path, monkeypatch, limit, factor):
    path = write_picture(tmp_path / "a.jpg", texture(0))
    whole = decode(path).pixels
    monkeypatch.setenv("ANDON_MAX_PIXELS", str(limit))
    found = decode(path, reduce=True)
    assert (found.reduction, found.pixels.shape) == (factor, (64 // factor, 64 // factor, 3))
    means = whole.reshape(64 // factor, factor, 64 // factor, factor, 3).mean(axis=(1, 3))
    assert np.abs(found.pixels - means).mean() < 0.02
    if factor > 1:
        refused(path, "has 4096 pixels")
        with pytest.raises(DataError, match="has 4096 pixels"):
            decode(write_picture(tmp_path / "a.png", texture(0)), reduce=True)


# Formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["part.png", "part.tif", "part.jpg"])
def test_postscript_starts_no_interpreter(tmp_path, monkeypatch, name):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("Ghostscript was started"))
    path = tmp_path / name
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n")
    refused(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_mask(path)
    with pytest.raises(DataError):
        read_size(path)
    assert read_day(path) is None


@pytest.mark.parametrize("format", ["GIF", "ICO", "PPM", "TGA", "PDF", "JPEG2000"])
def test_other_formats_are_not_tried_whatever_the_suffix(tmp_path, format):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path, format=format)
    refused(path, "none of PNG, JPEG, BMP, TIFF, WEBP inside")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_the_content_says_which_format_it_is(tmp_path, format):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path, format=format)
    assert decode(path).pixels.shape == (12, 16, 3)


# Damage -----------------------------------------------------------------------------------------------------------


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    refused(tmp_path / "empty.png", "empty (0 bytes)")
    (tmp_path / "text.png").write_text("no picture at all, but long enough to be looked at")
    refused(tmp_path / "text.png", "cannot be read as a picture")
    refused(tmp_path / "absent.png", "does not exist")
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png")
    (tmp_path / "text.tif").write_text("II*\0 no picture at all, but long enough to be looked at")
    refused(tmp_path / "text.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_files_are_named(tmp_path, suffix):
    path = write_picture(tmp_path / f"a.{suffix}", texture(0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path)


def encoded(suffix: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(texture(0, 24)).save(stream, format={"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    return stream.getvalue()


ENCODED = {suffix: encoded(suffix) for suffix in ("png", "jpg", "bmp", "tif", "webp")}


@given(suffix=st.sampled_from(sorted(ENCODED)), data=st.data())
@settings(deadline=None, max_examples=150)
@pytest.mark.filterwarnings("ignore")
def test_any_damage_gives_pixels_or_a_clear_error(tmp_path_factory, suffix, data):
    content = bytearray(ENCODED[suffix])
    content = content[: data.draw(st.integers(0, len(content)), label="kept")]
    for _ in range(data.draw(st.integers(0, 4), label="flips")):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    path.write_bytes(content)
    for read in (lambda: decode(path).pixels, lambda: read_mask(path), lambda: read_size(path)):
        try:
            read()
        except DataError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)


MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")


@cache
def writable() -> list[tuple[str, str]]:
    """(mode, suffix) of all files that Pillow can write."""
    found = []
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        kind = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
        for mode in MODES:
            with contextlib.suppress(OSError, KeyError, ValueError):  # the format does not have the mode
                Image.new(mode, (8, 8)).save(io.BytesIO(), format=kind)
                found.append((mode, suffix))
    return found


@given(
    kind=st.deferred(lambda: st.sampled_from(writable())),
    width=st.integers(1, 30),
    height=st.integers(1, 30),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=150)
@pytest.mark.filterwarnings("ignore")
def test_any_mode_and_size_gives_values_in_the_unit_interval_or_is_refused(
    tmp_path_factory, kind, width, height, seed
):
    mode, suffix = kind
    image = Image.new(mode, (width, height))
    count = len(image.tobytes())
    if mode not in {"I", "F"}:
        image.frombytes(np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8).tobytes())
    path = tmp_path_factory.getbasetemp() / f"mode.{suffix}"
    image.save(path)
    try:
        pixels = decode(path).pixels
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert min(width, height) >= 8
        assert pixels.shape == (height, width, 3)
        assert pixels.dtype == np.float32
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert read_size(path) == (height, width)


# Masks ------------------------------------------------------------------------------------------------------------


def test_masks_keep_their_values(tmp_path):
    palette = Image.new("P", (16, 12))
    palette.putdata((RAMP % 5).flatten().tolist())
    palette.putpalette([0, 0, 0] * 5)  # all black to the eye
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), RAMP % 5)
    bits = read_mask(write_picture(tmp_path / "bits.png", RAMP > 100))
    assert set(np.unique(bits)) == {0, 1}
    deep = RAMP.astype(np.uint16) * 300 // 255
    np.testing.assert_array_equal(read_mask(write_picture(tmp_path / "deep.png", deep)), deep)
    with_alpha = np.zeros((12, 16, 4), np.uint8)
    with_alpha[:, :, 3] = 255  # opaque black marks nothing
    with_alpha[3, 4, 1] = 7
    assert np.flatnonzero(read_mask(write_picture(tmp_path / "alpha.png", with_alpha))).tolist() == [
        3 * 16 + 4
    ]


# Pages ------------------------------------------------------------------------------------------------------------


def test_stacks_and_animations_are_refused_by_name(tmp_path):
    first, other = Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1].copy())
    for name in ("stack.tif", "animated.webp", "animated.png"):
        first.save(tmp_path / name, save_all=True, append_images=[other])
        refused(tmp_path / name, "2 pages")
        with pytest.raises(DataError, match="2 pages"):
            read_mask(tmp_path / name)
    first.save(tmp_path / "stereo.jpg", format="MPO", save_all=True, append_images=[other])
    refused(tmp_path / "stereo.jpg", "2 pages")
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((3, 12, 16, 3), np.uint16), photometric="rgb")
    refused(tmp_path / "deep.tif", "3 pages")
    with Image.open(tmp_path / "stack.tif") as opened, pytest.raises(DataError, match="2 pages"):
        from_pillow(opened)


def test_smaller_copies_are_no_pages(tmp_path):
    first = Image.fromarray(COLOURS)
    first.save(tmp_path / "camera.jpg", format="MPO", save_all=True, append_images=[first.resize((8, 6))])
    for name, kind in (("scan.tif", np.uint8), ("deep.tif", np.uint16)):
        with tifffile.TiffWriter(tmp_path / name) as writer:
            writer.write(COLOURS.astype(kind), photometric="rgb")
            writer.write(COLOURS[::2, ::2].astype(kind), photometric="rgb", subfiletype=1)
    for name in ("camera.jpg", "scan.tif", "deep.tif"):
        assert decode(tmp_path / name).pixels.shape == (12, 16, 3)
    np.testing.assert_array_equal(decode(tmp_path / "scan.tif").pixels * 255, COLOURS)
