"""The training loop of all detectors: the only place with `backward` and `step`.

All randomness of a step comes from generators seeded by (seed, stage, step), so that an interrupted and resumed run equals an
uninterrupted one and no random state is stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from andon.core.config import Amount, Config, Share
from andon.core.errors import ConfigError, InterruptedRun, nearest
from andon.core.progress import NoProgress, Progress
from andon.core.records import Record
from andon.core.seeds import check_seed
from andon.core.text import utf8
from andon.nn.sanity_checks import SanityCheck
from andon.nn.stage import EarlyStopping, Stage, StageState
from andon.nn.stored_features import StoredFeatures

CHECKPOINT_EVERY = 60.0
"""Seconds between two checkpoints."""
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


def best_device() -> torch.device:
    """The first CUDA device, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from printable `parts`, the same on every machine."""
    digest = hashlib.sha256(utf8("|".join(map(str, parts)))).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Trainer:
    """Minimises losses on one device, with checkpoints, progress and interruption.

    `checkpoints` is a folder for the state of stages (None: nothing is stored); with `resume=True` stages found there are
    continued. `selection` are the records that epochs are measured on: test records (`selection: test`), held-out good ones with
    labelled (`labels`) or synthetic (`synthetic`) anomalies, otherwise none. `labelled` are anomalous records for training.
    `features` has those that an earlier fit kept, and keeps those of this one. Raises `ConfigError` for a seed, device or
    precision that there is not.
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
        features: StoredFeatures | None = None,
    ) -> None:
        check_seed(seed)
        check_device(device)
        check_precision(precision)
        self.precision = best_precision() if precision == "auto" else precision
        self.device = best_device() if device == "auto" else torch.device(device)
        self.seed = seed
        self.checkpoints = checkpoints
        self.resume = resume
        self.progress: Progress = progress or NoProgress()
        self.selection = selection
        self.labelled = labelled
        self.features = features
        self.stages: dict[str, Stage] = {}
        self._stop = False

    def autocast(self) -> torch.autocast:
        """Context in which networks compute with this trainer's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16-mixed")

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
    def silent(self) -> Iterator[None]:
        """Show no progress, while the caller shows that of the whole work."""
        shown, self.progress = self.progress, NoProgress()
        try:
            yield
        finally:
            self.progress = shown

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
        state = StageState(
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
        state: StageState,
    ) -> Mapping[str, Tensor]:
        """One optimiser step; its randomness depends on (seed, stage, step) alone."""
        for group in adam.param_groups:
            group["lr"] = rate
        for module in modules.values():
            module.train()
        torch.manual_seed(derive_seed(self.seed, state.stage, "step", state.step))  # dropout
        draw = Draw(sampler(state.step), state.step, seeded(self.seed, state.stage, "draw", state.step))
        with self.autocast():
            terms = loss(draw)
            objective = torch.stack([term.float() for term in terms.values()]).sum()
        adam.zero_grad(set_to_none=True)
        torch.autograd.backward(objective)
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


def check_device(device: str) -> None:
    """Raise `ConfigError` if this machine has no such device."""
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    try:
        known = device == "auto" or (torch.device(device).index or 0) < counts[torch.device(device).type]
    except (RuntimeError, TypeError, KeyError):  # what PyTorch raises for other words and types
        known = False
    if not known:
        usable = ["auto", *(name for name, count in counts.items() if count)]
        raise ConfigError(
            f"device {device!r} cannot be used on this machine: choose one of {', '.join(usable)}"
        )


def check_precision(precision: str) -> None:
    """Raise `ConfigError` for an unknown precision."""
    if precision not in get_args(Precision):
        raise ConfigError(f"unknown precision {precision!r}; {nearest(str(precision), get_args(Precision))}")
