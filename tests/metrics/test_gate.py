"""The gate: formulas against plain loops, what it may not change, and the way from the command line to the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from andon.metrics import Gate, gated_map, gated_mask, gated_verdict

MAPS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e6, 1e6, width=32)
)
THRESHOLDS = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None, max_examples=80)
@given(MAPS, THRESHOLDS, st.booleans())
def test_map_mask_and_verdict_agree(values, threshold, flagged):
    shifted = gated_map(values, flagged, threshold)
    assert shifted.shape == values.shape
    assert shifted.dtype == np.float32
    assert np.array_equal(shifted >= np.float32(threshold), gated_mask(values, flagged, threshold))
    assert gated_verdict(values, flagged, threshold) == (flagged and values.max() >= threshold)
    if flagged or values.max() < threshold:
        assert np.array_equal(shifted, values)


@settings(deadline=None, max_examples=60)
@given(MAPS, THRESHOLDS)
def test_an_unflagged_map_keeps_its_order(values, threshold):
    shifted = gated_map(values, False, threshold)
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(shifted.ravel()[order]) >= 0).all()
    exact = values.astype(float) - max(0.0, float(values.max()) - threshold)
    np.testing.assert_allclose(shifted, exact, rtol=1e-5, atol=1.0)


def test_three_pixels_by_hand():
    values = np.float32([[3.0, 1.0, 2.0]])
    np.testing.assert_allclose(gated_map(values, False, 2.5), [[2.5, 0.5, 1.5]], rtol=1e-6)
    assert gated_map(values, False, 2.5).max() < 2.5
    assert gated_map(np.float32([[np.inf, 1.0]]), False, 2.0).max() < 2.0


def images(seed: int = 0):
    """(map, mask, score, label, tags): good, and anomalous with one or two square defects of mixed strength."""
    rng = np.random.default_rng(seed)
    for k in range(24):
        anomaly_map = rng.normal(0, 1, (12, 12)).astype(np.float32)
        mask = np.zeros((12, 12), bool)
        for top in rng.choice([0, 6], size=k % 3, replace=False):
            mask[top : top + 4, 2:6] = True
            anomaly_map[top : top + 4, 2:6] += np.float32(rng.uniform(0, 4))
        yield anomaly_map, mask, float(rng.normal(k % 3, 1)), int(mask.any()), ("a", "b")[k % 2 : k % 2 + 1]


def test_metrics_against_plain_counting():
    gate, tau_image, tau_pixel = Gate(0.8, 2.2), 0.8, 2.2
    tp = fp = fn = right = wrong = missed = found = kept = 0
    for anomaly_map, mask, score, label, tags in images():
        gate.add(anomaly_map, mask, score=score, label=label, tags=tags if label else ())
        flagged = score >= tau_image
        marked = (anomaly_map >= np.float32(tau_pixel)) & flagged
        tp, fp, fn = tp + (marked & mask).sum(), fp + (marked & ~mask).sum(), fn + (~marked & mask).sum()
        bad = bool(marked.any())
        right, wrong, missed = (
            right + (bad and label),
            wrong + (bad and not label),
            missed + (not bad and label),
        )
        for half in (slice(0, 6), slice(6, 12)):
            if mask[half].any():
                hit = bool((anomaly_map[half][mask[half]] >= np.float32(tau_pixel)).any())
                found, kept = found + hit, kept + (hit and flagged)
    metrics = {name: metric.value for name, metric in gate.metrics().items()}
    assert 0 < kept < found
    assert metrics["pixel_precision_gated"] == pytest.approx(tp / (tp + fp))
    assert metrics["pixel_recall_gated"] == pytest.approx(tp / (tp + fn))
    assert metrics["pixel_f1_gated"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert metrics["image_precision_gated"] == pytest.approx(right / (right + wrong))
    assert metrics["image_recall_gated"] == pytest.approx(right / (right + missed))
    assert metrics["defects_lost"] == pytest.approx(1 - kept / found)
    assert {"defects_lost@a", "pixel_f1_gated@b", "pixel_auroc_gated", "aupro_0.30_gated"} <= metrics.keys()
    assert "image_auroc_gated" not in metrics  # the gate decides, it does not rank


def test_where_nothing_was_found_nothing_is_lost():
    gate = Gate(1.0, 5.0)
    gate.add(np.zeros((4, 4), np.float32), np.eye(4, dtype=bool), score=0.0, label=1)
    gate.add(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool), score=0.0, label=0)
    lost = gate.metrics()["defects_lost"]
    assert np.isnan(lost.value)
    assert lost.reason == "nothing_found"


# From the command line to the report ------------------------------------------------------------------------------


def test_evaluating_with_the_gate(own_run, cli):
    outcome = cli("evaluate", own_run, "--gate", "--json")
    assert outcome.code == 0, outcome
    gated = json.loads(outcome.out)
    assert gated["protocol"]["gate"] is True
    names = {"pixel_precision", "pixel_recall", "pixel_f1"}
    assert names | {f"{name}_gated" for name in names} | {"defects_lost"} <= gated["metrics"].keys()
    assert "pixel F1, gated" in (own_run / "report.html").read_text(encoding="utf-8")
    header, *rows = (own_run / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert header.split(",")[-2] == "is_anomalous_gated"
    for row in rows:
        name, *_, verdict, _ = row.split(",")
        mask = own_run / "masks" / f"{'/'.join(name.split('/')[-2:])}.png"
        assert np.asarray(Image.open(mask)).any() == (verdict == "1")


def test_the_gate_is_off_unless_the_recipe_or_the_call_asks_for_it(own_run, monkeypatch):
    from andon.report.evaluation import Report
    from andon.runs.evaluate import evaluate_run

    monkeypatch.setattr(Report, "save", lambda *_, **__: None)
    plain = evaluate_run(own_run, latency=False)
    assert plain.gate is False
    assert not any("gated" in name or "lost" in name for name in plain.metrics)
    text = (own_run / "recipe.yaml").read_text(encoding="utf-8")
    (own_run / "recipe.yaml").write_text(text.replace("gate: false", "gate: true"), encoding="utf-8")
    gated = evaluate_run(own_run, latency=False)
    assert "defects_lost" in gated.metrics
    assert all(repr(gated.metrics[name]) == repr(metric) for name, metric in plain.metrics.items())
    assert evaluate_run(own_run, gate=False, latency=False).gate is False


def test_gate_is_a_setting_of_every_recipe():
    from andon.detectors._recipes import load_recipe, with_own_changes

    for name in ("padim/starter", "efficientad_ast/starter"):
        assert load_recipe(name).gate is False
        assert with_own_changes(load_recipe(name), {"gate": True})[0].gate is True
