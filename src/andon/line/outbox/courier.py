"""One courier for each sink: a thread that reads what is stored, tells it in order, and remembers how far it came.

Nothing is queued twice. Inspections and changes of alarms are committed rows with ascending ids, so that what waits for a sink
is what stands after its position; a broken broker costs neither memory nor a second row for each part. The position is
stored at most once a second: after a crash the reports of that second are told again (at least once, with the same `seq`).
Reports older than `LONGEST` are given up and counted, so that a receiver that comes back after a long time is not flooded.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass

from andon.line.clock import DAY, Clock
from andon.line.outbox.reports import Refused, Report, Sink, Undelivered, alarm_report, result_report
from andon.line.store import Connection, Store, StoreError, outbox
from andon.line.store.outbox import Position, Stream, Waiting

LOG = logging.getLogger(__name__)
NOTHING = Waiting(0, None)

BATCH_SECONDS = 0.05
"""Shortest time between two full batches: at most 400 reports a second, so that catching up leaves the processor to judging."""
LONGEST = 30 * DAY
"""Age at which a report is given up."""
IDLE_SECONDS = 1.0
"""Longest time between two attempts while nothing fails."""
SAVE_SECONDS, SAVED_WITHIN = 1.0, 30.0
"""Time between two positions that are stored, and for storing one."""
GOODBYE_SECONDS = 1.0
COUNT_SECONDS = 5.0
"""Time between two counts of what waits."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two attempts; doubled after each."""
REFUSALS = 5
"""Attempts for a report that is refused, before it is given up."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How a sink does."""

    sink: str
    waiting: int
    """Reports not told yet, counted up to 100,000."""
    oldest: int | None
    """Time of the oldest of them, microseconds UTC."""
    told: int
    """Reports told since the sink was set up."""
    lost: int
    """Reports given up: too old, or refused."""
    error: str
    """Why nothing is told now; empty where the last attempt worked."""
    since: int | None
    """Start of that failure, microseconds UTC."""


class Courier:
    """Tells one sink what is stored. Between `start` and `join` a thread calls `round`."""

    def __init__(self, sink: Sink, store: Store, clock: Clock) -> None:
        self.sink, self._store, self._clock = sink, store, clock
        self._name = store.box.prefix + sink.name
        self._positions = {stream: self._position(stream) for stream in sink.streams}
        self._saved, self._is_behind = dict(self._positions), False
        self._waiting = dict.fromkeys(sink.streams, NOTHING)
        self._error = ""
        self._since: int | None = None
        self._tries = self._refusals = 0
        self._next_try = self._next_save = self._next_count = 0.0
        self._news, self._closing, self._ending = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._run, name=f"andon-{sink.name}", daemon=True)

    def start(self) -> None:
        """Tell from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Something may have to be told. Any thread may call this; it does not wait."""
        self._news.set()

    def close(self) -> None:
        """Nothing follows: tell what waits, then end."""
        self._closing.set()
        self._news.set()

    def join(self, timeout: float) -> None:
        """Wait for the end, at most `timeout` seconds and a moment to say goodbye."""
        if self._thread.is_alive():
            self._thread.join(timeout)
            self._ending.set()
            self._thread.join(GOODBYE_SECONDS)

    def figures(self) -> Figures:
        """How the sink does. Any thread may ask."""
        positions, waiting = tuple(self._positions.values()), tuple(self._waiting.values())
        return Figures(
            sink=self.sink.name,
            waiting=sum(each.n for each in waiting),
            oldest=min((each.oldest for each in waiting if each.oldest is not None), default=None),
            told=sum(each.seq - each.lost for each in positions),
            lost=sum(each.lost for each in positions),
            error=self._error,
            since=self._since,
        )

    def round(self) -> bool:
        """One attempt, unless the pause after a failure is not over. Whether more waits."""
        if time.monotonic() < self._next_try:
            self._count(behind=True)
            return False
        more = False
        try:
            self.sink.refresh()
            for stream in self.sink.streams:
                more |= self._tell(stream)
        except StoreError as error:
            self._failed(str(error), pause=False)  # the sink goes on with what needs no row
        except Undelivered as error:
            self._failed(str(error))
        except Exception as error:
            LOG.exception("%s failed", self.sink.name)
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self._worked()
        self._count(behind=more or bool(self._error))
        self._save()
        return more and not self._error

    # Inside --------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        more = False
        while not self._ending.is_set():
            if more:
                self._ending.wait(BATCH_SECONDS)
            elif not self._closing.is_set():
                self._news.wait(IDLE_SECONDS)
            self._news.clear()
            try:
                more = self.round()
            except Exception:  # nothing that the sink did
                LOG.exception("%s failed", self.sink.name)
                more = False
            if self._closing.is_set() and not more:
                break
        self._next_save = 0.0
        self._save()
        self.sink.close()

    def _position(self, stream: Stream) -> Position:
        """The stored one; a new sink begins with what happens from now on."""
        name = self._name
        found = self._store.ask(lambda connection: outbox.position(connection, name, stream))
        if found is None:
            found = Position(self._store.ask(lambda connection: outbox.newest(connection, stream)))
            self._store.write(lambda connection: outbox.save(connection, name, stream, found)).result()
        return found

    def _tell(self, stream: Stream) -> bool:
        """Tell the next batch. Whether it was full, and all of it was told."""
        reports = self._next(stream)
        last = reports[-1].id if len(reports) == self.sink.batch else None
        while reports and reports[0].at < self._clock() - LONGEST:
            self._done(reports.pop(0), lost=True)
        try:
            for report in self.sink.deliver(reports, self._ending) if reports else ():
                self._done(report)
        except Refused as error:
            self._refusals += 1
            if self._refusals == REFUSALS:
                refused = next(each for each in reports if each.id > self._positions[stream].id)
                LOG.error("%s: %s %d is given up: %s", self.sink.name, stream, refused.id, error)
                self._done(refused, lost=True)
            raise
        return self._positions[stream].id == last

    def _next(self, stream: Stream) -> list[Report]:
        box, of, most = self._store.box, self.sink.station, self.sink.batch
        at = self._positions[stream]
        if stream is Stream.RESULT:
            rows = self._store.ask(lambda connection: outbox.results_after(connection, box, at.id, of, most))
            return [result_report(row, at.seq + i) for i, row in enumerate(rows, start=1)]
        news = self._store.ask(lambda connection: outbox.alarms_after(connection, box, at.id, of, most))
        return [alarm_report(each, at.seq + i) for i, each in enumerate(news, start=1)]

    def _done(self, report: Report, *, lost: bool = False) -> None:
        before = self._positions[report.stream]
        self._positions[report.stream] = Position(report.id, before.seq + 1, before.lost + lost)
        self._refusals = 0

    def _failed(self, why: str, *, pause: bool = True) -> None:
        if why != self._error:
            LOG.warning("%s: %s; it is tried again", self.sink.name, why)
        self._since = self._since or self._clock()
        self._error = why
        if pause:
            self._next_try = time.monotonic() + min(FIRST_PAUSE * 2**self._tries, LONGEST_PAUSE)
            self._tries = min(self._tries + 1, 10)

    def _worked(self) -> None:
        if self._error:
            LOG.info("%s works again", self.sink.name)
        self._error, self._since, self._tries = "", None, 0

    def _count(self, *, behind: bool) -> None:
        """Count what waits, from time to time while the sink is behind."""
        if not behind:
            self._waiting = dict.fromkeys(self.sink.streams, NOTHING)
            self._next_count = 0.0
        elif time.monotonic() >= self._next_count:
            self._next_count = time.monotonic() + COUNT_SECONDS
            with contextlib.suppress(StoreError):
                self._waiting = {stream: self._behind(stream) for stream in self.sink.streams}

    def _behind(self, stream: Stream) -> Waiting:
        box, at, of = self._store.box, self._positions[stream].id, self.sink.station
        return self._store.ask(lambda connection: outbox.waiting(connection, box, stream, at, of))

    def _save(self) -> None:
        """Remember how far the sink has been told, at most once a second."""
        if self._positions == self._saved or time.monotonic() < self._next_save:
            return
        self._next_save = time.monotonic() + SAVE_SECONDS
        name, at = self._name, dict(self._positions)

        def save(connection: Connection) -> None:
            for stream, position in at.items():
                outbox.save(connection, name, stream, position)

        try:
            self._store.write(save).result(SAVED_WITHIN)
        except (StoreError, TimeoutError) as error:
            if not self._is_behind:  # said once
                LOG.warning("%s: its position is not stored yet: %s", name, error)
            self._is_behind = True
        else:
            self._saved, self._is_behind = at, False
