"""AST with depth: mask and unshuffling (I-23, I-25), scores, and the way of a point cloud through fit and predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome
from tiny import ONE_EPOCH
from torch import nn
from torch.nn import functional as F

import andon
from andon.core.errors import ConfigError, DataError
from andon.core.image_files import decode, read_points
from andon.core.images import load_depth, read_image
from andon.core.region import InspectionRegion
from andon.datasets import Dataset, open_dataset
from andon.detectors._recipes import load_recipe
from andon.detectors._relief import network_planes
from andon.detectors._saving import save_detector
from andon.detectors.ast import AST, ASTConfig, Inputs
from andon.exporting.latency import Effort, predict_latency
from andon.exporting.network import export
from andon.exporting.packed import pack
from andon.nn.training import Trainer

TINY: dict[str, object] = {
    **ONE_EPOCH,
    "extractor.project": 8,
    "depth.side": 32,
    "depth.cell": 4,
    "depth.dilate": 3,
    "student.epochs": 1,
}
SOURCE = "embedded:dimples,profile=tiny,size=128"


def create(**changes: object) -> AST:
    torch.manual_seed(0)
    return AST(ASTConfig().updated(TINY | {k.replace("__", "."): v for k, v in changes.items()}))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_dataset(SOURCE)


@pytest.fixture(scope="module")
def combined(data: Dataset) -> AST:
    detector = create(mode="combined")
    return detector.fit(data.train, data.validation, trainer=Trainer(seed=1, device="cpu"))


def test_the_published_depth_network_has_the_specified_size():
    recipe = load_recipe("ast/paper-3d")
    with torch.device("meta"):
        detector = AST(ASTConfig().updated({**_flat(recipe.config), "mode": "depth"}))
    assert (parameters(detector.teacher), parameters(detector.student)) == (853_000, 76_997_696)
    assert (detector.input_size, detector.input_channels) == ((192, 192), 5)
    assert detector.extractor is None
    assert detector.used_weights == ()


def _flat(values: dict, prefix: str = "") -> dict:
    out: dict = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def test_depth_becomes_channels_and_comes_back():
    """I-23: 192 x 192 to 64 x 24 x 24, cell by cell."""
    detector = create(mode="depth", depth__side=192, depth__cell=8)
    planes = torch.randn(2, 2, 192, 192)
    f = detector.joined(None, planes).f
    assert f.shape == (2, 64, 24, 24)
    assert torch.equal(F.pixel_shuffle(f, 8), planes[:, :1])
    assert torch.equal(f[1, :, 5, 7], planes[1, 0, 40:48, 56:64].flatten())


def test_soft_and_binary_masks_on_the_grid():
    """A soft weight is the mean of the four values around the centre of the cell; a binary one asks for any of them."""
    planes = torch.zeros(1, 2, 32, 32)
    planes[0, 1, 9:, :] = 1
    soft, binary = (
        create(mode="depth", depth__mask=kind).joined(None, planes).mask for kind in ("soft", "binary")
    )
    assert soft[0, 0, :, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    planes[0, 1, 9, :] = 0
    planes[0, 1, 10, ::2] = 0
    soft, binary = (
        create(mode="depth", depth__mask=kind).joined(None, planes).mask for kind in ("soft", "binary")
    )
    assert soft[0, 0, 2].unique().tolist() == [0.25]
    assert binary[0, 0, 2].unique().tolist() == [1]
    assert binary[0, 0, :2].unique().tolist() == [0]


def test_a_full_mask_is_no_mask_and_an_empty_cell_teaches_nothing():
    """I-25."""
    detector = create(mode="combined").train()
    f = torch.randn(2, 24, 8, 8, requires_grad=True)
    ones = Inputs(f, torch.ones(2, 1, 8, 8))
    z, log_det = detector.flow(f)
    assert detector.teacher_loss(ones).item() == pytest.approx(
        (0.5 * z.square().sum(1) - log_det).mean().item(), rel=1e-6
    )
    s = detector.eval().student(torch.cat([detector.position.expand(2, -1, -1, -1), f], 1))
    assert detector.student_loss(ones).item() == pytest.approx((z - s).square().mean().item(), rel=1e-5)
    half = torch.ones(2, 1, 8, 8)
    half[:, :, :, 4:] = 0
    detector.teacher_loss(Inputs(f, half)).backward()
    assert f.grad is not None
    assert f.grad[..., 4:].abs().sum() == 0  # the flow starts as a permutation: cells do not mix
    assert f.grad[..., :4].abs().min() > 0
    expected = ((z - s).square().mean(1)[..., :4]).sum() / (2 * 8 * 8)  # all cells count in the mean
    assert detector.student_loss(Inputs(f, half)).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("score", ["mean", "max"])
def test_the_mask_enters_the_pixel_map_twice_and_the_other_scores_once(score: str):
    """Cell by cell in double precision, as the authors' evaluation has it."""
    detector = create(mode="combined", score=score).eval()
    images = torch.rand(2, 5, 64, 64)
    images[:, 4] = (images[:, 4] > 0.5).float()
    with torch.inference_mode():
        found = detector.analyse(images)
        inputs = detector.inputs(images)
        z, log_det = detector.flow(inputs.f)
        s = detector.regress(inputs.f)
    assert len(inputs.mask.unique()) > 2  # soft weights
    maps, mean, teacher = np.zeros((2, 8, 8)), np.zeros(2), np.zeros((2, 8, 8))
    for k, r, c in np.ndindex(2, 8, 8):
        weight = float(inputs.mask[k, 0, r, c])
        a, b = (x[k, :, r, c].double().numpy() for x in (z, s))
        distance = float(((a - b) ** 2).mean())
        maps[k, r, c] = weight**2 * distance
        mean[k] += weight * distance / 64
        teacher[k, r, c] = weight * (0.5 * (a**2).sum() - float(log_det[k, r, c]))
    enlarged = F.interpolate(torch.from_numpy(maps)[:, None], scale_factor=8, mode="bicubic")
    expected = {
        "mean_map": mean,
        "max_map": enlarged.amax((1, 2, 3)).numpy(),
        "teacher_mean": teacher.mean((1, 2)),
        "teacher_max": teacher.max((1, 2)),
    }
    np.testing.assert_allclose(found.anomaly_map[:, 0].numpy(), maps, rtol=1e-4, atol=1e-6)
    for name, values in expected.items():
        np.testing.assert_allclose(found.extras[name].numpy(), values, rtol=1e-4, err_msg=name)
    assert torch.equal(found.score, found.extras[f"{score}_map"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "depth", "depth__cell": 5}, "depth.cell=5 does not divide depth.side=32"),
        ({"mode": "combined", "depth__side": 64}, r"set depth\.side=32"),
        ({"mode": "combined", "depth__side": 96, "depth__cell": 12}, "no multiple of depth.side=96"),
    ],
)
def test_grids_that_do_not_meet_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        create(**changes)


def test_points_reach_the_networks_unchanged(data: Dataset, combined: AST):
    """The planes ride with the picture, enlarged, and come out of it as they went in."""
    record = data.test[0]
    points = read_points(record.depth, (128, 128))
    planes = torch.from_numpy(network_planes(points, 32, distance=7e-3, dilate=3))
    image = combined.prepare(read_image(record, with_points=True))[None]
    assert image.shape == (1, 5, 64, 64)
    arrived, direct = (
        combined.inputs(image),
        combined.joined(combined.inputs(image).f[:, :8], planes[None]),
    )
    assert torch.equal(arrived.f, direct.f)
    assert torch.equal(arrived.mask, direct.mask)
    assert torch.equal(load_depth([record], combined._planes)[0], planes)


def test_records_paths_and_arrays_give_the_same(data: Dataset, combined: AST):
    record = data.test[-1]
    points = read_points(record.depth, (128, 128))
    array = np.concatenate([decode(record.image).pixels, points], axis=2)
    scores = [combined.predict(picture).raw_score for picture in (record, record.image, array)]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-5)
    many = [p.raw_score for p in combined.predict(list(data.test))]
    assert many[-1] == pytest.approx(scores[0], rel=1e-4)


def test_points_decide(data: Dataset, combined: AST, tmp_path: Path):
    record = data.test[0]
    flat = combined.predict(replace(record, depth=data.test[-1].depth)).raw_score
    assert flat != combined.predict(record).raw_score


def test_what_is_not_inspected_has_neither_colour_nor_points(data: Dataset, combined: AST, monkeypatch):
    area = InspectionRegion(np.tile(np.arange(64) < 40, (64, 1)))
    monkeypatch.setattr(combined, "calibration", replace(combined.fitted(), region=area))
    record = data.test[0]
    points = read_points(record.depth, (128, 128))
    array = np.concatenate([decode(record.image).pixels, points], axis=2)
    changed = np.where(area.at((128, 128))[:, :, None], array, np.float32(0.4))
    assert combined.predict(array).raw_score == combined.predict(changed).raw_score
    assert combined.predict(record).raw_score == pytest.approx(combined.predict(array).raw_score, rel=1e-5)


def test_an_array_without_depth_where_it_is_inspected_is_no_verdict(
    data: Dataset, combined: AST, monkeypatch
):
    array = np.concatenate(
        [decode(data.test[0].image).pixels, read_points(data.test[0].depth, (128, 128))], axis=2
    )
    array[:, 80:, 3:] = 0
    assert np.isfinite(combined.predict(array).raw_score)
    area = InspectionRegion(np.tile(np.arange(64) >= 40, (64, 1)))
    monkeypatch.setattr(combined, "calibration", replace(combined.fitted(), region=area))
    with pytest.raises(DataError, match="point cloud of this picture has 0 points"):
        combined.predict(array)


def test_what_is_missing_is_said(data: Dataset, combined: AST, tmp_path: Path):
    bare = replace(data.train[0], depth=None)
    with pytest.raises(DataError, match="has no point cloud"):
        combined.predict(bare)
    with pytest.raises(DataError, match="has no point cloud"):
        create(mode="depth").fit([bare])
    with pytest.raises(DataError, match=r"float array \(H, W, 6\)"):
        combined.predict(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"a uint8 array \(H, W, 3\)"):
        create().fit(data.train, data.validation).predict(np.zeros((64, 64, 6), np.float32))


def test_a_picture_without_a_part_is_looked_at_everywhere(data: Dataset, combined: AST):
    record = data.test[0]
    empty = np.concatenate([decode(record.image).pixels, np.full((128, 128, 3), 0.5, np.float32)], axis=2)
    assert (combined.predict(empty).raw_map != 0).mean() > 0.9


def test_saved_and_loaded(data: Dataset, combined: AST, tmp_path: Path):
    combined.save(tmp_path)
    loaded = andon.load(tmp_path)
    scores = [[p.raw_score for p in d.predict(list(data.test[:3]))] for d in (combined, loaded)]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_depth_alone_sees_what_has_no_colour(data: Dataset):
    changes = {
        "teacher.epochs": 12,
        "student.epochs": 12,
        "depth.side": 64,
        "depth.cell": 4,
        "optimiser.lr": 2e-3,
    }
    detector = AST(ASTConfig().updated(TINY | changes | {"mode": "depth", "score": "max"}))
    detector.fit(data.train, data.validation, trainer=Trainer(seed=0, device="cpu"))
    good, holes = ([r for r in data.test if r.defect_type == kind] for kind in ("good", "hole"))
    worst = max(p.raw_score for p in detector.predict(good))
    assert all(p.raw_score > worst for p in detector.predict(holes))


@pytest.mark.parametrize("selection", ["validation", "test"])
def test_epochs_may_be_judged(data: Dataset, selection: str):
    detector = create(mode="depth", selection=selection, student__epochs=2)
    trainer = Trainer(seed=0, device="cpu")
    detector.fit(data.train, data.validation, test=data.test if selection == "test" else (), trainer=trainer)
    judged = trainer.stages["student"].judged
    assert len(judged) == 2
    assert ("image_auroc" in judged[0]) == (selection == "test")
    assert bool(trainer.stages["teacher"].judged) == (selection == "validation")


def test_nothing_need_be_held_out(data: Dataset):
    detector = create(mode="depth").fit(data.train, trainer=Trainer(seed=0, device="cpu"))
    assert detector.fitted().source == "train"


def test_latency_takes_points_along(data: Dataset, combined: AST):
    effort = Effort(warmup_calls=1, warmup_seconds=0, calls=2, seconds=0)
    assert predict_latency(combined, data.test[:2], effort=effort).n == 2


@pytest.mark.slow
def test_depth_runs_from_the_command_line(cli: Callable[..., Outcome], tmp_path: Path):
    settings = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    fit = cli("fit", SOURCE, "--detector", "ast", "--recipe", "starter-3d", "--out", run, *settings)
    assert fit.code == 0, fit.err
    evaluate = cli("evaluate", run, "--json")
    assert evaluate.code == 0, evaluate.err
    assert (run / "report.html").is_file()
    picture = open_dataset(SOURCE).test[0].image
    predict = cli("predict", run, picture, "--json")
    assert predict.code == 0, predict.err
    copy = tmp_path / "alone.png"
    copy.write_bytes(picture.read_bytes())
    alone = cli("predict", run, copy)
    assert (alone.code, "has no point cloud" in alone.err) == (2, True), alone


def test_files_that_take_pictures_alone_refuse_depth(combined: AST, data: Dataset, tmp_path: Path):
    save_detector(combined, tmp_path / "detector")
    with pytest.raises(ConfigError, match="this ast looks at depth, and a network file takes pictures alone"):
        export(combined, tmp_path / "x.onnx")
    with pytest.raises(
        ConfigError, match="this ast looks at depth, and a packed detector takes pictures alone"
    ):
        pack(tmp_path, tmp_path / "x.andon", data.train, recipe={})
    assert not list(tmp_path.glob("x.*"))
