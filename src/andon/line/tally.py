"""Numbers of one station for its page: counts of the shift, parts of the last minute, the last parts."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from andon.line.clock import MINUTE, SECOND
from andon.line.verdicts import Verdict

SHIFTS = (6, 14, 22)
"""Hours at which shifts begin, local time."""
STRIP = 20
"""Last parts that are remembered."""


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

    def __init__(self, counts: Mapping[Verdict, int], last: Iterable[Done], now: int) -> None:
        """`counts` of the shift and the `last` parts, oldest first, as stored before."""
        self._lock = threading.Lock()
        self._shift = shift_begin(now)
        self._counts = Counter(counts)
        self._strip: deque[tuple[int, Verdict]] = deque(maxlen=STRIP)
        self._times: deque[int] = deque()
        self.last_done: int | None = None
        """When the last part was done, microseconds UTC."""
        for part in last:
            self._remember(part)

    def add(self, part: Done) -> None:
        """Count a part."""
        with self._lock:
            self._turn(part.t_done)
            self._counts[part.verdict] += 1
            self._remember(part)

    def counts(self, now: int) -> tuple[int, dict[Verdict, int]]:
        """Start of the shift, and the parts of each verdict since then."""
        with self._lock:
            self._turn(now)
            return self._shift, dict(self._counts)

    def per_minute(self, now: int) -> int:
        """Parts of the last minute."""
        with self._lock:
            while self._times and self._times[0] < now - MINUTE:
                self._times.popleft()
            return len(self._times)

    def strip(self) -> tuple[tuple[int, Verdict], ...]:
        """Id and verdict of the last parts, oldest first."""
        with self._lock:
            return tuple(self._strip)

    def _remember(self, part: Done) -> None:
        self._strip.append((part.id, part.verdict))
        self._times.append(part.t_done)
        self.last_done = part.t_done

    def _turn(self, now: int) -> None:
        begin = shift_begin(now)
        if begin > self._shift:
            self._shift = begin
            self._counts.clear()


def shift_begin(now: int) -> int:
    """Start of the shift at a time, both microseconds UTC. A night in which clocks are set is an hour longer or shorter."""
    local = time.localtime(now // SECOND)
    today = [hour for hour in SHIFTS if hour <= local.tm_hour]
    hour, day = (today[-1], local.tm_mday) if today else (SHIFTS[-1], local.tm_mday - 1)
    return round(time.mktime((local.tm_year, local.tm_mon, day, hour, 0, 0, 0, 0, -1))) * SECOND
