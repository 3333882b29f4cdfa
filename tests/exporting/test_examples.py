"""The examples without andon read pictures as andon does, or refuse them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, texture, write_picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from andon.core.image_files import decode
from andon.core.images import as_uint8

DUMP = """#include "picture.hpp"
#include <cstdio>
int main(int, char** words) {
    try {
        const Picture picture = read_picture(words[1]);
        std::printf("%zu %zu\\n", picture.height, picture.width);
        std::fwrite(picture.pixels.data(), 1, picture.pixels.size(), stdout);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\\n", error.what());
        return 2;
    }
}
"""


def pictures(folder: Path) -> dict[str, Path]:
    colour, ramp = texture(1), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    gamma = PngInfo()
    gamma.add(b"gAMA", (100000).to_bytes(4, "big"))
    indexed = Image.fromarray(colour).quantize(8)
    rotated = Image.Exif()
    rotated[274] = 6
    deep = (ramp.astype(np.uint16) << 6) + 3
    return {
        "colour": write_picture(folder / "colour.png", colour),
        "grey": write_picture(folder / "grey.png", ramp),
        "gamma": write_picture(folder / "gamma.png", colour, pnginfo=gamma),
        "transparent": write_picture(folder / "transparent.png", np.dstack([colour, ramp])),
        "grey and alpha": write_picture(folder / "la.png", np.dstack([ramp, ramp.T])),
        "colour key": write_picture(folder / "key.png", colour, transparency=tuple(map(int, colour[0, 0]))),
        "palette": saved(indexed, folder / "palette.png"),
        "transparent palette": saved(indexed, folder / "holes.png", transparency=3),
        "EXIF": write_picture(folder / "turned.jpg", colour[:40], exif=rotated, quality=95),
        "16 bits": write_picture(folder / "deep.png", deep),
        "float": saved(Image.fromarray(ramp.astype(np.float32) / 255), folder / "float.tif"),
    }


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


NAMES = [
    "colour",
    "grey",
    "gamma",
    "transparent",
    "grey and alpha",
    "colour key",
    "palette",
    "transparent palette",
    "EXIF",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return pictures(tmp_path_factory.mktemp("pictures"))


def as_andon(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return as_uint8(decode(path).pixels)


@pytest.fixture(scope="module")
def onnx_only():
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("onnx_only", ROOT / "examples/onnx_only.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_python_reads_as_andon(onnx_only, files, name):
    np.testing.assert_array_equal(onnx_only.read(files[name]), as_andon(files[name]))


@pytest.mark.parametrize("name", ["16 bits", "float"])
def test_python_refuses_more_than_8_bits(onnx_only, files, name):
    with pytest.raises(ValueError, match="more than 8 bits"):
        onnx_only.read(files[name])


def test_python_refuses_what_andon_refuses(onnx_only, files, tmp_path, capsys):
    content = bytearray(files["colour"].read_bytes())
    content[content.rindex(b"IEND") - 5] ^= 1  # the checksum of the pixels
    (tmp_path / "checksum.png").write_bytes(content)
    refused = [tmp_path / "checksum.png", small(tmp_path), animated(tmp_path), tmp_path / "none.png"]
    refused.append(saved(Image.fromarray(texture(1)), tmp_path / "colour.gif"))
    for path in refused:
        with pytest.raises(onnx_only.UNREADABLE):
            onnx_only.read(path)
    assert onnx_only.main("model.onnx") == onnx_only.main() == 2
    assert capsys.readouterr().err.count("usage:") == 2


def small(folder: Path) -> Path:
    return write_picture(folder / "small.png", texture(1)[:8, :7])


def animated(folder: Path) -> Path:
    frames = [Image.fromarray(texture(k)) for k in range(2)]
    return saved(frames[0], folder / "frames.png", save_all=True, append_images=frames[1:])


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    """A program that writes the pixels of a picture as the C++ examples read it."""
    if shutil.which("g++") is None or not Path("/usr/include/png.h").is_file():
        pytest.skip("needs g++ and libpng-dev")
    folder = tmp_path_factory.mktemp("dump")
    (folder / "dump.cpp").write_text(DUMP)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "examples/cpp", "-o", folder / "dump"]
    subprocess.run(["g++", folder / "dump.cpp", *flags, "-lpng"], check=True)
    return folder / "dump"


@pytest.mark.parametrize("name", NAMES[:-1])
def test_cpp_reads_as_andon(dump, files, name):
    found = subprocess.run([dump, files[name]], capture_output=True, check=True).stdout
    size, _, pixels = found.partition(b"\n")
    height, width = map(int, size.split())
    read = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    np.testing.assert_array_equal(read, as_andon(files[name]))


def test_cpp_refuses(dump, files, tmp_path):
    (tmp_path / "cut.png").write_bytes(files["colour"].read_bytes()[:500])
    refused = {
        files["16 bits"]: "16 bits a value: save it with 8",
        files["EXIF"]: "no PNG",
        tmp_path / "cut.png": "cannot be read",
        tmp_path / "none.png": "cannot be read",
        small(tmp_path): "smaller than 8 x 8",
        animated(tmp_path): "several pictures",
    }
    for path, words in refused.items():
        found = subprocess.run([dump, path], capture_output=True, text=True)
        assert found.returncode == 2
        assert words in found.stderr
