"""Versions of the thresholds of a station: who set them, when and why. Rows are added, never changed.

The version in use is the newest one of the station and its model. Thresholds of the settings file become a version when they
differ from those that the file had before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from andon.core.errors import UsageError
from andon.line.judge import Judging, Thresholds
from andon.line.settings import ThresholdSettings
from andon.line.store import Connection, Store, rows
from andon.line.store.audit import Entry, append

Also = Callable[[Connection, int], None]
"""Writes what belongs to a new version, whose id it gets."""

IN_USE = ""
"""Code of the recipe rows that say which thresholds a station uses."""
PACKED = 0
"""Number of the thresholds of the packed file, which are no stored version."""
BY_FILE = "settings file"
"""Who sets the thresholds of the settings file."""


class Stale(UsageError):  # noqa: N818 (names what happened)
    """A change begins from what is no longer in use."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the thresholds of a station."""

    id: int
    accept: float
    reject: float
    why: str
    who: str
    at: int
    """Microseconds UTC."""
    prev_id: int | None
    """The version before."""

    @property
    def thresholds(self) -> Thresholds:
        """As a station uses them."""
        return Thresholds(self.accept, self.reject, self.id)


def versions(store: Store, station: str, model_sha256: str) -> list[Version]:
    """All versions of a station and a model, newest first."""
    return store.ask(lambda connection: _versions(connection, station, model_sha256))


def add_version(
    store: Store,
    station: str,
    judge: Judging,
    accept: float,
    reject: float,
    *,
    who: str,
    why: str,
    also: Also | None = None,
) -> Version:
    """A new version, committed with its row in the audit and with what `also` writes.

    Raises as `check_change`.
    """
    check_change(station, accept, reject, who=who, why=why)

    def write(connection: Connection) -> Version:
        before = next(iter(_versions(connection, station, judge.sha256)), None)
        number, model = station_id(connection, station), model_id(connection, judge, store.clock())
        at, prev_id = store.clock(), None if before is None else before.id
        values = {"accept": accept, "reject": reject, "why": why, "who": who, "at": at, "prev_id": prev_id}
        id = rows.add(connection, "threshold_version", model_id=model, **values)
        rows.add(
            connection,
            "recipe",
            station_id=number,
            code=IN_USE,
            model_id=model,
            threshold_version_id=id,
            active_from=at,
            who=who,
        )
        old = None if before is None else {"accept": before.accept, "reject": before.reject}
        new = {"accept": accept, "reject": reject, "version": id}
        append(
            connection,
            Entry(who, "threshold", f"station {station}", old=old, new=new, reason=why),
            at,
        )
        if also is not None:
            also(connection, id)
        return Version(id, accept, reject, why, who, at, prev_id)

    return store.write(write).result()


def check_change(station: str, accept: float, reject: float, *, who: str, why: str) -> None:
    """Raises `UsageError` without name or reason, `ConfigError` for thresholds in the wrong order or without a finite value."""
    if not who.strip() or not why.strip():
        raise UsageError(f"new thresholds of station {station} need a name and a reason: give both")
    ThresholdSettings.parse({"accept": accept, "reject": reject}, where=f"station {station}")


def check_base(now: Thresholds, based_on: int | None) -> None:
    """Raises `Stale` where other thresholds than version `based_on` (0: those of the packed file) are in use; None: any."""
    if based_on not in (None, now.version or PACKED):
        raise Stale(f"version {now.version or PACKED} of the thresholds is in use: look at it first")


def at_start(store: Store, station: str, judge: Judging, wanted: ThresholdSettings | None) -> Thresholds:
    """Thresholds of a station with a model: the newest version, otherwise those of the packed model, which is stored.

    `wanted`: those of the settings file, which become a version where they were changed.
    """
    store.write(lambda connection: model_id(connection, judge, store.clock())).result()
    found = versions(store, station, judge.sha256)
    if wanted is not None:
        of_file = next((version for version in found if version.who == BY_FILE), None)
        if of_file is None or (of_file.accept, of_file.reject) != (wanted.accept, wanted.reject):
            why = "the settings file has these thresholds"
            added = add_version(store, station, judge, wanted.accept, wanted.reject, who=BY_FILE, why=why)
            return added.thresholds
    return found[0].thresholds if found else judge.thresholds


def _versions(connection: Connection, station: str, model_sha256: str) -> list[Version]:
    models = rows.find(connection, "model", sha256=model_sha256, limit=1)
    stations = rows.find(connection, "station", name=station, limit=1)
    if not models or not stations:
        return []
    used = rows.find(
        connection, "recipe", station_id=stations[0]["id"], code=IN_USE, model_id=models[0]["id"]
    )
    found = [
        rows.find(connection, "threshold_version", id=row["threshold_version_id"], limit=1)[0] for row in used
    ]
    names = ("id", "accept", "reject", "why", "who", "at", "prev_id")
    return [Version(**{name: row[name] for name in names}) for row in found]


def station_id(connection: Connection, name: str) -> int:
    """Id of a station, whose row is there since the start."""
    return int(rows.find(connection, "station", name=name, limit=1)[0]["id"])


def model_id(connection: Connection, judge: Judging, now: int) -> int:
    """Id of a packed model, which is added where it is new."""
    return rows.ensure(connection, "model", {"sha256": judge.sha256}, name=judge.name, created=now)
