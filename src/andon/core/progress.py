"""Progress on stderr: a bar with the remaining time on a terminal, elsewhere a line every `LINE_EVERY` seconds.

Rich is imported here. Nothing is shown for work that ends within `QUIET_FOR` seconds.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from andon.core.text import printable

T = TypeVar("T")

LINE_EVERY = 10.0
"""Seconds between two lines where stderr is not a terminal."""
QUIET_FOR = 2.0
"""Seconds before anything is shown."""


class Task(Protocol):
    """Work in progress."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Report `amount` further units as done, with a short note such as the loss."""


class Progress(Protocol):
    """Shows the progress of tasks."""

    def task(self, description: str, total: int, *, done: int = 0) -> contextlib.AbstractContextManager[Task]:
        """Show work of `total` units, `done` of them finished before, while the block runs."""


class _Silent:
    def advance(self, amount: int = 1, note: str = "") -> None:
        pass


class NoProgress:
    """Shows nothing."""

    @contextlib.contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator[Task]:
        yield _Silent()


class _Line:
    """A task that prints a line every `LINE_EVERY` seconds."""

    def __init__(self, description: str, total: int, done: int) -> None:
        self.description, self.total, self.done, self.start = description, total, done, done
        self.began = self.printed = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.printed >= LINE_EVERY:
            self.printed = now
            print(printable(f"{self.description}: {self._state(now)} {note}".rstrip()), file=sys.stderr)

    def _state(self, now: float) -> str:
        rate = (self.done - self.start) / (now - self.began)
        if self.total <= 0 or rate <= 0:  # the total is unknown, or nothing is done yet
            return str(self.done)
        return f"{self.done}/{self.total}, about {(self.total - self.done) / rate:.0f} s left"


class LineProgress:
    """Progress for logs."""

    @contextlib.contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator[Task]:
        line = _Line(description, total, done)
        yield line
        seconds = time.monotonic() - line.began
        if seconds >= QUIET_FOR:
            print(f"{printable(description)}: done in {seconds:.0f} s", file=sys.stderr)


class BarProgress:
    """Progress bars with remaining time on a terminal, from `QUIET_FOR` seconds on."""

    @contextlib.contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator[Task]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        bars = RichProgress(*columns, console=Console(stderr=True, markup=False, emoji=False))
        handle = bars.add_task(printable(description), total=total or None, completed=done, note="")
        began = time.monotonic()

        class Bar:
            def advance(self, amount: int = 1, note: str = "") -> None:
                bars.update(handle, advance=amount, note=printable(note))
                if not bars.live.is_started and time.monotonic() - began >= QUIET_FOR:
                    bars.start()

        try:
            yield Bar()
        finally:
            if bars.live.is_started:
                bars.stop()


def default_progress() -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def track(progress: Progress, items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Yield `items` and show how many of `total` are done."""
    with progress.task(description, total) as task:
        for item in items:
            yield item
            task.advance()
