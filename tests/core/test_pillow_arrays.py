"""Pixels that are converted in strips are those that are converted at once."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from andon.core import pillow_arrays
from andon.core.pillow_arrays import unit_values


@pytest.mark.parametrize("strip", [1, 5 * 4 * 31, 2**18])
def test_values_are_those_of_the_whole_image(monkeypatch, strip):
    """One row, five rows and all rows at a time, the last strip shorter."""
    monkeypatch.setattr(pillow_arrays, "STRIP", strip)
    stored = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    values = unit_values(Image.fromarray(stored))
    np.testing.assert_array_equal(values, stored.astype(np.float32) / np.float32(255), strict=True)
