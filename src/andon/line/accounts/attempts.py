"""Limit on attempts to log in: waiting times that grow for a name and for an address."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from andon.line.clock import MINUTE, SECOND, Clock

FREE_OF_NAME, FREE_OF_ADDRESS = 5, 20
"""Failures without a wait."""
FIRST_WAIT, LONGEST_WAIT = 30 * SECOND, 15 * MINUTE
"""The wait doubles with each failure."""
FORGET = 60 * MINUTE
"""A key without an attempt for this time begins again."""
MOST_KEYS = 10_000
"""Names and addresses that are remembered; the oldest go."""


@dataclass(slots=True)
class _Tries:
    failures: int = 0
    last: int = 0
    until: int = 0


class Attempts:
    """Counts attempts by name and by address. Any thread may ask."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._tries: dict[tuple[str, str], _Tries] = {}

    def begin(self, name: str, address: str) -> int:
        """Count an attempt as failed until `succeeded`. Returns seconds to wait where it is not allowed now, otherwise 0."""
        with self._lock:
            now = self._clock()
            kept = [self._of("name", name, now), self._of("address", address, now)]
            until = max(tries.until for tries in kept)
            if until > now:
                return -(-(until - now) // SECOND)
            for tries, free in zip(kept, (FREE_OF_NAME, FREE_OF_ADDRESS), strict=True):
                tries.failures += 1
                tries.last = now
                if (over := tries.failures - free) >= 0:
                    tries.until = now + min(FIRST_WAIT << min(over, 10), LONGEST_WAIT)
            return 0

    def succeeded(self, name: str, address: str) -> None:
        """The attempt that began was right."""
        with self._lock:
            self._tries.pop(("name", name), None)
            tries = self._tries.get(("address", address))
            if tries is not None:  # others may try names from the same address
                tries.failures, tries.until = max(0, tries.failures - 1), 0

    def _of(self, kind: str, key: str, now: int) -> _Tries:
        tries = self._tries.pop((kind, key), None)
        if tries is None or abs(now - tries.last) > FORGET:
            tries = _Tries(last=now)
        while len(self._tries) >= MOST_KEYS:
            del self._tries[next(iter(self._tries))]
        self._tries[kind, key] = tries
        return tries
