"""Binned pixel metrics: the key (T13), the bound (T14), and that the exact values lie within it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_sets import LIMITS, image_sets

from andon.core.records import Defect
from andon.metrics import PixelHistogram, PixelRanking
from andon.metrics.bins import bound_of_area, key_scores, order_keys
from andon.metrics.ranking import Piece, auroc, summarise


def test_t13_keys():
    scores = np.float32([-np.inf, -1.5, 0.0, 0.001, 0.5, 1.0, np.inf])
    expected = [0x007FFFFF, 0x403FFFFF, 0x80000000, 0xBA83126F, 0xBF000000, 0xBF800000, 0xFF800000]
    assert order_keys(scores).tolist() == expected
    assert order_keys(np.float32([-0.0])).tolist() == [0x80000000]
    assert key_scores(order_keys(scores)).tolist() == scores.tolist()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=30))
@settings(deadline=None, max_examples=100)
def test_keys_keep_the_order(values):
    scores = np.float32(values)
    keys = order_keys(scores)
    assert np.array_equal(keys[:-1] < keys[1:], scores[:-1] < scores[1:])
    assert np.array_equal(keys[:-1] == keys[1:], scores[:-1] == scores[1:])


def test_t14_bound():
    """Uniform bins of width 0.1, each a tied score."""
    good, bad = np.array([0.05, 0.15, 0.25, 0.35]), np.array([0.12, 0.22, 0.32, 0.38])
    assert auroc([*good, *bad], [0] * 4 + [1] * 4) == 0.625
    bins, hits = np.unique((bad * 10).astype(int), return_counts=True)
    n_at_least = [np.sum((good * 10).astype(int) >= b) for b in bins]
    n_above = [np.sum((good * 10).astype(int) > b) for b in bins]
    piece = Piece(
        bins / 10, hits, hits / 4, np.cumsum(hits[::-1])[::-1], np.array(n_at_least), np.array(n_above)
    )
    assert summarise([piece], 4, 4).auroc == 0.6875
    assert bound_of_area(piece, 4, 1.0) == 0.125


def collect(images, ranking):
    """The images in a ranking, each with one channel per letter of its tags on half of its mask."""
    for index, (anomaly_map, mask, tags) in enumerate(images):
        rows = np.arange(mask.shape[0])[:, None]
        channels = [Defect(mask & (rows % 2 == k), tag, 255, 2) for k, tag in enumerate(tags)]
        channels = [c for c in channels if c.mask.any()]
        ranking.add(anomaly_map, mask, label=int(mask.any()), tags=tags, name=str(index), channels=channels)
    return ranking


def whole_numbers(images):
    """Scores from 8 to 18: near to each other, so that histograms are small, and each a bin of its own."""
    return [(np.round(10 * anomaly_map) + 8, mask, tags) for anomaly_map, mask, tags in images]


def within(exact, binned, limits=LIMITS):
    """Check that all metrics of a summary lie within the bounds of the binned one."""
    pairs = [("auroc", exact.auroc, binned.auroc)]
    pairs += [("average_precision", exact.average_precision, binned.average_precision)]
    pairs += [("f1_max", exact.f1_max.f1, binned.f1_max.f1)]
    pairs += [(f"aupro_{limit:.2f}", exact.aupro[limit], binned.aupro[limit]) for limit in limits]
    pairs += [(f"auspro_{limit:.2f}", exact.auspro[limit], binned.auspro[limit]) for limit in exact.auspro]
    for name, one, other in pairs:
        assert abs(one - other) <= binned.bounds[name] + 1e-12, name
    assert exact.f1_max.f1 >= binned.f1_max.f1 - 1e-12
    for name in ("n_pos", "n_neg", "n_regions", "n_left_out", "n_channels"):
        assert getattr(exact, name) == getattr(binned, name)


@given(image_sets(), st.sampled_from([12, 13, 20]))
@settings(deadline=None, max_examples=25)
def test_the_exact_values_lie_within_the_bound(images, bits):
    """12 bits: three of the mantissa, so that 0.1 and others of the grid share bins."""
    exact, binned = collect(images, PixelRanking()), collect(images, PixelHistogram(bits=bits))
    assert exact.tags == binned.tags
    for tag in (None, *exact.tags):
        within(exact.summary(tag, LIMITS), binned.summary(tag, LIMITS))
        one, other = (ranking.aupimo(tag, (0.02, 0.4), force=True) for ranking in (exact, binned))
        assert abs(one.mean - other.mean) <= other.bound + 1e-12


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([12, 14, 16, 20]),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.floats(0.02, 0.3),
    st.floats(1.5, 20),
)
@settings(deadline=None, max_examples=60)
def test_aupimo_of_positives_that_share_bins_with_good_scores(seed, bits, places, low, factor):
    """Each bin has 16 places; those of the positives lie below, between and above the good scores of the same bins."""
    random = np.random.default_rng(seed)
    bounds = (low, min(1.0, low * factor))
    width = 2.0 ** (9 - bits)  # of the bins from 1 to 2

    def scores(inside):
        return (1 + (random.integers(0, 8, 30) + np.asarray(inside) / 16) * width).astype(np.float32)

    good, bad = scores(random.integers(8, 16, 30)), scores(random.choice(places, 30))
    mask = random.random(30) < 0.5
    mask[0] = True
    exact, binned = PixelRanking(), PixelHistogram(bits=bits)
    for ranking in (exact, binned):
        ranking.add(good[None], np.zeros((1, 30), bool), label=0)
        ranking.add(bad[None], mask[None], label=1)
    one, other = (ranking.aupimo(bounds=bounds, force=True) for ranking in (exact, binned))
    assert abs(one.mean - other.mean) <= other.bound + 1e-12


@given(image_sets())
@settings(deadline=None, max_examples=20)
def test_with_one_score_per_bin_nothing_is_lost(images):
    """The metrics are then those of the other implementation."""
    images = whole_numbers(images)
    exact, binned = collect(images, PixelRanking()), collect(images, PixelHistogram())
    for tag in (None, *exact.tags):
        one, other = exact.summary(tag, LIMITS), binned.summary(tag, LIMITS)
        assert (one.auroc, one.f1_max) == (other.auroc, other.f1_max)
        assert one.average_precision == pytest.approx(other.average_precision, abs=1e-12)
        assert one.aupro == pytest.approx(other.aupro, abs=1e-12)
        assert one.auspro == pytest.approx(other.auspro, abs=1e-12, nan_ok=True)
        first, second = (
            exact.aupimo(tag, (0.05, 0.5), force=True),
            binned.aupimo(tag, (0.05, 0.5), force=True),
        )
        assert dict(first.scores) == pytest.approx(dict(second.scores), abs=1e-12)


@given(image_sets(), st.integers(0, 3), st.sampled_from([PixelHistogram, PixelRanking]))
@settings(deadline=None, max_examples=25)
def test_parts_of_several_processes_add_up(images, cut, kind):
    images, whole, first, second = whole_numbers(images), kind(), kind(), kind()
    collect(images, whole)
    collect(images[:cut], first)
    collect(images[cut:], second)
    first.merge(pickle.loads(pickle.dumps(second)))  # as it comes from another process
    a, b = whole.summary(None, LIMITS), first.summary(None, LIMITS)
    assert (a.auroc, a.f1_max, a.n_neg, a.n_channels) == (b.auroc, b.f1_max, b.n_neg, b.n_channels)
    assert a.average_precision == pytest.approx(b.average_precision, abs=1e-12)
    assert a.aupro == pytest.approx(b.aupro, abs=1e-12)
    assert a.auspro == pytest.approx(b.auspro, abs=1e-12, nan_ok=True)
    assert a.bounds == pytest.approx(b.bounds, abs=1e-12)
    one, other = (ranking.aupimo(bounds=(0.1, 0.6), force=True) for ranking in (whole, first))
    assert one.values == pytest.approx(other.values, abs=1e-12)


def test_log_normal_scores_lie_far_within_the_bound():
    random = np.random.default_rng(0)
    images = []
    for k in range(4):
        mask = np.zeros((200, 200), bool)
        mask[40:80, 30:60] = k > 1
        scores = np.exp(random.standard_normal((200, 200), dtype=np.float32) + np.float32(0.8) * mask)
        images.append((scores, mask, ("a",) * (k > 1)))
    exact, binned = collect(images, PixelRanking()), collect(images, PixelHistogram())
    within(exact.summary(), binned.summary(), (0.3, 0.05))
    assert binned.summary().bounds["auroc"] < 1e-3
    assert abs(exact.auroc() - binned.summary().auroc) < 1e-6
    first, second = exact.aupimo(bounds=(1e-3, 1e-1)), binned.aupimo(bounds=(1e-3, 1e-1))
    assert 0 < second.bound < 2e-2
    assert abs(first.mean - second.mean) <= second.bound
    full, thin = exact.curve(points=10**6), binned.curve(points=200)
    assert 100 < thin.thresholds.size <= 202
    place = np.searchsorted(-full.thresholds, -thin.thresholds, side="right") - 1
    assert thin.tp.tolist() == full.tp[place].tolist()
    assert thin.fp.tolist() == full.fp[place].tolist()
    assert np.trapezoid(thin.tpr, thin.fpr) == pytest.approx(exact.auroc(), abs=1e-3)
    assert (thin.tpr[-1], thin.fpr[-1]) == (1, 1)


@given(image_sets(), st.floats(-0.5, 1.5, width=32))
@settings(deadline=None, max_examples=20)
def test_counts_at_a_named_threshold_are_exact(images, threshold):
    exact = collect(images, PixelRanking())
    binned = collect(images, PixelHistogram([threshold], bits=12))
    for tag in (None, *exact.tags):
        assert exact.confusion(threshold, tag) == binned.confusion(threshold, tag)


def test_other_thresholds_only_at_the_ends_of_bins():
    histogram = PixelHistogram()
    histogram.add(np.float32([[0.2, 0.5, 0.7]]), np.array([[False, True, True]]), label=1)
    at = histogram.confusion(0.5)  # a power of two begins a bin
    assert (at.tp, at.fp, at.fn, at.tn) == (2, 0, 0, 1)
    with pytest.raises(ValueError, match=r"0\.7 lies inside a bin"):
        histogram.confusion(0.7)


def test_nothing_and_only_good_images():
    for histogram in (PixelHistogram(), PixelHistogram()):
        summary = histogram.summary()
        assert np.isnan([summary.auroc, summary.average_precision, summary.aupro[0.3]]).all()
        assert histogram.curve().tp.tolist() == [0]
        assert np.isnan(histogram.aupimo().mean)
    histogram.add(np.ones((3, 3)), np.zeros((3, 3), bool), label=0)
    histogram.add(np.ones((3, 3)), np.zeros((3, 3), bool), label=1)
    assert (histogram.summary().n_neg, histogram.summary().n_left_out) == (9, 1)


def test_wrong_use():
    with pytest.raises(ValueError, match="no picture is tagged"):
        PixelHistogram().summary("a")
    with pytest.raises(ValueError, match="bits"):
        PixelHistogram(bits=8)
    with pytest.raises(ValueError, match="make both alike"):
        PixelHistogram(bits=20).merge(PixelHistogram(bits=16))
