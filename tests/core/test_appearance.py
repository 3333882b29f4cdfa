"""What training images look like, and what is unlike them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from conftest import texture, write_picture

from andon.core.appearance import TrainingImages, look_at, measure
from andon.core.records import Record
from andon.core.region import InspectionRegion

Pixels = npt.NDArray[np.float32]


def colours(seed: int, side: int = 128) -> Pixels:
    return texture(seed, side).astype(np.float32) / 255


@pytest.fixture(scope="module")
def seen() -> TrainingImages:
    return TrainingImages.of([measure(colours(seed), 8) for seed in range(8)])


def codes(seen: TrainingImages, pixels: Pixels, bits: int = 8) -> list[str]:
    return [note.code for note in seen.differences(measure(pixels, bits))]


def test_images_of_the_same_kind_have_no_notes(seen):
    assert not any(codes(seen, colours(seed)) for seed in range(20, 40))
    scratched = colours(41)
    scratched[40:60, 30:60] = 1
    assert not codes(seen, scratched)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda x: x / 2, "dark"),
        (lambda x: np.clip(2 * x, 0, 1), "bright"),
        (lambda x: np.repeat(x.mean(2, keepdims=True), 3, 2), "grey"),
        (lambda x: x * np.array([1, 0.7, 0.3], np.float32) * 1.3, "colourful"),
        (lambda x: x[:, :, ::-1], "colour_balance"),
        (lambda x: x.mean((0, 1)) + 0.4 * (x - x.mean((0, 1))), "low_contrast"),
        (lambda x: x.mean((0, 1)) + 2 * (x - x.mean((0, 1))), "high_contrast"),
        (lambda x: x[:44, :44].repeat(3, 0).repeat(3, 1)[:128, :128], "blurred"),
        (lambda x: x + np.random.default_rng(0).normal(0, 0.08, x.shape).astype(np.float32), "sharp"),
        (lambda x: x[::2, ::2], "size"),
        (lambda x: x.repeat(2, 0).repeat(2, 1), "size"),
        (lambda x: x[: len(x) * 3 // 4], "proportion"),
    ],
)
def test_each_difference_has_its_code(seen, change, code):
    assert code in codes(seen, change(colours(30)))


def test_bits_are_compared_where_they_are_known(seen):
    assert codes(seen, colours(30), 16) == ["bit_depth"]
    assert codes(seen, colours(30), 0) == []
    (note,) = seen.differences(measure(colours(30), 16))
    assert note.text == "16 bits per value, learned from 8"


def test_uint8_and_float_measure_alike_and_the_size_is_that_of_the_file():
    eight = texture(3)
    found, same = measure(eight, 8), measure(eight.astype(np.float32) / 255, 8)
    assert found.brightness == pytest.approx(same.brightness)
    reduced = measure(eight, 8, reduction=4)
    assert (reduced.width, reduced.height) == (256, 256)


def test_tiles_have_any_size(seen):
    wide = np.tile(colours(30), (1, 3, 1))
    assert codes(seen, wide) == ["proportion", "size"]
    assert not seen.differences(measure(wide, 8), tiled=True)


def test_only_the_inspected_region_is_measured(tmp_path):
    region = InspectionRegion(np.tile(np.arange(64) < 40, (64, 1)))
    paths = [write_picture(tmp_path / f"{k}.png", texture(k)) for k in range(3)]
    records = [Record(path, path.stem, region=region) for path in paths]
    before = look_at(records)
    for path in paths:
        changed = np.where(region.mask[:, :, None], texture(int(path.stem)), 255 - texture(int(path.stem)))
        write_picture(path, changed.astype(np.uint8))
    assert look_at(records) == before
    assert look_at([replace(record, region=None) for record in records]) != before


def test_unreadable_images_are_left_out(tmp_path):
    write_picture(tmp_path / "0.png", texture(0))
    (tmp_path / "1.png").write_bytes(b"none")
    records = [Record(tmp_path / f"{k}.png", str(k)) for k in range(2)]
    found = look_at(records)
    assert found is not None and found.count == 1
    assert look_at(records[1:]) is None
    assert look_at([]) is None


def test_json_gives_it_back(seen):
    assert TrainingImages.from_json(seen.to_json()) == seen
