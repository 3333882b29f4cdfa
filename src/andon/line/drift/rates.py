"""Rates of NG and REVIEW: p-charts over blocks of parts, whose limits allow for lots that differ (beta-binomial)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from andon.line.drift.charts import RateReference

BLOCK, LEARNED = 50, 20
"""Parts of a block, and blocks from which the limit is learned."""


@dataclass
class RateWatch:
    """Counts of one verdict."""

    thresholds: int | None = None
    """Version of the thresholds that the counts belong to; they are learned again when it changes."""
    blocks: list[int] = field(default_factory=list)
    """Counts of the first `LEARNED` blocks."""
    parts: int = 0
    count: int = 0
    """Of the block that fills now."""
    last: int | None = None
    """Count of the last full block."""
    is_high: bool = False
    """Whether it reached the limit."""

    def take(self, is_counted: bool, thresholds: int | None) -> None:
        """Count a part."""
        if thresholds != self.thresholds:
            vars(self).update(vars(RateWatch(thresholds)))
        self.parts += 1
        self.count += is_counted
        if self.parts < BLOCK:
            return
        if len(self.blocks) < LEARNED:
            self.blocks.append(self.count)
        limit = self.limit
        self.is_high = limit is not None and self.count >= limit
        self.last, self.parts, self.count = self.count, 0, 0

    @property
    def limit(self) -> int | None:
        """Count of a block from which the rate has risen; None while it is learned."""
        return RateReference.of(self.blocks, BLOCK).limit(BLOCK) if len(self.blocks) == LEARNED else None

    @property
    def usual(self) -> float | None:
        """Rate of the learned blocks."""
        return sum(self.blocks) / (BLOCK * LEARNED) if len(self.blocks) == LEARNED else None

    def text(self, verdict: str) -> str:
        """What is high, for people."""
        usual = 100 * (self.usual or 0.0)
        return (
            f"{self.last} of {BLOCK} parts are {verdict}, usual are {usual:.2g} %, the limit is {self.limit} parts: "
            "look at these parts; do not raise the threshold"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RateWatch:
        """Inverse of `to_json`."""
        return cls(**data)
