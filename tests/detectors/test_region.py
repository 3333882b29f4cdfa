"""A region of the pictures is inspected: what lies outside it changes nothing, from learning to exported networks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SIDE, texture, write_picture
from PIL import Image
from tiny import TINY

import andon
from andon.core.errors import DataError
from andon.core.records import Defect, Record
from andon.core.region import InspectionRegion, with_region
from andon.datasets import open_dataset
from andon.datasets.synthetic import synthetic_anomalies
from andon.detectors._base import Detector
from andon.detectors._registry import detector_class
from andon.detectors._saving import load_detector
from andon.detectors.ast import AST, ASTConfig
from andon.exporting import packed as packing
from andon.metrics import PixelHistogram, PixelRanking
from andon.metrics.gate import Gate
from andon.nn.feature_cache import FeatureCache
from andon.nn.training import Trainer
from andon.report.evaluation import Report, evaluate
from andon.report.maps import HATCH, save_case

pytestmark = pytest.mark.xdist_group("region")

IGNORED = np.s_[:, 44:]
"""The right end of a picture."""
AREA = InspectionRegion(np.tile(np.arange(SIDE) < 44, (SIDE, 1)))


def scribbled(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """The picture with noise in the ignored part."""
    changed = pixels.copy()
    changed[IGNORED] = np.random.default_rng(seed).integers(0, 256, changed[IGNORED].shape, dtype=np.uint8)
    return changed


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, list[Record]]:
    """Good pictures, and the same with noise where nothing is inspected."""
    root = tmp_path_factory.mktemp("pictures")
    clean = [Record(write_picture(root / f"a{k}.png", texture(k)), f"a{k}", label=0) for k in range(10)]
    noisy = [
        Record(write_picture(root / f"b{k}.png", scribbled(texture(k), k)), f"a{k}", label=0)
        for k in range(10)
    ]
    return {"clean": clean, "noisy": noisy}


def fitted(name: str, records: list[Record]) -> Detector:
    detector = detector_class(name)(detector_class(name).Config().updated(TINY[name]))
    return detector.fit(records[:5], records[5:7], trainer=Trainer(seed=1, device="cpu"), region=AREA)


@pytest.mark.parametrize(
    "name",
    [
        "east",
        "padim",
        "patchcore",
        "spade",
        pytest.param("efficientad_ast", marks=pytest.mark.slow),
        pytest.param("efficientad", marks=pytest.mark.slow),
        pytest.param("ast", marks=pytest.mark.slow),
        pytest.param("uninformed_students", marks=pytest.mark.slow),
    ],
)
def test_nothing_outside_changes_what_is_learned_or_answered(name, pictures):
    one, other = (fitted(name, pictures[kind]) for kind in ("clean", "noisy"))
    assert one.calibration == other.calibration
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert a.equal(b)
    for seed in (0, 1):
        a, b = one.predict(texture(50)), one.predict(scribbled(texture(50), seed))
        assert a.raw_score == b.raw_score
        np.testing.assert_array_equal(a.raw_map, b.raw_map)
    stained = texture(50)
    stained[8:24, 8:24] = (230, 20, 20)
    assert one.predict(stained).raw_score > one.predict(texture(50)).raw_score

    found = next(one.scan([texture(50)]))
    inside = AREA.cells(found.cells.shape)
    assert found.cells[~inside].max() <= found.cells[inside].min()


def test_what_is_not_inspected_sets_no_threshold(tmp_path):
    """A small label in noise: the fill around it, which the coreset does not hold, was the largest cell of every good image."""

    def label(seed: int, darker: float = 0.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        pixels = rng.normal(100, 30, (64, 64, 1)).repeat(3, 2)
        pixels[20:44, 20:44] = rng.normal((200, 180, 160), 3, (24, 24, 3))
        pixels[26:34, 26:34] *= 1 - darker
        return pixels.clip(0, 255).astype(np.uint8)

    good = [Record(write_picture(tmp_path / f"{k}.png", label(k)), str(k), label=0) for k in range(12)]
    mask = np.zeros((64, 64), np.bool_)
    mask[21:43, 21:43] = True
    detector = detector_class("east")(detector_class("east").Config().updated(TINY["east"]))
    detector.fit(good, trainer=Trainer(seed=1, device="cpu"), region=InspectionRegion(mask))
    found = detector.fitted()
    assert found.image.value == pytest.approx(found.pixel.value, abs=0.1 * found.score_display.span)
    answers = detector.judged([label(100 + k, 0.3) for k in range(4)])
    assert [(answer.verdict, bool(answer.mask.any())) for answer in answers] == [("NG", True)] * 4


@pytest.mark.parametrize("name", ["east", "patchcore"])
def test_sessions_do_not_make_the_region_forgotten(name, pictures, monkeypatch):
    """They are cross-fitted twice; every score of the second time is of inspected cells too."""
    cls = detector_class(name)
    seen: list[InspectionRegion | None] = []
    analyse = cls.analyse_features
    monkeypatch.setattr(
        cls, "analyse_features", lambda self, features: (seen.append(self.region), analyse(self, features))[1]
    )
    records = [replace(record, session=f"s{k % 4}") for k, record in enumerate(pictures["clean"])]
    detector = cls(cls.Config().updated(TINY[name] | {"threshold_scores": "cross_fitted"}))
    detector.fit(records, trainer=Trainer(seed=1, device="cpu"), region=AREA)
    assert len(seen) >= 8
    assert set(seen) == {AREA}


def test_a_strip_between_the_centres_of_patches_is_the_patches_that_hold_it(pictures):
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[19:21] = True
    cls = detector_class("patchcore")
    config = cls.Config().updated(TINY["patchcore"])
    detector = cls(config).fit(pictures["clean"][:5], region=InspectionRegion(mask), trainer=Trainer(seed=1))
    inside = detector._inspected_patches().view(detector.embedding.grid)
    rows, columns = detector.embedding.grid
    assert inside.any(1).nonzero()[:, 0].tolist() == sorted({19 * rows // SIDE, 20 * rows // SIDE})
    assert int(inside.sum()) == columns * int(inside.any(1).sum())


def test_a_region_smaller_than_a_cell_is_the_cell_that_holds_it():
    mask = np.zeros((64, 64), np.bool_)
    mask[9:11, 33:35] = True
    area = InspectionRegion(mask)
    assert np.argwhere(area.cells((4, 4))).tolist() == [[0, 2]]
    assert area.values(np.arange(16, dtype=np.float32).reshape(4, 4)).tolist() == [2]
    assert np.array_equal(AREA.cells((16, 16)), AREA.resized((16, 16)))


@pytest.fixture(scope="module")
def detector(pictures) -> Detector:
    return fitted("padim", pictures["clean"])


def test_files_records_and_arrays_get_the_same_answer(detector, pictures):
    record, expected = pictures["noisy"][3], detector.predict(texture(3)).raw_score
    assert detector.predict(record).raw_score == expected
    assert detector.predict(str(record.image)).raw_score == expected
    assert detector.predict(texture(3).astype(np.float32) / np.float32(255)).raw_score == expected
    for answer in detector.predict([record, *pictures["clean"][3:5]])[:2]:
        assert answer.raw_score == pytest.approx(expected, rel=1e-5)  # batches round differently


def test_the_map_is_quiet_outside(detector, tmp_path):
    wild = scribbled(texture(50))
    wild[8:24, 30:44] = (230, 20, 20)
    answer = detector.predict(wild)
    assert np.isfinite(answer.raw_map).all()
    np.testing.assert_allclose(answer.anomaly_map[IGNORED], 0, atol=1e-5)
    assert answer.mask.any()
    assert not answer.mask[IGNORED].any()
    record = Record(write_picture(tmp_path / "wild.png", wild), "wild")
    raw_map = next(detector.scan([record])).raw_map
    assert raw_map[IGNORED].max() <= raw_map[:, :44].min()


def test_saved_and_loaded(detector, tmp_path):
    detector.save(tmp_path)
    back = load_detector(tmp_path)
    assert back.fitted() == detector.fitted()
    assert back.predict(scribbled(texture(5))).raw_score == detector.predict(texture(5)).raw_score
    text = (tmp_path / "detector.json").read_text()
    (tmp_path / "detector.json").write_text(text.replace('"bits": "', '"bits": "A'))
    with pytest.raises(DataError, match="was changed after it was saved"):
        load_detector(tmp_path)


def test_cached_features_do_not_mix(detector, pictures, tmp_path):
    records = pictures["clean"][:2]
    cache = FeatureCache(detector.extractor, directory=tmp_path)
    whole = cache.load(records)
    part = cache.load(with_region(records, AREA))
    other = cache.load(with_region(records, InspectionRegion(~AREA.mask)))
    recoloured = cache.load(with_region(records, InspectionRegion(AREA.mask, (0, 0, 0))))
    assert cache.computed == 8
    for one in (part, other, recoloured):
        assert not one["layer1"].equal(whole["layer1"])
    again = cache.load(with_region(records, AREA))
    assert again["layer1"].equal(part["layer1"])
    assert cache.computed == 8


@pytest.mark.parametrize("kind", [PixelRanking, lambda: PixelHistogram(thresholds=[0.5])])
def test_pixel_metrics_are_those_of_the_inspected_pixels_alone(kind):
    rng = np.random.default_rng(0)
    inside = np.zeros((12, 20), np.bool_)
    inside[:, :13] = True
    part, whole = kind(), kind()
    for k in range(4):
        scores = rng.random((12, 20)).astype(np.float32)
        mask = np.zeros((12, 20), np.bool_)
        mask[2:5, 3 : 3 + 2 * k] = True
        label = int(k > 0)
        channels = [Defect(mask, "hole", 1, 3)] if label else []
        cut = [Defect(mask[:, :13], "hole", 1, 3)] if label else []
        part.add(scores, mask, label=label, name=str(k), channels=channels, inspected=inside)
        whole.add(scores[:, :13], mask[:, :13], label=label, name=str(k), channels=cut)
    assert part.summary() == whole.summary()
    assert part.confusion(0.5) == whole.confusion(0.5)
    assert part.aupimo(force=True).scores == whole.aupimo(force=True).scores
    with pytest.raises(ValueError, match="not inspected"):
        part.add(scores, ~inside, label=1, inspected=inside)


def test_the_gate_counts_inspected_pixels_alone():
    gate, inside = Gate(1.0, 0.5), np.array([[True, True, False]])
    gate.add(
        np.float32([[0.9, 0.1, 0.9]]), np.array([[True, False, False]]), score=2, label=1, inspected=inside
    )
    assert gate.metrics()["pixel_precision_gated"].value == 1


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def region_file(tmp_path_factory) -> Path:
    """Left of column 44; the stains of the tiny data set begin at column 20."""
    return write_picture(
        tmp_path_factory.mktemp("region") / "mask.png", AREA.mask.astype(np.uint8) * np.uint8(255)
    )


def hidden_defect(data: Path) -> None:
    """One more anomalous picture, whose defect is where nothing is inspected."""
    pixels, mask = texture(300), np.zeros((SIDE, SIDE), np.uint8)
    mask[10:20, 50:60] = 255
    pixels[mask > 0] = (230, 20, 20)
    write_picture(data / "test/stain/900.png", pixels)
    write_picture(data / "ground_truth/stain/900_mask.png", mask)


def test_evaluation_leaves_out_what_is_not_inspected(detector, own_dataset, tmp_path):
    hidden_defect(own_dataset)
    test = open_dataset(own_dataset).test
    report = evaluate(detector, test, latency=False, gate=True)
    assert report.metrics["pixel_auroc"].n_pos == 4 * 16 * 20
    assert report.metrics["pixel_auroc"].n_neg == 8 * SIDE * 44 - 4 * 16 * 20
    assert report.metrics["image_auroc"].n_pos == 5
    assert any(
        "stain/900" in note and note.startswith("1 picture with defects that lie wholly outside")
        for note in report.notes
    )
    assert not any("no mask" in note for note in report.notes)
    assert any(note.startswith("68.8 % of each picture is inspected") for note in report.notes)
    check_pictures(report, tmp_path)


def check_pictures(report: Report, folder: Path) -> None:
    """Heat maps are hatched where nothing is inspected, masks are empty there, float maps finite."""
    assert report.to_json()["protocol"]["region"] == {"sha256": AREA.sha256, "inspected": 44 / 64}
    for k, case in enumerate(report.cases):
        save_case(case, report.calibration, folder, f"stain/{k}", heatmaps=True, map_place=f"{k}")
    for path in (folder / "masks").rglob("*.png"):
        assert not np.asarray(Image.open(path))[IGNORED].any()
    stripes = [np.asarray(Image.open(path))[:, 50:] for path in (folder / "heatmaps").rglob("*.png")]
    assert all((part.reshape(-1, 3).max(0) >= HATCH[0]).all() and part.std() > 15 for part in stripes)
    assert len(stripes) == len(report.cases)


def test_made_up_defects_lie_in_the_region(pictures):
    good = pictures["clean"][:5]
    everywhere, seen = (synthetic_anomalies(records, seed=3) for records in (good, with_region(good, AREA)))
    assert 0 < len(seen) <= len(everywhere)
    corner = np.zeros((SIDE, SIDE), np.bool_)
    corner[0, 0] = True
    cornered = with_region(good, InspectionRegion(corner))
    assert synthetic_anomalies(cornered, seed=3) == []
    detector = AST(ASTConfig().updated(TINY["ast"] | {"selection": "synthetic"}))
    with pytest.raises(DataError, match="no synthetic anomaly lies in"):
        detector.fit(cornered, validation=cornered, trainer=Trainer(seed=0, device="cpu"))


@pytest.fixture(scope="module")
def region_run(dataset_folder, region_file, tmp_path_factory) -> Path:
    """A run with a region, made by functions the command calls."""
    from andon.detectors._recipes import load_recipe, resolve
    from andon.runs.fit import fit_run
    from andon.runs.source import Source

    run = tmp_path_factory.mktemp("region_run") / "cloth"
    changes = {**TINY["padim"], "region": str(region_file)}
    fit_run(run, Source(str(dataset_folder)), resolve(load_recipe("padim/starter"), changes), device="cpu")
    return run


def test_a_run_says_which_region(region_run, region_file):
    from andon.runs.folder import read_recipe

    recipe = read_recipe(region_run)
    assert recipe["region"] == str(region_file.resolve())
    assert recipe["data"]["region"] == {"sha256": AREA.sha256, "inspected": 44 / 64}
    assert andon.load(region_run).fitted().region == AREA


def test_packed_detectors_hold_the_region(region_run, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_network", lambda detector, pictures: (None, "left out"))
    from andon.runs.export import pack_run

    pack_run(region_run, tmp_path / "cloth.andon")
    judge = andon.load(tmp_path / "cloth.andon")
    assert judge.fitted().region == AREA
    assert judge.predict(scribbled(texture(7))).raw_score == judge.predict(texture(7)).raw_score


def test_another_region_is_not_continued(region_run, region_file, dataset_folder, tmp_path):
    from andon.core.errors import ConfigError
    from andon.detectors._recipes import load_recipe, resolve
    from andon.runs.fit import fit_run
    from andon.runs.source import Source

    run = shutil.copytree(region_run, tmp_path / "run")
    recipe = resolve(load_recipe("padim/starter"), TINY["padim"])
    with pytest.raises(ConfigError, match="another region"):
        fit_run(run, Source(str(dataset_folder)), recipe, resume=True, device="cpu")
    same = resolve(load_recipe("padim/starter"), TINY["padim"] | {"region": str(region_file)})
    fit_run(run, Source(str(dataset_folder)), same, resume=True, device="cpu")


def test_the_command(cli, dataset_folder, region_file, region_run, tmp_path):
    def fit(file: Path):
        out = tmp_path / "run"
        options = ["--recipe", "padim/starter", "--set", "extractor.weights=random", "--device", "cpu"]
        return cli("fit", dataset_folder, *options, "--out", out, "--region", file)

    wide = write_picture(tmp_path / "wide.png", np.full((32, 64), 255, np.uint8))
    assert "the region was drawn for 64 x 32: pictures need the proportions" in fit(wide).complaint()
    line = tmp_path / "line.json"
    line.write_text(json.dumps({"size": [64, 64], "ignore": [[[0, 0], [5, 5]]]}))
    assert "polygon 1 has 2 points" in fit(line).complaint()
    assert "does not exist" in fit(tmp_path / "none.png").complaint()
    assert not (tmp_path / "run").exists()
    other = write_picture(tmp_path / "other.png", texture(0, 96)[:64])
    refused = cli("predict", region_run, other)
    assert refused.code == 2
    assert "other.png is 96 x 64 pixels" in refused.err
