"""Judges stored parts by the model in use and by a candidate, one part a call, so that what is urgent comes in between."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from andon.line.judge import Judgement, Judging, Thresholds
from andon.line.store import Inspection, Store
from andon.line.store import candidates as stored
from andon.line.store.candidates import Candidate, Pair, Scored, Step
from andon.line.verdicts import Verdict

MOST_REVIEWED = 2000
"""Newest reviewed parts of a comparison."""
NEWEST = 20_000
"""Newest parts from which the sample is drawn."""
BATCH = 20
"""Parts of one commit."""
LEFT_OUT = Scored(Verdict.NONE, None, 0.0)
SECONDS = 10.0
"""Time limit of the questions to the store, which read many rows."""
NO_IMAGE, OTHER_IMAGE = "no_image", "other_image"
"""Why a part is left out: its image is not there, or not the one that was judged."""


@dataclass(eq=False, slots=True)
class Comparison:
    """A comparison that runs."""

    candidate: Candidate
    step: Step
    todo: deque[int]
    """Parts that both models have to judge, by id."""
    waiting: list[Pair] = field(default_factory=list)
    """Judged and not stored yet."""
    base: Judging | None = None
    """The model in use, opened for this comparison; None before the first part."""
    judge: Judging | None = None

    def judge_next(self, store: Store) -> None:
        """Judge one part by both models."""
        assert self.base is not None
        assert self.judge is not None
        row = store.inspection(self.todo.popleft())
        if row is None:
            return
        content, cause = image_of(store, row)
        if content is None:
            self.waiting.append(Pair(row.id, LEFT_OUT, LEFT_OUT, cause))
            return
        thresholds = self.thresholds
        base = scored(self.base.judge(content, thresholds[0]))
        self.waiting.append(Pair(row.id, base, scored(self.judge.judge(content, thresholds[1]))))

    @property
    def thresholds(self) -> tuple[Thresholds, Thresholds]:
        """Of the model in use and of the candidate, as they were when the comparison was asked for."""
        detail = self.step.detail
        return Thresholds(*detail["base_thresholds"]), Thresholds(*detail["thresholds"])


def store_waiting(store: Store, step: Step, waiting: list[Pair]) -> None:
    """Commit what was judged and take it from `waiting`; what is left to do outlives a restart."""
    pairs = [*waiting]
    if pairs:
        store.write(lambda connection: stored.add_pairs(connection, step.id, pairs)).result()
        del waiting[: len(pairs)]


def resumed(store: Store, candidate: Candidate, step: Step) -> Comparison:
    """A comparison without the parts that are stored already."""
    done = store.ask(lambda connection: stored.done(connection, step.id), seconds=SECONDS)
    return Comparison(candidate, step, deque(id for id in step.detail["parts"] if id not in done))


def chosen_parts(store: Store, station: str, recipe: str | None, sample: int, seed: int) -> list[int]:
    """Ids, ascending: the newest reviewed parts, and a random sample of `sample` of the newest ones, all with their images."""

    def newest(n: int, *, reviewed: bool) -> list[int]:
        return store.ask(
            lambda connection: stored.with_images(connection, station, recipe, n, reviewed=reviewed),
            seconds=SECONDS,
        )

    reviewed = newest(MOST_REVIEWED, reviewed=True)
    return sorted({*reviewed, *drawn(newest(NEWEST, reviewed=False), sample, seed)})


def drawn(ids: Sequence[int], n: int, seed: int) -> list[int]:
    """At most `n` of `ids` at random, the same ones for the same seed."""
    if n >= len(ids):
        return [*ids]
    return [ids[k] for k in np.random.default_rng(seed).choice(len(ids), n, replace=False)]


def image_of(store: Store, row: Inspection) -> tuple[bytes | None, str]:
    """The stored image of a part; None and the cause where it is not there or not the one that was judged."""
    content = store.image(row)
    if content is None:
        return None, NO_IMAGE
    if hashlib.sha256(content).hexdigest() != row.image_sha256:
        return None, OTHER_IMAGE
    return content, ""


def written_image(
    store: Store, row: Inspection, seconds: float, wait: Callable[[float], object] = time.sleep
) -> tuple[bytes | None, str]:
    """`image_of` for a new part, whose image may take some seconds to be written."""
    for _ in range(max(1, round(seconds / 0.05))):
        content, cause = image_of(store, row)
        if content is not None or row.image_key is None:
            return content, cause
        wait(0.05)
    return content, cause


def scored(judgement: Judgement) -> Scored:
    """What a model says."""
    return Scored(judgement.verdict, judgement.score, judgement.ms.get("judge", 0.0))
