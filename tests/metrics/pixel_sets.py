"""Maps written out, and random sets of maps with masks, for the tests of pixel metrics."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)


def grid(text):
    return np.array(text.split(), dtype=np.float32).reshape(4, 6)


@st.composite
def image_sets(draw):
    """Two to five small images with scores on a grid of 0.1, one good and one anomalous at least."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tags = draw(st.lists(st.sampled_from(["", "a", "b", "ab"]), min_size=0, max_size=3))
    images = []
    for letters in ["", draw(st.sampled_from(["a", "b", "ab"])), *tags]:
        shape = tuple(random.integers(3, 9, 2))
        mask = random.random(shape) < random.uniform(0.05, 0.5) if letters else np.zeros(shape, dtype=bool)
        mask[0, 0] |= bool(letters)
        images.append(((random.integers(0, 11, shape) / 10).astype(np.float32), mask, tuple(letters)))
    return images
