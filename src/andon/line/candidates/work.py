"""The thread that judges for candidates: new parts in shadow mode first, then stored parts of comparisons.

It has a low priority and one processor core, and gives way while a station judges. No judging thread waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from andon.core.errors import AndonError, DataError
from andon.line.andon_states import NotAllowed
from andon.line.candidates.comparing import BATCH, Comparison, store_waiting
from andon.line.candidates.shadow import MOST_PARTS, Shadow, concerns
from andon.line.candidates.standing import Action
from andon.line.follower import Follower
from andon.line.golden.golden import Golden
from andon.line.judge import Judging
from andon.line.models import Models
from andon.line.station import Station
from andon.line.store import Inspection, Store
from andon.line.store import candidates as stored
from andon.line.store.audit import Entry, append
from andon.line.store.candidates import Candidate, Step

LOG = logging.getLogger(__name__)

WAITING = 32
"""Parts that may wait for the candidate in shadow mode; what comes beyond is left out and counted."""
NICENESS = 15
GIVE_WAY_SECONDS, LOOK_SECONDS = 1.0, 0.005
"""Longest pause before a stored part while a station judges, and the time between two looks."""
RETRY_SECONDS = 1.0
"""Pause after a failure, e.g. while the database is away."""
SYSTEM = "system"
"""Who acts where no person does."""


class Work(Follower):
    """Comparisons and shadow runs of all stations. Subclasses begin them."""

    def __init__(
        self,
        stations: Mapping[str, Station],
        store: Store,
        models: Models,
        golden: Golden,
        open_judge: Callable[[Path], Judging],
    ) -> None:
        """`open_judge` opens a packed file for one processor core."""
        self._stations, self._store, self._models, self._golden = stations, store, models, golden
        self._open = open_judge
        self._news, self._ending = threading.Condition(), threading.Event()
        self._acting = threading.Lock()
        """Held while a person starts or ends something."""
        self._shadows: dict[str, Shadow] = {}
        self._parts: deque[tuple[Shadow, Inspection]] = deque()
        self._comparisons: deque[Comparison] = deque()
        self._ended: deque[Shadow] = deque()
        """Shadow runs whose last parts are to be stored."""
        self._thread = threading.Thread(target=self._run, name="andon-candidates", daemon=True)

    def pack(self, candidate: Candidate) -> Path:
        """Its packed file."""
        return self._store.folder / candidate.file

    def note(
        self,
        candidate: Candidate,
        action: Action,
        detail: dict[str, Any],
        who: str,
        why: str,
        *,
        shown: Any = None,
    ) -> Step:
        """Commit a step of a candidate with its row in the audit; `shown`: what the audit has of a long detail."""

        def write(connection: Any) -> Step:
            at = self._store.clock()
            new = {
                "candidate": candidate.id,
                "sha256": candidate.sha256,
                **(detail if shown is None else shown),
            }
            entry = Entry(who, f"candidate {action}", f"station {candidate.station}", new=new, reason=why)
            append(connection, entry, at)
            return stored.add_step(connection, candidate.id, action, detail, who=who, why=why, at=at)

        return self._store.write(write).result()

    # What the line reports -----------------------------------------------------------------------------------------

    def part(self, row: Inspection) -> None:
        """Queue a committed part for the candidate in shadow mode."""
        shadow = self._shadows.get(row.station)
        if shadow is None or not concerns(row):
            return
        with self._news:
            if len(self._parts) >= WAITING:
                shadow.dropped += 1
                return
            self._parts.append((shadow, row))
            self._news.notify_all()

    def stop(self, timeout: float) -> None:
        """End the thread; what is judged is stored."""
        with self._news:
            self._ending.set()
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    # The thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        _lower_priority()
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:
                LOG.exception("a candidate could not be judged or stored")
                self._ending.wait(RETRY_SECONDS)
        left: list[Comparison | Shadow] = [*self._comparisons, *self._shadows.values(), *self._ended]
        for each in left:
            try:
                store_waiting(self._store, each.step, each.waiting)
            except AndonError as error:
                LOG.warning(
                    "scores of candidate %d are judged again after the start: %s", each.candidate.id, error
                )

    def _next(self) -> Callable[[], None] | None:
        """New parts come before stored ones; None at the end."""
        with self._news:
            self._news.wait_for(
                lambda: self._ending.is_set() or self._ended or self._parts or self._comparisons
            )
            if self._ending.is_set():
                return None
            if self._ended:
                return partial(self._store_last, self._ended[0])
            if self._parts:
                return partial(self._shadow_part, *self._parts.popleft())
            return partial(self._compare_part, self._comparisons[0])

    def _shadow_part(self, shadow: Shadow, row: Inspection) -> None:
        station = shadow.candidate.station
        if self._shadows.get(station) is not shadow:
            return
        end = ""
        if row.model_sha256 != shadow.step.detail["base_sha256"]:
            end = "another model is in use"
        elif shadow.count >= MOST_PARTS:
            end = f"{MOST_PARTS} parts are scored"
        else:
            try:
                shadow.judge = shadow.judge or self._open(self.pack(shadow.candidate))
            except AndonError as error:
                end = f"it cannot be opened: {error}"
        if end:
            with self._acting:
                self._end_shadow(station, SYSTEM, end, only=shadow)
            return
        shadow.judge_part(self._store, row)
        if len(shadow.waiting) >= BATCH or not self._parts:
            store_waiting(self._store, shadow.step, shadow.waiting)

    def _store_last(self, shadow: Shadow) -> None:
        store_waiting(self._store, shadow.step, shadow.waiting)
        self._ended.popleft()

    def _compare_part(self, comparison: Comparison) -> None:
        station = self._stations[comparison.candidate.station]
        if comparison.base is None or comparison.judge is None:
            try:
                self._open_both(comparison, station)
            except AndonError as error:
                self._end_comparison(comparison, Action.FAILED, {"why": str(error)})
                return
        if comparison.todo:
            self._give_way()
            comparison.judge_next(self._store)
        if len(comparison.waiting) >= BATCH or not comparison.todo:
            store_waiting(self._store, comparison.step, comparison.waiting)
        if not comparison.todo:
            passed, golden = self._golden_says(comparison)
            detail = {"step": comparison.step.id, "passed": passed, "golden": golden}
            self._end_comparison(comparison, Action.COMPARED, detail)

    def _open_both(self, comparison: Comparison, station: Station) -> None:
        """Raises `DataError` where a file is not there, or the model in use is another one meanwhile."""
        comparison.judge = comparison.judge or self._open(self.pack(comparison.candidate))
        comparison.base = self._open(self._models.pack(station.name))
        if comparison.base.sha256 != comparison.step.detail["base_sha256"]:
            raise DataError("another model is in use since the comparison was asked for: compare again")

    def _give_way(self) -> None:
        """Wait for a moment at which no station judges, not for long."""
        for _ in range(round(GIVE_WAY_SECONDS / LOOK_SECONDS)):
            if not any(s.waiting or s.judging_seconds for s in self._stations.values()):
                return
            self._ending.wait(LOOK_SECONDS)

    def _golden_says(self, comparison: Comparison) -> tuple[bool | None, str]:
        """Whether golden parts come out right by the candidate, and what is said; None where there are none."""
        candidate, judge = comparison.candidate, comparison.judge
        assert judge is not None
        try:
            run = self._golden.try_model(
                candidate.station, judge, comparison.thresholds[1], comparison.step.who, "comparison"
            )
        except NotAllowed as error:
            return False, str(error)
        if run is None:
            return None, "the station has no golden parts"
        return True, f"{len(run.results)} golden parts come out right"

    # Inside ---------------------------------------------------------------------------------------------------

    def _end_comparison(self, comparison: Comparison, action: Action, detail: dict[str, Any]) -> None:
        self.note(comparison.candidate, action, detail, SYSTEM, str(detail.get("why", "")))
        with self._news:
            self._comparisons.remove(comparison)

    def _end_shadow(self, station: str, who: str, why: str, only: Shadow | None = None) -> bool:
        """Whether there was one to end; `only` this one."""
        with self._news:
            shadow = self._shadows.get(station)
            if shadow is None or only not in (None, shadow):
                return False
            del self._shadows[station]
            self._ended.append(shadow)
            self._news.notify_all()
        detail = {"step": shadow.step.id, "parts": shadow.count, "dropped": shadow.dropped}
        self.note(shadow.candidate, Action.SHADOW_OFF, detail, who, why)
        return True


def _lower_priority() -> None:
    """Let the threads that judge parts come first; on Linux, where a thread has a priority of its own."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except (AttributeError, OSError) as error:
        LOG.info("candidates are judged at the priority of the line: %s", error)
