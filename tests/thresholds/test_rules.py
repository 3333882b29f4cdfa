"""Thresholds: the worked example T9, the conformal guarantee by simulation, rules from labels."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from andon.core.errors import DataError
from andon.metrics import confusion
from andon.thresholds.rules import (
    Threshold,
    conformal,
    f1_max_threshold,
    from_labelled,
    smallest_n,
)

T9 = [
    0.12,
    0.31,
    0.05,
    0.22,
    0.18,
    0.40,
    0.27,
    0.09,
    0.15,
    0.35,
    0.20,
    0.11,
    0.25,
    0.30,
    0.17,
    0.08,
    0.14,
    0.28,
    0.19,
]


@pytest.mark.parametrize(
    ("alpha", "k", "score", "upper"),
    [(0.2, 16, 0.30, 0.359425650), (0.1, 18, 0.35, 0.226374249), (0.05, 19, 0.40, 0.145868503)],
)
def test_t9_conformal(alpha, k, score, upper):
    threshold = conformal(T9, alpha, dtype=np.float64)
    guarantee = threshold.guarantee
    assert (guarantee.n, guarantee.k, guarantee.order_statistic) == (19, k, score)
    assert guarantee.expected_rate == (20 - k) / 20
    assert guarantee.upper_rate == pytest.approx(upper, abs=1e-9)
    assert guarantee.reached
    assert threshold.value == np.nextafter(score, np.inf)
    assert confusion(T9, [0] * 19, threshold.value).fp == 19 - k  # `>=` the threshold is `>` the score


def test_cross_fitted_scores_have_the_bound_of_cv_plus():
    """Theorem 4 of arXiv 1905.02928; leave one out (K = n) gives twice alpha."""
    guarantee = conformal(np.arange(200), 0.05, folds=5).guarantee
    assert guarantee.upper_rate == pytest.approx(2 * 10 / 201 + 2 * 0.8 / 41)
    assert conformal(T9, 0.1, folds=19).guarantee.upper_rate == pytest.approx(2 * 2 / 20)
    assert "worst case of the rule (CV+) is 20 %" in conformal(T9, 0.1, folds=19).describe()
    assert Threshold.from_json(conformal(T9, 0.1, folds=19).to_json()).guarantee.folds == 19


def test_t9_too_few_pictures():
    with pytest.raises(DataError, match=r"19 scored good pictures cannot guarantee .* 4 %, that takes 24"):
        conformal(T9, 0.04)
    threshold = conformal(T9, 0.04, on_small="max")
    assert threshold.guarantee.order_statistic == np.float32(0.40)
    assert threshold.guarantee.expected_rate == 1 / 20
    assert not threshold.guarantee.reached
    assert "do not support a false-reject rate of 4 %, that takes 24" in threshold.describe()


@given(st.integers(1, 500))
@settings(deadline=None, max_examples=50)
def test_the_advice_for_too_few_pictures_works(n):
    with pytest.raises(DataError) as error:
        conformal(np.arange(n), 0.5 / (n + 1))
    message = str(error.value)
    advised = float(re.search(r"a rate of ([\d.]+) \(false_reject_rate\)", message)[1])
    needed = int(re.search(r"that takes (\d+)", message)[1])
    if advised < 1:
        assert conformal(np.arange(n), advised).guarantee.reached
    assert conformal(np.arange(needed), 0.5 / (n + 1)).guarantee.reached


def test_smallest_numbers():
    assert [smallest_n(alpha) for alpha in (0.1, 0.05, 0.01, 0.005, 0.001)] == [9, 19, 99, 199, 999]


@given(st.floats(0.001, 0.9))
@settings(deadline=None, max_examples=100)
def test_smallest_n_is_where_the_rule_begins(alpha):
    n = smallest_n(alpha)
    assert conformal(np.arange(n), alpha).guarantee.reached
    if n > 1:
        with pytest.raises(DataError):
            conformal(np.arange(n - 1), alpha)


def test_a_rate_that_binary_fractions_miss_is_reached():
    """0.29 * 100 is 28.999999999999996: rounded down it would be 28."""
    assert conformal(np.arange(99), 0.29).guarantee.k == 71


def test_threshold_is_the_next_float32():
    """Computed in float64 the threshold would round back to the score itself and reject it."""
    scores = np.float32(T9)
    threshold = conformal(scores, 0.1)
    assert np.float32(threshold.value) == threshold.value
    assert np.float32(threshold.value) == np.nextafter(np.float32(0.35), np.float32(1))
    assert np.sum(scores >= np.float32(threshold.value)) == 1
    assert np.float32(np.nextafter(np.float64(np.float32(0.35)), 1)) == np.float32(0.35)


@pytest.mark.parametrize("tied", [False, True])
def test_guarantee_by_simulation(tied):
    """2,000 draws of 99 validation scores and one more good one: at most 10 % false rejects."""
    random = np.random.default_rng(0)
    draws = random.integers(0, 30, (2000, 100)) if tied else random.lognormal(size=(2000, 100))
    draws = draws.astype(np.float32)
    alarms = np.mean([new >= conformal(good, 0.1).value for *good, new in draws])
    assert alarms <= 0.1 + 3 * np.sqrt(0.09 / 2000)
    if not tied:
        assert alarms >= 0.1 - 1 / 100 - 3 * np.sqrt(0.09 / 2000)


def test_upper_rate_holds_with_95_percent_confidence():
    """The false-reject rate of a fixed threshold on uniform scores is 1 - threshold."""
    random = np.random.default_rng(1)
    rates = [1 - conformal(random.random(59), 0.05).value for _ in range(1000)]
    upper = conformal(np.arange(59), 0.05).guarantee.upper_rate
    assert np.mean(np.array(rates) <= upper) == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 1000))
    assert upper == pytest.approx(stats.beta(3, 57).ppf(0.95))


def test_pictures_of_one_part_count_once():
    ids = ["a", "a", "b", None, None, "b"]
    threshold = conformal([1, 5, 2, 3, 4, 0], 0.2, object_ids=ids, dtype=np.float64)
    assert (threshold.n, threshold.n_scores) == (4, 6)
    assert threshold.guarantee.order_statistic == 5  # parts: a 5, b 2, and 3, 4
    assert threshold.describe().startswith("4 good parts support a false-reject rate of 20 %")
    with pytest.raises(ValueError, match="one per score"):
        conformal([1, 2], 0.5, object_ids=["a"])


def test_descriptions():
    text = conformal(np.arange(54), 0.05).describe()
    assert text == (
        "54 good pictures support a false-reject rate of 5 %: 3.64 % is expected, and with 95 % "
        "confidence it is at most 8.49 %."
    )
    assert "for analysis only" in f1_max_threshold([1, 2], [0, 1]).describe()


def test_wrong_parameters():
    for alpha in (0, 1, 5):
        with pytest.raises(ValueError, match="alpha is"):
            conformal(T9, alpha)
    with pytest.raises(DataError, match="no finite threshold"):
        conformal([np.inf] * 20, 0.05)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.floats(0.02, 0.6), st.integers(-6, 6))
@settings(deadline=None, max_examples=200)
def test_the_rule_is_a_conformal_p_value_compared_with_alpha(good, alpha, score):
    """Vovk, Gammerman, Shafer, Sec. 2.2: p = (1 + #{good >= score}) / (n + 1), anomalous where p <= alpha."""
    assume(len(good) >= smallest_n(alpha))
    called = np.float32(score) >= np.float32(conformal(good, alpha).value)
    assert called == ((1 + sum(g >= score for g in good)) / (len(good) + 1) <= alpha + 1e-9)


@pytest.mark.parametrize(
    "threshold", [conformal(T9, 0.1), from_labelled(2.0, 9), f1_max_threshold([1, 2], [0, 1])]
)
def test_json_round_trip(threshold):
    assert Threshold.from_json(json.loads(json.dumps(threshold.to_json()))) == threshold


def test_wrong_scores():
    with pytest.raises(DataError, match="hold out some good pictures"):
        conformal([])
    with pytest.raises(ValueError, match="sample 1 is NaN"):
        conformal([1.0, np.nan])


def test_best_f1_from_labels():
    scores, labels = [0.10, 0.40, 0.35, 0.80, 0.40, 0.90, 0.20, 0.65], [0, 1, 0, 1, 0, 0, 1, 1]
    assert f1_max_threshold(scores, labels).value == 0.20
    assert f1_max_threshold(scores, labels).oracle
    with pytest.raises(DataError, match=r"no anomalous sample.*conformal"):
        f1_max_threshold([1, 2], [0, 0])
