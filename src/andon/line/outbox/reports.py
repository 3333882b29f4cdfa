"""Reports: what is told to other machines, as plain values, and the sinks that tell it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from andon.core.errors import AndonError
from andon.line.store.outbox import AlarmNews, Stream
from andon.line.store.records import Inspection
from andon.line.views import answer


class Undelivered(AndonError):  # noqa: N818 (names what happened)
    """A report could not be told now; it is tried again later."""


class Refused(Undelivered):
    """The receiver does not take this one report, whatever the number of attempts."""


@dataclass(frozen=True, slots=True)
class Report:
    """One report. The same `stream` and `id` is the same report, also after a restart."""

    stream: Stream
    id: int
    """Of the inspection or of the change of an alarm."""
    seq: int
    """Counts the reports of a sink and stream from 1; a gap shows reports that were given up."""
    station: str
    at: int
    """Microseconds UTC."""
    data: Mapping[str, Any]
    """Plain values."""

    def to_json(self) -> dict[str, Any]:
        """`data` with `seq`."""
        return {"seq": self.seq, **self.data}


class Sink(Protocol):
    """Tells other machines. All methods are called by one thread, which belongs to the sink and may wait."""

    @property
    def name(self) -> str:
        """Unique and stable: the position of the sink is stored under it."""

    @property
    def station(self) -> str | None:
        """Reports of this station alone; None: of all."""

    @property
    def batch(self) -> int:
        """Most reports at once."""

    @property
    def streams(self) -> Sequence[Stream]:
        """What is told."""

    def refresh(self) -> None:
        """Connect where that is needed, and tell what counts now. Called each second. Raises `Undelivered`."""

    def deliver(self, reports: Sequence[Report], ending: threading.Event) -> Iterator[Report]:
        """Tell reports in order; each is yielded once the receiver has it. Raises `Undelivered`.

        May end before all are told, at `ending` or to wait; the rest is handed over again.
        """

    def close(self) -> None:
        """Say goodbye."""


def result_report(row: Inspection, seq: int) -> Report:
    """A committed inspection: the REST answer without addresses."""
    return Report(Stream.RESULT, row.id, seq, row.station, row.t_done, answer(row))


def alarm_report(news: AlarmNews, seq: int) -> Report:
    """A change of an alarm or of the stop of a station."""
    return Report(Stream.ALARM, news.id, seq, news.station, news.at, asdict(news))
