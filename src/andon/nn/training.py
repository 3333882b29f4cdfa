"""The training loop of all detectors: the only place with `backward` and `step`.

All randomness of a step comes from generators seeded by (seed, stage, step), so that an interrupted and resumed run equals an
uninterrupted one and no random state is stored. This is the only module that imports Fabric (device and precision).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from andon.core.config import Amount, Config, Share
from andon.core.errors import AndonError, ConfigError, DataError, InterruptedRun
from andon.core.files import write_bytes
from andon.core.progress import NoProgress, Progress
from andon.core.records import Record
from andon.nn.sanity_checks import SanityCheck

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)

CHECKPOINT_EVERY = 60.0
"""Seconds between two checkpoints."""
CURVE_POINTS = 400
"""Approximate number of points of a loss curve (at most twice as many)."""
Precision = Literal["auto", "32-true", "bf16-mixed"]


class OptimiserConfig(Config):
    """Adam with weight decay as an L2 term of the gradient, as in the papers."""

    lr: Amount = 2e-4
    """Learning rate."""
    eps: Amount = 1e-8
    """Adam's epsilon."""
    weight_decay: Amount = 1e-5
    """L2 term added to the gradient."""
    decay_last: Share = 0.0
    """Last share of the steps, at a tenth of the learning rate."""


@dataclass(slots=True)
class Draw:
    """Input of one optimiser step: the images of its batch and its random generator."""

    indices: Tensor
    """(B,) int64 indices in the training set."""
    step: int
    generator: torch.Generator


@dataclass(slots=True)
class Stage:
    """Record of a training stage: steps, time, loss curve, measured epochs, sanity checks."""

    steps: int = 0
    epochs: int = 0
    seconds: float = 0.0
    selection_seconds: float = 0.0
    """Part of `seconds` spent on measuring epochs for the selection."""
    kept_epoch: int | None = None
    """Epoch whose state was kept (counted from 1), if epochs were measured."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Mean of each loss term over the steps since the last point: {"step": ..., "term": ...}."""
    judged: list[dict[str, float]] = field(default_factory=list)
    """Values measured after each epoch for the selection."""
    measured: dict[str, float] = field(default_factory=dict)
    """Further values of the result, by name."""
    sanity_checks: list[dict[str, Any]] = field(default_factory=list)
    """Sanity checks of the result, as `andon.nn.sanity_checks.SanityCheck.to_json` gives them."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Stage:
        """The stage with these fields; earlier files call `sanity_checks` `conditions`."""
        known = {"sanity_checks" if name == "conditions" else name: value for name, value in values.items()}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """Measure the state after each epoch, keep the best one, stop after `patience` epochs without improvement.

    With several measured values an epoch is an improvement if any of them exceeds its own best so far; the state of the last
    improvement is kept.
    """

    measure: Callable[[], Mapping[str, float]]
    patience: int
    higher_is_better: bool


class EpochSampler:
    """Batches of a training set, shuffled in each epoch; batch k depends on (seed, stage, k) alone."""

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        stage: str,
        drop_last: bool = False,
        limit: int | None = None,
    ):
        self.size, self.batch_size, self.seed, self.stage = size, min(batch_size, size), seed, stage
        batches = size // self.batch_size if drop_last else -(-size // self.batch_size)
        self.per_epoch = max(1, batches if limit is None else min(batches, limit))
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, step: int) -> Tensor:
        """(B,) indices of the batch of this step; an incomplete last batch is filled up with the first images of its epoch."""
        epoch, k = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(self.size, generator=seeded(self.seed, self.stage, "order", epoch))
        start = k * self.batch_size
        chosen = self._order[start : start + self.batch_size]
        short = self.batch_size - len(chosen)
        return torch.cat([chosen, self._order[:short]]) if short else chosen


def seeded(*parts: object) -> torch.Generator:
    """A CPU generator seeded by `parts`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def best_precision() -> Literal["32-true", "bf16-mixed"]:
    """bfloat16 autocast where the hardware supports it (two to five times faster on such CPUs), else float32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from printable `parts`, the same on every machine."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Trainer:
    """Minimises losses on one device, with checkpoints, progress and interruption.

    `checkpoints` is a folder for the state of stages (None: nothing is stored); with `resume=True` stages found there are
    continued. `selection` are the records that epochs are measured on: test records (`selection: test`), held-out good ones with
    labelled (`labels`) or synthetic (`synthetic`) anomalies, otherwise none. `labelled` are anomalous records for training.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        device: str = "auto",
        precision: Precision = "auto",
        checkpoints: Path | None = None,
        resume: bool = False,
        progress: Progress | None = None,
        selection: tuple[Record, ...] = (),
        labelled: tuple[Record, ...] = (),
    ) -> None:
        self.precision = best_precision() if precision == "auto" else precision
        self.fabric = Fabric(accelerator=device, devices=1, precision=self.precision)
        self.seed = seed
        self.checkpoints = checkpoints
        self.resume = resume
        self.progress: Progress = progress or NoProgress()
        self.selection = selection
        self.labelled = labelled
        self.stages: dict[str, Stage] = {}
        self._stop = False

    @property
    def device(self) -> torch.device:
        """Device of modules and batches."""
        return self.fabric.device

    def beside(self, *, seed: int, checkpoints: Path) -> Trainer:
        """A resuming trainer on the same device with its own seed and folder, for a network that several runs share."""
        return Trainer(
            seed=seed,
            device=self.device.type,
            precision=self.precision,
            checkpoints=checkpoints,
            resume=True,
            progress=self.progress,
        )

    def sampler(
        self, stage: str, size: int, batch_size: int, *, drop_last: bool = False, limit: int | None = None
    ) -> EpochSampler:
        """Batches for `minimise`, from this trainer's seed."""
        return EpochSampler(size, batch_size, seed=self.seed, stage=stage, drop_last=drop_last, limit=limit)

    def sanity_check(self, stage: str, check: SanityCheck) -> None:
        """Record a sanity check under a stage."""
        self.stages.setdefault(stage, Stage()).sanity_checks.append(check.to_json())

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of work without optimisation (features, statistics) to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            record = self.stages.setdefault(stage, Stage())
            record.seconds += time.perf_counter() - start

    def minimise(
        self,
        stage: str,
        loss: Callable[[Draw], Mapping[str, Tensor]],
        modules: Mapping[str, nn.Module],
        sampler: EpochSampler,
        *,
        epochs: int = 1,
        steps: int | None = None,
        optimiser: OptimiserConfig,
        stopping: EarlyStopping | None = None,
    ) -> None:
        """Minimise the sum of the terms of `loss` over the trainable parameters of `modules`, in place.

        Runs `steps` optimiser steps if given, otherwise `epochs` passes over the training set. Raises `InterruptedRun` after
        Ctrl-C (state saved), `AndonError` if the loss is not finite.
        """
        total = steps if steps is not None else epochs * sampler.per_epoch
        slow_from = total - round(optimiser.decay_last * total)
        parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        adam = torch.optim.Adam(
            parameters, lr=optimiser.lr, eps=optimiser.eps, weight_decay=optimiser.weight_decay
        )
        state = _StageState(
            stage, modules, adam, self.stages.setdefault(stage, Stage()), total, sampler.per_epoch
        )
        file = self.checkpoints / f"{stage}.safetensors" if self.checkpoints is not None else None
        if file is not None and self.resume and file.is_file():
            state.load(file)
        began, before, saved = time.perf_counter(), state.record.seconds, time.monotonic()
        with (
            self._listening(),
            self.progress.task(f"training {stage}", total, done=state.step) as bar,
            torch.random.fork_rng(devices=[]),
        ):
            while state.step < total and not state.done:
                rate = optimiser.lr * (0.1 if state.step >= slow_from else 1.0)
                state.count(self._descend(loss, sampler, modules, adam, rate, state))
                if stopping is not None and state.step % sampler.per_epoch == 0:
                    state.judge(stopping)
                state.record.seconds = before + time.perf_counter() - began
                bar.advance(1, state.last_point())
                if file is not None and (self._stop or time.monotonic() - saved >= CHECKPOINT_EVERY):
                    state.save(file)
                    saved = time.monotonic()
                if self._stop:
                    raise InterruptedRun(f"stopped in stage {stage!r} after step {state.step} of {total}")
        state.finish()
        if file is not None:
            state.save(file)

    def _descend(
        self,
        loss: Callable[[Draw], Mapping[str, Tensor]],
        sampler: EpochSampler,
        modules: Mapping[str, nn.Module],
        adam: torch.optim.Adam,
        rate: float,
        state: _StageState,
    ) -> Mapping[str, Tensor]:
        """One optimiser step; its randomness depends on (seed, stage, step) alone."""
        for group in adam.param_groups:
            group["lr"] = rate
        for module in modules.values():
            module.train()
        torch.manual_seed(derive_seed(self.seed, state.stage, "step", state.step))  # dropout
        draw = Draw(sampler(state.step), state.step, seeded(self.seed, state.stage, "draw", state.step))
        with self.fabric.autocast():
            terms = loss(draw)
            objective = torch.stack([term.float() for term in terms.values()]).sum()
        adam.zero_grad(set_to_none=True)
        self.fabric.backward(objective)
        adam.step()
        return terms

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the loop after the current step; a second Ctrl-C ends it at once."""
        self._stop = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


class _Means:
    """Means of loss terms, accumulated on the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        for name, term in terms.items():
            value = term.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def take(self) -> dict[str, float]:
        means = {name: float(value) / max(self.count, 1) for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


def _check_finite(stage: str, step: int, point: Mapping[str, float]) -> None:
    if not all(math.isfinite(value) for value in point.values()):
        raise AndonError(
            f"the loss of stage {stage!r} is not finite at step {step} ({_show(point)}): lower the learning rate"
        )


def _show(point: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in point.items() if name != "step")


class _StageState:
    """State of a stage for checkpoints: one safetensors file with JSON in its header."""

    def __init__(
        self,
        stage: str,
        modules: Mapping[str, nn.Module],
        adam: torch.optim.Adam,
        record: Stage,
        total: int,
        per_epoch: int,
    ) -> None:
        self.stage, self.modules, self.adam, self.record = stage, modules, adam, record
        self.total, self.per_epoch = total, per_epoch
        self.step, self.done, self.since = 0, False, 0
        self.best: dict[str, float] = {}
        self.kept: dict[str, Tensor] | None = None
        self.sums = _Means()
        """Terms of the current curve point."""

    def count(self, terms: Mapping[str, Tensor]) -> None:
        """Record a finished step."""
        self.step += 1
        self.sums.add(terms)
        if self.step % max(1, self.total // CURVE_POINTS) == 0 or self.step == self.total:
            point = self.sums.take()
            _check_finite(self.stage, self.step, point)
            self.record.curve.append({"step": float(self.step), **point})
        self.record.steps, self.record.epochs = self.step, self.step // self.per_epoch

    def last_point(self) -> str:
        """The last point of the curve as text."""
        return _show(self.record.curve[-1]) if self.record.curve else ""

    def judge(self, stopping: EarlyStopping) -> None:
        start = time.perf_counter()
        for module in self.modules.values():
            module.eval()
        measured = dict(stopping.measure())
        sign = 1.0 if stopping.higher_is_better else -1.0
        improved = [k for k, v in measured.items() if k not in self.best or sign * v > sign * self.best[k]]
        for name in improved:
            self.best[name] = measured[name]
        if improved:
            self.kept = {k: v.detach().clone() for k, v in self._tensors().items()}
            self.record.kept_epoch, self.since = self.record.epochs, 0
        else:
            self.since += 1
        self.done = self.since >= stopping.patience
        self.record.judged.append({"epoch": float(self.record.epochs), **measured})
        self.record.selection_seconds += time.perf_counter() - start

    def finish(self) -> None:
        """End the stage: restore the kept epoch, if epochs were measured, and set eval mode."""
        self.done = True
        for module in self.modules.values():
            module.eval()
        if self.kept is not None:
            self._restore(self.kept)
            self.kept = None

    def _tensors(self) -> dict[str, Tensor]:
        return {f"{m}.{k}": v for m, module in self.modules.items() for k, v in module.state_dict().items()}

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(_part(tensors, f"{name}."))

    def save(self, file: Path) -> None:
        tensors = {f"module.{k}": v for k, v in self._tensors().items()}
        tensors |= {f"kept.{k}": v for k, v in (self.kept or {}).items()}
        if not self.done:
            for index, values in self.adam.state_dict()["state"].items():
                tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
        state: dict[str, Any] = {"step": self.step, "done": self.done, "since": self.since, "best": self.best}
        tensors |= {f"sum.{k}": v for k, v in self.sums.sums.items()}
        state["count"] = self.sums.count
        header = {"state": json.dumps(state), "record": json.dumps(_record_values(self.record))}
        write_bytes(
            file, save({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, header)
        )

    def load(self, file: Path) -> None:
        try:
            with safe_open(str(file), "pt") as stored:
                header = stored.metadata()
                tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise DataError(f"checkpoint {file} is damaged: start anew with --overwrite") from error
        state: dict[str, Any] = json.loads(header["state"])
        self.step, self.done, self.since, self.best = (
            state["step"],
            state["done"],
            state["since"],
            state["best"],
        )
        stored_record = Stage.from_json(json.loads(header["record"]))
        for name in Stage.__slots__:
            setattr(self.record, name, getattr(stored_record, name))
        self._restore(_part(tensors, "module."))
        self.kept = _part(tensors, "kept.") or None
        self.sums.sums, self.sums.count = _part(tensors, "sum."), state["count"]
        if not self.done:
            adam = self.adam.state_dict()
            adam["state"] = {}
            for key, value in tensors.items():
                if key.startswith("adam."):
                    _, index, name = key.split(".")
                    adam["state"].setdefault(int(index), {})[name] = value
            self.adam.load_state_dict(adam)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _record_values(record: Stage) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def check_device(device: str) -> None:
    """Raise `ConfigError` if this machine has no such device."""
    import torch

    here = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here.get(device, False):
        usable = [name for name, is_here in here.items() if is_here]
        raise ConfigError(
            f"device {device!r} cannot be used on this machine: choose one of {', '.join(usable)}"
        )
