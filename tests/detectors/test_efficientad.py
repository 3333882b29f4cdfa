"""EfficientAD: sizes of the paper's tables, identities I-9 to I-14, losses and maps against plain arithmetic, every switch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F

import andon as package
from andon.core.errors import ConfigError, WeightsError
from andon.core.images import CachedImages, load_batch
from andon.core.records import Record
from andon.detectors import efficientad
from andon.detectors.efficientad import Autoencoder, EfficientAD, EfficientADConfig
from andon.layers.augment import jitter_one
from andon.layers.residual_student import hard_mean
from andon.nn.backbones import multiply_adds
from andon.nn.pdn import grid, pdn, teacher_state
from andon.nn.training import Draw, Trainer
from andon.nn.weights import add, entries

TINY = {
    "teacher.weights": "random",
    "teacher.width": 4,
    "teacher.channels": 6,
    "image_size": 128,
    "steps": 3,
    "batch_size": 2,
}


def config(**changes: object) -> EfficientADConfig:
    return EfficientADConfig().updated(TINY | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    records = []
    for k in range(5):
        pixels = np.clip(rng.normal(120, 20, (128, 128, 3)) + 20 * rng.normal(size=(1, 1, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{k}.png")
        records.append(Record(image=root / f"{k}.png", id=f"train/good/{k}", split="train", label=0))
    return records


def fitted(records: list[Record], trainer: Trainer | None = None, **changes: object) -> EfficientAD:
    detector = EfficientAD(config(penalty__folder=str(records[0].image.parent), **changes))
    return detector.fit(
        records[:3], records[3:], trainer=trainer or Trainer(device="cpu", precision="32-true")
    )


# Networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "padding", "teacher", "student", "autoencoder", "total"),
    [
        ("small", False, (2_694_144, 15.31), (4_267_392, 20.24), (1_096_320, 2.39), 37.95),
        ("small", True, (2_694_144, 18.78), (4_267_392, 25.22), (1_096_320, 2.64), 46.64),
        ("medium", False, (8_026_624, 52.03), (11_615_488, 63.28), (1_096_320, 2.39), 117.71),
        ("medium", True, (8_026_624, 63.18), (11_615_488, 77.87), (1_096_320, 2.64), 143.69),
    ],
)
def test_sizes_are_those_of_the_paper(size, padding, teacher, student, autoencoder, total):
    """I-10: 8 M parameters and 76 GFLOPs (S), 21 M and 235 (M), without padding."""
    cells = 64 if padding else 56
    with torch.device("meta"):
        nets = [
            pdn(size, None, 384, padding=padding),
            pdn(size, None, 768, padding=padding),
            Autoencoder(256, cells, 384).eval(),
        ]
        x = torch.empty(1, 3, 256, 256)
        work = [multiply_adds(net, x) / 1e9 for net in nets]
        for net, channels in zip(nets, (384, 768, 384), strict=True):
            assert net(x).shape == (1, channels, cells, cells)
    for net, found, (count, giga) in zip(nets, work, (teacher, student, autoencoder), strict=True):
        assert sum(p.numel() for p in net.parameters()) == count
        assert found == pytest.approx(giga, abs=0.006)
    assert sum(work) == pytest.approx(total, abs=0.006)


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("padding", [False, True])
def test_a_description_sees_33_pixels_and_the_next_one_starts_4_further(size, padding):
    """I-9, with the place of the patch: without padding patch (i, j) starts at pixel (4i, 4j), with it 16 before."""
    net = pdn(size, 3, 4, padding=padding).double()
    with torch.no_grad():  # all weights positive: nothing is cut off by a ReLU, nothing cancels
        for p in net.parameters():
            p.copy_(p.abs() + 0.1)
    x = torch.rand(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    y = net(x)
    assert y.shape[-1] == grid(128, padding)
    for i, j in ((7, 9), (8, 9), (8, 10)):
        (gradient,) = torch.autograd.grad(y[0, :, i, j].sum(), x, retain_graph=True)
        rows, columns = (gradient[0].abs().sum((0, axis)).nonzero().flatten() for axis in (2, 1))
        start = -16 if padding else 0
        assert (rows.min(), rows.max()) == (4 * i + start, 4 * i + start + 32)
        assert (columns.min(), columns.max()) == (4 * j + start, 4 * j + start + 32)


@pytest.mark.parametrize("size", ["small", "medium"])
def test_the_same_weights_work_with_and_without_padding(size):
    torch.manual_seed(0)
    padded, plain = (pdn(size, 4, 5, padding=p).double() for p in (True, False))
    plain.load_state_dict(padded.state_dict())
    x = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    torch.testing.assert_close(padded(x)[:, :, 4:-4, 4:-4], plain(x))


@given(side=st.integers(40, 260), padding=st.booleans(), size=st.sampled_from(["small", "medium"]))
@settings(deadline=None, max_examples=25)
def test_the_grid_follows_from_the_side(side, padding, size):
    with torch.device("meta"):
        y = pdn(size, 2, 3, padding=padding)(torch.empty(1, 3, side, side))
    assert y.shape[-2:] == (grid(side, padding),) * 2


def test_the_autoencoder_has_the_grids_of_the_table():
    net = Autoencoder(256, 56, 8)
    seen: list[int] = []
    for layer in (*net.encoder, *net.decoder, *net.head):
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _m, _x, y: seen.append(y.shape[-1]))
    with torch.no_grad():
        net(torch.zeros(1, 3, 256, 256))
    assert seen == [128, 64, 32, 16, 8, 1, 4, 9, 16, 33, 64, 128, 56, 56]


@pytest.mark.parametrize("side", [128, 192, 320])
def test_other_sizes_have_a_single_vector_as_bottleneck(side):
    net = Autoencoder(side, grid(side, False), 3)
    x = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        assert net.encoder(x).shape == (1, 64, 1, 1)
        assert net(x).shape == (1, 3, grid(side, False), grid(side, False))
    with pytest.raises(ConfigError, match="multiple of 64"):
        EfficientADConfig().updated({"image_size": side + 32})


def test_dropout_takes_single_elements_and_only_in_training(monkeypatch):
    net = Autoencoder(128, 24, 3)
    dropped: list[torch.Tensor] = []
    real = F.dropout

    def watch(x, p, training):
        out = real(torch.ones_like(x), p, training)
        dropped.append(out)
        return real(x, p, training)

    monkeypatch.setattr(efficientad.F, "dropout", watch)
    net.eval()(torch.rand(1, 3, 128, 128))
    assert all((d == 1).all() for d in dropped)
    dropped.clear()
    net.train()(torch.rand(1, 3, 128, 128))
    last = dropped[-1][0]  # (64, 64, 64)
    assert len(dropped) == 6
    assert (last == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (last == 0).flatten(1).any(1).all()  # every channel loses some
    assert (last != 0).flatten(1).any(1).all()  # and none loses all


# Teachers from files ----------------------------------------------------------------------------------------------


def plain_sequential(size: str) -> nn.Sequential:
    """As in the common public implementation, which the names of its files follow."""
    first, second = (128, 256) if size == "small" else (256, 512)
    layers = [
        nn.Conv2d(3, first, 4),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(first, second, 4),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
    ]
    if size == "medium":
        layers += [nn.Conv2d(second, second, 1), nn.ReLU()]
    layers += [nn.Conv2d(second, second, 3), nn.ReLU(), nn.Conv2d(second, 384, 4)]
    return nn.Sequential(*layers, *([nn.ReLU(), nn.Conv2d(384, 384, 1)] if size == "medium" else []))


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("names", ["sequential", "convN"])
def test_public_teacher_files_are_taken(store, cli, names):
    torch.manual_seed(0)
    net = plain_sequential("small")
    state = net.state_dict()
    if names == "convN":
        order = list(dict.fromkeys(key.split(".")[0] for key in state))
        state = {f"conv{1 + order.index(k.split('.')[0])}.{k.split('.')[1]}": v for k, v in state.items()}
    torch.save(state, store / "teacher.pth")
    done = cli("weights", "add", store / "teacher.pth", "--name", "teacher_small", "--network", "pdn_small")
    assert done.code == 0, done.err
    detector = package.create("efficientad", recipe="paper-s")
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(detector.teacher(x), net(x), rtol=1e-4, atol=1e-5)
    assert detector.used_weights[0]["name"] == "teacher_small"
    assert not any(p.requires_grad for p in detector.teacher.parameters())


def test_other_files_are_refused_in_one_line(store, cli):
    small, medium = (plain_sequential(size).state_dict() for size in ("small", "medium"))
    short = {k: v for k, v in small.items() if k != "3.bias"}
    cases = [
        ({"conv.weight": torch.ones(2)}, "pdn_small", "no layers 0 and 8"),
        (medium, "pdn_small", "6.weight is (512, 512, 1, 1), must be (512, 512, 3, 3)"),
        (small, "pdn_medium", "no layers 0 and 12"),
        (short, "pdn_small", "3.bias is missing"),
        (small | {"9.weight": torch.ones(3)}, "pdn_small", "9.weight is (3,), must be absent"),
    ]
    for state, network, words in cases:
        torch.save(state, store / "t.pth")
        said = cli("weights", "add", store / "t.pth", "--name", "t", "--network", network).complaint()
        assert "t.pth is no " + network in said
        assert words in said
    assert not (store / "home" / "weights").exists()
    with pytest.raises(WeightsError, match=r"weights x is no pdn_small"):
        teacher_state({}, "pdn_small", what="weights x")


@pytest.mark.parametrize(("recipe", "network"), [("paper-s", "small"), ("paper-m", "medium")])
def test_a_missing_teacher_is_said_with_the_ways_out(store, recipe, network):
    with pytest.raises(WeightsError) as caught:
        package.create("efficientad", recipe=recipe)
    said = str(caught.value)
    assert f"andon weights add FILE --name teacher_{network} --network pdn_{network}" in said
    assert f"andon pretrain pdn --name teacher_{network} --set size={network}" in said
    assert "efficientad/starter" in said
    assert "\n" not in said


def test_a_teacher_of_another_width_names_the_settings(store):
    torch.save(pdn("small", 4, 6, padding=False).state_dict(), store / "t.pth")
    add(store / "t.pth", name="narrow", network="pdn_small")
    EfficientAD(config(teacher__weights="narrow"))
    with pytest.raises(WeightsError, match=r"teacher\.width=4 and teacher\.channels=6"):
        EfficientAD(config(teacher__weights="narrow", teacher__channels=8))


def test_the_starter_works_with_what_is_in_the_package(store):
    detector = package.create("efficientad", "starter")
    (line,) = detector.used_weights
    assert line["name"] == "starter_pdn"
    assert "starter" in line["origin"]
    assert "non-commercial" in line["licence"]
    entry = next(e for e in entries() if e.name == "starter_pdn")
    assert entry.path.stat().st_size < 6_000_000


# Losses -----------------------------------------------------------------------------------------------------------


def test_losses_follow_the_equations():
    """Each term against plain NumPy; batch 1 and batches (quantile per picture) alike."""
    torch.manual_seed(0)
    detector = EfficientAD(config(p_hard=0.9, penalty__weight=0.5))
    images, augmented, outside = torch.rand(3, 2, 3, 128, 128)
    with torch.no_grad():
        target = detector.target(images)
        terms = {k: v.item() for k, v in detector.losses(images, target, augmented, outside).items()}
        norm = detector._normalise
        t2 = ((detector.teacher(norm(augmented)) - detector.teacher_mean_) / detector.teacher_std_).numpy()
        a = detector.autoencoder(norm(augmented)).numpy()
        s, s_augmented, s_outside = (detector.student(norm(x)).numpy() for x in (images, augmented, outside))
    hard = []
    for t, one in zip(target.numpy(), s, strict=True):
        d = ((t - one[:6]) ** 2).astype(np.float64)
        hard.append(d[d >= np.quantile(d, 0.9)].mean())
    assert terms["student"] == pytest.approx(np.mean(hard), rel=1e-4)
    assert terms["penalty"] == pytest.approx(0.5 * np.mean(s_outside[:, :6] ** 2), rel=1e-4)
    assert terms["autoencoder"] == pytest.approx(np.mean((t2 - a) ** 2), rel=1e-4)
    assert terms["student_autoencoder"] == pytest.approx(np.mean((a - s_augmented[:, 6:]) ** 2), rel=1e-4)


def test_which_networks_each_term_moves():
    """L_STAE moves both; the teacher is never moved."""
    detector = EfficientAD(config())
    x = torch.rand(1, 3, 128, 128)
    moves = {"student": "s", "penalty": "s", "autoencoder": "a", "student_autoencoder": "sa"}
    for name, expected in moves.items():
        detector.zero_grad(set_to_none=True)
        detector.losses(x, detector.target(x), x, x)[name].backward()
        for net, letter in ((detector.student, "s"), (detector.autoencoder, "a")):
            moved = any(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
            assert moved is (letter in expected), (name, letter)
        assert all(p.grad is None for p in detector.teacher.parameters())


class Constant(nn.Module):
    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output.expand(len(x), -1, -1, -1)


def test_a_perfect_student_leaves_the_autoencoder_loss_alone():
    """I-14."""
    detector = EfficientAD(config())
    x = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        t, a = detector.target(x), detector.autoencoder(detector._normalise(x))
    detector.student = Constant(torch.cat([t, a], 1))
    assert torch.count_nonzero(detector.raw_maps(x)) == 0
    terms = detector.losses(x, t, x, x[:0])
    assert terms["student"] == terms["student_autoencoder"] == 0
    assert sum(terms.values()).item() == pytest.approx((t - a).square().mean().item())


def test_hard_features_are_about_one_in_a_thousand():
    """I-13: with p_hard = 0.999 1,205 of 384 · 56 · 56 elements reach the quantile; 0 is the plain mean."""
    d = torch.rand(1, 384, 56, 56, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = d.numpy().ravel()
    reached = values[values >= np.quantile(values, 0.999)]
    assert len(reached) == 1205
    assert hard_mean(d, 0.999).item() == pytest.approx(reached.mean(), rel=1e-12)
    assert hard_mean(d, 0.0).item() == pytest.approx(values.mean(), rel=1e-12)


@given(seed=st.integers(0, 10**6), p=st.floats(0, 0.999), q=st.floats(0, 0.999), n=st.integers(1, 300))
@settings(deadline=None, max_examples=60)
def test_harder_features_lose_more(seed, p, q, n):
    d = torch.rand(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = sorted((p, q))
    assert hard_mean(d, low) <= hard_mean(d, high) + 1e-12


def test_augmentation_changes_one_of_three_by_at_most_a_fifth():
    """Against Pillow's enhancers, which the papers' code uses."""
    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    grey = image[0] * 0.299 + image[1] * 0.587 + image[2] * 0.114
    kinds, factors = set(), []
    for seed in range(40):
        out = jitter_one(image[None], torch.Generator().manual_seed(seed))[0]
        for kind, anchor in (
            ("brightness", torch.tensor(0.0)),
            ("contrast", grey.mean()),
            ("saturation", grey),
        ):
            inside = (out > 0) & (out < 1)
            distance = (image - anchor)[inside]
            factor = ((out - anchor)[inside] * distance).sum() / distance.square().sum()
            blend = (factor * image + (1 - factor) * anchor).clamp(0, 1)
            if torch.allclose(blend, out, atol=1e-4):
                kinds.add(kind)
                factors.append(factor.item())
    assert kinds == {"brightness", "contrast", "saturation"}
    assert len(factors) == 40
    assert 0.8 <= min(factors) < 0.9 < 1.1 < max(factors) <= 1.2


@pytest.mark.parametrize(("share", "grey"), [(0.0, 0), (1.0, 4)])
def test_penalty_pictures_are_the_centre_of_twice_the_size(pictures, share, grey):
    detector = EfficientAD(config(penalty__grey_share=share))
    store = CachedImages(pictures, (128, 128), view=efficientad.View(zoom=True))
    draw = Draw(torch.tensor([0]), 0, torch.Generator().manual_seed(1))
    out = detector._draw_penalty(store, 4, draw)
    whole = F.interpolate(
        load_batch(pictures, (128, 128)).image, size=(256, 256), mode="bilinear", antialias=True
    )[:, :, 64:192, 64:192]
    luma = (whole * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).expand_as(whole)
    for one in out:
        assert any(torch.allclose(one, p, atol=1e-5) for p in (luma if grey else whole))
    none = EfficientAD(config(penalty__weight=0.0))._draw_penalty(store, 4, draw)
    assert none.shape == (0, 3, 128, 128)


def test_pictures_beyond_the_memory_are_decoded_again(pictures, monkeypatch):
    opened: list[Path] = []
    real = package.core.images.decode
    monkeypatch.setattr(
        "andon.core.images.decode", lambda path, **how: opened.append(path) or real(path, **how)
    )
    store = CachedImages(pictures, (64, 64), limit=2 * 3 * 64 * 64 * 4)
    first, second = store([0, 1, 2]), store([0, 1, 2])
    assert torch.equal(first, second)
    assert torch.equal(first, load_batch(pictures[:3], (64, 64)).image)
    assert [path.stem for path in opened] == ["0", "1", "2", "2", "0", "1", "2"]


# Learning ---------------------------------------------------------------------------------------------------------


def test_the_normalised_teacher_has_mean_0_and_deviation_1(pictures):
    """I-11, on the 3 training pictures."""
    detector = fitted(pictures)
    t = detector.target(load_batch(pictures[:3], (128, 128)).image).double()
    torch.testing.assert_close(t.mean((0, 2, 3)), torch.zeros(6).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(t.std((0, 2, 3), correction=0), torch.ones(6).double(), atol=1e-4, rtol=0)


def test_the_teacher_is_untouched_and_its_kept_answers_change_nothing(pictures, monkeypatch):
    """The same result whether the teacher's answers fit into memory or are computed at each step."""
    before = EfficientAD(config()).teacher.state_dict()
    kept = fitted(pictures)
    assert all(torch.equal(value, before[key]) for key, value in kept.teacher.state_dict().items())
    monkeypatch.setattr(efficientad, "TARGET_BYTES", 0)
    again = fitted(pictures)
    for key, value in again.state_dict().items():
        torch.testing.assert_close(value, kept.state_dict()[key], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_rate_falls_to_a_tenth_after_95_percent(pictures, monkeypatch):
    rates: list[float] = []
    real = torch.optim.Adam.step

    def step(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    fitted(pictures, steps=20, batch_size=1, teacher__channels=2)
    assert rates == pytest.approx([1e-4] * 19 + [1e-5])
    recipe = package.create("efficientad", teacher__weights="random", recipe="paper-s").config
    assert recipe.steps - round(recipe.optimiser.decay_last * recipe.steps) == 66_500
    assert (recipe.optimiser.lr, recipe.optimiser.weight_decay, recipe.batch_size) == (1e-4, 1e-5, 1)


def test_validation_selection_keeps_an_epoch(pictures):
    trainer = Trainer(device="cpu", precision="32-true")
    fitted(pictures, trainer, selection="validation", steps=4)
    stage = trainer.stages["student"]
    losses = [row["loss"] for row in stage.judged]
    assert len(losses) == 2
    assert stage.kept_epoch == 1 + int(np.argmin(losses))


SWITCHES = {
    "size": {"teacher.size": "medium"},
    "padding": {"padding": True},
    "p_hard": {"p_hard": 0.0},
    "penalty": {"penalty.weight": 0.0},
    "grey": {"penalty.grey_share": 1.0},
    "quantiles": {"quantile_grid": "input"},
    "steps": {"steps": 4},
}


@pytest.fixture(scope="module")
def plain(pictures) -> EfficientAD:
    return fitted(pictures)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_runs_and_changes_the_result(name, pictures, plain):
    changed = fitted(pictures, **{k.replace(".", "__"): v for k, v in SWITCHES[name].items()})
    a, b = changed.predict(pictures[4]), plain.predict(pictures[4])
    assert np.isfinite(a.raw_map).all()
    assert a.raw_score != b.raw_score


# Maps -------------------------------------------------------------------------------------------------------------


def with_maps(maps: torch.Tensor, **changes: object) -> EfficientAD:
    """A detector whose M_ST and M_AE on the cell grid are `maps` (2, h, w), whatever the picture."""
    detector = EfficientAD(config(**changes))
    channels = detector.config.teacher.channels
    student, autoencoder = maps.sqrt().repeat_interleave(channels, 0).split(channels)
    zero = torch.zeros_like(student)
    detector.teacher, detector.autoencoder = Constant(student[None]), Constant(autoencoder[None])
    detector.student = Constant(torch.cat([zero, zero])[None])
    return detector


@pytest.mark.parametrize("where", ["cell", "input"])
def test_quantiles_become_0_and_a_tenth(pictures, where):
    """I-12, with the quantiles from plain NumPy over all values of all held-out maps; ranking does not change."""
    maps = torch.rand(2, 24, 24, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0]).view(
        2, 1, 1
    )
    detector = with_maps(maps, quantile_grid=where)
    detector._fit_map_range(pictures[:2], Trainer(device="cpu"))
    side = 24 if where == "cell" else 96
    raw = F.interpolate(maps[None], size=(side, side), mode="bilinear")[0]
    for k in range(2):
        a, b = np.quantile(np.tile(raw[k].numpy(), 2), (0.9, 0.995))  # of both pictures
        assert detector.map_range_[k].tolist() == pytest.approx([a, b], rel=1e-5)
    expected = sum(
        0.5
        * 0.1
        * (raw[k] - detector.map_range_[k, 0])
        / (detector.map_range_[k, 1] - detector.map_range_[k, 0])
        for k in range(2)
    )
    pad = 4 if where == "cell" else 16
    found = detector.analyse(torch.rand(1, 3, 128, 128))
    torch.testing.assert_close(found.anomaly_map[0, 0, pad:-pad, pad:-pad], expected, rtol=1e-4, atol=1e-5)
    border = found.anomaly_map[0, 0].clone()
    border[pad:-pad, pad:-pad] = 0
    assert torch.count_nonzero(border) == 0  # padded after normalisation: the level of q_a
    whole = F.interpolate(found.anomaly_map, size=(128, 128), mode="bilinear")
    assert found.score.item() == pytest.approx(whole.max().item())


def test_a_worked_example():
    """q_a = 2, q_b = 6 for one map and 0, 1 for the other: (4, 0.5) -> ½ · 0.05 + ½ · 0.05."""
    detector = with_maps(torch.stack([torch.full((24, 24), 4.0), torch.full((24, 24), 0.5)]))
    detector.map_range_.copy_(torch.tensor([[2.0, 6.0], [0.0, 1.0]]))
    found = detector.analyse(torch.rand(2, 3, 128, 128))
    assert found.anomaly_map.shape == (2, 1, 32, 32)
    torch.testing.assert_close(found.anomaly_map[:, :, 4:-4, 4:-4], torch.full((2, 1, 24, 24), 0.05))
    assert found.extras["max_student"][0].item() == pytest.approx(0.05)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("where", ["cell", "input"])
def test_an_unusual_cell_is_shown_where_its_patch_is(padding, where):
    """The largest value lies within the 4 x 4 pixels at the centre of the patch (I-18)."""
    side = grid(128, padding)
    maps = torch.zeros(2, side, side)
    maps[0, 7, 11] = 1.0
    detector = with_maps(maps, padding=padding, quantile_grid=where)
    enlarged = F.interpolate(
        detector.analyse(torch.rand(1, 3, 128, 128)).anomaly_map, size=(128, 128), mode="bilinear"
    )
    row, column = divmod(int(enlarged.argmax()), 128)
    first = 0 if padding else 4  # the patch of cell 0 is centred 16 pixels further in where nothing is padded
    assert 4 * (7 + first) <= row < 4 * (8 + first)
    assert 4 * (11 + first) <= column < 4 * (12 + first)
