"""False-reject rates within and across sessions at the fixed threshold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from andon.thresholds.calibration import Calibration, good_threshold
from andon.thresholds.display import AffineDisplay
from andon.thresholds.rules import Threshold
from andon.thresholds.session_rates import session_rates

ACROSS = [1.0, 2.0, 3.0, 4.0, 1.5, 2.5, 3.5, 9.0, 1.2, 2.2, 3.2, 4.2]
"""Four scores of each of three days; one of tuesday is far out."""
WITHIN = [x - 0.5 for x in ACROSS]
DAYS = tuple(day for day in ("monday", "tuesday", "wednesday") for _ in range(4))


@pytest.fixture
def found() -> Calibration:
    image = good_threshold(ACROSS, 0.3)
    display = AffineDisplay.fit(ACROSS, image.value)
    return Calibration(
        image=image,
        pixel=image,
        score_display=display,
        pixel_display=display,
        scores=tuple(ACROSS),
        maxima=tuple(ACROSS),
        source="cross-fitted in 3 folds",
        folds=3,
        sessions=DAYS,
        within=tuple(WITHIN),
    )


def test_counts_at_the_threshold(found: Calibration) -> None:
    """The threshold lies just above the 10th of 12 scores, 4.0."""
    rates = session_rates(found)
    assert rates is not None
    assert 4.0 < found.image.value < 4.1
    assert (rates.n, rates.within, rates.across) == (12, 1, 2)
    assert rates.worst == ("tuesday", 1, 4)


def test_the_threshold_of_the_other_sessions(found: Calibration) -> None:
    """The 7th of the 8 scores of the other days: 4.2 for monday (none above), 4.0 for tuesday (9.0), 4.0 for wednesday (4.2)."""
    rates = session_rates(found)
    assert rates is not None and rates.new == 2


def test_words_and_numbers(found: Calibration) -> None:
    moved = session_rates(replace(found, image=replace(found.image, value=5.0)))
    assert moved is not None
    assert moved.describe().startswith(
        "false-reject rate at this threshold: within sessions 8.33 % (1 of 12), across sessions 8.33 % (1 of 12), with the "
        "threshold of the other sessions "
    )
    assert moved.describe().endswith("; most in tuesday: 1 of 4")
    assert moved.to_json()["rates"]["across"] == 1 / 12
    assert moved.to_json()["worst"] == {"session": "tuesday", "rejected": 1, "pictures": 4}
    chosen = session_rates(replace(found, image=Threshold(5.0, "cost"), within=()))
    assert chosen is not None
    assert chosen.describe() == (
        "false-reject rate at this threshold: across sessions 8.33 % (1 of 12); most in tuesday: 1 of 4"
    )


def test_nothing_is_said_of_fewer_than_three_sessions(found: Calibration) -> None:
    assert session_rates(replace(found, sessions=())) is None
    assert session_rates(replace(found, sessions=("monday",) * 6 + ("tuesday",) * 6)) is None
