"""Numbers of one station for its page: counts of the shift, parts of the last minute, the last parts."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from andon.line.clock import SECOND
from andon.line.verdicts import Verdict

SHIFTS = (6, 14, 22)
"""Hours at which shifts begin, local time."""
STRIP = 20
"""Last parts that are remembered."""
KEPT_SHIFTS = 4
"""Shifts whose counts are remembered: the clock may be set forth and back."""
MINUTE_SECONDS = 60.0


class Done(Protocol):
    """A judged part."""

    @property
    def id(self) -> int: ...
    @property
    def t_done(self) -> int: ...
    @property
    def verdict(self) -> Verdict: ...


class Tally:
    """Counts parts as they come. Any thread may add and read."""

    def __init__(
        self,
        counts: Mapping[Verdict, int],
        last: Iterable[Done],
        now: int,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`counts` of the shift and the `last` parts, oldest first, as stored before; `steady`: seconds."""
        self._lock, self._steady = threading.Lock(), steady
        self._counts = {shift_begin(now): Counter(counts)}
        self._strip: deque[tuple[int, Verdict]] = deque(maxlen=STRIP)
        self._times: deque[float] = deque()
        self.last_done: int | None = None
        """When the last part was done, microseconds UTC."""
        for part in last:
            self._remember(part, steady() - max(0.0, (now - part.t_done) / SECOND))

    def add(self, part: Done) -> None:
        """Count a part."""
        with self._lock:
            self._of_shift(part.t_done)[part.verdict] += 1
            self._remember(part, self._steady())

    def counts(self, now: int) -> tuple[int, dict[Verdict, int]]:
        """Start of the shift, and the parts of each verdict since then."""
        with self._lock:
            return shift_begin(now), dict(self._of_shift(now))

    def per_minute(self) -> int:
        """Parts of the last minute, however the clock was set."""
        with self._lock:
            while self._times and self._times[0] < self._steady() - MINUTE_SECONDS:
                self._times.popleft()
            return len(self._times)

    def strip(self) -> tuple[tuple[int, Verdict], ...]:
        """Id and verdict of the last parts, oldest first."""
        with self._lock:
            return tuple(self._strip)

    def _remember(self, part: Done, at: float) -> None:
        self._strip.append((part.id, part.verdict))
        self._times.append(at)
        self.last_done = part.t_done

    def _of_shift(self, t: int) -> Counter[Verdict]:
        """Counts of the shift at a time; those of the shift that was used the longest ago go."""
        begin = shift_begin(t)
        counts = self._counts[begin] = self._counts.pop(begin, Counter())
        while len(self._counts) > KEPT_SHIFTS:
            del self._counts[next(iter(self._counts))]
        return counts


def shift_begin(now: int) -> int:
    """Start of the shift at a time, both microseconds UTC. A night in which clocks are set is an hour longer or shorter."""
    local = time.localtime(now // SECOND)
    today = [hour for hour in SHIFTS if hour <= local.tm_hour]
    hour, day = (today[-1], local.tm_mday) if today else (SHIFTS[-1], local.tm_mday - 1)
    return round(time.mktime((local.tm_year, local.tm_mon, day, hour, 0, 0, 0, 0, -1))) * SECOND
