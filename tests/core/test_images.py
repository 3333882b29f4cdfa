"""Images as tensors: one definition of resizing, views, batches in order."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import texture, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from andon.core.errors import DataError
from andon.core.images import View, apply_view, batches, load_batch, resize, to_tensor
from andon.core.records import Record

# Resizing ---------------------------------------------------------------------------------------------------------


def pillow_resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) to (h, w, 3) by Pillow's bilinear filter on float32: triangle kernel, antialiased, half-pixel centres."""
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(pixels[:, :, k])).resize(
                size[::-1], Image.Resampling.BILINEAR
            )
        )
        for k in range(3)
    ]
    return np.stack(channels, axis=2)


@given(
    source=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    target=st.tuples(st.integers(2, 70), st.integers(2, 70)),  # torch is wrong at a target width of 1
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=80)
def test_resizing_is_pillows_bilinear_filter(source, target, seed):
    pixels = np.random.default_rng(seed).random((*source, 3), dtype=np.float32)
    ours = to_tensor(pixels, target)
    assert ours.shape == (3, *target)
    np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), pillow_resize(pixels, target), atol=1e-4)


def test_resizing_to_the_same_size_changes_no_bit():
    pixels = torch.rand(2, 3, 9, 13)
    assert torch.equal(resize(pixels, (9, 13)), pixels)


def test_batch_of_images_is_resized_like_each_alone():
    pixels = torch.rand(3, 3, 40, 30)
    together = resize(pixels, (16, 16))
    assert torch.equal(together, torch.cat([resize(p[None], (16, 16)) for p in pixels]))


def test_views(tmp_path):
    pixels = texture(3).astype(np.float32) / 255
    assert torch.equal(apply_view(pixels, (32, 32)), to_tensor(pixels, (32, 32)))
    zoomed = apply_view(pixels, (32, 32), View(zoom=True))
    assert torch.equal(zoomed, to_tensor(pixels, (64, 64))[:, 16:48, 16:48])
    grey = apply_view(pixels, (32, 32), View(colour="grey"))
    expected = (to_tensor(pixels, (32, 32)) * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(0)
    for channel in grey:
        torch.testing.assert_close(channel, expected)
    bright = apply_view(pixels, (32, 32), View(brightness=1.5))
    torch.testing.assert_close(bright, (apply_view(pixels, (32, 32)) * 1.5).clamp(0, 1))
    keys = [View().key, View(zoom=True).key, View(colour="grey").key, View(colour="tint").key]
    assert keys[0] == ""
    assert len(set(keys)) == 4


# Reading many -----------------------------------------------------------------------------------------------------


def make_records(folder: Path, count: int) -> list[Record]:
    return [Record(write_picture(folder / f"{k}.png", texture(k, 20 + k)), str(k)) for k in range(count)]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_batches_come_in_order_whatever_their_size(tmp_path, batch_size):
    records = make_records(tmp_path, 7)
    found = list(batches(records, (16, 16), batch_size))
    assert [r.id for batch in found for r in batch.records] == [str(k) for k in range(7)]
    assert [s for batch in found for s in batch.sizes] == [(20 + k, 20 + k) for k in range(7)]
    assert torch.equal(torch.cat([batch.image for batch in found]), load_batch(records, (16, 16)).image)
    assert max(len(batch.records) for batch in found) <= batch_size


def test_no_records_give_no_batches():
    assert list(batches([], (16, 16), 4)) == []


def test_damaged_image_in_a_later_batch_is_named(tmp_path):
    records = make_records(tmp_path, 7)
    records[5].image.write_bytes(b"")
    with pytest.raises(DataError, match=r"5\.png is empty"):
        list(batches(records, (16, 16), 2))


def test_reading_in_threads_leaves_the_warning_filters_alone(tmp_path):
    before = list(warnings.filters)
    for _ in range(3):
        list(batches(make_records(tmp_path, 7), (16, 16), 1, ahead=4))
    assert list(warnings.filters) == before
