"""Images given as objects: what is taken, and the one sentence for the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from andon.core.errors import DataError
from andon.runtime.arrays import as_pixels

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([GREY, GREY[::-1], GREY.T], 2)


def test_what_is_taken_gives_the_same_pixels():
    assert as_pixels(COLOURS) is COLOURS
    expected = COLOURS.astype(np.float32) / np.float32(255)
    for given in (expected, (COLOURS / 255).astype(np.float64), Image.fromarray(COLOURS)):
        found = as_pixels(given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-7)
    for given in (GREY, (GREY / 255).astype(np.float32), Image.fromarray(GREY)):
        found = as_pixels(given)
        assert found.shape == (16, 16, 3)
        assert (found == found[:, :, :1]).all()


def test_points():
    points = np.full((16, 16, 3), np.nan, np.float32)
    both = np.concatenate([np.ones((16, 16, 3), np.float32), points], 2)
    assert as_pixels(both, with_points=True) is both
    for bad in (both[:, :, :3], both * 255, COLOURS, Image.fromarray(COLOURS)):
        with pytest.raises(DataError, match=r"give a path, or a float array \(H, W, 6\)"):
            as_pixels(bad, with_points=True)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (COLOURS.astype(np.float32), "values from 0 to 255"),
        (COLOURS / 127.5 - 1, "values from -1 to 1"),
        (COLOURS.astype(np.uint16), "uint16"),
        (COLOURS.astype(np.int64), "int64"),
        (COLOURS[None], r"\(1, 16, 16, 3\)"),
        (COLOURS.transpose(2, 0, 1), r"\(3, 16, 16\)"),
        (COLOURS[:4, :4], "smaller than 8 x 8"),
        (torch.tensor(COLOURS), "torch.Tensor"),
        (None, "NoneType"),
        (b"x", "bytes"),
        ({}, "dict"),
    ],
)
def test_the_rest_is_refused_with_one_sentence(given, named):
    with pytest.raises(DataError, match=f"{named}.* is no picture that can be judged: give a path") as caught:
        as_pixels(given)
    assert "\n" not in str(caught.value)
