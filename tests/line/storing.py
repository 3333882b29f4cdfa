"""Parts to store, for the tests of the line."""

from __future__ import annotations

from typing import Any

from andon.line.clock import HOUR, SECOND
from andon.line.store import NewInspection
from andon.line.verdicts import Region, Verdict

NOON = 1_800_000_000 * SECOND
"""A whole hour."""
assert NOON % HOUR == 0


def part(number: int, **changes: Any) -> NewInspection:
    """A good part of the station `press`, without image."""
    values: dict[str, Any] = {
        "station": "press",
        "request_id": f"request-{number}",
        "trigger_no": number,
        "part_id": f"part-{number}",
        "lot": "lot-1",
        "recipe": "washer",
        "model_sha256": "a" * 64,
        "threshold_version": None,
        "t_trigger": NOON + number * SECOND,
        "t_done": NOON + number * SECOND + 40_000,
        "verdict": Verdict.OK,
        "score_raw": 3.5,
        "score": 0.5,
        "regions": (Region(1, 2, 3, 4, 0.75),),
        "ms": {"judge": 1.25},
    }
    return NewInspection(**{**values, **changes})
