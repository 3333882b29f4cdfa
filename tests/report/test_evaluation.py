"""Evaluation of a detector whose maps are known: pixel metrics by name, both modes, the tree of float maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import write_picture

from andon.core.errors import ConfigError, DataError
from andon.datasets import Dataset, open_dataset
from andon.detectors._base import Analysis, Detector
from andon.detectors._recipes import RecipeFile
from andon.metrics import PixelHistogram, PixelRanking, auroc
from andon.report.evaluation import Report, evaluate, pixel_scores

SIDE = 48


class Brightness(Detector):
    """A map that is the image's own brightness: nothing is learned, so all numbers are known in advance."""

    input_size = (SIDE, SIDE)
    score_rule = "largest brightness"

    def learn(self, train, validation, trainer):
        pass

    def analyse(self, images):
        anomaly_map = images.mean(dim=1, keepdim=True)
        return Analysis(anomaly_map, anomaly_map.amax((1, 2, 3)))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(70, 15, (SIDE, SIDE)).clip(0, 180).astype(np.uint8)


@pytest.fixture(scope="module")
def tray(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A data set in the layout of MVTec LOCO AD: two logical images, one with two defects, and two structural ones."""
    root = tmp_path_factory.mktemp("loco") / "tray"
    config = [
        {
            "defect_name": "missing",
            "pixel_value": 255,
            "saturation_threshold": 8,
            "relative_saturation": False,
        },
        {
            "defect_name": "swapped",
            "pixel_value": 254,
            "saturation_threshold": 0.5,
            "relative_saturation": True,
        },
        {
            "defect_name": "scratch",
            "pixel_value": 253,
            "saturation_threshold": 1.0,
            "relative_saturation": True,
        },
    ]
    root.mkdir(parents=True)
    (root / "defects_config.json").write_text(json.dumps(config), encoding="utf-8")
    for k in range(8):
        write_picture(root / f"train/good/{k:03}.png", noise(k))
        write_picture(root / f"validation/good/{k:03}.png", noise(20 + k))
        write_picture(root / f"test/good/{k:03}.png", noise(40 + k))
    bad = {"logical_anomalies": [(255,), (255, 254)], "structural_anomalies": [(253,), (253,)]}
    for folder, images in bad.items():
        for k, values in enumerate(images):
            pixels = noise(60 + k + len(folder))
            for j, value in enumerate(values):
                mask = np.zeros((SIDE, SIDE), np.uint8)
                mask[8 * j + 4 : 8 * j + 12, 10 : 20 + k] = value
                pixels[mask > 0] += np.uint8(60 - 20 * j)
                write_picture(root / f"ground_truth/{folder}/{k:03}/{j:03}.png", mask)
            write_picture(root / f"test/{folder}/{k:03}.png", pixels)
    return open_dataset(root.parent, "tray")


@pytest.fixture(scope="module")
def detector(tray: Dataset) -> Detector:
    return Brightness().fit(tray.train, tray.validation)


@pytest.fixture(scope="module")
def report(detector: Detector, tray: Dataset) -> Report:
    return measure(detector, tray)


def measure(detector: Detector, tray: Dataset, **options: object) -> Report:
    return evaluate(detector, tray.test, saturation=dict(tray.saturation), latency=False, **options)  # type: ignore[arg-type]


def test_results_have_the_official_names(report: Report) -> None:
    metrics = report.metrics
    for name in (
        *("image_auroc", "image_ap", "image_f1_max", "image_f1", "image_precision", "image_recall"),
        *("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_f1", "pixel_precision", "pixel_recall"),
        *("aupro_0.30", "aupro_0.05", "aupimo"),
        *("auspro_0.01", "auspro_0.05", "auspro_0.10", "auspro_0.30", "auspro_1.00"),
    ):
        for suffix in ("", "@logical", "@structural", "@mean", "@missing", "@swapped", "@scratch"):
            assert f"{name}{suffix}" in metrics
    for name in ("image_auroc", "auspro_0.05"):
        halves = [metrics[f"{name}@{half}"].value for half in ("logical", "structural")]
        assert metrics[f"{name}@mean"].value == pytest.approx(sum(halves) / 2)
    assert [metrics[f"auspro_0.05@{tag}"].n_pos for tag in ("logical", "missing", "swapped", "scratch")] == [
        3,
        2,
        1,
        2,
    ]
    assert metrics["image_auroc@missing"].n_pos == 2


def test_metrics_see_the_maps_of_the_detector(report: Report, tray: Dataset) -> None:
    scores = [case.raw_map.max() for case in report.cases]
    labels = [record.label for record in tray.test]
    assert report.metrics["image_auroc"].value == auroc(np.float32(scores), labels)
    low, high = report.metrics["image_auroc"].interval or (2, -1)
    assert low <= report.metrics["image_auroc"].value <= high
    assert report.to_json()["metrics"]["image_auroc"]["interval"] == [low, high]


def test_histogram_mode_keeps_its_bound(report: Report, detector: Detector, tray: Dataset) -> None:
    binned = measure(detector, tray, pixel_metrics="histogram")
    assert (report.pixel_metrics, binned.pixel_metrics) == ("exact", "histogram")
    assert binned.to_json()["protocol"]["pixel_metrics"] == "histogram"
    assert any("error is at most" in note for note in binned.notes)
    assert binned.metrics.keys() == report.metrics.keys()
    checked = 0
    for name, metric in report.metrics.items():
        other = binned.metrics[name]
        assert (other.n_pos, other.n_neg, other.reason) == (metric.n_pos, metric.n_neg, metric.reason)
        assert metric.error_bound is None
        if other.error_bound is not None:
            checked += 1
            assert abs(other.value - metric.value) <= other.error_bound + 1e-12, name
    assert checked > 20
    for name in ("pixel_f1", "pixel_precision@logical", "pixel_recall@scratch"):  # at the threshold: exact
        assert binned.metrics[name].value == pytest.approx(report.metrics[name].value, nan_ok=True)


def test_the_mode_follows_the_memory(tray: Dataset) -> None:
    gigabytes = 4 * len(tray.test) * SIDE * SIDE / 1e9
    assert isinstance(pixel_scores(tray.test, "auto", gigabytes, 0.5), PixelRanking)
    assert isinstance(pixel_scores(tray.test, "auto", 0.99 * gigabytes, 0.5), PixelHistogram)
    assert isinstance(pixel_scores(tray.test, "exact", 0.0, 0.5), PixelRanking)
    assert RecipeFile(detector="x").pixel_metrics == "auto"


def test_without_saturation_a_defect_saturates_at_its_own_area(detector: Detector, tray: Dataset) -> None:
    own = evaluate(detector, tray.test, latency=False)
    assert own.metrics["auspro_0.05@mean"].value <= 1
    assert "auspro_0.05@missing" not in own.metrics
    assert own.metrics["auspro_0.05"].n_pos == 5


def test_a_data_set_brings_its_saturation(report: Report, detector: Detector, tray: Dataset) -> None:
    whole = evaluate(detector, tray, latency=False)
    assert whole.metrics["auspro_0.05@missing"].value == report.metrics["auspro_0.05@missing"].value
    assert whole.metrics["auspro_0.05"].value == report.metrics["auspro_0.05"].value


def test_generators_are_read_once(tray: Dataset) -> None:
    once = Brightness().fit(iter(tray.train), (record for record in tray.validation))
    assert once.calibration.source == "validation"
    assert once.calibration == Brightness().fit(tray.train, tray.validation).calibration
    assert len(evaluate(once, iter(tray.test), latency=False).cases) == len(tray.test)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a.png"], "holds a str, which is no record: give records, such as data.train"),
        ("folder", "is a str, no list of records"),
        (Path("folder"), "Path, no list of records"),
        (None, "is a NoneType, no list of records"),
    ],
    ids=str,
)
def test_what_is_no_record_gets_one_line(
    detector: Detector, tray: Dataset, given: object, words: str
) -> None:
    for name, call in {
        "train": lambda: Brightness().fit(given),  # type: ignore[arg-type]
        "validation": lambda: Brightness().fit(tray.train, given),  # type: ignore[arg-type]
        "test": lambda: evaluate(detector, given),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(DataError, match=f"^{name} .*{words}"):
            call()


def test_wrong_arguments_get_one_line(detector: Detector, tray: Dataset) -> None:
    with pytest.raises(
        DataError, match=r"train is a whole data set: give one part of it, such as data\.train"
    ):
        Brightness().fit(tray)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown pixel_metrics 'exakt': choose auto, exact, histogram"):
        evaluate(detector, tray, pixel_metrics="exakt")  # type: ignore[arg-type]


def test_float_maps_are_the_tree_of_the_official_tools(report: Report, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("andon.report.figures.draw_figures", lambda report: {})
    report.save(tmp_path, maps=True, heatmaps=False)
    found = sorted(path.relative_to(tmp_path / "maps").as_posix() for path in tmp_path.glob("maps/**/*.tiff"))
    assert found == sorted(
        [f"tray/test/good/{k:03}.tiff" for k in range(8)]
        + [f"tray/test/{kind}_anomalies/{k:03}.tiff" for kind in ("logical", "structural") for k in range(2)]
    )
    first = tifffile.imread(tmp_path / "maps" / found[0])
    assert (first.dtype, first.shape) == (np.float32, (SIDE, SIDE))
    np.testing.assert_array_equal(first, report.cases[0].raw_map)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("AU-sPRO 0.05, mean of logical and structural", "AUPIMO", "95 % interval", "auspro_0.10"):
        assert text.replace(" %", "\u00a0%") in page or text in page


def test_aupimo_of_images(report: Report, detector: Detector, tray: Dataset) -> None:
    """18,432 good pixels are too few for 1e-5, and the report says so."""
    assert report.metrics["aupimo"].reason == "few_vertices"
    assert report.aupimo == {} == report.to_json()["aupimo_of_pictures"]


def test_nothing_to_evaluate(detector: Detector) -> None:
    with pytest.raises(DataError, match="no labelled test pictures"):
        evaluate(detector, [])
