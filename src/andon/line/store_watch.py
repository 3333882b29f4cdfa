"""Whether rows and images can be written: the faults and alarms of stations about store and disk."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

from andon.line.alarms import Alarms
from andon.line.faults import Fault
from andon.line.station import Station
from andon.line.store import DiskLevel, Store

DISK_TICKS = 10
"""Ticks between two looks at the disk."""


class StoreWatch:
    """Looks at the store of a line each second. Waits for nothing."""

    def __init__(self, store: Store, stations: Mapping[str, Station], alarms: Alarms) -> None:
        self._store, self._stations, self._alarms = store, stations, alarms
        self._probe: Future[None] | None = None
        self._ticks = 0

    def tick(self) -> None:
        """A second has passed."""
        self.look_at_store()
        if self._ticks % DISK_TICKS == 0:
            self.look_at_disk()
        self._ticks += 1

    def look_at_store(self) -> None:
        """Try to write where a row was not written; a station is ready again once that is committed."""
        lost = [station for station in self._stations.values() if Fault.STORE in station.faults]
        if not lost or (self._probe is not None and not self._probe.done()):
            return

        def tell(done: Future[None]) -> None:
            if done.exception() is None:
                for station in lost:
                    station.set_fault(Fault.STORE, None)

        self._probe = self._store.probe()
        self._probe.add_done_callback(tell)

    def look_at_disk(self) -> None:
        """Call a person before the disk is full, and show when it is."""
        level = self._store.disk()
        why = level.says
        for name, station in self._stations.items():
            self._alarms.condition(name, Fault.DISK, bool(why), why)
            station.set_fault(Fault.DISK, why if level is DiskLevel.FULL else None)
