"""Bootstrap intervals: the metrics of each draw, stratification, order, seeds, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from andon.metrics import Metric, auroc, average_precision, bootstrap, confusion, f1_max, image_metrics
from andon.metrics.bootstrap import image_draws, intervals, paired_auroc, percentile_interval

pytestmark = pytest.mark.filterwarnings("ignore:undefined, written as null")


def made(seed=0, n_good=12, n_bad=9):
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [n_good, n_bad])
    return (random.integers(0, 8, n_good + n_bad) + 2 * labels).astype(np.float32), labels


@given(st.integers(0, 10**6), st.floats(-1, 12, width=32))
@settings(deadline=None, max_examples=25)
def test_metrics_of_a_draw_are_those_of_its_images(seed, threshold):
    """Each draw repeated as plain scores and labels, measured by the other implementation."""
    scores, labels = made(seed)
    good, bad = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    found = image_draws(scores, labels == 1, {"": labels == 1}, threshold, draws=3, seed=seed)[""]
    counts = [
        np.random.default_rng([seed, k]).multinomial(v.size, np.full(v.size, 1 / v.size), 3)
        for k, v in enumerate((good, bad))
    ]
    for row in range(3):
        drawn = np.concatenate([np.repeat(good, counts[0][row]), np.repeat(bad, counts[1][row])])
        at = confusion(drawn, labels, threshold)
        expected = {
            "auroc": auroc(drawn, labels),
            "ap": average_precision(drawn, labels),
            "f1_max": f1_max(drawn, labels).f1,
            "f1": at.f1,
            "precision": at.precision,
            "recall": at.recall,
            "fpr": at.fpr,
        }
        assert {name: values[row] for name, values in found.items()} == pytest.approx(expected, nan_ok=True)


def test_order_and_blocks_change_nothing_and_the_seed_does(monkeypatch):
    scores, labels = made()
    shuffled = np.random.default_rng(1).permutation(scores.size)
    first = image_metrics(scores, labels, 5.0, draws=200)
    second = image_metrics(scores[shuffled], labels[shuffled], 5.0, draws=200)
    other = image_metrics(scores, labels, 5.0, draws=200, seed=1)
    assert first == second
    assert first["image_auroc"].interval != other["image_auroc"].interval
    monkeypatch.setattr(bootstrap, "CELLS", 50)
    assert image_metrics(scores, labels, 5.0, draws=200) == first


def test_the_interval_lies_about_the_value_and_narrows():
    few, many = (image_metrics(*made(3, n, n), draws=300)["image_auroc"] for n in (20, 500))
    for metric in (few, many):
        assert metric.interval[0] < metric.value < metric.interval[1]
    assert many.interval[1] - many.interval[0] < 0.5 * (few.interval[1] - few.interval[0])


def test_coverage_of_the_true_auroc():
    """Of 60 test sets from one distribution about 95 % have an interval that holds the true AUROC."""
    random = np.random.default_rng(0)
    truth, hits = 0.7602, 0  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    labels = np.repeat([0, 1], [50, 50])
    for _ in range(60):
        scores = random.standard_normal(100) + labels
        low, high = image_metrics(scores, labels, draws=200)["image_auroc"].interval
        hits += low <= truth <= high
    assert 51 <= hits <= 60


def test_subsets_share_the_good_images_and_have_a_mean():
    scores, labels = made(2, 20, 20)
    tags = [()] * 20 + [("logical",)] * 10 + [("structural",)] * 10
    metrics = image_metrics(scores, labels, 5.0, tags=tags, draws=200)
    for name in ("image_auroc@logical", "image_auroc@structural", "image_auroc@mean", "image_f1@mean"):
        low, high = metrics[name].interval
        assert low < metrics[name].value < high
    # False alarms are those of the good images, the same in each draw of each subset.
    assert metrics["image_fpr@logical"].interval == metrics["image_fpr@structural"].interval
    assert metrics["image_fpr@mean"].interval == metrics["image_fpr"].interval


def test_images_of_one_part_are_drawn_together():
    """Five copies of each image say no more than one: the interval stays as wide, and the order does not matter."""
    scores, labels = made(4, 12, 12)
    alone = image_metrics(scores, labels, 5.0, object_ids=[None] * 24, draws=200)
    assert alone == image_metrics(scores, labels, 5.0, draws=200)
    copies, parts = np.tile(scores, 5), [f"part {k % 24}" for k in range(120)]
    together = image_metrics(copies, np.tile(labels, 5), 5.0, object_ids=parts, draws=200)
    apart = image_metrics(copies, np.tile(labels, 5), 5.0, draws=200)
    widths = [np.diff(found["image_auroc"].interval)[0] for found in (alone, together, apart)]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert widths[2] < 0.6 * widths[0]
    order = np.random.default_rng(0).permutation(120)
    mixed = image_metrics(
        copies[order], np.tile(labels, 5)[order], 5.0, object_ids=[parts[k] for k in order], draws=200
    )
    assert mixed == together
    assert (
        image_metrics([1, 2, 3, 4], [0, 0, 1, 1], object_ids=["a", "a", None, None], draws=9)[
            "image_auroc"
        ].interval
        is None
    )


def test_one_image_has_no_interval_and_a_perfect_ranking_a_single_value():
    assert image_metrics([1, 2, 3], [0, 0, 1], draws=50)["image_auroc"].interval is None
    assert image_metrics([1, 2, 3], [0, 0, 0], draws=50)["image_auroc"].interval is None
    assert image_metrics([1, 2, 3, 4], [0, 0, 1, 1], draws=50)["image_auroc"].interval == (1, 1)
    assert percentile_interval(np.array([np.nan, np.nan, 0.5])) is None
    assert intervals({"": {"auroc": np.linspace(0, 1, 1001)}})[""]["auroc"] == pytest.approx((0.025, 0.975))


def test_intervals_in_json():
    metric = Metric(0.9, 5, 5, interval=(0.8, 1.0))
    assert metric.to_json()["interval"] == [0.8, 1.0]
    assert Metric.from_json(metric.to_json()) == metric
    assert Metric.from_json(Metric(0.9, 5, 5, error_bound=1e-5).to_json()).error_bound == 1e-5
    assert "interval" not in Metric(0.9, 5, 5).to_json()


# Two rows of a table on the same images -------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
def test_paired_difference_is_that_of_the_aurocs(seed: int, runs: int, good: int, bad: int):
    random = np.random.default_rng(seed)
    truth = random.permutation(np.arange(good + bad) < bad)
    first, second = random.integers(0, 5, (2, runs, good + bad)).astype(float)  # ties included
    difference, found = paired_auroc(first, second, truth, draws=50)
    by_hand = [roc_auc_score(truth, b) - roc_auc_score(truth, a) for a, b in zip(first, second, strict=True)]
    assert difference == pytest.approx(np.mean(by_hand))
    assert (found is None) == (min(good, bad) < 2)
    assert paired_auroc(first, first, truth, draws=50)[1] in ((0.0, 0.0), None)


def test_paired_interval_agrees_with_drawing_images_one_by_one():
    random = np.random.default_rng(3)
    truth = np.arange(60) < 25
    first = random.normal(size=60) + truth
    second = first + random.normal(size=60) * 0.5 + 0.3 * truth
    _, found = paired_auroc(first, second, truth, draws=4000)
    bad, good = np.flatnonzero(truth), np.flatnonzero(~truth)
    values = []
    for _ in range(1500):
        b, g = random.choice(bad, bad.size), random.choice(good, good.size)
        after, before = ((scores[b][:, None] > scores[g]).mean() for scores in (second, first))  # no ties
        values.append(after - before)
    assert found == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.012)


def test_a_pair_is_told_apart_better_than_two_intervals():
    """What is hard for both cancels: the paired interval is narrower than that of unpaired images."""
    random = np.random.default_rng(0)
    truth = np.arange(80) < 40
    first = random.normal(size=80) + truth
    second = first + 0.1 * truth
    other = random.permutation(second[:40]), random.permutation(second[40:])
    paired = paired_auroc(first, second, truth)[1]
    loose = paired_auroc(first, np.concatenate(other), truth)[1]
    assert paired[1] - paired[0] < 0.3 * (loose[1] - loose[0])
