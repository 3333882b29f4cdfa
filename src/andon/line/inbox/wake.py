"""Changes in a folder wake its poller early. Never relied on: network shares report none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

LOG = logging.getLogger(__name__)
NEWS = [FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileClosedEvent]
"""Reading a file is no news."""


class Waker(FileSystemEventHandler):
    """Calls `wake` for changes in a folder, from a thread of its own."""

    def __init__(self, folder: Path, wake: Callable[[], object]) -> None:
        self._folder, self._wake = folder, wake
        self._observer = Observer()
        self._watched: tuple[int, int] | None = None

    def watch(self) -> None:
        """Watch the folder, again where it was replaced. Raises `OSError` where it is not there."""
        stat = self._folder.stat()
        if self._watched == (stat.st_dev, stat.st_ino):
            return
        self._watched = (stat.st_dev, stat.st_ino)
        try:
            self._observer.unschedule_all()
            self._observer.schedule(self, str(self._folder), event_filter=NEWS)
            if not self._observer.is_alive():
                self._observer.start()
        except (OSError, RuntimeError) as error:  # e.g. too many watches
            LOG.warning("%s is only polled (%s)", self._folder, error)

    def stop(self) -> None:
        """End the thread."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog."""
        self._wake()
