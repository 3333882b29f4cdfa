"""EfficientAD-AST: sizes of the published and the corrected network, identities I-10 to I-19, and every switch."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ONE_EPOCH
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.images import load_batch
from andon.core.records import Record
from andon.detectors.efficientad_ast.autoencoder import BottleneckAutoencoder, PublishedAutoencoder
from andon.detectors.efficientad_ast.data import PenaltySet, Views
from andon.detectors.efficientad_ast.detector import EfficientADAST
from andon.detectors.efficientad_ast.settings import EfficientADASTConfig, PenaltyConfig
from andon.layers.flow import Flow
from andon.layers.residual_student import ResidualStudent, frozen_statistics, hard_mean
from andon.nn.backbones import Backbone, BackboneConfig, multiply_adds
from andon.nn.training import Draw, Trainer, seeded

TINY: dict[str, object] = {
    **ONE_EPOCH,
    "epochs": 1,
}


def config(**changes: object) -> EfficientADASTConfig:
    return EfficientADASTConfig().updated(TINY | {k.replace("__", "."): v for k, v in changes.items()})


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("build", "inputs", "count", "giga"),
    [
        (lambda: Flow(304, 32, 1024, (3, 3, 3, 5), 3.0), ((304, 24), (32, 24)), 51_980_680, 29.94),
        (lambda: Flow(304, 32, 64, (3, 3, 3, 5), 1.9), ((304, 24), (32, 24)), 3_251_080, 1.87),
        (lambda: ResidualStudent(336, 304), ((336, 24),), 81_421_616, 46.88),
        (lambda: ResidualStudent(336, 608), ((336, 24),), 84_223_584, 48.50),
        (lambda: PublishedAutoencoder(336, 304, "relu_dropout"), ((336, 24),), 595_376, 8.74),
        (lambda: BottleneckAutoencoder(336, 304, 24, 64, "linear"), ((336, 24),), 966_384, 0.19),
    ],
    ids=["flow 1024", "flow 64", "AST student", "student", "published autoencoder", "corrected autoencoder"],
)
def test_sizes_are_those_of_the_reference(build, inputs, count, giga):
    """I-10: parameters and multiply-adds."""
    with torch.device("meta"):
        module = build().eval()
        tensors = [torch.empty(1, channels, size, size) for channels, size in inputs]
        assert parameters(module) == count
        assert multiply_adds(module, *tensors) / 1e9 == pytest.approx(giga, abs=0.006)
        output = module(*tensors)
    assert (output[0] if isinstance(output, tuple) else output).shape[-2:] == (24, 24)


@pytest.mark.parametrize(
    ("width", "blocks", "giga"), [(512, 4, 13.38), (512, 2, 7.94), (256, 4, 3.97), (256, 2, 2.61)]
)
def test_lighter_students_cost_what_they_should(width, blocks, giga):
    """V9: its knobs, and the lighter flow."""
    with torch.device("meta"):
        student = ResidualStudent(336, 608, width=width, blocks=blocks).eval()
        assert multiply_adds(student, torch.empty(1, 336, 24, 24)) / 1e9 == pytest.approx(giga, abs=0.006)
        if (width, blocks) == (256, 2):
            assert round(parameters(student) / 1e6, 2) == 4.54
            flow = Flow(304, 32, 256, (3, 3, 3, 5), 3.0)
            work = multiply_adds(flow, torch.empty(1, 304, 24, 24), torch.empty(1, 32, 24, 24))
            assert work / 1e9 == pytest.approx(7.5, abs=0.02)


@pytest.mark.parametrize("grid", [8, 16, 24, 32])
def test_the_bottleneck_holds_back_everything_but_64_numbers(grid):
    torch.manual_seed(0)
    net = BottleneckAutoencoder(6, 5, grid, 3, "linear").double().eval()
    x = torch.randn(1, 6, grid, grid, dtype=torch.float64)
    assert net(x).shape == (1, 5, grid, grid)
    code = net.encoder(x)
    assert code.shape == (1, 3, 1, 1)
    if grid == 8:
        published = PublishedAutoencoder(6, 5, "linear").double().eval()
        for one, held in ((net, True), (published, False)):  # I-16
            some = torch.autograd.functional.jacobian(lambda v, one=one: one(v).flatten()[::16], x)
            jacobian = some.flatten(1)  # 20 of the 320 outputs: enough to tell 3 dimensions from more
            assert (int(torch.linalg.matrix_rank(jacobian, rtol=1e-9)) <= 3) is held


def test_a_relu_head_cannot_reach_half_of_a_normal_target():
    """D4, I-15: with z ~ N(0, 1) the best non-negative output leaves a mean square of 0.5."""
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert (z.clamp_min(0) - z).square().mean().item() == pytest.approx(0.5, abs=0.01)
    torch.manual_seed(0)
    nets = {head: BottleneckAutoencoder(4, 4, 8, 8, head).eval() for head in ("linear", "relu_dropout")}
    x = torch.randn(2, 4, 8, 8)
    assert nets["relu_dropout"](x).min() >= 0
    assert nets["linear"](x).min() < 0
    assert PublishedAutoencoder(4, 4, "relu_dropout").eval()(x).min() >= 0


def test_hard_mean():
    """I-13."""
    difference = torch.rand(3, 40, 10, generator=torch.Generator().manual_seed(0))
    assert hard_mean(difference, 0.0) == pytest.approx(difference.mean().item())
    values = [hard_mean(difference, p).item() for p in (0.0, 0.5, 0.9, 0.99, 0.999)]
    assert values == sorted(values)
    by_hand = np.mean([np.sort(row)[-4:].mean() for row in difference.flatten(1).numpy()])
    assert hard_mean(difference, 0.99).item() == pytest.approx(by_hand, rel=1e-6)


def test_penalty_images_leave_frozen_statistics_alone():
    """D3: in `frozen` mode a penalty pass changes no BatchNorm buffer, in `shared` mode it does."""
    for mode, changes in (("frozen", False), ("shared", True)):
        detector = EfficientADAST(config(student__penalty_statistics=mode))
        detector.student.train()
        before = {k: v.clone() for k, v in detector.student.named_buffers()}
        detector.penalty_loss(torch.randn(4, *detector.adapter.shape))
        changed = any(not torch.equal(v, before[k]) for k, v in detector.student.named_buffers())
        assert changed is changes
        assert detector.student.training


def test_frozen_statistics_restores_train_mode():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout())
    net.train()
    with frozen_statistics(net):
        assert not net[0].training
        assert net[1].training
    assert net[0].training


def test_a_perfect_student_finds_nothing():
    """I-14: S1 = z and S2 = A give empty maps, and only L_AE is left of the loss."""
    detector = EfficientADAST(config())
    f = torch.randn(2, *detector.adapter.shape)
    z, a = detector.latent(f), detector.autoencoder(detector._with_position(f))
    detector.student = Constant(torch.cat([z, a], 1))
    assert torch.count_nonzero(detector.raw_maps(plain_views(f))) == 0
    losses = detector.student_losses(plain_views(f))
    assert losses["student"] == losses["student_autoencoder"] == 0
    assert losses["autoencoder"].item() == pytest.approx((z - a).square().mean().item())
    features = EfficientADAST(config(autoencoder__target="features"))
    expected = (f - features.autoencoder(features._with_position(f))).square().mean()
    assert features.student_losses(plain_views(f))["autoencoder"].item() == pytest.approx(expected.item())


def plain_views(f: torch.Tensor) -> Views:
    return Views(f, f, f, f.new_ones(len(f), 1, *f.shape[2:]))


class Constant(nn.Module):
    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output


@pytest.mark.parametrize(("stop", "moved"), [(False, True), (True, False)])
def test_stop_gradient_decides_whether_the_autoencoder_follows(stop, moved):
    detector = EfficientADAST(config(autoencoder__stop_gradient=stop))
    f = torch.randn(2, *detector.adapter.shape)
    detector.student_losses(plain_views(f))["student_autoencoder"].backward()
    assert (
        any(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.autoencoder.parameters()) is moved
    )


def test_map_quantiles_become_zero_and_a_tenth():
    """I-12: q_a -> 0, q_b -> 0.1; ranking within one map does not change."""
    plain, scaled = EfficientADAST(config(maps__normalise="none")), EfficientADAST(config())
    scaled.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        raw = plain.raw_maps(plain.extract(images))
        low, high = torch.quantile(raw[:, 0], 0.9), torch.quantile(raw[:, 0], 0.995)
        scaled.map_range_ = torch.stack([torch.stack([low, high]), torch.tensor([0.0, 1.0])])
        student = 2 * scaled.analyse(images).anomaly_map[:, 0] - 0.1 * raw[:, 1]
    expected = 0.1 * (raw[:, 0] - low) / (high - low)
    torch.testing.assert_close(student, expected, rtol=1e-3, atol=1e-4)


def test_the_likelihood_as_second_map():
    """It is the flow's, weighed by the mask, and the autoencoder is not asked."""
    detector = EfficientADAST(config(maps__second="likelihood", maps__normalise="none"))
    detector.autoencoder = nn.Identity()
    f = torch.randn(2, *detector.adapter.shape)
    half = f.new_ones(2, 1, *f.shape[2:])
    half[..., 4:] = 0
    with torch.inference_mode():
        student, second = detector.raw_maps(Views(f, f, f, half)).unbind(1)
        z, log_det = detector.flow(f)
        s1 = detector.student(detector._with_position(f)).chunk(2, dim=1)[0]
    torch.testing.assert_close(student, (detector.latent(f) - s1).square().mean(1) * half[:, 0])
    torch.testing.assert_close(second, (z.square().sum(1) / 2 - log_det) * half[:, 0])


def test_image_scores_of_one_map():
    detector = EfficientADAST(config(maps__normalise="none"))
    extras = detector.analyse(torch.rand(2, 3, 64, 64)).extras
    maps = torch.rand(2, 1, 8, 8)
    assert torch.allclose(detector.score(maps, "mean"), maps.mean((1, 2, 3)))
    assert torch.allclose(
        detector.score(maps, "topk"), maps.flatten(1).amax(1)
    )  # 1 % of 64 cells is one cell
    enlarged = F.interpolate(maps, size=(64, 64), mode="bilinear")
    assert torch.allclose(detector.score(maps, "max"), enlarged.flatten(1).amax(1))
    assert (detector.score(maps, "max") <= maps.flatten(1).amax(1)).all()  # I-19
    assert {"teacher_mean", "teacher_max", "mean_student", "topk_combined"} <= set(extras)


def test_ast_loss_sums_over_channels():
    f = torch.randn(2, *EfficientADAST(config()).adapter.shape)
    plain, summed = EfficientADAST(config()), EfficientADAST(config(student__loss="ast"))
    summed.load_state_dict(plain.state_dict())
    expected = plain.student_losses(plain_views(f))["student"].item() * f.shape[1]
    assert summed.student_losses(plain_views(f))["student"].item() == pytest.approx(expected, rel=1e-5)


def test_padding_puts_empty_cells_around_the_map():
    plain, padded = (
        EfficientADAST(config(maps__normalise="none", maps__pad=pad, maps__score="max")) for pad in (0, 2)
    )
    padded.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 64, 64)
    a, b = plain.analyse(images).anomaly_map, padded.analyse(images).anomaly_map
    assert b.shape[2:] == (a.shape[2] + 4, a.shape[3] + 4)
    assert torch.equal(b[:, :, 2:-2, 2:-2], a)
    assert b.sum().item() == pytest.approx(a.sum().item(), rel=1e-5)


@pytest.mark.parametrize("pad", [0, 4])
def test_a_cell_is_shown_where_it_is_unless_the_map_is_padded(pad, monkeypatch):
    """I-18: with 24 x 24 cells on 192 pixels; the thesis' padding shrinks the map towards its middle."""
    detector = EfficientADAST(config(maps__pad=pad, extractor__image_size=192))
    maps = torch.zeros(1, 2, 24, 24)
    maps[..., 3, 20] = 1
    monkeypatch.setattr(detector, "scaled_maps", lambda views: maps)
    with torch.inference_mode():
        found = detector.analyse(torch.rand(1, 3, 192, 192)).anomaly_map
    enlarged = F.interpolate(found, size=(192, 192), mode="bilinear", align_corners=False)
    row, column = divmod(int(enlarged.argmax()), 192)
    inside = 8 * 3 <= row < 8 * 4 and 8 * 20 <= column < 8 * 21
    assert inside is (pad == 0)


@settings(deadline=None, max_examples=20)
@given(row=st.integers(1, 22), column=st.integers(1, 22), seed=st.integers(0, 99))
def test_an_enlarged_map_never_exceeds_its_cells(row, column, seed):
    """I-19: and by an even factor a single high cell inside the map is lowered."""
    maps = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    grown = F.interpolate(maps, size=(768, 768), mode="bilinear", align_corners=False)
    assert grown.max() <= maps.max() + 1e-12
    maps[0, 0, row, column] = 2.0
    grown = F.interpolate(maps, size=(768, 768), mode="bilinear", align_corners=False)
    assert grown.max() < 2.0


@pytest.fixture(scope="module")
def good_images(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    from PIL import Image

    rng = np.random.default_rng(0)
    records, folder = [], tmp_path_factory.mktemp("good_images")
    for k in range(9):
        path = folder / f"{k}.png"
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
        records.append(Record(image=path, id=f"train/good/{k}", split="train", label=0))
    return records


def fitted(records: list[Record], trainer: Trainer | None = None, **changes: object) -> EfficientADAST:
    folder = str(records[0].image.parent)
    detector = EfficientADAST(config(penalty__folder=folder, **changes))
    detector.fit(records[:7], records[7:], trainer=trainer or Trainer(device="cpu"))
    return detector


SWITCHES = {
    "D1": {"extractor.mode": "train"},
    "D3": {"student.penalty_statistics": "shared"},
    "D4": {"autoencoder.head": "relu_dropout"},
    "D5": {"autoencoder.layout": "published"},
    "D7": {"maps.score": "max"},
    "D8": {"maps.normalise": "none"},
    "D15 zoom": {"penalty.zoom": False},
    "D15 colour": {"penalty.colour": "tint", "penalty.grey_share": 1.0},
    "D15 draw": {"penalty.draw": "fixed"},
    "D16": {"student.p_hard": 0.99},
    "D17": {"autoencoder.stop_gradient": True},
    "D18": {"drop_last": True},
    "target": {"autoencoder.target": "features"},
    "teacher": {"teacher.normalise": "channel"},
    "projection": {"extractor.project": 12},
    "standardise": {"extractor.standardise": True},
    "penalty": {"student.penalty": 0.0},
    "loss": {"student.loss": "ast"},
    "pad": {"maps.pad": 2},
    "augment": {"augment": True},
}


@pytest.fixture(scope="module")
def plain_score(good_images) -> float:
    return fitted(good_images).predict(good_images[8]).raw_score


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_runs_and_changes_the_result(name, good_images, plain_score):
    changed = fitted(good_images, **{k.replace(".", "__"): v for k, v in SWITCHES[name].items()})
    prediction = changed.predict(good_images[8])
    assert np.isfinite(prediction.raw_map).all()
    assert prediction.raw_score != plain_score


def test_the_extractor_is_untouched_by_training(good_images):
    """I-17: the shared extractor is bit-identical and two passes agree; in the published mode the copies drift."""
    before = EfficientADAST(config()).extractor.state_dict()
    detector = fitted(good_images)
    assert all(torch.equal(value, before[key]) for key, value in detector.extractor.state_dict().items())
    detector.train()
    assert not any(m.training for m in detector.extractor.modules())
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(detector.extractor(x)["layer2"], detector.extractor(x)["layer2"])
    published = fitted(good_images, extractor__mode="train")
    assert all(torch.equal(value, before[key]) for key, value in published.extractor.state_dict().items())
    drifted = published.student_extractor.state_dict()
    assert any(not torch.equal(value, before[key]) for key, value in drifted.items())


def test_validation_selection_keeps_an_epoch(good_images):
    trainer = Trainer(device="cpu")
    fitted(good_images, trainer, selection="validation", epochs=3, teacher__epochs=2)
    for name, epochs in (("teacher", 2), ("student", 3)):
        stage = trainer.stages[name]
        losses = [row[key] for row in stage.judged for key in row if key != "epoch"]
        assert len(losses) == epochs
        assert stage.kept_epoch == 1 + int(np.argmin(losses))


def test_a_grid_that_does_not_fit_is_named():
    from andon.core.errors import ConfigError

    with pytest.raises(ConfigError, match="divisible by 8"):
        EfficientADAST(config(extractor__image_size=96))


@pytest.mark.parametrize(("limit", "steps"), [(None, 3 * 2), (4, 4), (1, 2)])
def test_max_steps_ends_a_stage_after_whole_epochs(limit, steps, good_images):
    trainer = Trainer(device="cpu")
    fitted(good_images, trainer, max_steps=limit, epochs=3)
    assert trainer.stages["student"].steps == steps


# `published` against the code of the thesis ---------------------------------------------------------------------------


def test_momentum_of_the_published_extractor_is_that_of_efficientnet_pytorch():
    """0.01: after one epoch of 26 steps 23 % of the running statistics are new, 41 % with two passes in a step."""
    b0 = BackboneConfig(network="tf_efficientnet_b0", weights="random", taps=("blocks.1",), image_size=32)
    for config_ in (b0, BackboneConfig(weights="random", taps=("layer1",), image_size=32)):
        backbone = Backbone.create(config_, train_mode=True).train()
        norm = backbone.trunk.get_submodule("bn1")
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        inputs: list[Tensor] = []
        hook = norm.register_forward_pre_hook(lambda _, x, inputs=inputs: inputs.append(x[0]))
        backbone(images)
        hook.remove()
        batch_mean = inputs[0].mean((0, 2, 3))
        norm.running_mean.fill_(-7.0)
        for passes, share in ((26, 0.23), (52, 0.41)):
            for _ in range(26):
                backbone(images)
            new = (norm.running_mean + 7.0) / (batch_mean + 7.0)
            torch.testing.assert_close(new, torch.full_like(new, 1 - 0.99**passes), rtol=1e-4, atol=1e-4)
            assert new[0].item() == pytest.approx(share, abs=0.005)


PUBLISHED = {
    "extractor__mode": "train",
    "student__penalty_statistics": "shared",
    "penalty__zoom": False,
    "penalty__colour": "tint",
    "penalty__draw": "fixed",
    "drop_last": True,
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    from PIL import Image

    rng, folder = np.random.default_rng(1), tmp_path_factory.mktemp("photographs")
    for k in range(4):
        Image.fromarray(rng.integers(0, 60 * (k + 1), (64, 64, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return [Record(image=folder / f"{k}.png", id=str(k)) for k in range(4)]


def drifted(statistics: Tensor, batches: list[Tensor], weight: Tensor, take: str) -> Tensor:
    """BatchNorm's running statistics after (4, 3, 64, 64) batches through one convolution, in float64 by the formula."""
    for images in batches:
        mean, std = (
            torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD)
        )
        x = (
            F.conv2d((images.double() - mean) / std, weight.double(), stride=2, padding=3)
            .transpose(0, 1)
            .flatten(1)
        )
        new = x.mean(1) if take == "mean" else x.var(1, unbiased=True)
        statistics = 0.99 * statistics + 0.01 * new
    return statistics


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_penalty_images_pass_through_the_drifting_extractor_of_the_student(good_images, photographs):
    """D1: in each step good images, then penalty images; the autoencoder's extractor sees the good ones alone.

    Four good and four penalty images, all of them in each batch, so that the batches are known without their order.
    """
    trainer = Trainer(device="cpu", precision="32-true")
    folder = str(photographs[0].image.parent)
    detector = EfficientADAST(config(penalty__folder=folder, penalty__grey_share=0.0, epochs=3, **PUBLISHED))
    detector.fit(good_images[:4], trainer=trainer)
    assert trainer.stages["student"].steps == 3
    good, penalty = (load_batch(records, (64, 64)).image for records in (good_images[:4], photographs))
    before = EfficientADAST(config()).extractor.trunk.get_submodule("bn1")
    for extractor, seen in (
        (detector.student_extractor, [good, penalty] * 3),
        (detector.autoencoder_extractor, [good] * 3),
    ):
        norm, weight = extractor.trunk.get_submodule("bn1"), extractor.trunk.get_submodule("conv1").weight
        assert norm.num_batches_tracked - before.num_batches_tracked == len(seen)
        for name, take in (("running_mean", "mean"), ("running_var", "variance")):
            expected = drifted(getattr(before, name).double(), seen, weight, take)
            torch.testing.assert_close(getattr(norm, name).double(), expected, rtol=1e-4, atol=1e-6)


def test_the_published_penalty_uses_the_features_of_that_pass(good_images, photographs):
    """The loss term of a first step, against a copy of the networks that repeats both passes."""
    folder = str(photographs[0].image.parent)
    changes = {**PUBLISHED, "penalty__folder": folder, "penalty__grey_share": 0.0}
    detector = EfficientADAST(config(**changes))
    trainer = Trainer(device="cpu", precision="32-true")
    data = detector.load_data(good_images[:4], (), trainer)
    copy = deepcopy(detector)
    for network in (detector, copy):
        network.train()
    draw = Draw(torch.arange(4), 0, seeded("draw"))
    found = detector.step_losses(detector._training_views(data, draw), data, draw)["penalty"]
    good, penalty = (load_batch(records, (64, 64)).image for records in (good_images[:4], photographs))
    with torch.no_grad():
        first, second = (copy.student_extractor(images)["layer2"] for images in (good, penalty))
        for f in (first, second):  # the student's BatchNorm uses the statistics of each batch (D3)
            output = copy.student(torch.cat([copy.position.expand(4, -1, -1, -1), f], 1))
    expected = output[:, : output.shape[1] // 2].square().mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def penalty_set(records: list[Record], draw: str, train_size: int) -> PenaltySet:
    c = PenaltyConfig(folder=str(records[0].image.parent), draw=draw)
    return PenaltySet.choose(c, train_size, 2, Trainer(device="cpu"))


def draws(found: PenaltySet, steps: int) -> list[int]:
    return [
        int(k)
        for step in range(steps)
        for k in found.positions(2, Draw(torch.arange(2), step, seeded("draw", step)))
    ]


def test_each_image_of_a_fixed_penalty_subset_is_shown_once_per_epoch(good_images):
    found = penalty_set(good_images, "fixed", 6)
    assert len(found) == 6
    seen = draws(found, 3 * found.order.per_epoch)
    epochs = [seen[k : k + 6] for k in range(0, 18, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    anew = penalty_set(good_images, "each_step", 6)
    assert len(anew) == len(good_images)
    assert len(set(draws(anew, 4))) < 8  # with replacement


def test_the_smaller_of_the_two_sets_ends_the_epoch(good_images, photographs):
    """D19."""
    trainer = Trainer(device="cpu")
    changes = {**PUBLISHED, "penalty__folder": str(photographs[0].image.parent), "batch_size": 2}
    EfficientADAST(config(**changes)).fit(good_images[:8], trainer=trainer)
    assert trainer.stages["teacher"].steps == 4
    assert trainer.stages["student"].steps == 2


def test_penalty_images_lose_their_colour_anew_at_each_step(photographs):
    found, positions = penalty_set(photographs, "fixed", 4), torch.arange(4)
    grey = []
    for step in range(40):
        images = found.images(positions, (8, 8), Draw(positions, step, seeded("grey", step)))
        assert images.shape == (4, 3, 8, 8)
        grey.append((images[:, 0] - images[:, 1]).abs().flatten(1).amax(1) < 1e-6)
    share = torch.stack(grey).float().mean(0)
    assert ((share > 0) & (share < 1)).all()
    assert share.mean().item() == pytest.approx(0.3, abs=0.1)
