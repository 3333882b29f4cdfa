"""Rank metrics of image scores against hand-computed examples (T2-T4), scikit-learn and their invariances."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from andon.metrics import auroc, average_precision, confusion, curve, f1_max, rank
from andon.metrics.counts import Confusion

INF = np.inf
T2_SCORES = [0.10, 0.40, 0.35, 0.80, 0.40, 0.90, 0.20, 0.65]
T2_LABELS = [0, 1, 0, 1, 0, 0, 1, 1]

# Scores on a coarse grid, so that most samples are tied; both labels occur.
tied = st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=2, max_size=60).filter(
    lambda samples: len({label for _, label in samples}) == 2
)


def unzip(samples):
    scores, labels = zip(*samples, strict=True)
    return np.array(scores) / 10, np.array(labels).astype(int)


def all_values(scores, labels):
    return np.array(
        [
            auroc(scores, labels),
            average_precision(scores, labels),
            f1_max(scores, labels).f1,
            f1_max(scores, labels).recall,
        ]
    )


def test_t2_counts_at_all_thresholds():
    points = curve(T2_SCORES, T2_LABELS)
    assert points.thresholds.tolist() == [INF, 0.90, 0.80, 0.65, 0.40, 0.35, 0.20, 0.10]
    assert points.tp.tolist() == [0, 0, 1, 2, 3, 3, 4, 4]
    assert points.fp.tolist() == [0, 1, 1, 1, 2, 3, 3, 4]
    assert points.precision[0] == 1
    f1 = 2 * points.tp / (points.tp + points.fp + points.n_pos)
    expected = [0, 0, 0.333333333, 0.571428571, 0.666666667, 0.600000000, 0.727272727, 0.666666667]
    assert f1 == pytest.approx(expected, abs=1e-9)


def test_t2_values():
    assert auroc(T2_SCORES, T2_LABELS) == 0.59375
    assert average_precision(T2_SCORES, T2_LABELS) == pytest.approx(0.584523810, abs=1e-9)
    best = f1_max(T2_SCORES, T2_LABELS)
    assert best.f1 == pytest.approx(0.727272727, abs=1e-9)
    assert (best.threshold, best.recall) == (0.20, 1.0)
    assert best.precision == pytest.approx(0.571428571, abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.5] * 5, [0, 0, 0, 1, 1], (0.5, 0.4, 0.571428571, 0.5)),
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], (1, 1, 1, 0.8)),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], (0, 0.416666667, 0.666666667, 0.1)),
    ],
)
def test_t3(scores, labels, expected):
    best = f1_max(scores, labels)
    values = auroc(scores, labels), average_precision(scores, labels), best.f1, best.threshold
    assert values == pytest.approx(expected, abs=1e-9)


def test_t3_infinite_scores_are_ordered():
    scores, labels = [-INF, 0, 1, INF], [0, 1, 0, 1]
    assert auroc(scores, labels) == 0.75
    assert curve(scores, labels).thresholds.tolist() == [INF, INF, 1, 0, -INF]
    assert confusion(scores, labels, INF) == Confusion(tp=1, fp=0, fn=1, tn=2)


def test_ties_of_good_and_bad_count_half():
    """The official LOCO code, which adds a point after the first of a tie, gives 0.875 and 2/3."""
    assert auroc([1, 2, 2, 3, 2, 2, 3, 4], [0] * 4 + [1] * 4) == 0.71875
    assert auroc([7] * 5, [0, 0, 0, 1, 1]) == 0.5


def test_t4_a_tie_in_f1_goes_to_the_largest_threshold():
    """scikit-learn's argmax over ascending thresholds would give 0.6."""
    best = f1_max([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 0, 1, 0])
    assert best.threshold == 0.9
    assert best.f1 == pytest.approx(2 / 3)
    assert rank([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 0, 1, 0]).summary(chunk=1).f1_max == best


@pytest.mark.parametrize(
    ("threshold", "counts", "rates"),
    [
        (0.65, (2, 1, 2, 3), (0.666666667, 0.5, 0.571428571, 0.25)),
        (0.40, (3, 2, 1, 2), (0.6, 0.75, 0.666666667, 0.5)),  # the strict rule gives F1 0.571428571
        (0.95, (0, 0, 4, 4), (np.nan, 0, 0, 0)),
    ],
)
def test_t2_at_a_threshold(threshold, counts, rates):
    at = confusion(T2_SCORES, T2_LABELS, threshold)
    assert (at.tp, at.fp, at.fn, at.tn) == counts
    assert (at.precision, at.recall, at.f1, at.fpr) == pytest.approx(rates, abs=1e-9, nan_ok=True)


def test_undefined_values_are_nan():
    only_good, only_bad = rank([1, 2], [0, 0]).summary(), rank([1, 2], [1, 1]).summary()
    assert np.isnan([only_good.auroc, only_good.average_precision, only_good.f1_max.f1]).all()
    assert np.isnan(only_bad.auroc)
    assert (only_bad.average_precision, only_bad.f1_max.f1, only_bad.f1_max.threshold) == (1, 1, 1)
    assert np.isnan(confusion([1, 2], [0, 0], 1.5).f1)
    assert np.isnan(confusion([1, 2], [0, 0], 1.5).recall)
    assert np.isnan(confusion([1, 2], [1, 1], 1.5).fpr)
    assert np.isnan(curve([1, 2], [0, 0]).tpr).all()
    assert np.isnan(auroc([], []))


def test_nan_score_is_an_error_that_names_the_sample():
    with pytest.raises(ValueError, match="bottle/test/good/001"):
        rank([0.1, np.nan], [0, 1], names=["bottle/test/good/000", "bottle/test/good/001"])
    with pytest.raises(ValueError, match="sample 1"):
        auroc([0.1, np.nan], [0, 1])


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1, 2], [0], "one label per score"),
        ([1, 2], [0, 2], "label of sample 1 is 2"),
        ([[1, 2]], [[0, 1]], "shape"),
    ],
)
def test_wrong_input(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        auroc(scores, labels)


def test_nan_threshold_is_an_error():
    with pytest.raises(ValueError, match="threshold is NaN"):
        confusion([1.0, 2.0], [0, 1], np.nan)


def test_threshold_is_compared_in_the_dtype_of_the_scores():
    """float32(0.7) < 0.7: compared in float64 the sample would be missed."""
    assert confusion(np.float32([0.7]), [1], 0.7).tp == 1


@given(tied)
@settings(deadline=None, max_examples=150)
def test_equals_scikit_learn(samples):
    scores, labels = unzip(samples)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert f1_max(scores, labels).f1 == pytest.approx(f1.max(), abs=1e-12)
    points = curve(scores, labels)
    assert points.precision[::-1] == pytest.approx(precision, abs=1e-12)
    assert points.recall[::-1] == pytest.approx(recall, abs=1e-12)


@given(tied, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_order_of_samples_does_not_matter(samples, random):
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert all_values(*unzip(samples)).tolist() == all_values(*unzip(shuffled)).tolist()


@given(tied)
@settings(deadline=None, max_examples=50)
def test_invariant_under_increasing_maps(samples):
    scores, labels = unzip(samples)
    expected = all_values(scores, labels).tolist()
    for mapped in (np.exp(scores), 3 * scores - 7, rankdata(scores, method="dense"), scores - 1000):
        assert all_values(mapped, labels).tolist() == expected


@given(tied, st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_chunked_equals_whole(samples, chunk):
    scores, labels = unzip(samples)
    ranking = rank(scores, labels)
    whole, chunked = ranking.summary(limits=(0.3,)), ranking.summary(limits=(0.3,), chunk=chunk)
    assert chunked.auroc == whole.auroc
    assert chunked.f1_max == whole.f1_max
    assert chunked.average_precision == pytest.approx(whole.average_precision, abs=1e-12)
    assert chunked.weighted_area[0.3] == pytest.approx(whole.weighted_area[0.3], abs=1e-12)


@given(tied)
@settings(deadline=None, max_examples=50)
def test_counts_of_the_curve_are_those_at_each_threshold(samples):
    scores, labels = unzip(samples)
    points = curve(scores, labels)
    for threshold, tp, fp in zip(points.thresholds[1:], points.tp[1:], points.fp[1:], strict=True):
        called = scores >= threshold
        at = confusion(scores, labels, threshold)
        assert (tp, fp) == (at.tp, at.fp) == (np.sum(called & (labels == 1)), np.sum(called & (labels == 0)))


def test_area_up_to_fpr_1_is_the_auroc():
    ranking = rank(T2_SCORES, T2_LABELS)
    assert ranking.summary(limits=(1.0,)).weighted_area[1.0] == pytest.approx(0.59375, abs=1e-12)


def test_no_warning_for_undefined_values():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank([], []).summary(limits=(0.3,))
        _ = rank([1.0], [0]).curve().precision
