"""Time as the line stores it: integer microseconds UTC since 1970."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Returns microseconds UTC. Functions that need the time take one, so that tests can set it."""

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def now_us() -> int:
    """Microseconds UTC since 1970. The system clock may be set back; ids order parts, times do not."""
    return time.time_ns() // 1000


def utc(t: int) -> str:
    """ISO 8601 of microseconds UTC; the script of each page turns it into local time."""
    return datetime.fromtimestamp(t / SECOND, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class JumpWatch:
    """Notices when the clock was set, by comparison with one that only goes forward. Any thread may ask."""

    LEAST = 5 * SECOND
    """Smallest jump that is reported."""

    def __init__(self, clock: Clock, steady: Clock = lambda: time.monotonic_ns() // 1000) -> None:
        self._clock, self._steady, self._lock = clock, steady, threading.Lock()
        self._offset = clock() - steady()

    def jump(self) -> int:
        """Microseconds by which the clock was set since the last question; 0 below `LEAST`."""
        with self._lock:
            offset = self._clock() - self._steady()
            moved = offset - self._offset
            if abs(moved) < self.LEAST:
                return 0
            self._offset = offset
            return moved


class SetBackWatch:
    """Notices that the clock was set back, in one step or in several: what was to end at a stored time would end later."""

    def __init__(self, clock: Clock, latest: int) -> None:
        """`latest`: a time that has already been, e.g. before a restart."""
        self._clock, self._latest, self._lock = clock, max(latest, clock()), threading.Lock()

    def back(self) -> int:
        """Microseconds by which the clock was set back since the last question, which is asked about once a second."""
        with self._lock:
            now = self._clock()
            back = self._latest - now
            if 0 < back < JumpWatch.LEAST:
                return 0
            self._latest = now
            return max(0, back)
