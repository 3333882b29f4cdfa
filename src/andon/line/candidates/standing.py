"""Where a candidate stands, read from the steps that were done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from andon.line.store.candidates import Step, newest_first


class Action(StrEnum):
    """Steps of candidates. The texts are stored and stay as they are."""

    COMPARE = "compare"
    """A comparison with the model in use was asked for; detail: parts, hashes and thresholds of both models."""
    COMPARED = "compared"
    """It is complete; detail: `step` of the comparison, `golden` (what golden parts said), `passed`."""
    FAILED = "failed"
    """It could not be done."""
    SHADOW_ON = "shadow on"
    """The candidate scores parts after their answers."""
    SHADOW_OFF = "shadow off"
    PROPOSED = "proposed"
    """A second person is to decide about its use."""
    DECLINED = "declined"
    PROMOTED = "promoted"
    """It judges; detail: `before`, `before_sha256` of the model before."""
    RETURNED = "returned"
    """The model before judges again."""


ENDS_COMPARISON = (Action.COMPARED, Action.FAILED)
ENDS_PROPOSAL = (Action.DECLINED, Action.PROMOTED)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a candidate now."""

    comparison: Step | None
    """The newest one that was asked for."""
    outcome: Step | None
    """How it ended; None while it runs."""
    shadow: Step | None
    """The newest shadow run."""
    is_shadow: bool
    """Whether it runs."""
    proposal: Step | None
    """Waits for a second person."""
    promoted: Step | None
    """The newest use that was not taken back."""

    @property
    def is_comparing(self) -> bool:
        """Whether a comparison is not complete."""
        return self.comparison is not None and self.outcome is None


def standing(steps: Sequence[Step]) -> Standing:
    """Of the steps of a candidate, newest first."""
    comparison = newest_first(steps, (Action.COMPARE,))
    outcome = newest_first(steps, ENDS_COMPARISON)
    if comparison is not None and outcome is not None and outcome.id < comparison.id:
        outcome = None
    shadow = newest_first(steps, (Action.SHADOW_ON,))
    switched = newest_first(steps, (Action.SHADOW_ON, Action.SHADOW_OFF))
    proposed = newest_first(steps, (Action.PROPOSED, *ENDS_PROPOSAL))
    used = newest_first(steps, (Action.PROMOTED, Action.RETURNED))
    return Standing(
        comparison=comparison,
        outcome=outcome,
        shadow=shadow,
        is_shadow=switched is not None and switched is shadow,
        proposal=proposed if proposed is not None and proposed.action == Action.PROPOSED else None,
        promoted=used if used is not None and used.action == Action.PROMOTED else None,
    )
