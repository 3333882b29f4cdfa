"""Time as the line stores it: integer microseconds UTC since 1970."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns microseconds UTC. Functions that need the time take one, so that tests can set it."""

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def now_us() -> int:
    """Microseconds UTC since 1970. The system clock may be set back; ids order parts, times do not."""
    return time.time_ns() // 1000
