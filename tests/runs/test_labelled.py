"""Labelled anomalies: what the thresholds make of them, what every table says about them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import RUN_SETTINGS, set_options
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.errors import ConfigError, DataError
from andon.detectors._recipes import load_recipe, resolve
from andon.experiments.comparison import write_tables
from andon.experiments.sweep import Job, Result
from andon.runs.evaluate import evaluate_run
from andon.runs.fit import fit_run
from andon.runs.source import Source
from andon.thresholds.rules import labelled_f1

# How many ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", ["five", "-2", "1.5"])
def test_what_is_no_number_of_pictures_is_said(cli, dataset_folder, tmp_path, count):
    outcome = cli("fit", dataset_folder, f"--labelled={count}", "--out", tmp_path / "run")
    assert f"a folder of pictures of defects; not {count!r}" in outcome.complaint()
    assert not (tmp_path / "run").exists()


# Thresholds -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=1, max_size=12))
def test_labelled_threshold_has_the_best_f1(pairs):
    scores, labels = np.float32([s for s, _ in pairs]), np.array([b for _, b in pairs])
    if not labels.any():
        with pytest.raises(DataError):
            labelled_f1(scores, labels)
        return

    def f1(threshold: float) -> float:
        called = scores >= np.float32(threshold)
        return 2 * (called & labels).sum() / (called.sum() + labels.sum())

    found = labelled_f1(scores, labels)
    assert f1(found.value) == max(f1(s) for s in scores)
    assert not found.oracle
    assert "no false-reject rate is guaranteed" in found.describe()


def test_labelled_threshold_lies_between_the_classes():
    assert labelled_f1([1.0, 2.0, 4.0], [0, 0, 1]).value == 3.0
    above = np.nextafter(np.float32(2), np.float32(3))
    assert labelled_f1(np.float32([2, above]), [0, 1]).value == above


# Runs -----------------------------------------------------------------------------------------------------------

PADIM = {
    "extractor.taps": ["layer1"],
    "extractor.image_size": 32,
    "resize": None,
    "channels": 8,
    "smoothing": 1.0,
}


def fit(run: Path, source: Source, recipe: str = "padim/starter", **changes: object):
    base = PADIM if recipe.startswith("padim") else RUN_SETTINGS
    chosen = {key.replace("__", "."): value for key, value in changes.items()}
    return fit_run(run, source, resolve(load_recipe(recipe), base | chosen), device="cpu")


def test_a_detector_without_use_for_labels_says_so_and_is_tested_on_the_rest(
    dataset_folder, tmp_path, monkeypatch
):
    detector, dataset = fit(tmp_path / "run", Source(str(dataset_folder)), labelled=2)
    plain, _ = fit(tmp_path / "plain", Source(str(dataset_folder)))
    assert all(
        a.equal(b) for a, b in zip(detector.state_dict().values(), plain.state_dict().values(), strict=True)
    )
    assert detector.calibration == plain.calibration
    monkeypatch.setattr("andon.report.evaluation.Report.save", lambda *_, **__: None)
    report = evaluate_run(tmp_path / "run", latency=False)
    assert {case.record.id for case in report.cases} == {record.id for record in dataset.test}
    assert len(report.cases) == 6
    assert report.notes[0] == (
        "2 labelled anomalous pictures were taken out of the test and not used: this padim learns from good pictures only"
    )
    protocol = report.to_json()["protocol"]
    assert (protocol["labelled_anomalous"], protocol["label_use"]) == (2, "")
    # the same pictures under another path are not tested on either
    moved = Source(str(shutil.copytree(dataset_folder, tmp_path / "elsewhere")))
    assert len(evaluate_run(tmp_path / "run", data=moved, latency=False).cases) == 6


def test_thresholds_from_labels(dataset_folder, tmp_path, monkeypatch):
    source = Source(str(dataset_folder))
    detector, dataset = fit(
        tmp_path / "run", source, labelled=2, threshold="labels", threshold_scores="held_out"
    )
    found = detector.fitted()
    scores = [p.raw_score for p in detector.predict([*dataset.validation, *dataset.labelled])]
    labels = [0] * len(dataset.validation) + [1] * 2
    assert found.image.value == pytest.approx(labelled_f1(scores, labels).value, rel=1e-4)
    assert found.image.rule == found.pixel.rule == "labelled_f1"
    assert len(found.scores) == len(dataset.validation)
    report = evaluate_run(tmp_path / "run", latency=False)
    assert report.label_use == "the thresholds"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Labelled defects were used" in page
    assert "used for the thresholds" in page


def test_what_needs_labels_asks_for_them(dataset_folder, tmp_path):
    source = Source(str(dataset_folder))
    with pytest.raises(ConfigError, match="add --labelled 5"):
        fit(tmp_path / "a", source, threshold="labels")
    with pytest.raises(DataError, match="held-out good ones only"):
        fit(
            tmp_path / "b",
            source,
            threshold="labels",
            threshold_scores="held_out",
            labelled=1,
            hold_out=False,
        )


def test_epochs_judged_by_labels(dataset_folder, tmp_path):
    from andon.runs.folder import read_stages

    detector, _ = fit(
        tmp_path / "run",
        Source(str(dataset_folder)),
        "efficientad_ast/starter",
        labelled=2,
        selection="labels",
        epochs=2,
    )
    assert detector.label_use == "the choice of the epoch"
    judged = read_stages(tmp_path / "run")["student"].judged
    assert len(judged) == 2
    assert {"image_auroc", "pixel_auroc"} <= judged[0].keys()


def test_from_the_command_line(dataset_folder, tmp_path, cli):
    said = cli(
        "fit",
        dataset_folder,
        *set_options(threshold="labels"),
        "--labelled",
        2,
        "--out",
        tmp_path / "run",
        "--json",
    )
    assert said.code == 0, said
    values = json.loads(said.out)
    assert (values["labelled"], values["label_use"]) == (2, "the thresholds")
    assert "leave none to test on" in cli("fit", dataset_folder, "--labelled", 4).complaint()
    assert "labelled" in cli("fit", dataset_folder, "--set", "labelled=-1").complaint()


def made_result(recipe: str, use: str) -> Result:
    report = {
        "detector": recipe.split("/")[0],
        "dataset": "embedded",
        "metrics": {"image_auroc": {"value": 0.9}},
        "time": {"fit_seconds": 1.0},
        "latency_ms": None,
        "teacher": {},
        "protocol": {"selected_on_test_labels": False, "labelled_anomalous": 5, "label_use": use},
        "weights": [],
        "machine": "a machine",
    }
    return Result(Job(recipe, "data", "fabric", "auto", 0), report, 0)


def test_the_tables_name_who_used_labels(tmp_path):
    results = [made_result("padim/starter", ""), made_result("efficientad_ast/starter", "the thresholds")]
    tables = write_tables(results, tmp_path)
    assert [row[-1] for row in tables[0].rows] == ["–", "5 labelled (the thresholds)"]
    assert any(note.startswith("5 labelled anomalous pictures per category") for note in tables[0].notes)
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [row["label_use"] for row in rows] == ["", "the thresholds"]
