"""Gates before any score: conditions that have to hold of what was learned.

A condition is measured on good images alone and decides nothing by itself: the report shows it, passed or not, above the
numbers it speaks of. An extractor that moved while it should not, or a student that cannot follow its teacher, explains a bad
AUROC better than the AUROC does.
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
"""Share of its teacher's variance on held-out good images that a student has to explain."""
AUTOENCODER_EXPLAINS = 0.3
"""The same for an autoencoder and what it reconstructs; its bottleneck keeps the rest out."""
FEWEST_HELD_OUT = 20
"""Held-out good images: fewer support no limit below 5 % false rejects."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One measured condition."""

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
        """Plain values; what is not finite becomes None."""
        return asdict(self) | {"value": self.value if math.isfinite(self.value) else None}

    @property
    def wanted(self) -> str:
        """The bounds in words."""
        bounds = [("at least", self.least), ("at most", self.most)]
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Condition:
        """The condition `to_json` wrote."""
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
    """Share of a target's variance that an answer explains: 1 - sum (target - answer)² / sum (target - channel mean)²."""

    def __init__(self) -> None:
        self._error, self._count = 0.0, 0
        self._total = self._squares = torch.zeros(())

    def add(self, target: Tensor, answer: Tensor) -> None:
        """Count (B, C, h, w) targets and answers; sums are kept in double precision."""
        t, a = target.double().cpu(), answer.double().cpu()
        self._error += float((t - a).square().sum())
        self._count += t.shape[0] * t.shape[2] * t.shape[3]
        self._total = self._total + t.sum((0, 2, 3))
        self._squares = self._squares + t.square().sum((0, 2, 3))

    @property
    def share(self) -> float:
        """At most 1, below 0 where the mean were the better answer; NaN where the target does not vary."""
        spread = float((self._squares - self._total.square() / max(self._count, 1)).sum())
        return 1 - self._error / spread if spread > 0 else math.nan

    def condition(self, who: str, whose: str, least: float) -> Condition:
        """The share as a condition, in words."""
        return Condition(f"share of {whose} variance that the {who} explains", self.share, least=least)
