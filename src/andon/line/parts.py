"""A part on its way through a station, and what is said about it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from andon.core.errors import AndonError
from andon.line.judge import Judging, Thresholds
from andon.line.store import NewInspection, Recorded, Request, RequestConflict
from andon.line.store.requests import is_answer


class NotReady(AndonError):  # noqa: N818 (names what happened)
    """The station judges no parts now. Unless the process is ending, the part is a row with verdict ERROR."""


class QueueFull(AndonError):  # noqa: N818
    """The queue of the station is full. The part is a row with verdict ERROR, cause `overrun`."""


class NoTrigger(AndonError):  # noqa: N818
    """The image belongs to no trigger that waits for one."""


@dataclass(frozen=True, slots=True)
class Part:
    """An image of a part that came. Times are microseconds UTC."""

    image: bytes
    """As encoded: PNG, JPEG, BMP, TIFF or WebP."""
    request_id: str
    """The same id with the same station, image and kind is the same part."""
    part_id: str | None = None
    lot: str | None = None
    trigger_no: int | None = None
    t_trigger: int | None = None
    """When the part was seen; by default when it was submitted."""
    source: str = "rest"
    """`rest`, `folder`, ...; for the log."""
    triggered: bool = False
    """The line takes the image for the request; otherwise the image came with it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said about a part: the committed row, whose verdict counts."""

    recorded: Recorded
    why: str = ""
    """Cause of an ERROR in words; empty otherwise, and where the row was stored before."""
    ms: float = 0.0
    """From submission to commit, milliseconds."""


class InUse(NamedTuple):
    """What one part is judged by."""

    judge: Judging
    thresholds: Thresholds
    recipe: str | None = None
    """Code of the recipe; None where the model was chosen without one."""


class Taken(NamedTuple):
    """A golden part that was shown to the camera."""

    found: NewInspection
    """As it was judged; its row says ERROR, so that a golden part is never sent on."""
    inspection_id: int


class Stage(IntEnum):
    """How far a part is."""

    WAITING = 0
    JUDGING = 1
    STORING = 2
    DONE = 3


@dataclass(eq=False, slots=True)
class Job:
    """A part on its way. Its stage is changed under the lock of the station alone, so that it has one verdict."""

    part: Part
    base: NewInspection
    """The row, with verdict ERROR until the part is judged."""
    deadline: float
    """`time.monotonic`."""
    begin: float
    """`time.perf_counter` when it was submitted."""
    future: Future[Answer] = field(default_factory=Future)
    stage: Stage = Stage.WAITING
    is_late: bool = False
    """The answer was given up before the commit was known."""
    taken: Future[Taken] | None = None
    """Waits for what was found on it, where the part is a golden one."""
    found: NewInspection | None = None
    """The row as it was judged."""

    def joined(self, base: NewInspection) -> Future[Answer]:
        """The future for the same request again. Raises `RequestConflict` where it is for another part."""
        if not is_answer(self.base, Request.of(base)):
            raise RequestConflict(
                f"request {base.request_id!r} is being judged for another part: use a new id for each part"
            )
        return self.future

    def settle_taken(self, outcome: Recorded | BaseException) -> None:
        """Say what was found on a golden part, or why it has no row of its own."""
        if self.taken is None or self.taken.done():
            return
        if isinstance(outcome, BaseException):
            self.taken.set_exception(outcome)
        elif outcome.replayed or self.found is None:
            self.taken.set_exception(NotReady("the part was sent before: show it again"))
        else:
            self.taken.set_result(Taken(self.found, outcome.id))


class Errand:
    """What the judging thread does between two parts."""

    def __init__(self, work: Callable[[Judging, Thresholds], Any]) -> None:
        self._work = work
        self.future: Future[Any] = Future()

    def run(self, judge: Judging, thresholds: Thresholds) -> None:
        """Do it, unless it was cancelled; the future has the result or the error."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._work(judge, thresholds))
        except Exception as error:
            self.future.set_exception(error)


def resolve(job: Job, outcome: Answer | BaseException) -> None:
    """Resolve the future of a part unless it was given up before."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, Answer):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(outcome)
