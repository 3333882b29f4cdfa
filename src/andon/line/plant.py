"""All stations of a database, also those of other line PCs: what each says of itself, and whether it still does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from andon.line.andon_states import StationState
from andon.line.follower import Follower
from andon.line.store import Store
from andon.line.store import plant as stored
from andon.line.views import StationView

EVERY = 5
"""Seconds between two reports."""
SILENT_SECONDS = 30.0
"""A line that said nothing for longer is OFFLINE."""
OFFLINE = "OFFLINE"


@dataclass(frozen=True, slots=True)
class PlantStation:
    """One station as its line reported it last. Times are microseconds UTC."""

    name: str
    line: str
    address: str
    """Where the pages of the line are; empty where its settings do not say."""
    state: str
    """As on the page of the station, or OFFLINE where the line is silent for more than 30 seconds."""
    reason: str
    seen: int
    """Last sign of life of the line, by the clock of the database."""
    counts: dict[str, int]
    """Parts of the shift, by verdict."""
    shift_since: int
    per_minute: int
    last_stop: int | None
    """Start of the last stop."""
    last_stop_why: str


def stations(store: Store) -> list[PlantStation]:
    """All stations of the database, by line and name."""
    return [_station(each) for each in store.ask(lambda connection: stored.read(connection, store.clock))]


def _station(row: stored.StoredReport) -> PlantStation:
    report = dict(row.report)
    if row.silent_s > SILENT_SECONDS:
        report |= {"state": OFFLINE, "reason": f"was {report['state']}", "per_minute": 0}
    return PlantStation(row.station, row.line, row.address, seen=row.seen, **report)


class PlantReports(Follower):
    """Tells the database from time to time how the stations of this line do."""

    def __init__(
        self, store: Store, names: Mapping[str, object], view: Callable[[str], StationView], address: str
    ):
        self._store, self._names, self._view, self._address = store, names, view, address
        self._ticks = 0
        self._saving: Future[None] | None = None
        before = store.ask(lambda connection: stored.read(connection, store.clock))
        self._stops: dict[str, tuple[int | None, str]] = {
            row.station: (row.report["last_stop"], row.report["last_stop_why"]) for row in before
        }

    def tick(self) -> None:
        """Report, unless the database is away or the report before is still on its way."""
        self._ticks += 1
        if (
            self._ticks % EVERY == 1
            and not self._store.spooling
            and (self._saving is None or self._saving.done())
        ):
            self.report()

    def report(self) -> Future[None]:
        """Queue a report; the future resolves when it is committed."""
        reports = {name: self._report(self._view(name)) for name in self._names}
        store, address = self._store, self._address
        self._saving = store.write(
            lambda connection: stored.save(connection, store.box, address, reports, store.clock)
        )
        return self._saving

    def _report(self, view: StationView) -> dict[str, Any]:
        if view.machine is StationState.STOPPED:
            self._stops[view.name] = view.since, view.reason
        last_stop, why = self._stops.get(view.name, (None, ""))
        return {
            "state": view.state.value,
            "reason": view.reason,
            "counts": {verdict.name: n for verdict, n in view.counts.items()},
            "shift_since": view.shift_since,
            "per_minute": view.per_minute,
            "last_stop": last_stop,
            "last_stop_why": why,
        }
