"""Sanity checks of a fitted detector: bounds on quantities that are measured on good images alone.

A failed check does not stop training or evaluation; the report lists every check beside the metrics. Frozen weights that
changed, or a student that does not explain its teacher's output, are frequent causes of a low AUROC.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

STUDENT_EXPLAINS = 0.8
"""Smallest acceptable share of the teacher's variance, on held-out good images, that a student explains."""
AUTOENCODER_EXPLAINS = 0.3
"""The same for an autoencoder and its target; the bottleneck limits it."""
FEWEST_HELD_OUT = 19
"""Good images scored for the thresholds; fewer do not support a false-reject rate of 5 % (conformal rule: 1 / (n + 1))."""


@dataclass(frozen=True, slots=True)
class SanityCheck:
    """A measured value and the bounds in which it passes."""

    name: str
    """What is measured, in words."""
    value: float
    least: float | None = None
    """Smallest value that passes; None: no lower bound."""
    most: float | None = None
    """Largest value that passes; None: no upper bound."""

    @property
    def passed(self) -> bool:
        """Whether the value is finite and within its bounds."""
        low = -math.inf if self.least is None else self.least
        high = math.inf if self.most is None else self.most
        return math.isfinite(self.value) and low <= self.value <= high

    def to_json(self) -> dict[str, Any]:
        """Plain values; a value that is not finite becomes None."""
        return asdict(self) | {"value": self.value if math.isfinite(self.value) else None}

    @property
    def wanted(self) -> str:
        """The bounds in words."""
        bounds = [("at least", self.least), ("at most", self.most)]
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SanityCheck:
        """The check that `to_json` wrote."""
        value = values["value"]
        return cls(**{**values, "value": math.nan if value is None else value})


def fingerprints(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """A hash of every parameter and buffer, by name."""
    return {
        f"{module}.{name}": hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for module, network in modules.items()
        for name, value in network.state_dict().items()
    }


class Explained:
    """Coefficient of determination of a network's output: 1 - Σ (target - output)² / Σ (target - channel mean)²."""

    def __init__(self) -> None:
        self._error, self._count = 0.0, 0
        self._total = self._squares = torch.zeros(())

    def add(self, target: Tensor, output: Tensor) -> None:
        """Add a batch of targets and outputs (B, C, h, w); sums are kept in double precision."""
        t, a = target.double().cpu(), output.double().cpu()
        self._error += float((t - a).square().sum())
        self._count += t.shape[0] * t.shape[2] * t.shape[3]
        self._total = self._total + t.sum((0, 2, 3))
        self._squares = self._squares + t.square().sum((0, 2, 3))

    @property
    def share(self) -> float:
        """At most 1; negative where the channel mean would predict better; NaN where the target is constant."""
        spread = float((self._squares - self._total.square() / max(self._count, 1)).sum())
        return 1 - self._error / spread if spread > 0 else math.nan

    def sanity_check(self, who: str, whose: str, least: float) -> SanityCheck:
        """A check that the network `who` explains at least the share `least` of `whose` variance."""
        return SanityCheck(f"share of {whose} variance that the {who} explains", self.share, least=least)
