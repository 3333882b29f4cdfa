"""The oddest good images and the threshold without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from andon.thresholds.calibration import Calibration, good_threshold
from andon.thresholds.display import AffineDisplay
from andon.thresholds.oddest import oddest

REGULAR = [float(x) for x in np.linspace(9, 11, 41)]


def calibration(scores: list[float], **changes: object) -> Calibration:
    threshold = good_threshold(scores, 0.05, on_small="max", folds=5)
    display = AffineDisplay.fit(scores, threshold.value)
    names = tuple(f"good/{k:02d}" for k in range(len(scores)))
    made = Calibration(
        threshold, threshold, display, display, tuple(scores), tuple(scores), "cross-fitted in 5 folds", names
    )
    return replace(made, folds=5, **changes)  # type: ignore[arg-type]


def test_images_far_above_the_rest_are_named_with_the_threshold_without_them():
    found = oddest(calibration([*REGULAR, 30.0, 20.0]))
    assert [image.name for image in found.images] == ["good/41", "good/42"]
    assert all(image.apart for image in found.images)
    assert found.images[0].score == pytest.approx((30 - 10) / (found.threshold - 10), rel=0.02)
    assert found.without == good_threshold(REGULAR, 0.05, folds=5).value
    assert found.threshold > 20 > found.without
    assert found.describe() == (
        f"oddest good pictures: good/41 (score {found.images[0].score:.2f}), good/42 (score 1.00); look at these: are they "
        f"good? image threshold without them: {found.without:.4g} (now {found.threshold:.4g})"
    )


def test_the_highest_score_is_named_where_none_is_far_above_and_five_at_most():
    one = oddest(calibration(REGULAR))
    assert [(image.name, image.apart) for image in one.images] == [("good/40", False)]
    assert "look at it: is it good?" in one.describe()
    assert len(oddest(calibration([*REGULAR, *range(20, 29)])).images) == 5
    assert not oddest(calibration([*[1.0] * 8, 2.0])).images[0].apart  # no spread to compare with


def test_images_of_one_part_count_once_without_the_odd_ones():
    parts = tuple(f"part {k // 2}" for k in range(42))
    found = oddest(calibration([*REGULAR, 30.0], parts=parts))
    assert found.without == good_threshold(REGULAR, 0.05, parts=parts[:-1], folds=5).value


def test_scores_of_images_that_were_learned_from_say_nothing():
    assert oddest(calibration([*REGULAR, 30.0], source="train")) is None
    assert oddest(calibration([*REGULAR, 30.0], names=())) is None  # fitted before names were kept


def test_a_threshold_by_labels_has_no_value_without_them():
    found = calibration([*REGULAR, 30.0])
    assert (
        oddest(replace(found, image=replace(found.image, rule="labelled_f1", parameter=None))).without is None
    )
