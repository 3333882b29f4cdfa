"""What two thresholds would do: counts against loops, intervals and sample sizes against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from andon.thresholds.calibration import Calibration
from andon.thresholds.display import AffineDisplay
from andon.thresholds.evidence import Evidence, Images, line_thresholds
from andon.thresholds.figures import Prices, cost, figures, parts_to_claim, wrong_images
from andon.thresholds.rules import Threshold, conformal
from andon.thresholds.session_rates import session_rates

SCORES = st.lists(st.sampled_from([-0.5, 0.0, 0.4, 0.8, 0.9, 1.0, 1.0000001, 1.3, 7.0]), max_size=12).map(
    tuple
)
GOOD = tuple(np.random.default_rng(0).normal(0.2, 0.3, 40).tolist())
KNOWN = Evidence(
    good=Images(GOOD, tuple(f"g{k}" for k in range(40)), tuple(f"day {k % 4}" for k in range(40))),
    good_tests=Images((0.1, 1.2), ("t0", "t1")),
    bad=Images((0.95, 1.1, 3.0), ("b0", "b1", "b2")),
    parts=GOOD,
    promised=0.05,
)


def calibration(scores, **changes) -> Calibration:
    """Of good scores, at a false-reject rate of 10 %."""
    image = conformal(scores, 0.1)
    display = AffineDisplay.fit(scores, image.value)
    values = {"scores": tuple(scores), "maxima": tuple(scores), "source": "validation", **changes}
    return Calibration(image, image, display, display, **values)


@settings(max_examples=40)
@given(SCORES, SCORES, st.sampled_from([0.8, 0.9, 1.0]), st.sampled_from([1.0, 1.3]))
def test_counts_and_intervals(good, bad, accept, reject):
    found = figures(Evidence(good=Images(good), bad=Images(bad), within=good), accept, reject)
    for share, count, n in (
        (found.good.stopped, sum(s >= reject for s in good), len(good)),
        (found.good.review, sum(accept <= s < reject for s in good), len(good)),
        (found.bad.passed, sum(s < accept for s in bad), len(bad)),
        (found.within if good else found.good.stopped, sum(s >= reject for s in good), len(good)),
    ):
        assert (share.count, share.n) == (count, n)
        if n:
            exact = stats.binomtest(count, n).proportion_ci(0.95, "exact")
            assert share.interval == pytest.approx((exact.low, exact.high), abs=1e-9)
    overlap = bool(good and bad) and max(good) >= min(bad)
    assert (found.separation.state == "overlap") is overlap
    assert ("No safe threshold" in found.separation.sentence) is overlap


@settings(max_examples=30)
@given(st.sampled_from([0.5, 0.1, 0.01]), st.integers(0, 6))
def test_parts_to_claim_is_the_smallest_number(rate, misses):
    n = parts_to_claim(rate, misses)
    upper = [stats.beta.ppf(0.95, misses + 1, parts - misses) for parts in (n, max(n - 1, misses + 1))]
    assert upper[0] <= rate * (1 + 1e-9)
    assert n == misses + 1 or upper[1] > rate
    assert parts_to_claim(0.01) == 299
    assert parts_to_claim(1e-9) is None


def test_promise_is_shown_broken_below_the_threshold_of_the_calibration():
    scores = np.random.default_rng(1).normal(size=60).astype(np.float32).tolist()
    known = Evidence.of(calibration(scores))
    assert figures(known, 1.0, 1.0).promise.is_kept
    above = sorted(known.good.scores)
    first_broken = next(t for t in reversed(above) if not figures(known, t, t).promise.is_kept)
    rejected = sum(score >= first_broken for score in above)
    assert (rejected + 1) / 61 > 0.1 >= rejected / 61
    assert figures(Evidence(good=known.good), 1.0, 1.0).promise is None


def test_sessions_are_those_of_the_session_rates():
    rng = np.random.default_rng(2)
    scores, within = rng.normal(size=(2, 40)).astype(np.float32)
    names = tuple(f"day {k % 4}" for k in range(40))
    of_days = calibration(scores.tolist(), sessions=names, within=tuple(within.tolist()))
    found, rates = figures(Evidence.of(of_days), 1.0, 1.0), session_rates(of_days)
    assert (found.good.stopped.count, found.within.count) == (rates.across, rates.within)
    assert (
        max(found.sessions, key=lambda each: each.verdicts.stopped.count).verdicts.stopped.count
        == rates.worst[1]
    )
    assert [session.name for session in found.sessions] == sorted(set(names))


def test_scores_are_on_the_scale_of_the_line():
    scores = [0.0, 1.0, 2.0, 3.0] * 5
    moved = calibration(scores, look=Threshold(2.0, "conformal"))
    known = Evidence.of(moved, {"good": (False, 2.5), "bad": (True, moved.image.value)})
    accept, reject = line_thresholds(moved)
    assert accept < reject == known.bad.scores[0] == 1.0
    assert figures(known, accept, reject).good.review.count == sum(
        2.0 <= s < moved.image.value for s in scores
    )
    train = Evidence.of(calibration(scores, source="train"), {"bad": (True, 9.0)})
    assert train.good == Images()
    assert "hold some out" in train.missing[0]
    assert "evaluate the run" in Evidence.of(calibration(scores)).missing[0]


def test_wrong_images_nearest_first():
    found = wrong_images([KNOWN.good, KNOWN.good_tests], [KNOWN.bad], 1.0, 1.1)
    assert [(image.kind, image.name) for image in found] == [("bad", "b0"), ("good", "t1")]
    assert [image.distance for image in found] == pytest.approx([0.05, 0.1])
    assert all(image.distance >= 0 for image in wrong_images([KNOWN.good], [KNOWN.bad], 0.3, 0.3))


def test_cost_of_both_mistakes():
    prices = Prices(escape=100.0, reject=1.0, defect_rate=0.01)
    found = cost(KNOWN, 1.0, 1.1, prices)
    assert found.cost == pytest.approx(0.01 * 100 * 1 / 3 + 0.99 * 1 / 42)
    grid = [cost(KNOWN, t, t, prices).cost for t in np.linspace(-1, 4, 2001)]
    assert found.cheapest_cost == pytest.approx(min(grid))
    assert cost(KNOWN, found.cheapest, found.cheapest, prices).cost == pytest.approx(found.cheapest_cost)
    assert cost(Evidence(good=KNOWN.good), 1.0, 1.0, prices) is None
