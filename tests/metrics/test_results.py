"""Names, break-down (T8), reasons of undefined values and averages (the thesis' table) of results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from andon.core.records import Record
from andon.metrics import (
    Metric,
    PixelRanking,
    UndefinedMetricWarning,
    auroc,
    f1_max,
    image_metrics,
    pixel_metrics,
    record_tags,
)
from andon.metrics.counts import exact_interval

pytestmark = pytest.mark.filterwarnings("ignore:undefined, written as null.*few_vertices")

GOOD, LOGICAL, STRUCTURAL = [0.1, 0.3, 0.4, 0.5], [0.2, 0.6, 0.7], [0.35, 0.45]
T8_SCORES = GOOD + LOGICAL + STRUCTURAL
T8_LABELS = [0] * 4 + [1] * 5
T8_TAGS = [()] * 4 + [("logical", "missing")] * 2 + [("logical", "swapped")] + [("structural", "missing")] * 2


def test_t8_break_down():
    metrics = image_metrics(T8_SCORES, T8_LABELS, 0.45, tags=T8_TAGS)
    assert metrics["image_auroc@logical"].value == 0.75
    assert metrics["image_auroc@structural"].value == 0.625
    assert metrics["image_auroc"].value == pytest.approx(0.7) == (3 * 0.75 + 2 * 0.625) / 5
    assert metrics["image_auroc@mean"].value == 0.6875
    assert metrics["image_auroc@missing"].value == auroc(GOOD + LOGICAL[:2] + STRUCTURAL, [0] * 4 + [1] * 4)
    assert (metrics["image_auroc@logical"].n_pos, metrics["image_auroc@logical"].n_neg) == (3, 4)
    assert (metrics["image_auroc@mean"].n_pos, metrics["image_auroc@mean"].n_neg) == (5, 4)


def test_image_metrics_at_the_threshold_and_at_the_oracle():
    metrics = image_metrics(T8_SCORES, T8_LABELS, 0.45)
    values = {name: metric.value for name, metric in metrics.items()}
    assert values["image_precision"] == 3 / 4
    assert values["image_recall"] == 3 / 5
    assert values["image_f1"] == 2 * 3 / (2 * 3 + 1 + 2)
    assert values["image_fpr"] == 1 / 4
    best = f1_max(T8_SCORES, T8_LABELS)
    assert (values["image_f1_max"], values["image_f1_max_precision"], values["image_f1_max_recall"]) == (
        best.f1,
        best.precision,
        best.recall,
    )
    assert {name for name, metric in metrics.items() if metric.oracle} == {
        "image_f1_max",
        "image_f1_max_precision",
        "image_f1_max_recall",
    }


@pytest.mark.parametrize("threshold", [0.15, 0.45, 0.65])
def test_f1_follows_from_recall_and_precision(threshold):
    """I-40, at the stored threshold and at the oracle's; for pixels at theirs as well."""
    found = {name: metric.value for name, metric in image_metrics(T8_SCORES, T8_LABELS, threshold).items()}
    found |= {name: metric.value for name, metric in pixel_metrics(pixel_ranking(), threshold).items()}
    for name in ("image_f1", "image_f1_max", "pixel_f1", "pixel_f1_max"):
        level = name if name.endswith("max") else name[:5]
        p, r = found[f"{level}_precision"], found[f"{level}_recall"]
        assert found[name] == pytest.approx(2 * p * r / (p + r), abs=1e-12), name


@pytest.mark.parametrize(("part", "whole"), [(0, 10), (1, 25), (13, 40), (10, 10)])
def test_exact_interval_is_that_of_scipy(part: int, whole: int) -> None:
    expected = stats.binomtest(part, whole).proportion_ci(0.95, method="exact")
    assert exact_interval(part, whole) == pytest.approx((expected.low, expected.high))


def test_recall_and_false_reject_rate_have_exact_intervals():
    metrics = image_metrics(T8_SCORES, T8_LABELS, 0.45, tags=T8_TAGS, draws=20)
    assert metrics["image_recall"].interval == exact_interval(3, 5)
    assert metrics["image_fpr"].interval == metrics["image_fpr@mean"].interval == exact_interval(1, 4)
    assert metrics["image_recall@logical"].interval == exact_interval(2, 3)
    with pytest.warns(UndefinedMetricWarning):
        none = image_metrics([0.1, 0.2], [0, 0], 1.0)
    assert (none["image_recall"].interval, none["image_fpr"].interval) == (None, exact_interval(0, 2))


def test_views_of_one_part_are_no_independent_images():
    """Exact intervals count each image as one trial; with several of one part the bootstrap draws whole parts."""
    parts = [f"part {k // 2}" for k in range(9)]
    with_parts = image_metrics(T8_SCORES, T8_LABELS, 0.45, object_ids=parts, draws=50)
    assert with_parts["image_recall"].interval not in (None, exact_interval(3, 5))
    single = image_metrics(T8_SCORES, T8_LABELS, 0.45, object_ids=list("abcdefghi"), draws=50)
    assert single["image_recall"].interval == exact_interval(3, 5)


def test_without_a_threshold_and_tags():
    names = set(image_metrics(T8_SCORES, T8_LABELS))
    assert names == {
        "image_auroc",
        "image_ap",
        "image_f1_max",
        "image_f1_max_precision",
        "image_f1_max_recall",
    }


def test_pooled_auroc_is_the_weighted_mean_of_types():
    """I-20."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [20, 50])
    scores = random.integers(0, 10, 70) + labels
    types = random.choice(["a", "b", "c"], 70)
    metrics = image_metrics(scores, labels, tags=[(name,) for name in types])
    parts = [metrics[f"image_auroc@{name}"] for name in "abc"]
    pooled = sum(part.n_pos * part.value for part in parts) / 50
    assert metrics["image_auroc"].value == pytest.approx(pooled, abs=1e-12)


def test_undefined_image_metrics():
    with pytest.warns(UndefinedMetricWarning) as caught:
        metrics = image_metrics([0.1, 0.2], [0, 0], 0.5)
    assert len(caught) == 1
    assert math.isnan(metrics["image_auroc"].value)
    assert metrics["image_auroc"].to_json() == {
        "value": None,
        "n_pos": 0,
        "n_neg": 2,
        "reason": "no_positives",
        "oracle": False,
    }
    assert metrics["image_precision"].reason == "nothing_called"
    assert metrics["image_fpr"] == Metric(0.0, 0, 2, interval=exact_interval(0, 2))
    with pytest.warns(UndefinedMetricWarning, match=r"image_auroc \(no_negatives\)"):
        metrics = image_metrics([0.1, 0.2], [1, 1], 0.15)
    assert metrics["image_ap"] == Metric(1.0, 2, 0)
    assert metrics["image_fpr"].reason == "no_negatives"


def test_an_undefined_half_makes_the_mean_undefined():
    with pytest.warns(UndefinedMetricWarning):
        metrics = image_metrics([1, 2, 3], [0, 1, 1], 2.5, tags=[(), ("logical",), ("structural",)])
    assert metrics["image_precision@logical"].reason == "nothing_called"
    assert metrics["image_precision@structural"].value == 1
    assert math.isnan(metrics["image_precision@mean"].value)
    assert metrics["image_precision@mean"].reason == "nothing_called"


@pytest.mark.parametrize("metric", [Metric(0.5, 1, 2), Metric(0.5, 1, 2, oracle=True)])
def test_json_round_trip(metric):
    assert Metric.from_json(json.loads(json.dumps(metric.to_json()))) == metric


def test_json_of_nan():
    back = Metric.from_json(json.loads(json.dumps(Metric(math.nan, 0, 1, "no_positives").to_json())))
    assert math.isnan(back.value)
    assert back.reason == "no_positives"


def test_messages_name_the_image():
    with pytest.raises(ValueError, match="bolt/test/rust/001"):
        image_metrics([1, math.nan], [0, 1], names=["bolt/test/good/000", "bolt/test/rust/001"])
    with pytest.raises(ValueError, match="one collection per picture"):
        image_metrics([1, 2], [0, 1], tags=[()])


def pixel_ranking():
    random = np.random.default_rng(0)
    ranking = PixelRanking()
    for index, tags in enumerate([(), (), ("logical",), ("structural",), ("structural", "dent")]):
        mask = np.zeros((8, 8), dtype=bool)
        mask[2:4, index : index + 2] = bool(tags)
        ranking.add(
            random.random((8, 8), dtype=np.float32) + 0.4 * mask, mask, label=int(bool(tags)), tags=tags
        )
    return ranking


def test_pixel_metrics():
    ranking = pixel_ranking()
    metrics = pixel_metrics(ranking, threshold=0.9)
    assert metrics["pixel_auroc"] == Metric(ranking.auroc(), 12, 5 * 64 - 12)
    assert metrics["pixel_ap@dent"].value == ranking.average_precision("dent")
    assert metrics["aupro_0.30"] == Metric(ranking.aupro(0.30), 3, 5 * 64 - 12)
    assert metrics["aupro_0.05@structural"].value == ranking.aupro(0.05, "structural")
    assert metrics["pixel_f1"].value == ranking.confusion(0.9).f1
    assert metrics["pixel_recall@logical"].value == ranking.confusion(0.9, "logical").recall
    halves = [metrics[f"aupro_0.30@{half}"].value for half in ("logical", "structural")]
    assert metrics["aupro_0.30@mean"].value == sum(halves) / 2
    assert metrics["pixel_f1_max"].oracle
    assert "aupro_0.10" in pixel_metrics(ranking, limits=(0.1,))


@pytest.mark.parametrize(
    ("label", "reasons"), [(0, ("no_positives", "no_regions")), (1, ("no_masks", "no_masks"))]
)
def test_undefined_pixel_metrics(label, reasons):
    ranking = PixelRanking()
    ranking.add(np.ones((2, 2), dtype=np.float32), np.zeros((2, 2), dtype=bool), label=label)
    with pytest.warns(UndefinedMetricWarning):
        metrics = pixel_metrics(ranking)
    assert (metrics["pixel_auroc"].reason, metrics["aupro_0.30"].reason) == reasons
    assert math.isnan(metrics["aupro_0.05"].value)


@pytest.mark.parametrize(
    ("label", "group", "defect_type", "tags"),
    [
        (0, "good", "good", ()),
        (1, "anomalous", "scratch", ("scratch",)),
        (1, "logical", "logical_anomalies", ("logical",)),
        (1, "structural", "broken_pin", ("structural", "broken_pin")),
        (1, "anomalous", "3+5", ("3", "5")),
        (1, "anomalous", "", ()),
        (None, "unknown", "", ()),
    ],
)
def test_tags_of_a_record(label, group, defect_type, tags):
    record = Record(Path("a.png"), id="a", label=label, group=group, defect_type=defect_type)
    assert record_tags(record) == tags
