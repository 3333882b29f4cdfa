"""Normalisation maps: the worked examples T10 and T11, guards, and what they must never change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.metrics import auroc
from andon.thresholds.display import (
    AffineDisplay,
    DegenerateRangeWarning,
    ecdf,
    map_quantiles,
    quantile_map,
    threshold_centred,
    threshold_centred_range,
    zscore,
)
from andon.thresholds.rules import conformal


def test_t10_quantile_map():
    q_a, q_b = map_quantiles(np.arange(11) / 10)
    assert (q_a, q_b) == pytest.approx((0.9, 0.995), abs=1e-12)
    assert quantile_map([0.95, 0.5], q_a, q_b) == pytest.approx([0.052631579, -0.421052632], abs=1e-9)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200))
@settings(deadline=None, max_examples=100)
def test_quantiles_are_those_of_numpy(pixels):
    expected = np.quantile(np.array(pixels, dtype=np.float64), [0.9, 0.995])
    assert map_quantiles(np.array(pixels, dtype=np.float32).reshape(1, -1)) == pytest.approx(
        expected, abs=1e-9
    )


def test_flat_map_warns():
    with pytest.warns(DegenerateRangeWarning, match="flat on good pictures"):
        mapped = quantile_map(np.float32([[1, 1]]), 1.0, 1.0)
    assert mapped.tolist() == [[0, 0]]
    assert mapped.dtype == np.float32


def test_quantiles_of_nothing_and_of_nan():
    with pytest.raises(ValueError, match="no validation pixels"):
        map_quantiles([])
    with pytest.raises(ValueError, match="NaN"):
        map_quantiles([1.0, np.nan])


def test_t11_threshold_centred():
    x = np.array([1, 2, 4, 7, 10, 12])
    shown = threshold_centred(x, lo=2, hi=10, threshold=4)
    assert shown.tolist() == [0, 0, 0.5, 0.75, 1, 1]
    linear = np.clip((x - 4) / (10 - 2) + 0.5, 0, 1)  # one slope for both sides, as elsewhere
    assert linear.tolist() == [0.125, 0.25, 0.5, 0.875, 1, 1]


def test_threshold_centred_without_extent():
    x = [-np.inf, 0, 4, 9, np.inf]
    assert threshold_centred(x, lo=4, hi=8, threshold=4).tolist() == [0, 0.5, 0.5, 1, 1]
    assert threshold_centred(x, lo=0, hi=4, threshold=4).tolist() == [0, 0, 0.5, 0.5, 1]
    assert threshold_centred(x, lo=-np.inf, hi=np.inf, threshold=4).tolist() == [0, 0.5, 0.5, 0.5, 1]
    with pytest.raises(ValueError, match="NaN"):
        threshold_centred([np.nan], 0, 1, 0.5)


def test_threshold_centred_range():
    assert threshold_centred_range([2, 3, 10], 4) == (2, 10)
    assert threshold_centred_range([2, 3, 5], 4) == (2, 6)


def test_display_is_0_at_typical_and_1_at_the_threshold():
    good = np.float32([1, 2, 3, 4, 10])
    display = AffineDisplay.fit(good, threshold=8.0)
    assert display([3, 8, 5.5, 13]).tolist() == [0, 1, 0.5, 2]
    assert (display.offset, display.span, display.note) == (3, 5, "")
    assert display.inverse([0, 1, 2]).tolist() == [3, 8, 13]
    assert display(np.float32([[3]])).dtype == np.float32


@given(st.lists(st.floats(-100, 100, width=32), min_size=19, max_size=50), st.floats(-200, 200, width=32))
@settings(deadline=None, max_examples=200)
@pytest.mark.filterwarnings("ignore::andon.thresholds.display.DegenerateRangeWarning")
def test_display_keeps_the_decision(good, score):
    threshold = conformal(np.float32(good), 0.05).value
    display = AffineDisplay.fit(good, threshold)
    raw = np.float32([score, threshold, np.nextafter(np.float32(threshold), np.float32(-np.inf))])
    for dtype in (np.float32, np.float64):
        shown = display(raw.astype(dtype))
        assert shown.dtype == dtype
        assert ((shown >= 1) == (raw >= np.float32(threshold))).all()


def test_display_with_a_threshold_below_typical_says_so():
    with pytest.warns(DegenerateRangeWarning, match="is not above the typical good score 3"):
        display = AffineDisplay.fit([1, 3, 4], threshold=2.0)
    assert display(2.0) == 1
    assert display(1.9) < 1 < display(2.1)
    with pytest.raises(ValueError, match="finite"):
        AffineDisplay(0.0, np.inf)


def test_ecdf_and_zscore():
    assert ecdf([0, 2.5, 9], [1, 2, 3]).tolist() == [0, 0.5, 0.75]
    assert zscore([1, 3], mean=1, std=2).tolist() == [0, 1]
    assert zscore([1], mean=1, std=0).tolist() == [0]


def test_display_does_not_change_the_ranking():
    random = np.random.default_rng(0)
    scores, labels = random.random(200), random.integers(0, 2, 200)
    assert auroc(AffineDisplay(0.2, 0.7)(scores), labels) == auroc(scores, labels)
