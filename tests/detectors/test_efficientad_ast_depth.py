"""EfficientAD-AST with depth (V1): masks, scales, and the way through fit and predict."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import ONE_EPOCH

import andon
from andon.core.errors import ConfigError
from andon.datasets import Dataset, open_dataset
from andon.detectors._depth import Inputs
from andon.detectors._recipes import load_recipe
from andon.detectors.efficientad_ast import EfficientADASTVariants, VariantsConfig
from andon.layers.flow import negative_log_likelihood
from andon.nn.training import Trainer

TINY: dict[str, object] = {
    **ONE_EPOCH,
    "mode": "combined",
    "extractor.project": 8,
    "depth.side": 32,
    "depth.cell": 4,
    "depth.dilate": 3,
    "autoencoder.bottleneck": 8,
    "epochs": 1,
}
SOURCE = "embedded:dimples,profile=tiny,size=128"


def create(**changes: object) -> EfficientADASTVariants:
    torch.manual_seed(0)
    changed = {k.replace("__", "."): v for k, v in changes.items()}
    return EfficientADASTVariants(VariantsConfig().updated(TINY | changed))


def test_the_corrected_design_on_depth_has_the_specified_channels():
    """V1: the flow sees n channels, the student n + 32 and gives 2n, the autoencoder n + 32 and gives n."""
    recipe = load_recipe("efficientad_ast/corrected-3d")
    config = VariantsConfig.parse(recipe.config)
    assert (config.mode, config.teacher.epochs, config.maps.score) == ("combined", 72, "max")
    with torch.device("meta"):
        detector = EfficientADASTVariants(config.updated({"mode": "depth", "student.penalty": 0.0}))
    assert sum(p.numel() for p in detector.teacher.parameters()) == 853_000
    assert (detector.student.head[0].in_channels, detector.student.tail.out_channels) == (96, 128)
    assert detector.autoencoder.encoder[0].in_channels == 96
    assert detector.autoencoder.head[0].out_channels == 64


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_dataset(SOURCE)


@pytest.fixture(scope="module")
def fitted(data: Dataset) -> EfficientADASTVariants:
    return create().fit(data.train, data.validation, trainer=Trainer(seed=1, device="cpu"))


def losses(detector: EfficientADASTVariants, f: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    with torch.no_grad():
        return {k: float(v) for k, v in detector.student_losses(detector.views(Inputs(f, mask))).items()}


@pytest.mark.parametrize("norm", ["cells", "mask"])
def test_a_full_mask_is_no_mask(norm: str):
    detector = create(depth__norm=norm)
    f = torch.randn(2, 24, 8, 8)
    found = losses(detector, f, torch.ones(2, 1, 8, 8))
    with torch.no_grad():
        x = torch.cat([detector.position.expand(2, -1, -1, -1), f], 1)
        z, a = detector.latent(f), detector.autoencoder(x)
        s1, s2 = detector.student(x).chunk(2, 1)
        maps = detector.raw_maps(detector.views(Inputs(f, torch.ones(2, 1, 8, 8))))
    expected = {"student": z - s1, "autoencoder": z - a, "student_autoencoder": a - s2}
    assert found == pytest.approx({k: v.square().mean().item() for k, v in expected.items()}, rel=1e-5)
    torch.testing.assert_close(maps[:, 0], (z - s1).square().mean(1))


def test_what_masked_losses_are_divided_by():
    """Of a half mask: all cells, or those that count."""
    f, half = torch.randn(2, 24, 8, 8), torch.ones(2, 1, 8, 8)
    half[..., 4:] = 0
    by_cells, by_mask = (losses(create(depth__norm=norm), f, half) for norm in ("cells", "mask"))
    assert by_mask == pytest.approx({k: 2 * v for k, v in by_cells.items()}, rel=1e-5)


def test_cells_without_a_part_say_nothing():
    detector = create(maps__normalise="none")
    f, half = torch.randn(1, 24, 8, 8), torch.ones(1, 1, 8, 8)
    half[..., 4:] = 0
    with torch.no_grad():
        maps = detector.raw_maps(detector.views(Inputs(f, half)))
    assert maps[..., 4:].abs().max() == 0
    assert maps[..., :4].min() > 0


@pytest.mark.slow
def test_normalisation_uses_the_cells_of_the_part_alone(data: Dataset):
    """The quantiles are those of the cells that count, not of the empty ones around them."""
    detector = create(depth__mask="binary").fit(
        data.train, data.validation, trainer=Trainer(seed=1, device="cpu")
    )
    trainer = Trainer(seed=1, device="cpu")
    inputs = detector.load_inputs(data.validation, trainer, what="")
    with torch.inference_mode():
        maps = detector.raw_maps(detector.views(inputs))
    counted = maps[:, 0][inputs.mask[:, 0] > 0]
    assert counted.numel() < maps[:, 0].numel()
    expected = torch.quantile(counted, torch.tensor([0.9, 0.995]))
    torch.testing.assert_close(detector.map_range_[0], expected, rtol=1e-3, atol=1e-6)


def test_the_teacher_is_weighed_too():
    detector = create()
    images = torch.rand(1, 5, 64, 64)
    images[:, 4] = 0.5
    with torch.inference_mode():
        likelihood = negative_log_likelihood(*detector.flow(detector.inputs(images).f))
        extras = detector.analyse(images).extras
    assert extras["teacher_mean"].item() == pytest.approx(0.5 * likelihood.mean().item(), rel=1e-5)


def test_fit_predict_save_load(data: Dataset, fitted: EfficientADASTVariants, tmp_path):
    assert fitted.map_range_.isfinite().all()
    fitted.save(tmp_path)
    records = list(data.test[:3])
    again = andon.load(tmp_path)
    assert [p.raw_score for p in fitted.predict(records)] == [p.raw_score for p in again.predict(records)]


def test_points_decide(data: Dataset, fitted: EfficientADASTVariants):
    record = data.test[0]
    other = fitted.predict(replace(record, depth=data.test[-1].depth)).raw_score
    assert other != fitted.predict(record).raw_score


@pytest.mark.slow
def test_depth_alone_sees_what_has_no_colour(data: Dataset):
    changes = {"teacher.epochs": 12, "epochs": 12, "depth.side": 64, "optimiser.lr": 2e-3}
    alone = {"mode": "depth", "student.penalty": 0.0, "maps.score": "max"}
    detector = EfficientADASTVariants(VariantsConfig().updated(TINY | changes | alone))
    detector.fit(data.train, data.validation, trainer=Trainer(seed=0, device="cpu"))
    good, holes = ([r for r in data.test if r.defect_type == kind] for kind in ("good", "hole"))
    worst = max(p.raw_score for p in detector.predict(good))
    assert all(p.raw_score > worst for p in detector.predict(holes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "depth"}, r"set student\.penalty=0"),
        ({"others__kinds": ("plain",)}, r"set others\.kinds=\[\]"),
        ({"bank__inputs": "residual"}, r"set bank\.inputs=none"),
        ({"extractor__mode": "train"}, r"set extractor\.mode=eval"),
        ({"augment": True}, "set augment=false"),
        ({"labels__head": True}, r"set labels\.margin=0"),
        ({"depth__side": 64}, r"set depth\.side=32"),
    ],
)
def test_what_does_not_go_with_depth_is_said(changes: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        create(**changes)
