"""One station: parts wait in a bounded queue, one thread judges them, and no answer leaves before its row is committed.

    future = station.submit(Part(image_bytes, request_id="4711"))
    future.result().recorded.row.verdict

A part is bad until cleared: a full queue, a judge that fails or hangs, a store that fails never give OK. Models and
thresholds change between two parts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import TypeVar

from andon.core.errors import DataError
from andon.line.clock import Clock, now_us
from andon.line.faults import Fault
from andon.line.judge import Judgement, Judging, Thresholds
from andon.line.listener import Listener
from andon.line.part_rows import base_row, golden_row, held_row, judged_row
from andon.line.parts import Answer as Answer
from andon.line.parts import Errand, InUse, Job, Stage, Taken, resolve
from andon.line.parts import NotReady as NotReady
from andon.line.parts import NoTrigger as NoTrigger
from andon.line.parts import Part as Part
from andon.line.parts import QueueFull as QueueFull
from andon.line.readiness import VERIFYING, Readiness
from andon.line.review.sample import Sampler
from andon.line.settings import StationSettings
from andon.line.store import NewInspection, Recorded, RequestConflict, Store, StoreError, StoreUnavailable
from andon.line.verdicts import Cause
from andon.line.views import StationView

T = TypeVar("T")
LOG = logging.getLogger(__name__)

COMMIT_SECONDS = 1.0
"""How long a part that is ERROR may wait for its row, where the cycle is shorter."""


class Station(Readiness):
    """Judges parts. `submit` may be called by any thread; it waits for a commit only where the part is refused."""

    def __init__(
        self,
        settings: StationSettings,
        judge: Judging,
        store: Store,
        listener: Listener,
        *,
        thresholds: Thresholds | None = None,
        recipe: str | None = None,
        clock: Clock = now_us,
    ) -> None:
        self.name, self.settings = settings.name, settings
        super().__init__(InUse(judge, thresholds or judge.thresholds, recipe))
        self._store, self._listener, self._clock = store, listener, clock
        self._sampler = Sampler(settings.review, self.name, store.session)
        self._queue: deque[Job] = deque()
        self._jobs: dict[str, Job] = {}  # all that are not done, by request id
        self._errands: deque[Errand] = deque()
        self._claim: Future[Taken] | None = None
        self.may_pass: Callable[[], bool] = lambda: True
        """Whether a part may be OK now; must not wait. Otherwise a part that is not NG is ERROR (`golden_failed`)."""
        self.triggered: Callable[[Part], Part] = lambda part: part
        """A part from outside with the PLC's trigger that waits for it; raises `NoTrigger`."""
        self._closing = False
        self._patience = max(settings.cycle_s, COMMIT_SECONDS)
        self._judging_since: float | None = None
        self._threads = [
            threading.Thread(target=run, name=f"andon-{self.name}-{run.__name__.strip('_')}", daemon=True)
            for run in (self._work, self._watch)
        ]

    def start(self) -> None:
        """Verify the model, then judge parts."""
        for thread in self._threads:
            thread.start()

    def submit(self, part: Part) -> Future[Answer]:
        """Queue a part; the future resolves after its row is committed, with the row. Its callbacks must not wait.

        Where the same request is still being judged, its future. Raises `QueueFull` and `NotReady`, each after the row with
        verdict ERROR is committed; `RequestConflict` where the id belongs to another part; `DataError` for texts and
        numbers that cannot be stored. The future raises `StoreError` where no row was written: the part is bad.
        """
        base = self._base(part)
        entered = self._enter(part, base)
        return entered if isinstance(entered, Future) else self._refuse(base, entered)

    def offer(self, part: Part) -> Future[Answer] | None:
        """`submit` for senders that can wait: None, and no row, where the queue is full or the model not verified."""
        entered = self._enter(part, self._base(part))
        return entered if isinstance(entered, Future) else None

    def record_missing(self, part: Part, cause: Cause) -> Future[Recorded]:
        """Store a part without image as ERROR. The future raises `StoreError`; `RequestConflict` where its trigger has a row."""
        new = replace(self._base(part).failed(cause), image=None, image_sha256=None)
        future = self._store.record(new)

        def tell(done: Future[Recorded]) -> None:
            if done.exception() is None and not done.result().replayed:
                self._listener.recorded(self, done.result())

        future.add_done_callback(tell)
        return future

    def between_parts(self, work: Callable[[Judging, Thresholds], T]) -> Future[T]:
        """Run `work` in the judging thread once no part waits. Cancelled where the station ends before."""
        errand = Errand(work)
        with self._news:
            if self._closing:
                errand.future.cancel()
            else:
                self._errands.append(errand)
            self._news.notify_all()
        return errand.future

    def take_next(self) -> Future[Taken]:
        """The next part that is sent is a golden one: its row is ERROR (`golden_part`), the future has what it was judged.

        Cancelled by the next call and by the end of the station; cancel it to have no part taken.
        """
        taken: Future[Taken] = Future()
        with self._news:
            before, self._claim = self._claim, taken
        if before is not None:
            before.cancel()
        return taken

    def _changed(self) -> None:
        self._listener.condition_changed(self)

    def view(self) -> StationView:
        """What people see of the station now."""
        return self._listener.view(self)

    def pause(self, why: str) -> None:
        """Judge no part up to the next `use`: what has no verdict yet becomes ERROR (`not_ready`), and so does what comes."""
        with self._news:
            self._preparing = why
            self._faults.pop(Fault.MODEL, None)
            left = self._withdraw()
        self._refuse_all(left, why)
        self._listener.condition_changed(self)

    def halt(self, why: str | None) -> None:
        """Judge no part while there is a reason `why`, as `pause`, whatever model is used; None: judge again."""
        self.set_fault(Fault.HALTED, why)
        if why:
            self._drop(why)

    def _drop(self, why: str) -> None:
        with self._news:
            left = self._withdraw()
        self._refuse_all(left, why)

    def _refuse_all(self, jobs: Iterable[Job], why: str) -> None:
        for job in jobs:
            self._record(job, job.base.failed(Cause.NOT_READY), why)

    @property
    def waiting(self) -> int:
        """Parts in the queue."""
        return len(self._queue)

    @property
    def judging_seconds(self) -> float:
        """For how long the part that is being judged has been; 0 where none is."""
        since = self._judging_since
        return 0.0 if since is None else time.monotonic() - since

    def stop(self, timeout: float) -> None:
        """Take no further parts and judge those that wait. What is not judged in time becomes ERROR (`results_lost`).

        Waits for what is being judged or verified, so that a process that ends does not end inside a network.
        """
        end = time.monotonic() + timeout
        with self._news:
            self._closing = True
            self._news.notify_all()
            self._news.wait_for(lambda: not self._jobs, timeout)
            left = self._withdraw()
            for unfinished in (*(errand.future for errand in self._errands), self._claim):
                if unfinished is not None:
                    unfinished.cancel()
            self._errands.clear()
            self._news.notify_all()
        for job in left:
            why = "the process ended before the part was judged"
            self._record(job, job.base.failed(Cause.RESULTS_LOST), why)
        wait([job.future for job in left], self._patience)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _withdraw(self) -> list[Job]:
        """All parts without a verdict, which are judged no more."""
        left = [job for job in self._jobs.values() if job.stage < Stage.STORING]
        for job in left:
            job.stage = Stage.STORING
        self._queue.clear()
        return left

    # Threads -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        self._verify()
        while (job := self._next()) is not None:
            with self._news:  # one part, one model, one pair of thresholds
                in_use = self._in_use
            if isinstance(job, Errand):
                self._judging_since = time.monotonic()
                job.run(in_use.judge, in_use.thresholds)
                self._judging_since = None
                continue
            ms = {"queue": (time.perf_counter() - job.begin) * 1e3}
            self._judging_since = time.monotonic()
            try:
                judgement = in_use.judge.judge(job.part.image, in_use.thresholds)
            except Exception as error:
                LOG.exception("station %s: the judge failed", self.name)
                judgement = Judgement.failed(Cause.JUDGE_FAILED, f"{type(error).__name__}: {error}")
            with self._news:
                self._judging_since = None
                self.set_fault(Fault.JUDGE, None)
            try:
                self._judged(job, judgement, in_use, ms)
            except Exception as error:
                LOG.exception("station %s: a judgement cannot be recorded", self.name)
                self._record(job, job.base.failed(Cause.JUDGE_FAILED), f"{type(error).__name__}: {error}")

    def _verify(self) -> None:
        judge = self._in_use.judge
        try:
            judge.self_check()
        except Exception as error:
            LOG.error("station %s is not ready: %s", self.name, error)
            if self._preparing == VERIFYING:
                self.set_fault(Fault.MODEL, str(error))
            return
        with self._news:
            self._passed = self._passed or judge
            if self._preparing == VERIFYING:
                self._preparing = ""
        self._listener.condition_changed(self)

    def _next(self) -> Job | Errand | None:
        """The next part to judge, an errand where none waits; None at the end."""
        with self._news:
            while True:
                self._news.wait_for(lambda: self._queue or self._errands or self._closing)
                if not self._queue:
                    return None if self._closing else self._errands.popleft()
                job = self._queue.popleft()
                if job.stage is Stage.WAITING:
                    job.stage = Stage.JUDGING
                    return job

    def _watch(self) -> None:
        """Give up parts at their deadline."""
        while True:
            with self._news:
                open_jobs = [job for job in self._jobs.values() if not job.is_late]
                if self._closing and not open_jobs:
                    return
                now = time.monotonic()
                first = min((job.deadline for job in open_jobs), default=None)
                if first is None or first > now:
                    self._news.wait(None if first is None else first - now)
                    continue
                late = [job for job in open_jobs if job.deadline <= now]
                stages = [job.stage for job in late]
                for job in late:
                    job.is_late = job.stage is Stage.STORING
                    job.stage = Stage.STORING
                self._queue = deque(job for job in self._queue if job.stage is Stage.WAITING)
            for job, stage in zip(late, stages, strict=True):
                try:
                    self._give_up(job, stage)
                except Exception as error:
                    LOG.exception("station %s: a part cannot be given up", self.name)
                    resolve(job, error)

    def _give_up(self, job: Job, stage: Stage) -> None:
        limit = f"the cycle limit of {self.settings.cycle_s:g} s"
        if stage is Stage.STORING:
            resolve(job, StoreUnavailable(f"the verdict was not stored within {limit}: the part is bad"))
            return
        with self._news:
            if stage is Stage.JUDGING and self._judging_since is not None:
                self.set_fault(Fault.JUDGE, f"a part was not judged within {limit}")
        job.deadline = time.monotonic() + self._patience
        self._record(job, job.base.failed(Cause.TIMEOUT), f"not judged within {limit}")

    # From judgement to answer --------------------------------------------------------------------------------------

    def _judged(self, job: Job, judgement: Judgement, in_use: InUse, ms: dict[str, float]) -> None:
        with self._news:
            if job.stage is not Stage.JUDGING:  # given up meanwhile: it has its verdict
                return
            job.stage = Stage.STORING
        draw = self._sampler.draw(judgement.verdict)
        new = judged_row(job, judgement, in_use, ms, self._clock(), draw, self.settings.keep_images)
        held = self.blocks
        if job.taken is None and (held or not self.may_pass()):
            new = held_row(new, Cause.NOT_READY if held else Cause.GOLDEN_FAILED)
        self._listener.judged(self, job.part.request_id, judgement)
        self._record(job, new, judgement.why or held)

    def _record(self, job: Job, new: NewInspection, why: str) -> None:
        if why:
            LOG.warning("station %s, request %s: %s", self.name, job.part.request_id, why)
        job.found = new
        try:
            future = self._store.record(new if job.taken is None else golden_row(new))
        except Exception as error:
            self._not_stored(job, error)
            return
        future.add_done_callback(lambda done: self._stored(job, done, why))

    def _stored(self, job: Job, done: Future[Recorded], why: str) -> None:
        """In the thread that commits."""
        if (error := done.exception()) is not None:
            self._not_stored(job, error)
            return
        recorded = done.result()
        self._finish(job)
        job.settle_taken(recorded)
        took = (time.perf_counter() - job.begin) * 1e3
        self.set_fault(Fault.STORE, None)
        resolve(job, Answer(recorded, "" if recorded.replayed else why, took))
        if not recorded.replayed:
            self._listener.recorded(self, recorded)

    def _not_stored(self, job: Job, error: BaseException) -> None:
        self._finish(job)
        job.settle_taken(error)
        if not isinstance(error, RequestConflict | DataError):
            LOG.error("station %s, request %s has no row: %s", self.name, job.part.request_id, error)
            self.set_fault(Fault.STORE, str(error))
        resolve(job, error)

    def _finish(self, job: Job) -> None:
        with self._news:
            job.stage = Stage.DONE
            if self._jobs.get(job.part.request_id) is job:
                del self._jobs[job.part.request_id]
            self._news.notify_all()

    # Parts that are not judged -------------------------------------------------------------------------------------

    def _base(self, part: Part) -> NewInspection:
        """The row of a part that was not judged."""
        return base_row(part, self.settings, self._in_use, self._clock())

    def _enter(self, part: Part, base: NewInspection) -> Future[Answer] | NotReady | QueueFull:
        """Queue a part; why it cannot be otherwise."""
        with self._news:
            if self._closing:
                raise NotReady(f"station {self.name} is being shut down: send the part again later")
            if (same := self._jobs.get(part.request_id)) is not None:
                return same.joined(base)
            if (refusal := self._refusal(part)) is not None:
                return refusal
            job = Job(part, base, time.monotonic() + self.settings.cycle_s, time.perf_counter())
            job.future.set_running_or_notify_cancel()
            if self._claim is not None and self._claim.set_running_or_notify_cancel():
                job.taken = self._claim
            self._claim = None
            self._jobs[part.request_id] = job
            self._queue.append(job)
            self._news.notify_all()
            return job.future

    def _refusal(self, part: Part) -> NotReady | QueueFull | None:
        if why := self.blocks if part.request_id == self._let_in else self.holds:
            return NotReady(f"station {self.name} is not ready ({why}): this part is ERROR")
        if len(self._queue) < self.settings.queue:
            return None
        return QueueFull(
            f"station {self.name} has {len(self._queue)} parts waiting: this part is ERROR, send parts more slowly"
        )

    def _refuse(self, base: NewInspection, refusal: NotReady | QueueFull) -> Future[Answer]:
        """Store the part as ERROR and raise; where the request was answered before, that answer."""
        cause = Cause.OVERRUN if isinstance(refusal, QueueFull) else Cause.NOT_READY
        try:
            recorded = self._store.record(base.failed(cause)).result(self._patience)
        except RequestConflict:
            raise
        except (StoreError, TimeoutError) as error:
            LOG.error("station %s, request %s has no row: %s", self.name, base.request_id, error)
            raise refusal from error
        if not recorded.replayed:
            self._listener.recorded(self, recorded)
            raise refusal
        future: Future[Answer] = Future()
        future.set_result(Answer(recorded))
        return future
