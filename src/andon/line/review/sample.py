"""Which parts people look at, drawn when a part is judged and stored with its row, so that nobody can choose afterwards."""

from __future__ import annotations

import hashlib
import random
from typing import NamedTuple

from andon.line.review.settings import ReviewSettings
from andon.line.verdicts import Queued, Verdict

WHY = {Verdict.REVIEW: Queued.BAND, Verdict.ERROR: Queued.ERROR, Verdict.NG: Queued.NG}


class Draw(NamedTuple):
    """Whether a part is reviewed."""

    why: Queued | None = None
    """None where it is not."""
    rate: float | None = None
    """Probability with which a part that passed was drawn."""


class Sampler:
    """Draws the parts of one station in one session. The same seed, station and session give the same draws."""

    def __init__(self, settings: ReviewSettings, station: str, session: int) -> None:
        self._settings = settings
        self._random = random.Random(f"{settings.seed}/{station}/{session}")

    def draw(self, verdict: Verdict) -> Draw:
        """Whether and why a part with this verdict is reviewed."""
        if verdict is Verdict.OK:
            is_drawn = self._random.random() < self._settings.sample
            return Draw(Queued.SAMPLE, self._settings.sample) if is_drawn else Draw()
        return Draw(WHY.get(verdict) if verdict in self._settings.verdicts else None)


def wants_second(seed: int, inspection: int, share: float) -> bool:
    """Whether a second person judges this part: decided by a hash, which no answer changes."""
    digest = hashlib.sha256(f"second opinion/{seed}/{inspection}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
