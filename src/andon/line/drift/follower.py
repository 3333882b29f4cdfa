"""Follows the parts of a line and watches for drift, in a thread of its own.

The judging thread hands over decoded images without waiting; at most `WAITING_IMAGES` wait, others are counted as lost. Images
come before the rows of their parts and are matched by request.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from andon.core.errors import AndonError, UsageError
from andon.line.alarms import Alarms
from andon.line.clock import DAY, SECOND, Clock
from andon.line.drift.numbers import Reduced, reduce
from andon.line.drift.reference import NAMES, Learner, Reference
from andon.line.drift.settings import DriftSettings
from andon.line.drift.watch import Seen, Watch
from andon.line.follower import Follower
from andon.line.judge import Judgement, Pixels
from andon.line.store import Inspection, Store
from andon.line.store import drift as stored
from andon.line.store.audit import Entry
from andon.line.verdicts import Verdict

T = TypeVar("T")
LOG = logging.getLogger(__name__)

WAITING_IMAGES, WAITING_JOBS = 4, 2000
UNMATCHED = 64
"""Measured images that wait for the rows of their parts."""
MODELS = 16
"""Models of a station whose averages are kept while others judge; a restart keeps those of the last one."""
STORED_SECONDS, STORED_PARTS = 120, 50
"""State and points of a station are stored after so much time and so many parts."""
WATCHED = (Verdict.OK, Verdict.REVIEW)
"""Parts that were not rejected: a wave of defects is no drift."""
AUTOMATIC = "first parts judged by this model"
DRIFT, UNLIKE, MORE = "drift", "unlike images", "more {}"
"""Names of the alarms."""


class Learned(NamedTuple):
    """A reference that a station has learned and that is not stored yet."""

    model: str
    reference: Reference
    learner: Learner


@dataclass
class Followed:
    """A station."""

    watch: Watch = field(default_factory=Watch)
    model: str = ""
    """SHA-256 of the model that the reference belongs to."""
    version: stored.StoredReference | None = None
    """The reference in use, without its content."""
    others: OrderedDict[str, tuple[Watch, stored.StoredReference | None]] = field(default_factory=OrderedDict)
    """The same of other models that judge here in turn (recipes), by their hash, at most `MODELS`."""
    learned: Learned | None = None
    """In use already; state is stored only after it, so that a restart goes on with it or learns again."""
    told: dict[str, bool] = field(default_factory=dict)
    """Alarms as last reported."""
    stored_at: int = 0
    since_stored: int = 0


class DriftFollower(Follower):
    """The drift watch of all stations. Any thread may ask."""

    def __init__(
        self, store: Store, settings: DriftSettings, stations: Iterable[str], alarms: Alarms, *, clock: Clock
    ) -> None:
        self._store, self._settings, self._alarms, self._clock = store, settings, alarms, clock
        self._lock = threading.RLock()
        self._followed = {name: self._restored(name) for name in stations}
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING_JOBS)
        self._images = threading.Semaphore(WAITING_IMAGES)
        self._measured: OrderedDict[str, tuple[Reduced, dict[str, str]]] = OrderedDict()
        self._day = 0
        self._thread = threading.Thread(target=self._run, name="andon-drift", daemon=True)
        self.lost = 0
        """Images and parts that were left out since the start, because this thread was behind."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Take what waits, store the state."""
        if self._thread.is_alive():
            end = time.monotonic() + timeout
            with contextlib.suppress(queue.Full):
                self._jobs.put(None, timeout=timeout)
            self._thread.join(max(0.0, end - time.monotonic()))
        saving = [self._save(name, self._clock()) for name in self._followed]
        wait([future for future in saving if future is not None], timeout)

    def judged(self, station: str, request_id: str, judgement: Judgement) -> None:
        """Queue a judged image to be measured, unless its part was rejected."""
        if judgement.pixels is None or judgement.verdict not in WATCHED:
            return
        if not self._images.acquire(blocking=False):
            self.lost += 1
            return
        notes = {note.code: note.text for note in judgement.notes}
        if not self._put(partial(self._measure, request_id, judgement.pixels, notes)):
            self._images.release()

    def part(self, row: Inspection) -> None:
        """Queue a committed part."""
        self._put(partial(self._part, row))

    def set_reference(self, station: str, *, who: str, why: str, parts: int | None = None) -> None:
        """Learn a new reference from the next passed parts; that in use stays until it is complete. Audited."""
        if not who.strip() or not why.strip():
            raise UsageError(f"a new reference of station {station} needs a name and a reason: give both")
        count = parts or self._settings.reference_parts
        entry = Entry(who, "drift reference wanted", f"station {station}", new={"parts": count}, reason=why)
        self._store.audit(entry).result()
        with self._lock:
            self._followed[station].watch.learner = Learner(count, who, why)

    def read(self, station: str, question: Callable[[Followed], T]) -> T:
        """Answer of `question`, while nothing changes."""
        with self._lock:
            return question(self._followed[station])

    # The thread ----------------------------------------------------------------------------------------------------

    def _put(self, job: Callable[[], None] | None) -> bool:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.lost += 1
            return False
        return True

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                LOG.exception("drift: a part was left out")

    def _measure(self, request_id: str, pixels: Pixels, notes: dict[str, str]) -> None:
        self._images.release()
        self._measured[request_id] = reduce(pixels), notes
        while len(self._measured) > UNMATCHED:
            self._measured.popitem(last=False)

    def _part(self, row: Inspection) -> None:
        image, notes = self._measured.pop(row.request_id, (None, {}))
        with self._lock:
            followed = self._followed[row.station]
            if row.verdict is Verdict.ERROR:
                return
            if followed.model != row.model_sha256:
                self._change_model(row.station, followed, row.model_sha256)
            seen = Seen(
                at=row.t_done,
                verdict=row.verdict,
                score=row.score,
                judging_ms=row.ms.get("judge", 0.0),
                thresholds=row.threshold_version,
                image=image,
                notes=notes,
            )
            learner = followed.watch.learner
            learned = followed.watch.take(seen)
            if learned is not None and learner is not None:
                followed.learned = Learned(followed.model, learned, learner)
            self._tell(row.station, followed)
            followed.since_stored += 1
            due = row.t_done - followed.stored_at >= STORED_SECONDS * SECOND
            if learned is not None or (due and followed.since_stored >= STORED_PARTS):
                self._save(row.station, row.t_done)

    def _change_model(self, station: str, followed: Followed, sha256: str) -> None:
        """The reference of another model, or a new one from its first parts. Changes nothing where the store cannot be asked."""
        known = followed.others.get(sha256)
        watch, version = self._watch_of(station, sha256) if known is None else known
        followed.others.pop(sha256, None)
        if followed.model:
            followed.others[followed.model] = followed.watch, followed.version
        while len(followed.others) > MODELS:
            followed.others.popitem(last=False)
        followed.model, followed.watch, followed.version = sha256, watch, version

    def _watch_of(self, station: str, sha256: str) -> tuple[Watch, stored.StoredReference | None]:
        """A watch with the stored reference of a model, or one that learns it."""
        version = self._store.ask(lambda connection: stored.newest_reference(connection, station, sha256))
        watch = Watch()
        if version is None:
            watch.learner = self._first_learner()
            return watch, None
        watch.begin(Reference.from_json(version.content))
        return watch, version._replace(content={})

    def _first_learner(self) -> Learner:
        return Learner(self._settings.reference_parts, "system", AUTOMATIC)

    def _store_learned(self, station: str, followed: Followed) -> bool:
        """Whether the reference that was learned last is stored."""
        if followed.learned is None:
            return True
        model, reference, learner = followed.learned
        at, content = self._clock(), reference.to_json()
        try:
            version = self._store.write(
                lambda connection: stored.add_reference(
                    connection, station, model, content, who=learner.who, why=learner.why, at=at
                )
            ).result()
        except AndonError as error:
            LOG.warning("the drift reference of station %s is not stored yet: %s", station, error)
            return False
        followed.learned = None
        if model == followed.model:
            followed.version = stored.StoredReference(
                version, reference.count, learner.why, learner.who, at, {}
            )
        return True

    def _tell(self, station: str, followed: Followed) -> None:
        """Raise and end alarms where something changed."""
        watch = followed.watch
        present = {DRIFT: drift_text(watch), UNLIKE: watch.unlike()}
        for verdict, rate in watch.rates.items():
            present[MORE.format(verdict)] = rate.text(verdict) if rate.is_high else ""
        for title, why in present.items():
            if followed.told.get(title) != bool(why):
                followed.told[title] = bool(why)
                self._alarms.condition(station, title, bool(why), why)

    def _save(self, station: str, at: int) -> Future[None] | None:
        """Store state and points, without waiting; None where there is nothing new."""
        with self._lock:
            followed = self._followed[station]
            if not followed.since_stored and followed.learned is None:
                return None
            followed.stored_at, followed.since_stored = at, 0
            if not self._store_learned(station, followed):
                return None
            watch = followed.watch
            state = {"model": followed.model, **watch.to_json()}
            values = zip(NAMES, watch.average.tolist(), strict=True) if watch.parts else ()
            points = [stored.Point(at, name, value, watch.parts) for name, value in values]
        before = at - self._settings.keep_days * DAY if at // DAY != self._day else None
        self._day = at // DAY

        def write(connection: Any) -> None:
            stored.write(connection, station, state, points)
            if before is not None:
                stored.forget(connection, before)

        try:
            saving = self._store.write(write)
        except AndonError as error:
            LOG.warning("drift of station %s is not stored: %s", station, error)
            return None
        saving.add_done_callback(_report)
        return saving

    def _restored(self, station: str) -> Followed:
        """As it was when it was stored last."""
        state = self._store.ask(lambda connection: stored.read_state(connection, station))
        if state is None:
            return Followed()
        model = state.pop("model")
        version = self._store.ask(lambda connection: stored.newest_reference(connection, station, model))
        reference = None if version is None else Reference.from_json(version.content)
        watch = Watch.from_json(state, reference)
        if reference is None and watch.learner is None:
            watch.learner = self._first_learner()
        return Followed(watch, model, None if version is None else version._replace(content={}))


def drift_text(watch: Watch) -> str:
    """What drifts, why and since when (local time), for people; empty where nothing does."""
    if watch.drift is not None:
        return watch.drift.named.text(time.strftime("%H:%M", time.localtime(watch.drift.since / SECOND)))
    if watch.ended is not None and watch.ended.found:
        begin = time.strftime("%H:%M", time.localtime(watch.ended.begin / SECOND))
        return f"the shift that began at {begin} differs from the reference in {', '.join(watch.ended.found)}"
    return ""


def _report(done: Future[None]) -> None:
    if (error := done.exception()) is not None:
        LOG.warning("drift is not stored: %s", error)
