"""Applies the retention rule from time to time, and calls a person where it cannot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from andon.core.text import plural
from andon.line.alarms import Alarms
from andon.line.settings import RetentionSettings
from andon.line.store import Store, retention

LOG = logging.getLogger(__name__)

RUN_SECONDS = 3600.0
"""Between two runs."""
ALARM = "retention"


class RetentionWatch:
    """A thread that deletes old images and rows of a line."""

    def __init__(
        self, store: Store, rule: RetentionSettings, stations: Iterable[str], alarms: Alarms
    ) -> None:
        self._store, self._rule, self._alarms = store, rule, alarms
        self._stations = tuple(stations)
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

    def run(self) -> None:
        """One run. Whatever fails calls a person and is tried again by the next one."""
        try:
            done = retention.run(self._store, self._rule, self._ending)
            why = f"{plural(done.failed, 'file')} cannot be deleted: {done.problem}" if done.failed else ""
        except Exception as error:
            LOG.exception("old images and rows were not deleted")
            why = f"old images and rows were not deleted ({str(error) or type(error).__name__}): see the log"
        self._tell(why)

    # Inside --------------------------------------------------------------------------------------------------------

    def _tell(self, why: str) -> None:
        for station in self._stations:
            self._alarms.condition(station, ALARM, bool(why), why)

    def _run(self) -> None:
        while not self._ending.wait(RUN_SECONDS):
            try:
                self.run()
            except Exception:  # the alarm was not raised
                LOG.exception("the retention failed")
