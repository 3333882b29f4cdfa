"""The training loop: resume equals uninterrupted, interruption, early stopping, reproducible order."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from andon.core.errors import AndonError, ConfigError, DataError, InterruptedRun
from andon.core.files import CHECKSUM_BYTES
from andon.nn.stage import EarlyStopping
from andon.nn.training import Draw, EpochSampler, OptimiserConfig, Trainer

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
Y = X @ torch.tensor([1.0, -2.0, 0.5, 0.0])


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def train(
    net: nn.Module, trainer: Trainer, *, epochs: int = 6, on_step=None, stopping=None, lr: float = 1e-2
) -> None:
    def loss(draw: Draw) -> dict[str, torch.Tensor]:
        if on_step is not None:
            on_step(draw.step)
        x = X[draw.indices] + 0.1 * torch.randn(len(draw.indices), 4, generator=draw.generator)
        return {
            "fit": (net(x)[:, 0] - Y[draw.indices]).square().mean(),
            "size": 1e-3 * net[0].weight.square().sum(),
        }

    optimiser = OptimiserConfig(lr=lr, decay_last=0.3)
    trainer.minimise(
        "line",
        loss,
        {"net": net},
        trainer.sampler("line", 20, 8),
        epochs=epochs,
        optimiser=optimiser,
        stopping=stopping,
    )


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_training_learns_and_repeats():
    first, second = network(), network()
    trainer = Trainer(seed=5, device="cpu")
    train(first, trainer, epochs=40)
    train(second, Trainer(seed=5, device="cpu"), epochs=40)
    assert same(first, second)
    curve = trainer.stages["line"].curve
    assert curve[-1]["fit"] < 0.7 * curve[0]["fit"]
    assert trainer.stages["line"].steps == 120
    other = network()
    train(other, Trainer(seed=6, device="cpu"), epochs=40)
    assert not same(first, other)


def test_global_random_state_is_left_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    net = network()
    torch.set_rng_state(before)
    train(net, Trainer(device="cpu"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("at", [0, 4, 16])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, at: int):
    whole = network()
    reference = Trainer(seed=5, device="cpu", checkpoints=tmp_path / "whole")
    train(whole, reference)

    def interrupt(step: int) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGINT)

    broken = network()
    with pytest.raises(InterruptedRun, match=f"after step {at + 1} of 18"):
        train(broken, Trainer(seed=5, device="cpu", checkpoints=tmp_path / "parts"), on_step=interrupt)
    resumed, trainer = network(), Trainer(seed=5, device="cpu", checkpoints=tmp_path / "parts", resume=True)
    steps: list[int] = []
    train(resumed, trainer, on_step=steps.append)
    assert steps == list(range(at + 1, 18))
    assert same(resumed, whole)
    assert trainer.stages["line"].curve == reference.stages["line"].curve
    again = network()  # a finished stage is not repeated
    train(
        again,
        Trainer(seed=5, device="cpu", checkpoints=tmp_path / "parts", resume=True),
        on_step=steps.append,
    )
    assert len(steps) == 18 - at - 1
    assert same(again, whole)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "seed is -1, must be a whole number from 0 to"),
        ({"seed": 2**63}, "must be a whole number"),
        ({"seed": "3"}, "seed is '3'"),
        ({"device": "gpu"}, "device 'gpu' cannot be used on this machine: choose one of auto, cpu"),
        ({"device": "cuda:64"}, "device 'cuda:64'"),
        ({"device": None}, "device None"),
        ({"precision": "bf16"}, "unknown precision 'bf16'; did you mean bf16-mixed"),
        ({"precision": None}, "unknown precision None; known: 32-true, auto, bf16-mixed"),
    ],
    ids=str,
)
def test_wrong_arguments_get_one_line(arguments: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=words):
        Trainer(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")], ids=str)
def test_devices_by_name_and_number(device: str):
    assert Trainer(device=device, seed=2**63 - 1).device.type == "cpu"


def test_a_checkpoint_that_cannot_be_continued_gets_one_line(tmp_path: Path):
    train(network(), Trainer(seed=5, device="cpu", checkpoints=tmp_path))
    resuming = Trainer(seed=5, device="cpu", checkpoints=tmp_path, resume=True)
    wider = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 1))
    with pytest.raises(DataError, match=r"other settings: start anew without --resume") as caught:
        train(wider, resuming)
    assert "\n" not in str(caught.value)
    save_file({"x": torch.zeros(1)}, tmp_path / "line.safetensors")
    with pytest.raises(DataError, match=r"is damaged: start anew without --resume"):
        train(network(), resuming)


@pytest.mark.parametrize("damage", ["one bit", "second half zero", "no checksum", "empty"])
def test_a_damaged_checkpoint_is_not_continued(tmp_path: Path, damage: str):
    train(network(), Trainer(seed=5, device="cpu", checkpoints=tmp_path))
    file = tmp_path / "line.safetensors"
    content = bytearray(file.read_bytes())
    half = len(content) // 2
    if damage == "one bit":
        content[-3] ^= 1  # in the last tensor
    elif damage == "second half zero":
        content[half:] = bytes(len(content) - half)
    else:
        content = content[CHECKSUM_BYTES:] if damage == "no checksum" else bytearray()
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"line\.safetensors is damaged: start anew without --resume"):
        train(network(), Trainer(seed=5, device="cpu", checkpoints=tmp_path, resume=True))


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    train(network(), Trainer(device="cpu"))
    assert signal.getsignal(signal.SIGINT) is before


def stopping(values: list[dict[str, float]], patience: int, higher: bool = False) -> EarlyStopping:
    remaining = iter(values)
    return EarlyStopping(lambda: next(remaining), patience, higher)


def test_early_stopping_keeps_the_best_and_stops():
    states = []
    net = network()
    values = iter([3.0, 1.0, 2.0, 2.0, 0.0, 0.0])

    def measure() -> dict[str, float]:
        states.append([p.clone() for p in net.parameters()])
        return {"loss": next(values)}

    trainer = Trainer(seed=5, device="cpu")
    train(net, trainer, stopping=EarlyStopping(measure, 2, higher_is_better=False))
    stage = trainer.stages["line"]
    assert (stage.kept_epoch, stage.epochs) == (2, 4)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), states[1], strict=True))


def test_either_value_may_improve():
    """The published rule (D9): an epoch is kept when any value beats its own best, even if the other fell."""
    trainer = Trainer(seed=5, device="cpu")
    rows = [{"image": 0.9, "pixel": 0.5}, {"image": 0.5, "pixel": 0.6}, {"image": 0.5, "pixel": 0.5}] * 2
    train(network(), trainer, stopping=stopping(rows, 2, higher=True))
    assert trainer.stages["line"].kept_epoch == 2
    assert trainer.stages["line"].epochs == 4


def test_early_stopping_survives_interruption(tmp_path: Path):
    def values(net: nn.Module) -> EarlyStopping:
        return EarlyStopping(
            lambda: {"loss": abs(net[0].weight.sum().item() - 0.2)}, 2, higher_is_better=False
        )

    whole = network()
    train(whole, Trainer(seed=5, device="cpu"), stopping=values(whole))
    part = network()
    with pytest.raises(InterruptedRun):
        train(
            part,
            Trainer(seed=5, device="cpu", checkpoints=tmp_path),
            stopping=values(part),
            on_step=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 5 else None,
        )
    rest = network()
    train(rest, Trainer(seed=5, device="cpu", checkpoints=tmp_path, resume=True), stopping=values(rest))
    assert same(rest, whole)


def test_a_loss_that_explodes_is_named():
    with pytest.raises(AndonError, match="not finite at step"):
        train(network(), Trainer(device="cpu"), lr=1e30)


@given(size=st.integers(1, 40), batch=st.integers(1, 12), seed=st.integers(0, 99), drop=st.booleans())
@settings(deadline=None, max_examples=60)
def test_sampler_covers_an_epoch(size, batch, seed, drop):
    sampler = EpochSampler(size, batch, seed=seed, stage="s", drop_last=drop)
    epoch = [sampler(k) for k in range(sampler.per_epoch)]
    assert all(len(indices) == min(batch, size) for indices in epoch)
    seen = torch.cat(epoch)
    if drop and size >= batch:
        assert len(seen.unique()) == len(seen) == size // batch * batch
    else:
        assert sorted(seen.unique().tolist()) == list(range(size))
    fresh = EpochSampler(size, batch, seed=seed, stage="s", drop_last=drop)
    assert torch.equal(fresh(sampler.per_epoch), sampler(sampler.per_epoch))  # any step, without those before
