"""A stage of training: its record, early stopping, and its state in checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from andon.core.errors import AndonError, DataError
from andon.core.files import checked, with_checksum, write_bytes

ANEW = "start anew without --resume (with --overwrite)"
"""What to do about a checkpoint that cannot be continued."""
CURVE_POINTS = 400
"""Approximate number of points of a loss curve (at most twice as many)."""


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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Content of a checkpoint."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    """Step, whether the stage is done, and what `EarlyStopping` counts."""
    record: Stage

    def networks(self) -> dict[str, Tensor]:
        """State of the trained modules, by module and name."""
        return _part(self.tensors, "module.")


def read_checkpoint(file: Path) -> Checkpoint:
    """Read what `StageState.save` wrote. Raises `DataError` if a byte of the file has changed since."""
    try:
        body = checked(file.read_bytes())
        header = _metadata(body)
        record = Stage.from_json(json.loads(header["record"]))
        return Checkpoint(load(body), json.loads(header["state"]), record)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"checkpoint {file} is damaged: {ANEW}") from error


def _metadata(body: bytes) -> dict[str, str]:
    """Metadata of a safetensors file, whose header has its length before it; the package reads them from paths only."""
    length = int.from_bytes(body[:8], "little")
    found: dict[str, str] = json.loads(body[8 : 8 + length])["__metadata__"]
    return found


class StageState:
    """State of a stage for checkpoints: a safetensors file with JSON in its header, preceded by its SHA-256."""

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
        """Measure the state after an epoch and keep it if it is an improvement."""
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
        """Write modules, kept epoch, optimiser and record."""
        tensors = {f"module.{k}": v for k, v in self._tensors().items()}
        tensors |= {f"kept.{k}": v for k, v in (self.kept or {}).items()}
        if not self.done:
            for index, values in self.adam.state_dict()["state"].items():
                tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
        state: dict[str, Any] = {"step": self.step, "done": self.done, "since": self.since, "best": self.best}
        tensors |= {f"sum.{k}": v for k, v in self.sums.sums.items()}
        state["count"] = self.sums.count
        header = {"state": json.dumps(state), "record": json.dumps(_record_values(self.record))}
        content = save({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, header)
        write_bytes(file, with_checksum(content))

    def load(self, file: Path) -> None:
        """Read what `save` wrote. Raises `DataError` if the file is damaged or holds other networks."""
        stored = read_checkpoint(file)
        state, tensors = stored.state, stored.tensors
        try:
            self._restore(stored.networks())
        except RuntimeError as error:
            raise DataError(f"checkpoint {file} is of a network with other settings: {ANEW}") from error
        self.step, self.done, self.since, self.best = (
            state["step"],
            state["done"],
            state["since"],
            state["best"],
        )
        for name in Stage.__slots__:
            setattr(self.record, name, getattr(stored.record, name))
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
