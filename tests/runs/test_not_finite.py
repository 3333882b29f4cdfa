"""A value that is NaN or infinite on the way to a verdict gives the verdict ERROR, never OK."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import texture

from andon.core.errors import DataError
from andon.datasets import open_dataset
from andon.detectors._base import Detector
from andon.detectors._relief import network_planes
from andon.detectors._saving import load_detector
from andon.report.evaluation import evaluate
from andon.runtime.model import FORMAT, Model
from andon.runtime.runtimes import Outputs
from andon.thresholds.calibration import Calibration, GoodResults

BAD = (np.nan, np.inf, -np.inf)


@pytest.fixture(scope="module")
def detector(tiny_run) -> Detector:
    return load_detector(tiny_run)


@pytest.fixture
def second_fails(monkeypatch):
    """The score of each second image is NaN."""
    analyse, seen = Detector.analyse_prepared, []

    def analyse_prepared(self, prepared):
        found = analyse(self, prepared)
        scores = found.scores.copy()
        for k in range(len(scores)):
            seen.append(k)
            if len(seen) % 2 == 0:
                scores[k] = np.nan
        return found._replace(scores=scores)

    monkeypatch.setattr(Detector, "analyse_prepared", analyse_prepared)


@pytest.mark.parametrize("bad", BAD)
def test_scores_and_maps(detector, bad):
    calibration = detector.fitted()
    calibration = replace(calibration, look=replace(calibration.image, value=calibration.image.value - 1))
    good = np.zeros((4, 5), np.float32)
    spoilt = good.copy()
    spoilt[1, 2] = bad
    assert calibration.judge(good, calibration.score_display.typical - 2).verdict == "OK"
    for raw_map, raw_score, reason in (
        (good, bad, "the score is"),
        (spoilt, 0.0, "map holds 1 of 20 values"),
    ):
        found = calibration.judge(raw_map, float(raw_score))
        assert (found.verdict, found.is_anomalous, found.needs_look) == ("ERROR", True, False)
        assert reason in found.error


@pytest.mark.parametrize("bad", BAD)
def test_arrays(detector, bad):
    pixels = texture(0).astype(np.float32) / 255
    spoilt = pixels.copy()
    spoilt[3, 3, 1] = bad
    before, found, after = detector.predict([pixels, spoilt, pixels])
    assert found.verdict == "ERROR"
    assert "NaN or infinite" in found.error
    for other in (before, after):
        assert other.score == pytest.approx(detector.predict(pixels).score, abs=1e-5)
    with pytest.raises(DataError, match="this picture: the picture holds values"):
        list(detector.scan([spoilt]))


@pytest.mark.parametrize("bad", BAD)
def test_exported_networks(detector, bad):
    def session(images):
        maps = np.zeros(images.shape[:3], np.float32)
        return Outputs(np.array([bad], np.float32), np.array([bad], np.float32), maps)

    description = {"format": FORMAT, "detector": "x", "calibration": detector.fitted().to_json()}
    found = Model(session, description).predict(texture(0))
    assert (found.verdict, found.is_anomalous) == ("ERROR", True)


def test_thresholds_are_finite(detector):
    data = detector.fitted().to_json()
    for name, value in (("image", np.nan), ("pixel", np.inf), ("look", None)):
        with pytest.raises(DataError, match=f"the {name} threshold is {value}"):
            Calibration.from_json(data | {name: data["image"] | {"value": value}})


def test_no_threshold_follows_from_it(detector, dataset_folder):
    raw = next(iter(detector.scan([dataset_folder / "train/good/000.png"])))
    with pytest.raises(DataError, match=r"000\.png: the score is nan"):
        GoodResults().add(replace(raw, raw_score=np.nan))


def test_command_line(cli, tiny_run, dataset_folder, second_fails, tmp_path):
    paths = sorted((dataset_folder / "test/good").glob("*.png"))[:2]
    found = cli("predict", tiny_run, *paths, "--json", "--save", tmp_path / "maps")
    assert found.code == 2
    assert "1 of 2 pictures have no verdict (ERROR)" in found.err
    first, second = json.loads(found.out)["predictions"]
    assert first["verdict"] in {"OK", "NG"}
    assert (second["verdict"], second["score"]) == ("ERROR", None)
    assert "the score is nan" in second["reason"]
    assert "ERROR" in (tmp_path / "maps/predictions.csv").read_text()
    table = cli("predict", tiny_run, *paths, "--out", tmp_path / "table.csv")
    assert table.code == 2
    assert "1 ERROR" in table.out


def test_evaluation_counts_it_apart(detector, dataset_folder, second_fails):
    test = open_dataset(dataset_folder).test
    report = evaluate(detector, test, latency=False)
    assert len(report.errors) == len(report.cases) == len(test) // 2
    assert report.to_json()["images"]["errors"] == report.errors
    assert any("verdict ERROR" in note for note in report.notes)
    assert all(np.isfinite(case.raw_score) for case in report.cases)


@pytest.mark.parametrize("mark", [*BAD, -1.0, 1e10, np.finfo(np.float32).max])
def test_missing_points_are_holes_however_they_are_marked(mark):
    v, u = np.mgrid[0:32, 0:32].astype(np.float32) / 100
    points = np.stack([u, v, 0.5 + 0.1 * u], 2)
    points[8:20, 8:20, 2] -= 0.05
    zero, marked = points.copy(), points.copy()
    zero[10:14, 10:14], marked[10:14, 10:14] = 0, mark
    expected = network_planes(zero, 16, distance=7e-3, dilate=3)
    np.testing.assert_array_equal(network_planes(marked, 16, distance=7e-3, dilate=3), expected)
