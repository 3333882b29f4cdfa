"""What other thresholds would have done with the stored parts of a station, stop rules included. Stored scores stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from andon.line.judge import Thresholds
from andon.line.rules import Part, Replay, Rule, replay
from andon.line.store import PastScore
from andon.line.verdicts import Verdict


class Changed(NamedTuple):
    """A stored part that would get another verdict."""

    id: int
    score: float
    was: Verdict
    becomes: Verdict
    distance: float
    """Of its score to the nearer threshold."""


class WhatIf(NamedTuple):
    """Stored parts as they were judged, and as other thresholds would judge them."""

    parts: int
    was: Counter[Verdict]
    becomes: Counter[Verdict]
    changed: tuple[Changed, ...]
    """The nearest to a threshold first."""
    replay_was: Replay
    """Stop rules in use, on the stored verdicts."""
    replay_becomes: Replay
    judged_again: tuple[Part, ...]
    """The parts with their new verdicts, oldest first."""


def what_if(parts: Sequence[PastScore], rules: Sequence[Rule], accept: float, reject: float) -> WhatIf:
    """Judge `parts` again, oldest first, by their stored scores; a part without a score stays ERROR."""
    thresholds = Thresholds(accept, reject)
    again = tuple(
        Part(p.id, p.t_done, p.verdict if p.score is None else thresholds.verdict(p.score), p.regions)
        for p in parts
    )
    changed = [
        Changed(p.id, p.score, p.verdict, new.verdict, min(abs(p.score - accept), abs(p.score - reject)))
        for p, new in zip(parts, again, strict=True)
        if p.score is not None and p.verdict is not new.verdict
    ]
    return WhatIf(
        parts=len(parts),
        was=Counter(p.verdict for p in parts),
        becomes=Counter(p.verdict for p in again),
        changed=tuple(sorted(changed, key=lambda part: (part.distance, part.id))),
        replay_was=replay(rules, parts),
        replay_becomes=replay(rules, again),
        judged_again=again,
    )
