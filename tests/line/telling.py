"""A sink that notes what it is told and fails when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from andon.line.outbox.reports import Report, Undelivered
from andon.line.store.outbox import Stream


class FakeSink:
    name = "fake"
    batch = 20

    def __init__(self, station: str | None = None) -> None:
        self.station, self.streams = station, tuple(Stream)
        self.told: list[Report] = []
        self.fails: Undelivered | None = None
        self.most = 1000
        """Reports it takes before it fails."""
        self.closed = False

    def refresh(self) -> None:
        """Nothing."""

    def deliver(self, reports: Sequence[Report], ending: threading.Event) -> Iterator[Report]:
        for report in reports:
            if self.fails is not None and len(self.told) >= self.most:
                raise self.fails
            self.told.append(report)
            yield report

    def close(self) -> None:
        self.closed = True

    def ids(self, stream: Stream = Stream.RESULT) -> list[int]:
        return [report.id for report in self.told if report.stream is stream]

    def seqs(self) -> list[int]:
        return [report.seq for report in self.told if report.stream is Stream.RESULT]
