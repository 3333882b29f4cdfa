"""Large pictures in tiles: cutting and blending, detectors that use it, and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import texture, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY

import andon
import andon.core.images
from andon.core import tiling as tiles
from andon.core.errors import ConfigError, DataError
from andon.core.image_files import decode
from andon.core.records import Record
from andon.core.region import InspectionRegion
from andon.core.tiling import CELLS, Line, TileConfig, Tiling, analyse_in_tiles, cut_records, drawn
from andon.detectors._base import Detector, enlarge
from andon.detectors._registry import detector_class
from andon.exporting.latency import stage_latency
from andon.exporting.network import ExportedDetector, describe, export
from andon.nn.training import Trainer
from andon.runtime import Model
from andon.runtime.runtimes import Outputs

SIDE = 64
tilings = st.builds(
    lambda size, overlap: TileConfig(size=size, overlap=overlap).tiling(),
    st.integers(32, 200),
    st.floats(0.1, 0.75),
)
some = settings(max_examples=20, deadline=None)


@some
@given(tilings, st.integers(0, 700))
def test_tiles_cover_the_line_and_their_weights_add_up_to_one(tiling, more):
    length = tiling.size + more
    line = Line.of(length, tiling)
    assert line.begins[0] == 0
    assert line.begins[-1] == length - tiling.size
    assert (np.diff(line.begins) > 0).all()
    assert (np.diff(line.begins) <= tiling.step).all()
    assert (line.weights >= 0).all()
    np.testing.assert_allclose(line.weights.sum(0), 1)
    jumps = np.abs(np.diff(line.weights, axis=1)).max()
    ramp = (1 - 2 * tiles.BLIND) * (tiling.size - tiling.step) * CELLS / tiling.size
    assert (
        jumps <= max(np.pi / ramp, 1e-9) or ramp < 4
    )  # no seam: weights change as slowly as the ramp allows


@some
@given(tilings, st.integers(0, 200), st.integers(0, 200), st.integers(3, 90), st.floats(-5, 5))
def test_a_constant_stays_that_constant(tiling, tall, wide, cells, value):
    picture = np.zeros((tiling.size + tall, tiling.size + wide, 3), np.uint8)
    found = analyse_in_tiles(picture, tiling, lambda x: np.full((len(x), cells, cells), value, np.float32))
    assert min(found.shape) >= CELLS
    np.testing.assert_allclose(found, value, atol=1e-5)


@some
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 7), st.sampled_from([0.25, 0.5]))
def test_cut_and_blended_gives_the_map_back(tall, wide, batch, overlap):
    """Where a tile's map is the tile itself, a value per cell, the picture's map is the picture."""
    tiling = TileConfig(size=128, overlap=overlap).tiling()
    pitch = tiling.size // CELLS
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 255, (CELLS + tall, CELLS + wide), dtype=np.uint8)
    picture = whole.repeat(pitch, 0).repeat(pitch, 1)[:, :, None].repeat(3, 2)
    found = analyse_in_tiles(
        picture, tiling, lambda x: np.stack(x)[:, ::pitch, ::pitch, 0].astype(np.float32), batch=batch
    )
    np.testing.assert_allclose(found, whole, atol=1e-3)


def test_a_tile_counts_little_at_its_edge_and_fully_at_that_of_the_picture():
    line = Line.of(448, Tiling(256, 192, 0.01))
    assert line.begins.tolist() == [0, 192]
    first, second = line.weights
    inside = line.centres - 192
    assert (first[line.centres < 192 + 16] == 1).all()
    assert (first[inside > 64 - 16] == 0).all()
    np.testing.assert_allclose(second, 1 - first)


def test_the_score_is_the_mean_of_a_fixed_area():
    tiling = Tiling(256, 128, 0.01)
    defect = np.zeros((64, 64), np.float32)
    defect[10:18, 20:28] = 3
    larger = np.pad(defect, ((0, 64), (100, 0)))
    assert tiling.counted == 41
    assert tiling.score(defect) == tiling.score(larger) == 3
    assert tiling.score(np.where(defect > 0, 0, defect)) == 0
    assert "41 largest cells (656 pixels)" in tiling.score_rule
    assert Tiling.from_json(json.loads(json.dumps(tiling.to_json()))) == tiling


def test_enlarging_is_that_of_detectors():
    blended = np.random.default_rng(0).normal(size=(40, 23)).astype(np.float32)
    expected = enlarge(torch.from_numpy(blended)[None], (301, 97))
    np.testing.assert_allclose(tiles.enlarge(blended, (301, 97)), expected, atol=1e-4)


def test_drawn_evenly_by_the_seed():
    assert [len(x) for x in drawn([10, 2, 10], 9, seed=0)] == [4, 2, 3]
    assert drawn([10, 2], 9, seed=0) == drawn([10, 2], 9, seed=0) != drawn([10, 2], 9, seed=1)
    assert drawn([3, 1], 100, seed=0) == [[0, 1, 2], [0]]


@pytest.mark.parametrize("deep", [False, True])
def test_tiles_are_files_with_the_same_pixels_and_pictures_are_decoded_once(tmp_path, monkeypatch, deep):
    import tifffile

    if deep:
        pixels = np.random.default_rng(0).integers(0, 65536, (100, 130, 3)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "deep.tif", pixels, photometric="rgb")
    path = tmp_path / "deep.tif" if deep else write_picture(tmp_path / "wide.png", texture(0, 130)[:100])
    opened: list[Path] = []
    monkeypatch.setattr(andon.core.images, "decode", lambda p, **how: opened.append(p) or decode(p, **how))
    record = Record(path, "wide", label=0)
    (tmp_path / "tiles").mkdir()
    (found,) = cut_records([record], TileConfig(size=SIDE).tiling(), 300, 0, tmp_path / "tiles")
    assert opened == [path]
    assert [tile.id for tile in found][:3] == ["wide@0,0", "wide@32,0", "wide@64,0"]
    whole = decode(path).pixels
    for tile in found:
        left, top = map(int, tile.id.split("@")[1].split(","))
        assert np.array_equal(decode(tile.image).pixels, whole[top : top + SIDE, left : left + SIDE])


# Detectors -----------------------------------------------------------------------------------------------------------


def stained(seed: int, height: int, width: int, place: tuple[int, int] | None) -> np.ndarray:
    picture = texture(seed, max(height, width))[:height, :width]
    if place is not None:
        picture[place[0] : place[0] + 12, place[1] : place[1] + 12] = (230, 20, 20)
    return picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 150 x 90 pixels, good and stained, in the layout of MVTec AD."""
    root = tmp_path_factory.mktemp("wide") / "roll"
    for k in range(20):
        write_picture(root / f"train/good/{k:02}.png", stained(100 + k, 90, 150, None))
    for k in range(4):
        write_picture(root / f"test/good/{k}.png", stained(20 + k, 90, 150, None))
        write_picture(root / f"test/stain/{k}.png", stained(30 + k, 90, 150, (8 + 20 * k, 10 + 35 * k)))
        mask = np.zeros((90, 150), np.uint8)
        mask[8 + 20 * k : 20 + 20 * k, 10 + 35 * k : 22 + 35 * k] = 255
        write_picture(root / f"ground_truth/stain/{k}_mask.png", mask)
    return root


def create(name: str, **more: object) -> Detector:
    cls = detector_class(name)
    own = {"tile.size": SIDE, "tile.learn": 24} | (
        {"extractor.edges": "mirror"} if name == "patchcore" else {}
    )
    return cls(cls.Config().updated(TINY[name] | own | more))


def options() -> list[str]:
    values = {key: "null" if value is None else value for key, value in TINY["patchcore"].items()}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def records(folder: Path, part: str, label: int = 0) -> list[Record]:
    return [Record(path, path.stem, label=label) for path in sorted((folder / part).glob("*.png"))]


@pytest.fixture(scope="module")
def detector(folder: Path) -> Detector:
    return create("patchcore").fit(
        records(folder, "train/good"), records(folder, "test/good"), trainer=Trainer(seed=0, device="cpu")
    )


def test_stains_are_found_wherever_they_lie(detector, folder):
    good = [detector.predict(stained(50 + k, 90, 150, None)).raw_score for k in range(3)]
    for k, found in enumerate(detector.predict(records(folder, "test/stain"))):
        assert found.raw_map.shape == (90, 150)
        assert found.is_anomalous
        assert found.raw_score > max(good)
        peak = np.unravel_index(found.raw_map.argmax(), found.raw_map.shape)
        assert abs(peak[0] - (14 + 20 * k)) < 12
        assert abs(peak[1] - (16 + 35 * k)) < 12


def test_path_and_array_saved_and_loaded_give_the_same(detector, folder, tmp_path):
    path = folder / "test/stain/1.png"
    array = (decode(path).pixels * 255).round().astype(np.uint8)
    detector.save(tmp_path)
    loaded = andon.load(tmp_path)
    assert loaded.tiling == detector.tiling == Tiling(64, 32, 0.01)
    answers = [detector.predict(path), detector.predict(array), loaded.predict(path)]
    assert len({answer.raw_score for answer in answers}) == 1


def test_a_shifted_picture_keeps_score_and_map(detector):
    """By a multiple of the network's stride, where nothing but the seams moves; at 64 px they are as near as they can be."""
    wide = stained(7, 90, 400, (40, 190))
    first, second = (detector.predict(np.ascontiguousarray(wide[:, x : x + 320])) for x in (0, 24))
    assert second.score == pytest.approx(first.score, rel=0.02)
    assert np.abs(second.anomaly_map[:, 130:200] - first.anomaly_map[:, 154:224]).mean() < 0.15


def test_a_larger_picture_with_the_same_stain_keeps_its_score(detector):
    wide = stained(7, 200, 400, (80, 190))
    small = np.ascontiguousarray(wide[:128, 96:288])
    assert detector.predict(wide).score == pytest.approx(detector.predict(small).score, rel=0.02)


@pytest.mark.slow
def test_east_learns_tiles(folder):
    found = create("east").fit(
        records(folder, "train/good"), records(folder, "test/good"), trainer=Trainer(seed=0, device="cpu")
    )
    assert all(p.is_anomalous for p in found.predict(records(folder, "test/stain")))
    assert found.score_rule != found.stated_rule == found.tiling.score_rule


def test_latency_knows_tiles(detector, folder):
    found = stage_latency(detector, records(folder, "test/stain"), effort=andon.exporting.latency.QUICK)
    assert set(found) == {"decode", "network", "post-processing", "total"}


class Network:
    """The exported network, executed by torch."""

    name = "torch"

    def __init__(self, detector: Detector) -> None:
        self.network = ExportedDetector(detector).eval()

    def __call__(self, images: np.ndarray) -> Outputs:
        with torch.inference_mode():
            return Outputs(*(found.numpy() for found in self.network(torch.from_numpy(images))))


def test_the_runtime_cuts_and_blends_as_the_detector(detector, folder):
    model = Model(Network(detector), json.loads(json.dumps(describe(detector))))
    for record in records(folder, "test/stain"):
        answer, expected = model.predict(record), detector.predict(record)
        assert answer.score == pytest.approx(expected.score, rel=1e-4)
        np.testing.assert_allclose(answer.anomaly_map, expected.anomaly_map, atol=1e-3)
    found = stage_latency(model, records(folder, "test/stain"), effort=andon.exporting.latency.QUICK)
    assert set(found) == {"decode", "network", "post-processing", "total"}
    with pytest.raises(DataError, match="smaller than a tile of 64 x 64"):
        model.predict(np.zeros((40, 100, 3), np.uint8))


@pytest.mark.slow
def test_what_is_not_inspected_changes_nothing_in_tiles_either(folder):
    mask = np.ones((90, 150), bool)
    mask[:, :50] = False
    area = InspectionRegion(mask)
    found = create("patchcore").fit(
        records(folder, "train/good"),
        records(folder, "test/good"),
        region=area,
        trainer=Trainer(seed=0, device="cpu"),
    )
    model = Model(Network(found), json.loads(json.dumps(describe(found))))
    clean, outside, inside = (stained(7, 90, 150, place) for place in (None, (40, 10), (40, 110)))
    for judge in (found, model):
        first, second, third = (judge.predict(picture) for picture in (clean, outside, inside))
        assert first.raw_score == second.raw_score < third.raw_score
        assert np.array_equal(first.anomaly_map, second.anomaly_map)
        assert np.abs(first.anomaly_map[:, :50]).max() < 1e-6
        assert third.is_anomalous
    assert model.predict(inside).score == pytest.approx(found.predict(inside).score, rel=1e-4)


@pytest.mark.slow
def test_exported_networks_blend_alike(detector, folder, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    found = export(detector, tmp_path / "roll.onnx", images=[stained(60, 90, 150, (30, 30))])
    assert found.difference < 1e-3
    record = records(folder, "test/stain")[0]
    answer, expected = andon.load(tmp_path / "roll.onnx").predict(record), detector.predict(record)
    assert answer.score == pytest.approx(expected.score, rel=1e-4)


# What cannot be tiled ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("padim", {}, "each place of the picture"),
        ("east", {"score": "both"}, "each place of the picture"),
        ("efficientad_ast", {"mode": "combined"}, "mode=combined it looks at depth"),
        ("efficientad_ast", {"labels.margin": 1.0}, "labels"),
    ],
)
def test_detectors_that_need_the_whole_picture_refuse(name, more, why):
    with pytest.raises(ConfigError, match=f"cannot look at pictures in tiles, .*{why}"):
        create(name, **more)


def test_a_picture_smaller_than_a_tile_is_refused(detector, folder):
    with pytest.raises(
        DataError, match=r"this picture is 100 x 50 pixels, smaller than a tile of 64 x 64.*50"
    ):
        detector.predict(np.zeros((50, 100, 3), np.uint8))
    small = write_picture(folder.parent / "small.png", texture(0, 32))
    record = replace(records(folder, "train/good")[0], image=small)
    with pytest.raises(DataError, match=r"small\.png is 32 x 32"):
        create("patchcore").fit([record, *records(folder, "train/good")[1:3]], trainer=Trainer(device="cpu"))


# Command line --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_in_tiles(cli, folder, tmp_path):
    run = tmp_path / "run"
    fitted = cli(
        "fit", folder, "-d", "patchcore", *options(), "--tile", SIDE, "--out", run, "--device", "cpu"
    )
    assert fitted.code == 0, fitted.err
    assert "size: 64" in (run / "recipe.yaml").read_text()
    assert cli("evaluate", run).code == 0
    report = json.loads((run / "report.json").read_text())
    assert report["protocol"]["tiles"] == {"size": 64, "step": 32, "share": 0.01}
    assert "blended from all tiles" in report["protocol"]["score_rule"]
    assert report["metrics"]["image_auroc"]["value"] == 1
    assert report["metrics"]["pixel_auroc"]["value"] > 0.9
    assert "64 × 64 pixels, one every 32" in (run / "report.html").read_text().replace("\u00a0", " ")
    answer = json.loads(cli("predict", run, folder / "test/stain", "--json").out)
    assert [line["verdict"] for line in answer["predictions"]] == ["NG"] * 4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tile", "128"], "is 150 x 90 pixels, smaller than a tile of 128 x 128"),
        (["--tile", "64", "--set", "tile.overlap=0.9"], "tile.overlap"),
        (["--tile", "8"], "tile.size"),
    ],
)
def test_bad_input_is_said_in_one_line(cli, folder, tmp_path, more, said):
    asked = cli(
        "fit", folder, "-d", "patchcore", *options(), *more, "--out", tmp_path / "run", "--device", "cpu"
    )
    assert said in asked.complaint()
    assert not (tmp_path / "run").exists()
