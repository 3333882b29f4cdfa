"""The displayed scale: 0 at the typical good score, 1 at the threshold, every decision kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.metrics import auroc
from andon.thresholds.display import (
    AffineDisplay,
    DegenerateRangeWarning,
    smallest_unit,
)
from andon.thresholds.rules import conformal, with_room


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


def test_a_unit_is_not_smaller_than_what_good_images_differ_by():
    cells = np.float32([0.2, 0.5, 2.2])
    assert smallest_unit([7.0], cells) == pytest.approx(0.2)  # a score alone says nothing
    assert smallest_unit([7.0, 7.0, 7.0, 7.0, 7.0, 7.0], cells) == pytest.approx(0.2)
    assert smallest_unit(np.arange(11.0), cells) == pytest.approx(0.05 * 8)
    assert smallest_unit([*np.arange(20.0), 1e6]) == pytest.approx(0.05 * 16)  # one odd image changes nothing
    assert smallest_unit([0.0] * 8, np.zeros(5)) == 1


def test_one_good_score_gives_a_readable_scale_and_room_for_rounding():
    floor = smallest_unit([7.0], [0.0, 5.0])
    threshold = with_room(conformal([7.0], on_small="max"), [7.0], least=floor).value
    assert threshold == pytest.approx(7 + 0.002 * 0.5, rel=1e-6)
    display = AffineDisplay.fit([7.0], threshold, floor)
    assert "one unit is 0.5" in display.note
    assert display(threshold) == 1
    assert display(7.0) == pytest.approx(0.998, abs=1e-5)
    assert display(9.0) == pytest.approx(5, abs=0.01)


def test_display_does_not_change_the_ranking():
    random = np.random.default_rng(0)
    scores, labels = random.random(200), random.integers(0, 2, 200)
    assert auroc(AffineDisplay(0.2, 0.7)(scores), labels) == auroc(scores, labels)
