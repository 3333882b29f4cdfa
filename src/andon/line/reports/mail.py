"""Mails the report of each station when a shift ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from andon.core.errors import AndonError
from andon.core.text import plural
from andon.line.clock import Clock
from andon.line.follower import Follower
from andon.line.page.render import local, report_file
from andon.line.reports import shift
from andon.line.reports.shift import ShiftReport
from andon.line.store import Store
from andon.line.store.reports import Period
from andon.line.tally import shift_begin

LOG = logging.getLogger(__name__)
AGAIN_SECONDS = 60.0
"""Between two attempts while the mail server or the database is away."""

Build = Callable[[str, int, int], ShiftReport]
"""Report of a station between two times."""


class Sends(Protocol):
    """A mail server."""

    def send(self, subject: str, text: str, html: str = "") -> None:
        """Send a mail. Raises `AndonError`."""


class ShiftMail(Follower):
    """Sends one mail for each station after each end of a shift that it sees. A thread of its own waits for the server.

    A report that cannot be sent is tried again until the next shift ends.
    """

    def __init__(self, stations: Iterable[str], build: Build, mailer: Sends, clock: Clock) -> None:
        self._stations, self._build, self._mailer, self._clock = list(stations), build, mailer, clock
        self._shift = shift_begin(clock())
        self._changed = threading.Condition()
        self._due: list[tuple[str, int, int]] = []
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="andon-shift-mail", daemon=True)

    def start(self) -> None:
        """Send from now on."""
        self._thread.start()

    def tick(self) -> None:
        """A shift may have ended."""
        begin, before = shift_begin(self._clock()), self._shift
        self._shift = begin
        if begin > before:  # an earlier one: the clock was set back
            since, until = shift.last_shift(self._clock())
            with self._changed:
                self._due = [(station, since, until) for station in self._stations]
                self._changed.notify()

    def stop(self, timeout: float) -> None:
        """End the thread; what it sends at the moment is sent to its end where `timeout` suffices."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._ending)
                if self._ending:
                    return
                due = self._due[0]
            sent = self._send(*due)
            with self._changed:
                if sent and due in self._due:
                    self._due.remove(due)
                elif not sent:
                    self._changed.wait_for(lambda: self._ending, AGAIN_SECONDS)

    def _send(self, station: str, since: int, until: int) -> bool:
        try:
            report = self._build(station, since, until)
            self._mailer.send(*report_mail(report))
        except Exception as error:
            if not isinstance(error, AndonError):
                LOG.exception("a shift report failed")
            LOG.warning("the shift report of station %s is not sent: %s", station, error)
            return False
        return True


def report_mail(report: ShiftReport) -> tuple[str, str, str]:
    """Subject, text and HTML of a mail with a report."""
    subject = f"{report.line}, station {report.station}: shift report {local(report.since)} to {local(report.until)}"
    lines = [
        plural(report.parts, "part"),
        *(f"{each.verdict}: {each.n}" for each in report.rates),
        f"{plural(report.stop_summary.stops, 'stop')}, {report.down_seconds / 60:.1f} min stopped",
        f"{sum(not each.passed for each in report.golden)} of {len(report.golden)} checks of golden parts failed",
        *(f"{local(note.at)} {note.rule}: {note.why}" for note in report.drift),
    ]
    return subject, "\n".join(lines) + "\n", report_file(report)


def follower(stations: Iterable[str], line: str, store: Store, mailer: Sends, clock: Clock) -> ShiftMail:
    """A `ShiftMail` that reads reports from the store."""

    def build(station: str, since: int, until: int) -> ShiftReport:
        def read(connection: Any) -> ShiftReport:
            return shift.read(connection, Period(station, since, until), line=line, now=clock())

        return store.ask(read, seconds=shift.REPORT_SECONDS)

    return ShiftMail(stations, build, mailer, clock)
