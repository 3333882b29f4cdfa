"""What happens on a line, for pages and brokers: a bounded hub that nobody can slow down.

Each event has a number. Who comes back with the last number seen gets what was missed, or is told that it is gone (`reset`).
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

KEPT = 1000
"""Events that are kept for those who come back."""
WAITING = KEPT
"""Events that wait for one subscriber; where more come it loses them and gets `reset`."""
RESET = "reset"
"""Kind of the event that says: events are missing, read the state again."""


@dataclass(frozen=True)
class Event:
    """One event."""

    id: int
    """Ascends within one start of the process; an event that is not kept has the number of the one before."""
    kind: str
    """`inspection`, `state`, `alarm`, `tick`, or `reset`."""
    data: Mapping[str, Any]
    """Plain values."""

    @cached_property
    def json(self) -> str:
        """`data` as JSON, written once for all who read it."""
        return json.dumps(self.data, allow_nan=False)


class Subscription:
    """The events of one listener, in order; also an iterator, which ends when the subscription is closed."""

    def __init__(self, hub: Events, first: list[Event], wake: Callable[[], object] | None) -> None:
        self._hub, self._wake = hub, wake
        self._waiting: deque[Event] = deque(first)
        self._news = threading.Condition()
        self._closed = False

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event; None where none came within `timeout` seconds (0: at once), or the subscription is closed."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed, timeout)
            return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Get no further events."""
        self._hub.remove(self)
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._wake is not None:
            self._wake()

    @property
    def is_closed(self) -> bool:
        """Whether no event will come any more."""
        return self._closed

    def put(self, event: Event) -> None:
        """Called by the hub; never waits."""
        with self._news:
            if len(self._waiting) >= WAITING:
                self._waiting.clear()
                event = Event(event.id, RESET, {})
            self._waiting.append(event)
            self._news.notify_all()
        if self._wake is not None:
            self._wake()

    def __iter__(self) -> Iterator[Event]:
        while (event := self.get()) is not None:
            yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Events:
    """The hub. Any thread may publish and subscribe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._subscriptions: list[Subscription] = []
        self._last = 0

    def publish(self, kind: str, data: Mapping[str, Any], *, keep: bool = True) -> Event:
        """Give an event to all who listen; never waits for them. Without `keep` who comes back does not get it."""
        with self._lock:
            self._last += keep
            event = Event(self._last, kind, data)
            if keep:
                self._kept.append(event)
            for subscription in self._subscriptions:
                subscription.put(event)
        return event

    def subscribe(
        self, last_id: int | None = None, *, wake: Callable[[], object] | None = None
    ) -> Subscription:
        """Events from now on, or from the one after `last_id`; `reset` first where some of those are gone.

        `wake` is called, in the thread that publishes, whenever something waits: it must not wait itself.
        """
        with self._lock:
            first = [] if last_id is None else self._since(last_id)
            subscription = Subscription(self, first, wake)
            self._subscriptions.append(subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget a listener."""
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in tuple(self._subscriptions):
            subscription.close()

    @property
    def listeners(self) -> int:
        """Number of subscriptions."""
        return len(self._subscriptions)

    def _since(self, last_id: int) -> list[Event]:
        if last_id == self._last:
            return []
        oldest = self._kept[0].id if self._kept else self._last + 1
        if not oldest - 1 <= last_id < self._last:  # too old, or of an earlier start
            return [Event(self._last, RESET, {})]
        return [event for event in self._kept if event.id > last_id]
