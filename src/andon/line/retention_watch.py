"""Applies the retention rule from time to time, and calls a person where it cannot.

Ages are differences to the clock of the computer. Once it was set forward, nothing is deleted until a person has looked at it
and released retention, also after a restart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from andon.core.errors import UsageError
from andon.core.text import plural
from andon.line.alarms import Alarms
from andon.line.clock import DAY, Clock
from andon.line.settings import RetentionSettings
from andon.line.store import Store, retention
from andon.line.store.audit import Entry

LOG = logging.getLogger(__name__)

RUN_SECONDS = 3600.0
"""Between two runs."""
LOOK_SECONDS = 1.0
"""Between two looks at the clock: before a part is stored by a wrong one."""
AHEAD = DAY
"""Step of the clock that suspends retention."""
IDLE = 7 * DAY
"""Time between the newest part and the start that suspends retention."""
STORED_WITHIN = 10.0
"""Seconds after which a release that is not stored counts as failed."""
FAILED, HELD = "retention", "retention suspended"
"""Alarms."""


def steady_us() -> int:
    """Microseconds that nobody sets; where the system has such a clock, they go on while the computer sleeps."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return (time.monotonic_ns() if kind is None else time.clock_gettime_ns(kind)) // 1000


class RetentionWatch:
    """A thread that deletes old images and rows of a line."""

    def __init__(
        self,
        store: Store,
        rule: RetentionSettings,
        stations: Iterable[str],
        alarms: Alarms,
        *,
        line: str,
        clock: Clock,
        steady: Clock = steady_us,
    ) -> None:
        """`line`: its name."""
        self._store, self._rule, self._alarms = store, rule, alarms
        self._stations, self._object = tuple(stations), f"line {line}"
        self._clock, self._steady = clock, steady
        self._lock = threading.Lock()
        self._offset = clock() - steady()
        """Of the clock; the smallest one, so that steps forward add up."""
        self.suspended = retention.suspended(store, self._object)
        """Why nothing is deleted until a person says so; empty where it is."""
        newest = retention.newest(store)
        if not self.suspended and newest is not None and clock() - newest > IDLE:
            self._suspend(f"the last part was judged {_days(clock() - newest)} before the start")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="andon-retention", daemon=True)

    def start(self) -> None:
        """Delete from now on."""
        self._thread.start()

    def end(self) -> None:
        """Begin no further run, and end the one that runs."""
        self._ending.set()

    def join(self) -> None:
        """Wait for the end."""
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Suspend retention where the clock was set forward."""
        with self._lock:
            offset = self._clock() - self._steady()
            ahead, self._offset = offset - self._offset, min(offset, self._offset)
        if ahead > AHEAD and not self.suspended:
            self._suspend(f"the clock was set forward by {_days(ahead)}")
            self._tell(HELD, self._text)

    def run(self) -> None:
        """One run. Whatever fails calls a person and is tried again by the next one."""
        now = self._clock()
        self.look()  # after the time was read that the run goes by
        if self.suspended:
            self._tell(HELD, self._text)
            return
        try:
            done = retention.run(self._store, self._rule, self._ending, now=now)
            why = f"{plural(done.failed, 'file')} cannot be deleted: {done.problem}" if done.failed else ""
        except Exception as error:
            LOG.exception("old images and rows were not deleted")
            why = f"old images and rows were not deleted ({str(error) or type(error).__name__}): see the log"
        self._tell(FAILED, why)

    def release(self, who: str, why: str) -> None:
        """A person says that the clock is right: delete again. Raises `UsageError` where nothing is suspended."""
        if not self.suspended:
            raise UsageError("retention is not suspended")
        if not why.strip():
            raise UsageError("say why: how the clock was checked")
        entry = Entry(who, retention.RELEASED, self._object, old=self.suspended, reason=why)
        self._store.audit(entry).result(STORED_WITHIN)
        with self._lock:
            self._offset = self._clock() - self._steady()
        self.suspended = ""
        self._tell(HELD, "")

    # Inside --------------------------------------------------------------------------------------------------------

    @property
    def _text(self) -> str:
        return f"no old images are deleted: {self.suspended}. Check the clock, then release it on the page /accounts"

    def _suspend(self, why: str) -> None:
        self.suspended = why
        LOG.error("no old images and rows are deleted: %s", why)
        self._store.audit(Entry("system", retention.SUSPENDED, self._object, reason=why))

    def _tell(self, alarm: str, why: str) -> None:
        for station in self._stations:
            self._alarms.condition(station, alarm, bool(why), why)

    def _run(self) -> None:
        begun = time.monotonic()
        try:
            if self.suspended:
                self._tell(HELD, self._text)
        except Exception:
            LOG.exception("the alarm of retention is missing")
        while not self._ending.wait(min(LOOK_SECONDS, RUN_SECONDS)):
            try:
                self.look()
                if time.monotonic() - begun >= RUN_SECONDS:
                    begun = time.monotonic()
                    self.run()
            except Exception:  # the alarm was not raised
                LOG.exception("the retention failed")


def _days(us: int) -> str:
    return plural(round(us / DAY), "day")
