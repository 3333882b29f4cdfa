"""Shadow mode: a candidate scores parts after their answers have left. Its verdicts are stored beside those that counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from andon.line.candidates.comparing import LEFT_OUT, scored, written_image
from andon.line.judge import Judging, Thresholds
from andon.line.store import Inspection, Store
from andon.line.store.candidates import Candidate, Pair, Scored, Step
from andon.line.verdicts import Cause, Verdict

MOST_PARTS = 10_000
"""Parts after which shadow mode ends by itself."""
IMAGE_SECONDS = 2.0
"""Longest wait until the image of a part is written."""
OF_JUDGE = (Cause.NOT_AN_IMAGE, Cause.IMAGE_DIFFERS, Cause.NOT_FINITE, Cause.JUDGE_FAILED)
"""Errors that the model in use has answered."""


@dataclass(eq=False, slots=True)
class Shadow:
    """The candidate of a station that runs beside the model in use."""

    candidate: Candidate
    step: Step
    count: int = 0
    """Parts that it has scored, stored or not."""
    dropped: int = 0
    """Parts left out because too many waited, since the start of the process."""
    waiting: list[Pair] = field(default_factory=list)
    judge: Judging | None = None
    """None before its first part after a restart."""

    def judge_part(self, store: Store, row: Inspection) -> None:
        """Score a part whose answer has left."""
        assert self.judge is not None
        content, cause = written_image(store, row, IMAGE_SECONDS)
        self.count += 1
        if content is None:
            self.waiting.append(Pair(row.id, LEFT_OUT, LEFT_OUT, cause))
            return
        base = Scored(row.verdict, row.score, row.ms.get("judge", 0.0))
        judgement = self.judge.judge(content, Thresholds(*self.step.detail["thresholds"]))
        self.waiting.append(Pair(row.id, base, scored(judgement)))


def concerns(row: Inspection) -> bool:
    """Whether the model in use has judged a part."""
    return row.verdict is not Verdict.ERROR or row.cause in OF_JUDGE
