"""Feature extractors of one's own: tasks and classes, what is learned, resume, the command line."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import texture, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from andon.core.errors import ConfigError, DataError, InterruptedRun, WeightsError
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.training import Trainer
from andon.nn.weights import entries, locate
from andon.pretraining import BackbonePretrainingConfig, pretrain_backbone
from andon.pretraining import backbone as pretraining
from andon.pretraining.backbone import Classifier, find_tasks

pytestmark = pytest.mark.slow

TINY = {
    "network": "resnet10t",
    "start": "random",
    "last": "layer1",
    "image_size": 32,
    "steps": 6,
    "batch_size": 4,
    "procedural": 0,
    "statistics": 8,
}
OPTIONS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]


def config(**changes: object) -> BackbonePretrainingConfig:
    return BackbonePretrainingConfig().updated(TINY | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    """Dark and bright pictures, 21 of each, the bright ones one folder deeper."""
    for k in range(21):
        write_picture(tmp_path / "kinds" / "dark" / f"{k}.png", texture(k) // 4)
        write_picture(tmp_path / "kinds" / "bright" / "inner" / f"{k}.png", 190 + texture(k) // 4)
    return tmp_path / "kinds"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Three pictures in one place."""
    for k in range(3):
        write_picture(tmp_path / "flat" / f"{k}.png", texture(k))
    return tmp_path / "flat"


# Tasks ------------------------------------------------------------------------------------------------------------


def test_subfolders_are_classes_and_pictures_in_one_place_are_classes_of_their_own(kinds, flat):
    tasks = find_tasks([kinds, flat], procedural=2)
    assert tasks.task_of == [0, 0, 1, 1, 1, 2, 2]
    assert Counter(tasks.classes) == {0: 21, 1: 21, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1}
    bright = {c for record, c in zip(tasks.records, tasks.classes, strict=True) if "bright" in record.id}
    assert len(bright) == 1
    held_out = [tasks.records[k].image.parts for k in tasks.held_out]
    assert sorted("dark" if "dark" in parts else "bright" for parts in held_out) == ["bright", "dark"]


def test_a_single_subfolder_is_one_place(kinds):
    assert len(find_tasks([kinds / "bright"], 0).task_of) == 21


def test_one_picture_cannot_be_told_apart(tmp_path):
    write_picture(tmp_path / "one" / "a.png", texture(0))
    with pytest.raises(DataError, match="no two kinds of pictures"):
        find_tasks([tmp_path / "one"], 0)


def test_without_pictures_there_is_one_line(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        find_tasks([tmp_path / "none"], 0)


@given(sizes=st.lists(st.integers(2, 5), min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=10)
def test_a_picture_competes_within_its_task(sizes, seed):
    """The loss is the cross-entropy over the logits of the task's own classes."""
    generator = torch.Generator().manual_seed(seed)
    task_of = [task for task, size in enumerate(sizes) for _ in range(size)]
    backbone = Backbone.create(
        BackboneConfig(network="resnet10t", weights="random", taps=("layer1",), image_size=32)
    )
    network = Classifier(backbone, task_of).eval()
    images = torch.rand(3, 3, 32, 32, generator=generator)
    wanted = torch.randint(len(task_of), (3,), generator=generator)
    with torch.no_grad():
        logits = network(images, network.task_of[wanted])
        pooled = backbone(images)["layer1"].mean((2, 3))
        plain = network.head(pooled)
    for row, (found, target) in enumerate(zip(logits, wanted.tolist(), strict=True)):
        first = sum(sizes[: task_of[target]])
        own = plain[row, first : first + sizes[task_of[target]]]
        torch.testing.assert_close(
            F.cross_entropy(found, torch.tensor(target)), F.cross_entropy(own, torch.tensor(target - first))
        )


# Learning ---------------------------------------------------------------------------------------------------------


def test_it_learns_to_tell_kinds_apart(kinds):
    """Dark from bright within sixty steps; the origin says what was done and how well."""
    c = config(steps=60, optimiser__lr=3e-3, jitter=0.1)
    entry = pretrain_backbone("mine", [kinds], c, device="cpu")
    assert "100.0 % of held-out pictures recognised" in entry.origin
    assert (
        "resnet10t up to layer1, from scratch, on 42 pictures (kinds) in 2 classes, 60 steps" in entry.origin
    )
    assert [e.name for e in entries() if e.name == "mine"] == ["mine"]


def test_statistics_are_those_of_the_views(kinds):
    """Batch normalisation afterwards normalises the views: means and variances of its input, not running averages."""
    trainer = Trainer(device="cpu", precision="32-true")
    network = Classifier(
        Backbone.create(
            BackboneConfig(network="resnet10t", weights="random", taps=("layer1",), image_size=32)
        ),
        [0, 0],
    )
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pretraining.take_statistics(network, images.split(3), trainer)
    assert not network.training
    layer = network.trunk.get_submodule("conv1.1")
    assert layer.momentum == 0.1
    with torch.no_grad():
        fed = network.trunk.get_submodule("conv1.0")((images - network.mean) / network.std)
    torch.testing.assert_close(layer.running_mean, fed.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    parts = [part.var((0, 2, 3)) for part in fed.split(3)]
    torch.testing.assert_close(layer.running_var, sum(parts) / 2, rtol=1e-4, atol=1e-5)


def test_it_goes_on_from_weights_that_are_there(kinds):
    """With a learning rate of nearly nothing the convolutions stay what they were."""
    entry = pretrain_backbone(
        "mine",
        [kinds],
        config(network="resnet18", start="starter", steps=1, optimiser__lr=1e-12),
        device="cpu",
    )
    before, after = locate("starter", "resnet18").state, locate("mine", "resnet18").state
    torch.testing.assert_close(after["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"].float())
    assert "from starter (andon project" in entry.origin
    assert "and of starter: research use" in entry.licence


def test_what_was_made_extracts_features(kinds):
    pretrain_backbone("mine", [kinds], config(steps=1), device="cpu")
    made = BackboneConfig(network="resnet10t", weights="mine", taps=("layer1",), image_size=64)
    assert Backbone.create(made).shapes["layer1"][1:] == (16, 16)


def test_an_interrupted_call_ends_where_an_uninterrupted_one_does(kinds, monkeypatch):
    def interrupt(step: int) -> None:
        original = pretraining.random_view
        calls = iter(range(100))

        def view(*args: object, **kwargs: object) -> torch.Tensor:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGINT)
            return original(*args, **kwargs)

        monkeypatch.setattr(pretraining, "random_view", view)

    pretrain_backbone("whole", [kinds], config(), device="cpu")
    interrupt(2)
    with pytest.raises(InterruptedRun, match="--resume"):
        pretrain_backbone("parts", [kinds], config(), device="cpu")
    with pytest.raises(ConfigError, match="other settings"):
        pretrain_backbone("parts", [kinds], config(steps=7), device="cpu", resume=True)
    pretrain_backbone("parts", [kinds], config(), device="cpu", resume=True)
    whole, parts = (locate(name, "resnet10t").state for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


# The command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"network": "resnet1"}, ConfigError, "no network 'resnet1'"),
        ({"last": "layer9"}, ConfigError, "no tap 'layer9'"),
        ({"start": "starter"}, WeightsError, "belong to resnet18"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(kinds, changes, error, words, store):
    with pytest.raises(error, match=words) as caught:
        pretrain_backbone("mine", [kinds], config(**changes), device="cpu")
    assert "\n" not in str(caught.value)
    assert not (store / "weights").exists()


def test_the_command_makes_an_extractor_from_procedural_pictures(cli, store):
    done = cli(
        "pretrain",
        "backbone",
        "--name",
        "mine",
        *OPTIONS,
        "--set",
        "procedural=5",
        "--device",
        "cpu",
        "--json",
    )
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["name"], said["network"]) == ("mine", "resnet10t")
    assert "5 pictures (procedural) in 5 classes" in said["origin"]
    nothing = cli("pretrain", "backbone", "--name", "x", "--set", "procedural=0").complaint()
    assert "no two kinds of pictures" in nothing
