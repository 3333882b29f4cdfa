"""Parts taken in several images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.metrics.parts import part_metrics

PICTURE = st.tuples(st.integers(0, 9), st.integers(0, 1), st.sampled_from(["a", "b", "c", "d", None]))


@settings(deadline=None, max_examples=100)
@given(st.lists(PICTURE, min_size=1, max_size=20))
def test_against_counting_pairs(images: list[tuple[int, int, str | None]]) -> None:
    """Parts as plain dictionaries; AUROC as the share of pairs in the right order, ties half."""
    scores, labels, ids = (list(column) for column in zip(*images, strict=True))
    named = [name for name in ids if name is not None]
    found = part_metrics(np.array(scores, np.float32), labels, ids)
    if len(set(named)) == len(named):
        assert found == {}
        return
    parts: dict[object, tuple[int, int]] = {}
    for k, (score, label, name) in enumerate(images):
        old = parts.get(name or k, (-1, 0))
        parts[name or k] = (max(old[0], score), max(old[1], label))
    bad = [score for score, label in parts.values() if label]
    good = [score for score, label in parts.values() if not label]
    metric = found["part_auroc"]
    assert (metric.n_pos, metric.n_neg) == (len(bad), len(good))
    if not bad or not good:
        assert math.isnan(metric.value) and metric.reason in ("no_positives", "no_negatives")
        return
    pairs = [(b > g) + 0.5 * (b == g) for b in bad for g in good]
    assert metric.value == pytest.approx(sum(pairs) / len(pairs))
