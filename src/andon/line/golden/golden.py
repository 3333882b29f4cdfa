"""Golden parts of all stations of a line: checks, what is due, what failed, and what follows for the station.

    line.golden.run("press", "eva").passed

A failed or overdue check holds back every OK of the station at once (`Station.may_pass`) and stops it; alarms and the stored
state follow. Judging threads never wait for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from andon.core.errors import UsageError
from andon.line.andon_states import NotAllowed
from andon.line.clock import MINUTE, SECOND
from andon.line.golden.book import STORED_WITHIN, Run
from andon.line.golden.checks import Checked, judge_all, replay
from andon.line.golden.gate import Gate, Reason
from andon.line.golden.items import (
    SHORTEST_REASON,
    GoldenSet,
    Item,
    Mode,
    Seen,
    names_failed,
    recorded,
    result,
    together,
    what_failed,
)
from andon.line.golden.keeping import SYSTEM, Keeping
from andon.line.golden.post import Post, Showing
from andon.line.judge import Judging, Thresholds
from andon.line.parts import Taken
from andon.line.store.audit import Entry
from andon.line.views import GoldenView

SHOW_SECONDS = 120
"""For which the station waits for a part that is to be shown."""
LONGEST_OVERRIDE = 480
"""Minutes."""


class Golden(Keeping):
    """All golden parts of a line. Any thread may ask and act. Errors of people are `UsageError`s."""

    # What is there -------------------------------------------------------------------------------------------------

    def view(self, station: str) -> GoldenView:
        """What people see of the golden parts of a station."""
        return self._posts[station].view(self._clock())

    def current(self, station: str) -> GoldenSet | None:
        """Golden parts for the model in use."""
        return self._post(station).golden

    def runs(self, station: str, limit: int = 20, before: int | None = None) -> list[Run]:
        """The newest checks of a station, newest first."""
        return self._book.runs(self._post(station).name, limit, before)

    def image(self, station: str, item: int) -> bytes | None:
        """The image of a golden part by its id; None where there is none."""
        golden = self._post(station).golden
        found = next((each for each in golden.items if each.id == item), None) if golden else None
        with contextlib.suppress(UsageError):
            return None if found is None else self._book.image(found)
        return None

    # Checks --------------------------------------------------------------------------------------------------------

    def run(self, station: str, who: str, why: str = "asked for") -> Run:
        """Judge the stored images of all golden parts, between parts of the station."""
        post = self._post(station)
        _named(who)
        self._notice(post)
        with self._checking(post) as golden:
            started = self._clock()
            checked = replay(post.station, golden.items, self._book.image)
            return self._finish(post, golden, self._made(golden, Mode.FILES, checked, started, why, who))

    def begin_showing(self, station: str, who: str) -> Run | None:
        """Judge the stored images, then wait for parts (`show`). Returns the run where the images already fail."""
        post = self._post(station)
        _named(who)
        self._notice(post)
        with self._checking(post) as golden:
            if not golden.has_parts:
                raise NotAllowed(
                    f"station {station} has no golden parts that can be shown: judge the stored images"
                )
            started = self._clock()
            checked = replay(post.station, golden.items, self._book.image)
            if what_failed(checked.results):
                return self._finish(
                    post, golden, self._made(golden, Mode.FILES, checked, started, "asked for", who)
                )
            with self._lock:
                post.showing = Showing(who, golden, started, [*checked.results])
        self._changed(station)
        return None

    def show(self, station: str, item: str) -> None:
        """The next part of the station is the golden part `item`. Its row is marked, and counts for nothing else."""
        post = self._post(station)
        with self._lock:
            showing = post.showing
            if showing is None:
                raise NotAllowed(f"station {station} expects no golden parts: begin a check with parts first")
            chosen = next((each for each in showing.left if each.name == item), None)
            if chosen is None:
                raise NotAllowed(f"golden part {item!r} is not expected: show one of {_names(showing.left)}")
            future = post.station.take_next()
            showing.waiting, showing.future, showing.message = chosen, future, ""
            showing.until = self._clock() + SHOW_SECONDS * SECOND
        future.add_done_callback(
            lambda done: self._work.put(partial(self._shown, post, showing, chosen, done))
        )
        self._changed(station)

    def cancel(self, station: str, who: str) -> None:
        """End a check with parts without a result; what is due stays due."""
        post = self._post(station)
        _named(who)
        with self._lock:
            showing, post.showing = post.showing, None
            if showing is not None:
                if showing.future is not None:
                    showing.future.cancel()
                self._keep(post, Entry(who, "golden run cancelled", f"station {station}"))
        self._changed(station)

    def override(self, station: str, minutes: float, who: str, why: str) -> None:
        """Parts may be OK for a time although a check failed or is overdue."""
        post = self._post(station)
        _named(who)
        if not 0 < minutes <= LONGEST_OVERRIDE or len(why.strip()) < SHORTEST_REASON:
            raise UsageError(
                f"an override lasts up to {LONGEST_OVERRIDE} minutes and needs a reason of {SHORTEST_REASON} characters"
            )
        if not post.gate.failed and post.gate.due is None:
            raise NotAllowed(
                f"no golden parts of station {station} are due or failed: there is nothing to override"
            )
        now = self._clock()
        until = now + round(minutes * MINUTE)
        new = {"minutes": minutes, "until": until}
        entry = Entry(who, "golden override", f"station {station}", new=new, reason=why)
        gate = post.gate.overridden(now, until, who, why)
        self._book.keep_gate(station, gate, [entry]).result(STORED_WITHIN)
        with self._lock:
            post.gate = post.gate.overridden(now, until, who, why)
        self._settle(post)

    # Models and thresholds that are not in use yet -----------------------------------------------------------------

    def try_thresholds(self, station: str, thresholds: Thresholds, who: str, why: str) -> Run | None:
        """Judge the stored images by other thresholds; None where there are no golden parts.

        Raises `NotAllowed` where one comes out wrong: the thresholds must not be used. `accept` follows once they are.
        """
        post = self._post(station)
        if not post.guarded:
            return None
        with self._checking(post) as golden:
            started = self._clock()
            checked = replay(post.station, golden.items, self._book.image, thresholds)
            return self._tried(
                post, self._made(golden, Mode.FILES, checked, started, why, who), "thresholds stay"
            )

    def try_model(
        self, station: str, judge: Judging, thresholds: Thresholds, who: str, why: str
    ) -> Run | None:
        """Judge the stored images by another model, verified before, as `try_thresholds`."""
        post = self._post(station)
        if not post.guarded:
            return None
        with self._checking(post) as golden:
            started = self._clock()
            items = self._of_model(station, judge.sha256, golden).items
            checked = judge_all(judge, items, self._book.image, thresholds)
            return self._tried(
                post, self._made(golden, Mode.FILES, checked, started, why, who), "model stays"
            )

    def accept(self, station: str, trial: Run | None) -> None:
        """What was tried is in use now: the golden parts are bound to it, and the trial counts as a check."""
        post = self._post(station)
        if trial is None or post.golden is None:
            return
        used, model = post.station.thresholds, post.station.model
        golden = self._of_model(station, model.sha256, post.golden)
        with self._lock:
            post.model_sha256 = model.sha256
        self._finish(post, golden, replace(trial, thresholds=used))

    # Golden parts --------------------------------------------------------------------------------------------------

    def keep_image(self, image: bytes, suffix: str) -> tuple[str, str]:
        """Store an image for a golden part. Returns path and SHA-256 for its `Item`."""
        return self._book.keep_image(image, suffix)

    def change(
        self, station: str, *, add: Sequence[Item] = (), remove: Iterable[str] = (), who: str, why: str
    ) -> GoldenSet:
        """Add and remove golden parts; a check is due then. The last one of a failed or overdue check cannot be removed."""
        post = self._post(station)
        _named(who)
        with self._checking(post, needed=False, wait=STORED_WITHIN):
            before = post.golden.items if post.golden else ()
            items = together(before, add, remove)
            if not items and (post.gate.failed or not post.may_pass(self._clock())):
                raise NotAllowed(
                    f"golden parts of station {station} failed or are overdue: judge them right first"
                )
            golden = self._book.add_set(
                station,
                items,
                model_sha256=post.model_sha256,
                threshold_version=post.station.thresholds.version,
                who=who,
                why=why,
            )
            with self._lock:
                post.golden = golden
                if not items:
                    post.gate = Gate(passed_at=post.gate.passed_at)
                    self._keep(post)
        if items:
            self._due(post, [Reason.SET])
        else:
            self._release(post, "there are no golden parts any more")
        self._settle(post)
        return golden

    # Inside --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _checking(self, post: Post, *, needed: bool = True, wait: float = 0.0) -> Iterator[GoldenSet]:
        """The golden parts of a station, while nothing else judges or changes them; `wait`: seconds for a check that runs."""
        if post.showing is not None:
            raise NotAllowed(
                f"golden parts of station {post.name} are being shown: finish or cancel that first"
            )
        if not post.running.acquire(timeout=wait):
            raise NotAllowed(f"golden parts of station {post.name} are being judged: wait for the result")
        try:
            golden = post.golden
            if needed and (golden is None or not golden.items):
                raise NotAllowed(f"station {post.name} has no golden parts for its model: add some first")
            yield golden or GoldenSet(0, post.name, None, None, (), 0, "", "")
        finally:
            post.running.release()

    def _made(self, golden: GoldenSet, mode: Mode, checked: Checked, started: int, why: str, who: str) -> Run:
        return Run(
            set_id=golden.id,
            mode=mode,
            is_trial=False,
            thresholds=checked.thresholds,
            model_sha256=checked.model_sha256,
            results=checked.results,
            why=why,
            who=who,
            started=started,
            ended=self._clock(),
        )

    def _tried(self, post: Post, run: Run, stays: str) -> Run:
        """The trial where it passed. Raises `NotAllowed` after it was stored where it did not."""
        if wrong := what_failed(run.results):
            self._book.add_run(post.name, replace(run, is_trial=True), None)
            raise NotAllowed(
                f"station {post.name}: golden parts come out wrong, the {stays} as before ({wrong})"
            )
        return run

    def _finish(self, post: Post, golden: GoldenSet, run: Run) -> Run:
        """Store a check. What failed holds at once, what passed once it is committed."""
        wrong = names_failed(run.results)
        if wrong:
            self._apply(post, wrong, run)
        stored, following = self._book.add_run(post.name, run, None if wrong else _following(golden, run))
        if following is not None:
            with self._lock:
                post.golden = following
        if not wrong:
            self._apply(post, "", run)
            self._release(post, f"golden parts judged right (run {stored.id})")
        self._settle(post)
        return stored

    def _apply(self, post: Post, wrong: str, run: Run) -> None:
        with self._lock:
            post.gate = post.gate.after(wrong, run.mode, run.ended, has_parts=post.has_parts)
            self._keep(post)

    def _check(self, post: Post) -> None:
        self.run(post.name, SYSTEM, ", ".join(post.gate.reasons))

    def _shown(self, post: Post, showing: Showing, item: Item, done: Future[Taken]) -> None:
        """A golden part was shown, or not in time."""
        with self._lock:
            if post.showing is not showing or showing.future is not done:
                return
            showing.waiting = showing.future = None
            error = None if done.cancelled() else done.exception()
            if done.cancelled():
                showing.message = f"{item.name} was not shown within {SHOW_SECONDS} s: show it again"
            elif error is not None:
                showing.message = f"{item.name}: {error}"
            else:
                found, inspection_id = done.result()
                showing.results.append(result(item, Mode.PARTS, Seen.of(found), inspection_id))
            finished = not showing.left
            if finished:
                post.showing = None
        if finished:
            station = post.station
            checked = Checked(tuple(showing.results), station.model.sha256, station.thresholds)
            run = self._made(showing.golden, Mode.PARTS, checked, showing.started, "parts shown", showing.who)
            self._finish(post, showing.golden, run)
        self._changed(post.name)


def _following(golden: GoldenSet, run: Run) -> GoldenSet | None:
    """The set after a check that passed: with scores, bound to model and thresholds; None where nothing changes."""
    items = recorded(golden.items, run.results)
    bound = (golden.model_sha256, golden.threshold_version)
    if items == golden.items and bound == (run.model_sha256, run.thresholds.version):
        return None
    return replace(
        golden,
        model_sha256=run.model_sha256,
        threshold_version=run.thresholds.version,
        items=items,
        at=run.ended,
        who=run.who,
        why=f"scores and thresholds of a check that passed ({run.why})",
    )


def _named(who: str) -> None:
    if not who.strip():
        raise UsageError("golden parts need a person: give a name")


def _names(items: Iterable[Item]) -> str:
    return ", ".join(item.name for item in items) or "none"
