"""What golden parts do to the stations of a line: what becomes due, calls, stops, holds back OK, and outlives a restart."""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from andon.core.errors import AndonError
from andon.line.alarms import Alarms
from andon.line.clock import SECOND, Clock, SetBackWatch
from andon.line.follower import Follower
from andon.line.golden.book import Book
from andon.line.golden.gate import Clearance, Reason
from andon.line.golden.items import GoldenSet, without_scores
from andon.line.golden.post import Post
from andon.line.settings import of_station
from andon.line.station import Station
from andon.line.store import Store
from andon.line.store.audit import Entry

LOG = logging.getLogger(__name__)

DUE, HELD = "golden parts due", "golden parts failed or overdue"
"""Names of the alarms: the first calls a person, the second stops the line."""
RETRY = 30 * SECOND
"""Between two checks that a station tries by itself."""
SYSTEM = "system"
"""Who acts where no person does."""


class Keeping(Follower, ABC):
    """Posts of all stations. Subclasses judge golden parts."""

    def __init__(
        self,
        stations: Mapping[str, Station],
        store: Store,
        alarms: Alarms,
        *,
        clock: Clock,
        changed: Callable[[str], object],
    ) -> None:
        """`changed` is called with a station whose view changed; it must not wait."""
        self._alarms, self._clock, self._changed = alarms, clock, changed
        self._book, self._lock = Book(store), threading.RLock()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run_work, name="andon-golden", daemon=True)
        self._posts = {name: self._restored(station) for name, station in stations.items()}
        passed = [part.t_done for name in stations for part in store.last_verdicts(name, 1)]
        begun = [post.gate.override_from or 0 for post in self._posts.values()]
        self._set_back = SetBackWatch(clock, max([0, *passed, *begun]))

    def start(self) -> None:
        """A check of every station with golden parts is due after a start."""
        self._thread.start()
        self._notice_clock()
        restored = self._book.restored_at()
        for post in self._posts.values():
            if post.guarded:
                is_new = restored > (post.gate.passed_at or 0)
                self._due(post, [Reason.RESTART, *([Reason.RESTORE] if is_new else [])])

    def tick(self) -> None:
        """Note what has become due, call or stop, and let stations check themselves."""
        self._notice_clock()
        for post in self._posts.values():
            try:
                self._notice(post)
            except AndonError as error:
                LOG.error("golden parts of station %s: %s", post.name, error)
            self._expire(post)
            self._settle(post)
            if post.unsaved:
                self._keep(post)
            now = self._clock()
            if post.checks_itself(now) and not post.running.locked():
                post.retry_at = now + RETRY
                self._work.put(partial(self._check_itself, post))

    def stop(self, timeout: float) -> None:
        """End the own thread."""
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join(timeout)

    # Inside --------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _check(self, post: Post) -> None:
        """Judge the stored images of a station."""

    def _post(self, station: str) -> Post:
        return of_station(self._posts, station)

    def _restored(self, station: Station) -> Post:
        sha256 = station.model.sha256
        newest, golden = self._book.newest(station.name), self._book.of_model(station.name, sha256)
        if (
            golden is None and newest is not None and station.recipe is None
        ):  # a recipe has golden parts of its own
            golden = self._of_model(station.name, sha256, newest)
        post = Post(station, station.settings.golden, golden, self._book.gate(station.name), sha256)
        station.may_pass = lambda: post.may_pass(self._clock())
        return post

    def _of_model(self, station: str, sha256: str, other: GoldenSet) -> GoldenSet:
        """Golden parts of a model; where it has none, those of another one, whose scores are not known."""
        found = self._book.of_model(station, sha256)
        return found or replace(other, model_sha256=None, items=without_scores(other.items))

    def _notice_clock(self) -> None:
        """A clock that was set back gives nobody more time."""
        back = self._set_back.back()
        for post in self._posts.values() if back else ():
            with self._lock:
                before, post.gate = post.gate, post.gate.set_back(back)
                post.retry_at -= back
                if post.showing is not None:
                    post.showing.until -= back
                ends = before.override_until is not None
                entry = Entry(SYSTEM, "golden override ended", f"station {post.name}", reason=Reason.CLOCK)
                if post.gate != before:
                    self._keep(post, *([entry] if ends else []))

    def _notice(self, post: Post) -> None:
        """Note what has become due, and whether the station has another model."""
        sha256 = post.station.model.sha256
        if sha256 != post.model_sha256:
            golden = self._book.of_model(post.name, sha256)
            with self._lock:
                post.golden, post.model_sha256 = golden, sha256
            if post.guarded:
                self._due(post, [Reason.CHANGEOVER])
        self._due(post, post.reasons(self._alarms.station(post.name), self._clock()))

    def _due(self, post: Post, reasons: Iterable[Reason]) -> None:
        for reason in reasons:
            with self._lock:
                before, post.gate = post.gate, post.made_due(reason, self._clock())
                if post.gate != before:
                    post.retry_at = 0
                    self._keep(post, Entry(SYSTEM, "golden due", f"station {post.name}", reason=reason.value))

    def _expire(self, post: Post) -> None:
        """Wait no longer for a part that was to be shown."""
        showing = post.showing
        if showing is not None and showing.future is not None and self._clock() >= showing.until:
            showing.future.cancel()

    def _settle(self, post: Post) -> None:
        """Call, stop and release as the golden parts require; nothing where that is known."""
        with self._lock:
            now, before = self._clock(), post.told
            state, text, calls = post.clearance(now), post.text(now), post.calls_person(now)
            post.told = (state, text, calls, post.guarded)
            machine = self._alarms.station(post.name)
            if state is Clearance.OVERRIDDEN and machine.check_due:
                self._alarms.checked(post.name, passed=True, why=text)
            if post.told == before:
                return
            if machine.has_known_parts != post.guarded:
                self._alarms.known_parts(post.name, post.guarded)
            self._alarms.condition(post.name, DUE, calls, text)
            self._hold(post, state, text, was=None if before is None else before[0])
        self._changed(post.name)

    def _hold(self, post: Post, state: Clearance, text: str, was: Clearance | None) -> None:
        """Stop the line where no part may be OK; the alarm is over where parts may be again."""
        name, machine = post.name, self._alarms.station(post.name)
        if not state.may_pass:
            if state is not was and (state is Clearance.FAILED or not machine.wants_stop):
                self._alarms.condition(name, HELD, True, text, stops=True)
            self._alarms.checked(name, passed=False, why=text)
        else:
            self._alarms.condition(name, HELD, False)

    def _release(self, post: Post, why: str) -> None:
        """A line that stands may resume as far as golden parts are concerned, unless more of them are due."""
        if post.clearance(self._clock()) is Clearance.CLEAR:
            self._alarms.checked(post.name, passed=True, why=why)

    def _keep(self, post: Post, *entries: Entry) -> Future[None]:
        """Store the gate of a station; what could not be stored is tried again at the next tick."""
        post.unsaved = False
        try:
            saving: Future[None] = self._book.keep_gate(post.name, post.gate, entries)
        except AndonError as error:
            saving = Future()
            saving.set_exception(error)
        saving.add_done_callback(partial(self._kept, post))
        return saving

    def _kept(self, post: Post, done: Future[None]) -> None:
        """In the thread that commits: takes no lock."""
        if (error := done.exception()) is not None:
            LOG.error("golden parts of station %s: a change is not stored yet: %s", post.name, error)
            post.unsaved = True

    def _check_itself(self, post: Post) -> None:
        if post.checks_itself(self._clock() + RETRY):
            self._check(post)

    def _run_work(self) -> None:
        while (job := self._work.get()) is not None:
            try:
                job()
            except AndonError as error:
                LOG.warning("golden parts: %s", error)
            except Exception:
                LOG.exception("golden parts could not be judged")
