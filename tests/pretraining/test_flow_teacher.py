"""The flow that serves every product: made once, kept with its statistics, used as it is or adapted, or refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import names, texture, write_picture

from andon.core.errors import ConfigError, DataError, InterruptedRun, WeightsError
from andon.core.images import View
from andon.core.records import Record
from andon.detectors.efficientad_ast import EfficientADASTVariants, VariantsConfig
from andon.layers.adapter import FeatureAdapter
from andon.layers.flow import negative_log_likelihood
from andon.layers.flow_teacher import locate_flow
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.feature_cache import FeatureCache
from andon.nn.training import Trainer
from andon.nn.weights import add
from andon.pretraining import FlowPretrainingConfig, pretrain_flow
from andon.pretraining.flow import FlowFeatures, learn_flow
from andon.testing.promises import Interrupter

pytestmark = pytest.mark.slow

OPTIONS = {
    "extractor.network": "resnet18",
    "extractor.weights": "starter",
    "extractor.taps": ["layer2"],
    "extractor.image_size": 64,
    "extractor.static_same_padding": False,
    "project": 8,
    "hidden": 8,
    "kernels": [3, 1],
    "steps": 6,
    "batch_size": 4,
    "grey_share": 0.5,
    "optimiser.lr": 2e-3,
}
TINY = {
    **{name: value for name, value in OPTIONS.items() if name.startswith("extractor.")},
    "extractor.project": 8,
    "extractor.standardise": True,
    "teacher.hidden": 8,
    "teacher.kernels": [3, 1],
    "teacher.normalise": "channel",
    "student.width": 8,
    "student.blocks": 1,
    "student.penalty": 0.0,
    "epochs": 1,
    "batch_size": 4,
}


def config(**changes: object) -> FlowPretrainingConfig:
    return FlowPretrainingConfig().updated(OPTIONS | {k.replace("__", "."): v for k, v in changes.items()})


def detector(**changes: object) -> EfficientADASTVariants:
    changes = {"teacher.weights": "shared"} | {k.replace("__", "."): v for k, v in changes.items()}
    return EfficientADASTVariants(VariantsConfig().updated(TINY | changes))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six coloured pictures of anything."""
    root = tmp_path_factory.mktemp("anything") / "photos"
    rng = np.random.default_rng(0)
    for k in range(6):
        write_picture(root / f"{k % 2}/{k}.png", rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    return root


@pytest.fixture
def good(tmp_path: Path) -> list[Record]:
    paths = [write_picture(tmp_path / f"good/{k}.png", texture(k)) for k in range(8)]
    return [Record(image=path, id=path.stem, split="train", label=0) for path in paths]


@pytest.fixture
def shared(folder: Path, store: Path):
    return pretrain_flow("shared", [folder], config(), device="cpu")


# Making it --------------------------------------------------------------------------------------------------------


def test_features_are_scaled_by_the_statistics_of_all_pictures(folder, store):
    records = [Record(image=p, id=p.stem) for p in sorted(folder.rglob("*.png"))]
    backbone = Backbone.create(config().extractor)
    source = FlowFeatures(backbone, config())
    source.fit(records, Trainer(device="cpu"))
    plain = FeatureAdapter(backbone.shapes, project=8).transform(FeatureCache(backbone).load(records))
    values = plain.double().permute(0, 2, 3, 1).flatten(0, 2).numpy()
    np.testing.assert_allclose(source.adapter.mean_.flatten(), values.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(source.adapter.std_.flatten(), values.std(0), rtol=1e-4)


def test_a_share_of_the_pictures_has_no_colour(folder, store):
    records = [Record(image=p, id=p.stem) for p in sorted(folder.rglob("*.png"))]
    source = FlowFeatures(Backbone.create(config().extractor), config())
    whole, grey = source.load(records), source.load(records, View(colour="grey"))
    drawn = source.draw(records, torch.Generator().manual_seed(1))
    is_grey = torch.rand(6, generator=torch.Generator().manual_seed(1)) < 0.5
    assert 0 < is_grey.sum() < 6
    expected = torch.where(is_grey.view(-1, 1, 1, 1), grey, whole)
    torch.testing.assert_close(drawn, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole, grey)


def test_the_flow_learns(folder, store):
    records = [Record(image=p, id=p.stem) for p in sorted(folder.rglob("*.png"))]
    c = config(steps=25, optimiser__lr=2e-2, grey_share=0.0)
    trainer = Trainer(device="cpu", precision="32-true")
    source = FlowFeatures(Backbone.create(c.extractor), c)
    source.fit(records, trainer)
    learn_flow(source, records, c, trainer)
    curve = [point["nll"] for point in trainer.stages["flow"].curve]
    assert curve[0] == pytest.approx(4, abs=0.5)  # half of eight channels of deviation 1
    assert np.mean(curve[-5:]) < curve[0] - 0.4


def test_interrupted_and_resumed_equals_uninterrupted(folder, store, shared):
    assert names(store / "weights") == ["shared.json", "shared.safetensors"]
    assert not (store / "pretraining" / "shared").exists()
    assert shared.network == "flow"
    assert "6 pictures (photos), 6 steps" in shared.origin
    before = shared.path.read_bytes()
    with pytest.raises(WeightsError, match="--overwrite replaces them"):
        pretrain_flow("shared", [folder], config(), device="cpu")
    again = partial(pretrain_flow, "shared", [folder], device="cpu", overwrite=True)
    with pytest.raises(InterruptedRun, match="--resume"):
        again(config(), progress=Interrupter("training flow"))
    with pytest.raises(ConfigError, match="other settings"):
        again(config(steps=7), resume=True)
    again(config(), resume=True)
    assert shared.path.read_bytes() == before


# Using it ---------------------------------------------------------------------------------------------------------


def test_a_ready_flow_is_used_as_it_is(good, shared):
    found = locate_flow("shared", config().interface())
    trainer = Trainer(device="cpu")
    used = detector().fit(good[:6], good[6:], trainer=trainer)
    assert trainer.stages["teacher"].steps == 0
    assert all(torch.equal(value, found.flow[key]) for key, value in used.teacher.state_dict().items())
    assert torch.equal(used.adapter.mean_, found.mean)
    assert used.used_weights[1]["origin"] == shared.origin
    features = used.adapter.transform(FeatureCache(used.extractor).load(good[:6]))
    with torch.no_grad():
        z = used.flow(features)[0]
        scaled = used.latent(features)
        nll = negative_log_likelihood(
            *used.flow(used.adapter.transform(FeatureCache(used.extractor).load(good[6:])))
        )
    np.testing.assert_allclose(used.teacher_mean_, z.mean((0, 2, 3), keepdim=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scaled.std((0, 2, 3), unbiased=False), 1.0, rtol=1e-4)
    expected = float(nll.mean()) + float(found.std.log().sum())
    assert trainer.stages["teacher"].measured["nll"] == pytest.approx(expected, rel=1e-4)


def test_a_ready_flow_is_adapted_where_asked(good, shared):
    found = locate_flow("shared", config().interface())
    trainer = Trainer(device="cpu")
    used = detector(teacher__fine_tune=3).fit(good[:6], good[6:], trainer=trainer)
    assert trainer.stages["teacher"].steps == 3
    assert any(not torch.equal(value, found.flow[key]) for key, value in used.teacher.state_dict().items())
    assert torch.equal(used.adapter.mean_, found.mean)  # the input stays scaled as the flow learned it


def test_a_saved_detector_needs_the_store_no_more(good, shared, tmp_path):
    from andon.detectors._saving import load_detector

    used = detector().fit(good[:6], good[6:], trainer=Trainer(device="cpu"))
    used.save(tmp_path / "saved")
    for file in shared.path.parent.iterdir():
        file.unlink()
    loaded = load_detector(tmp_path / "saved")
    assert loaded.predict(good[7]).raw_score == used.predict(good[7]).raw_score


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"teacher__normalise": "none"}, ConfigError, "set teacher.normalise=channel"),
        ({"extractor__standardise": False}, ConfigError, "extractor.standardise=true"),
        ({"teacher__hidden": 16}, ConfigError, r"made for teacher.hidden=8, this recipe has 16"),
        ({"extractor__image_size": 128}, ConfigError, "made for extractor.image_size=64"),
        ({"extractor__weights": "random"}, ConfigError, "made for extractor.weights='starter'"),
        ({"teacher__weights": "starter"}, WeightsError, "belong to resnet18"),
        ({"teacher__weights": "nothing"}, WeightsError, "unknown weights"),
        ({"teacher__weights": "other"}, WeightsError, "are no flow teacher"),
    ],
)
def test_a_flow_that_does_not_fit_is_refused(changes, error, words, shared, tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    add(tmp_path / "other.pt", name="other", network="flow")
    with pytest.raises(error, match=words) as caught:
        detector(**changes)
    assert "\n" not in str(caught.value)


def test_masks_are_no_pictures_to_learn_from(dataset_folder, store):
    with pytest.raises(DataError, match="train/good"):
        pretrain_flow("shared", [dataset_folder], config(), device="cpu")
    assert not (store / "weights").exists()


def test_from_the_command_line(folder, dataset_folder, store, tmp_path, cli):
    small = {
        k: v
        for k, v in OPTIONS.items()
        if k in {"extractor.taps", "extractor.image_size", "project", "hidden"}
    }
    own = [
        f"{'extractor.project' if k == 'project' else 'teacher.hidden' if k == 'hidden' else k}={v}"
        for k, v in small.items()
    ]
    made = cli(
        "pretrain", "flow", folder, "--name", "mine", "--device", "cpu", "--json",
        *[part for k, v in (small | {"steps": 2}).items() for part in ("--set", f"{k}={v}")],
    )  # fmt: skip
    assert made.code == 0, made
    assert json.loads(made.out)["network"] == "flow"
    student = (
        "student.width=8",
        "student.blocks=1",
        "student.penalty=0",
        "autoencoder.bottleneck=8",
        "epochs=1",
    )
    fitted = cli(
        "fit", dataset_folder, "--recipe", "efficientad_ast/starter", "--out", tmp_path / "run", "--device", "cpu",
        *[part for text in (*own, *student, "teacher.weights=mine") for part in ("--set", text)],
    )  # fmt: skip
    assert fitted.code == 0, fitted
    stages = json.loads((tmp_path / "run/training.json").read_text())
    assert stages["teacher"]["steps"] == 0
    assert "nll" in stages["teacher"]["measured"]


def test_defaults_and_recipes_agree():
    """The defaults are those of the recipe `corrected`; `matching` takes everything the interface asks for."""
    from andon.detectors._recipes import load_recipe, resolve

    corrected = resolve(load_recipe("efficientad_ast/corrected"), {}).config.model_dump(mode="json")
    assert FlowPretrainingConfig.matching(corrected) == FlowPretrainingConfig()
    starter = FlowPretrainingConfig.matching(
        resolve(load_recipe("efficientad_ast/starter"), {}).config.model_dump(mode="json")
    )
    assert starter.extractor == BackboneConfig(
        network="resnet18", weights="starter", taps=("layer2", "layer3"), image_size=256
    )
    assert (starter.project, starter.hidden, starter.clamp) == (128, 64, 1.9)
