"""Pixel metrics against the worked example T5, brute force, scikit-learn and subsets computed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_sets import LIMITS, grid, image_sets
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from andon.metrics import Confusion, PixelRanking

M1 = grid(""".9 .8 .3 .1 .1 .0
             .7 .2 .4 .1 .0 .0
             .3 .2 .6 .5 .1 .0
             .1 .1 .0 .2 .3 .4""")
G1 = grid("""1 1 0 0 0 0
             1 1 0 0 0 0
             0 0 1 0 0 0
             0 0 0 0 0 1""").astype(bool)
M2 = grid(""".1 .2 .1 .0 .0 .0
             .0 .5 .1 .0 .1 .0
             .0 .0 .0 .3 .0 .0
             .0 .0 .1 .0 .0 .0""")
EMPTY = np.zeros((4, 6), dtype=bool)


def collect(images, **options):
    """Ranking of (map, mask, tags) images; without a mask they are good."""
    ranking = PixelRanking(**options)
    for anomaly_map, mask, tags in images:
        ranking.add(anomaly_map, mask, label=int(mask.any()), tags=tags)
    return ranking


def brute_force_aupro(images, limit, structure=None):
    """AU-PRO from the curve itself: PRO and FPR at every distinct score, trapezoid rule, cut at the limit."""
    structure = np.ones((3, 3)) if structure is None else structure
    regions, negatives = [], []
    for anomaly_map, mask, _ in images:
        labels, n = ndimage.label(mask, structure)
        regions += [anomaly_map[labels == k] for k in range(1, n + 1)]
        negatives.append(anomaly_map[~mask])
    negatives = np.concatenate(negatives)
    thresholds = sorted({float(s) for anomaly_map, _, _ in images for s in anomaly_map.ravel()}, reverse=True)
    fpr = np.array([0.0] + [np.mean(negatives >= t) for t in thresholds])
    pro = np.array([0.0] + [np.mean([np.mean(region >= t) for region in regions]) for t in thresholds])
    area = 0.0
    for (x0, y0), (x1, y1) in zip(
        zip(fpr[:-1], pro[:-1], strict=True), zip(fpr[1:], pro[1:], strict=True), strict=True
    ):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.05, 0.401190476), (0.1, 0.602380952), (0.3, 0.833333333), (1.0, 0.950000000)]
)
def test_t5_aupro(limit, expected):
    images = [(M1, G1, ("a",)), (M2, EMPTY, ())]
    assert collect(images).aupro(limit) == pytest.approx(expected, abs=1e-9)
    assert brute_force_aupro(images, limit) == pytest.approx(expected, abs=1e-7)


def test_t5_other_values():
    ranking = collect([(M1, G1, ("a",)), (M2, EMPTY, ())])
    summary = ranking.summary()
    assert (summary.n_regions, summary.n_pos, summary.n_neg, summary.n_left_out) == (2, 6, 42, 0)
    assert ranking.auroc() == pytest.approx(0.956349206, abs=1e-9)
    assert ranking.average_precision() == pytest.approx(0.833333333, abs=1e-9)
    best = ranking.f1_max()
    assert best.threshold == np.float32(0.6)
    assert (best.f1, best.precision, best.recall) == pytest.approx((0.8, 1, 0.666666667), abs=1e-9)
    curve = ranking.curve()
    assert curve.thresholds == pytest.approx([np.inf, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0])
    assert curve.fp.tolist() == [0, 0, 0, 0, 0, 2, 3, 7, 10, 21, 42]


def test_t5_wrong_variants_differ():
    """4-connectivity makes three regions; without the good image false positives weigh more."""
    right = collect([(M1, G1, ("a",)), (M2, EMPTY, ())]).aupro(0.3)
    cross = ndimage.generate_binary_structure(2, 1)
    four = brute_force_aupro([(M1, G1, ()), (M2, EMPTY, ())], 0.3, structure=cross)
    without_good = collect([(M1, G1, ("a",))]).aupro(0.3)
    assert four == pytest.approx(0.877645503, abs=1e-7)
    assert without_good == pytest.approx(0.761851852, abs=1e-9)
    assert abs(four - right) > 1e-2
    assert abs(without_good - right) > 1e-2


def test_equal_maps_and_perfect_maps():
    flat = collect([(np.ones((4, 6)), G1, ()), (np.ones((4, 6)), EMPTY, ())])
    assert flat.aupro(0.3) == pytest.approx(0.15)
    assert flat.aupro(1.0) == pytest.approx(0.5)
    assert flat.auroc() == 0.5
    perfect = collect([(G1.astype(np.float32), G1, ())])
    assert [perfect.aupro(limit) for limit in LIMITS] == pytest.approx([1.0] * 5)
    assert (perfect.auroc(), perfect.average_precision(), perfect.f1_max().f1) == (1, 1, 1)


@given(image_sets())
@settings(deadline=None, max_examples=80)
def test_closed_form_is_the_brute_force_curve(images):
    summary = collect(images).summary(limits=LIMITS)
    for limit in LIMITS:
        assert summary.aupro[limit] == pytest.approx(brute_force_aupro(images, limit), abs=1e-10)


@given(image_sets())
@settings(deadline=None, max_examples=80)
def test_equals_scikit_learn(images):
    scores = np.concatenate([anomaly_map.ravel() for anomaly_map, _, _ in images])
    labels = np.concatenate([mask.ravel() for _, mask, _ in images])
    summary = collect(images).summary()
    assert summary.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert summary.average_precision == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@given(image_sets(), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_chunks_order_and_offset_do_not_matter(images, chunk, random):
    expected = collect(images).summary(limits=LIMITS)
    shuffled = list(images)
    random.shuffle(shuffled)
    shifted = [(anomaly_map * 2 + 8, mask, tags) for anomaly_map, mask, tags in images]  # ties stay ties
    for variant in (
        collect(images, chunk=chunk).summary(limits=LIMITS),
        collect(shuffled).summary(limits=LIMITS),
        collect(shifted).summary(limits=LIMITS),
    ):
        assert variant.auroc == expected.auroc
        assert variant.f1_max.f1 == expected.f1_max.f1
        assert variant.average_precision == pytest.approx(expected.average_precision, abs=1e-12)
        assert variant.aupro == pytest.approx(expected.aupro, abs=1e-12)


@given(image_sets())
@settings(deadline=None, max_examples=60)
def test_a_subset_equals_its_images_alone(images):
    """Good images count in every subset, an image with two types in both, other backgrounds nowhere."""
    ranking = collect(images)
    for tag in ranking.tags:
        alone = collect([image for image in images if not image[2] or tag in image[2]])
        assert ranking.summary(tag, LIMITS).auroc == alone.auroc()
        assert ranking.summary(tag, LIMITS).aupro == pytest.approx(
            alone.summary(None, LIMITS).aupro, abs=1e-12
        )
        assert ranking.average_precision(tag) == pytest.approx(alone.average_precision(), abs=1e-12)
        assert ranking.f1_max(tag) == alone.f1_max()
        assert ranking.confusion(0.5, tag) == alone.confusion(0.5)
        assert ranking.summary(tag).n_regions == alone.summary().n_regions


@given(image_sets(), st.floats(-0.5, 1.5, width=32))
@settings(deadline=None, max_examples=60)
def test_counts_at_a_threshold(images, threshold):
    called = np.concatenate([(anomaly_map >= np.float32(threshold)).ravel() for anomaly_map, _, _ in images])
    truth = np.concatenate([mask.ravel() for _, mask, _ in images])
    counts = (
        np.sum(called & truth),
        np.sum(called & ~truth),
        np.sum(~called & truth),
        np.sum(~called & ~truth),
    )
    assert collect(images).confusion(threshold) == Confusion(*counts)


def test_threshold_is_compared_in_float32():
    """float32(0.7) < 0.7: compared in float64 the pixel would be missed."""
    assert collect([(np.float32([[0.7, 0]]), np.array([[True, False]]), ())]).confusion(0.7).tp == 1


def test_adding_after_asking():
    ranking = collect([(M1, G1, ("a",))])
    first = ranking.aupro(0.3)
    ranking.add(M2, EMPTY, label=0)
    assert first != ranking.aupro(0.3) == pytest.approx(0.833333333, abs=1e-9)
    ranking.add(1 - M2, EMPTY, label=0)  # joins images that are sorted already
    expected = collect([(M1, G1, ("a",)), (M2, EMPTY, ()), (1 - M2, EMPTY, ())]).summary()
    assert ranking.summary() == expected


def test_arguments_are_left_alone():
    anomaly_map, mask = M1.copy(), G1.copy()
    ranking = collect([(anomaly_map, mask, ("a",)), (M2.copy(), EMPTY, ())])
    anomaly_map[:] = 0
    mask[:] = True
    assert ranking.aupro(0.3) == pytest.approx(0.833333333, abs=1e-9)


def test_thinned_curve_lies_on_the_full_one():
    random = np.random.default_rng(0)
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:30, 20:40] = True
    maps = [random.random((64, 64), dtype=np.float32) + 0.5 * mask, random.random((64, 64), dtype=np.float32)]
    ranking = collect([(maps[0], mask, ("a",)), (maps[1], np.zeros_like(mask), ())])
    full, thin = ranking.curve(points=10**6), ranking.curve(points=100)
    assert full.thresholds.size == 1 + np.unique(maps).size
    assert 80 < thin.thresholds.size <= 104
    position = {t: k for k, t in enumerate(full.thresholds)}
    kept = [position[t] for t in thin.thresholds]
    assert thin.tp.tolist() == full.tp[kept].tolist()
    assert thin.fp.tolist() == full.fp[kept].tolist()
    assert (thin.tpr[0], thin.fpr[0], thin.tpr[-1], thin.fpr[-1]) == (0, 0, 1, 1)
    assert np.diff(thin.fpr).max() < 0.05
    assert np.trapezoid(thin.tpr, thin.fpr) == pytest.approx(ranking.auroc(), abs=1e-3)


def test_undefined_values_are_nan():
    good = collect([(M2, EMPTY, ())]).summary()
    assert np.isnan([good.auroc, good.average_precision, good.f1_max.f1, good.aupro[0.3]]).all()
    everything = collect([(M1, np.ones((4, 6)), ())]).summary()
    assert np.isnan([everything.auroc, everything.aupro[0.3]]).all()
    assert everything.average_precision == 1
    assert np.isnan(PixelRanking().auroc())
    assert PixelRanking().curve().tp.tolist() == [0]


def test_an_anomalous_image_without_a_mask_is_left_out():
    ranking = collect([(M1, G1, ("a",)), (M2, EMPTY, ())])
    expected = ranking.aupro(0.3)
    ranking.add(np.full((4, 6), 9.0), EMPTY, label=1, tags=["a"])
    assert ranking.aupro(0.3) == expected
    assert ranking.summary("a").n_left_out == 1


def test_infinite_maps_are_ordered():
    ranking = collect([(np.float32([[np.inf, -np.inf, 0]]), np.array([[True, False, False]]), ())])
    assert ranking.auroc() == 1


def test_a_mask_of_0_and_255_is_a_mask():
    assert collect([(M1, 255 * G1.astype(np.uint8), ())]).summary().n_pos == 6


def test_a_bare_string_is_one_tag():
    assert collect([(M1, G1, "scratch")]).tags == ["scratch"]


@pytest.mark.parametrize(
    ("anomaly_map", "mask", "label", "message"),
    [
        (np.where(M1 == 0.5, np.nan, M1), G1, 1, "screw/003.*NaN"),
        (M1, G1[:3], 1, r"screw/003.*\(4, 6\).*\(3, 6\)"),
        (M1, G1, 0, "screw/003: labelled good but its mask marks 6 px"),
        (M1, G1, 2, "screw/003: label is 2"),
    ],
)
def test_wrong_input_is_named(anomaly_map, mask, label, message):
    with pytest.raises(ValueError, match=message):
        PixelRanking().add(anomaly_map, mask, label=label, name="screw/003")


def test_unknown_tag_and_limit():
    ranking = collect([(M1, G1, ("scratch",))])
    with pytest.raises(ValueError, match="did you mean scratch"):
        ranking.auroc("scratches")
    with pytest.raises(ValueError, match="30"):
        ranking.aupro(30)
