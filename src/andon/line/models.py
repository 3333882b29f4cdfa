"""Which packed file judges at each station: choices of people that outlive restarts, and models that stay open for the next one.

The newest choice is in use, until the settings file names another model. A recipe is a packed file with a code
(`[stations.NAME.recipes]`); its thresholds are those of its model, or the newest version that was stored for it.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from andon.core.errors import AndonError, DataError, UsageError
from andon.line import versions
from andon.line.faults import Fault
from andon.line.judge import Judging, Thresholds
from andon.line.parts import InUse
from andon.line.settings import StationSettings
from andon.line.station import Station
from andon.line.store import Connection, Store, rows
from andon.line.store.audit import Entry, append
from andon.line.versions import BY_FILE, station_id

LOG = logging.getLogger(__name__)
T = TypeVar("T")


class OpenJudge(Protocol):
    """Opens a packed model with a number of threads."""

    def __call__(self, pack: Path, *, threads: int) -> Judging: ...


class UnknownRecipe(UsageError):  # noqa: N818 (names what happened)
    """A code that the settings of the station do not have."""


class Key(NamedTuple):
    """A packed file of a station as it was read; a file that was replaced has another key."""

    station: str
    pack: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, station: str, pack: Path) -> Key:
        """The file as it is now; of size 0 where it is not there."""
        try:
            stat = pack.stat()
        except OSError:
            return cls(station, pack, 0, 0)
        return cls(station, pack, stat.st_size, stat.st_mtime_ns)


class Shelf:
    """Verified models that no station uses, up to `most` bytes of their files; beyond, the least recently used are closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Judging] = OrderedDict()

    def take(self, key: Key) -> Judging | None:
        """The model, which leaves the shelf; None where it is not there."""
        return self._kept.pop(key, None)

    def put(self, key: Key, judge: Judging) -> None:
        """Keep a model."""
        self._kept[key] = judge
        while sum(key.size for key in self._kept) > self._most:
            self._kept.popitem(last=False)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept


class Models:
    """Opens and changes the models of stations. Any thread may change them."""

    def __init__(self, store: Store, open_judge: Callable[[Path], Judging], memory_mb: int) -> None:
        """`memory_mb`: MB (10^6 bytes) of packed files that stay open while other recipes are in use."""
        self._store, self._open, self._shelf = store, open_judge, Shelf(memory_mb * 10**6)
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        """Held while a change is asked for and stored, so that the newest row is the newest change."""
        self._keys: dict[str, Key] = {}
        """Of the model in use."""
        self._requests: dict[str, int] = {}
        """Number of the newest recipe that was asked for, by station."""

    def at_start(self, settings: StationSettings) -> InUse:
        """What a station uses after a start. Raises `DataError` and `ConfigError` for a file that cannot be opened."""
        code, pack = _chosen(self._store, settings)
        try:
            key, judge = Key.of(settings.name, pack), self._open(pack)
        except AndonError as error:
            if pack == settings.model:
                raise
            raise DataError(
                f"station {settings.name} was told to use {pack} ({error}): bring it back, or name another model in the settings"
            ) from None
        self._keys[settings.name] = key
        wanted = settings.thresholds if code is None else None
        return InUse(judge, versions.at_start(self._store, settings.name, judge, wanted), code)

    def pack(self, station: str) -> Path:
        """Packed file of the model in use."""
        with self._lock:
            return self._keys[station].pack

    def set_model(
        self,
        station: Station,
        pack: Path,
        *,
        who: str,
        why: str,
        check: Callable[[Judging, Thresholds], T],
        also: Callable[[Connection], object] | None = None,
    ) -> T:
        """Judge by another packed model from the next part on. Returns what `check` says of it.

        `also` writes what is committed with the choice.
        Raises `AndonError` where it cannot be opened or fails its self-check, and what `check` raises: the model before
        stays then.
        """
        key, judge = Key.of(station.name, pack), self._open(pack)
        judge.self_check()
        wanted = station.settings.thresholds
        thresholds = versions.at_start(self._store, station.name, judge, wanted)
        found = check(judge, thresholds)
        old = {"name": station.model.name, "sha256": station.model.sha256}
        entry = Entry(
            who,
            "model",
            f"station {station.name}",
            old=old,
            new={"name": judge.name, "sha256": judge.sha256},
            reason=why,
        )
        with self._asking:
            _choose(self._store, station.name, None, pack, entry, also=also)
            self._use(station, key, InUse(judge, thresholds))
        return found

    def set_recipe(self, station: Station, code: str, *, who: str, why: str) -> None:
        """Judge by another recipe. From now on no part is judged by the recipe before.

        A model that is open is used at once. Another is opened and verified first; the station is not ready until then, nor
        where that fails. Raises `UnknownRecipe`; `StoreError` where the choice is not stored: the station is not ready then.
        """
        pack = station.settings.recipes.get(code)
        if pack is None:
            known = ", ".join(station.settings.recipes) or "none in its settings"
            raise UnknownRecipe(f"station {station.name} has no recipe {code!r}: there are {known}")
        if not who.strip():
            raise UsageError(
                f"another recipe of station {station.name} needs a person or program: give a name"
            )
        key = Key.of(station.name, pack)
        with self._asking:
            if (number := self._ask(station, code, key)) is None:
                return
            old, new = {"recipe": station.recipe}, {"recipe": code, "model": str(pack)}
            entry = Entry(who, "recipe", f"station {station.name}", old=old, new=new, reason=why)
            try:
                _choose(self._store, station.name, code, pack, entry)
            except AndonError:
                station.set_fault(Fault.MODEL, f"recipe {code} was not stored: ask for it again")
                raise
        if self._is_open(station, key):
            self._prepare(station, code, key, number)
        else:
            name, values = f"andon-{station.name}-recipe", (station, code, key, number)
            threading.Thread(target=self._prepare, args=values, name=name, daemon=True).start()

    def _ask(self, station: Station, code: str, key: Key) -> int | None:
        """Pause a station for a recipe and return the number of the request; None where the recipe is in use."""
        with self._lock:
            if station.recipe == code and station.is_verified and self._keys[station.name] == key:
                return None
            number = self._requests[station.name] = self._requests.get(station.name, 0) + 1
            station.pause(f"recipe {code} is being prepared")
            return number

    def _is_open(self, station: Station, key: Key) -> bool:
        with self._lock:
            return key in self._shelf or (self._keys[station.name] == key and station.has_passed)

    def _prepare(self, station: Station, code: str, key: Key, number: int) -> None:
        """Open and verify a model where it is not open, and use it unless another recipe was asked for meanwhile."""
        try:
            judge = self._opened(station, key)
            thresholds = versions.at_start(self._store, station.name, judge, None)
        except Exception as error:
            LOG.error("station %s: recipe %s cannot be used: %s", station.name, code, error)
            with self._lock:
                if self._requests[station.name] == number:
                    station.set_fault(Fault.MODEL, f"recipe {code} cannot be used: {error}")
            return
        with self._lock:
            if self._requests[station.name] == number:
                self._use_locked(station, key, InUse(judge, thresholds, code))
            elif judge is not station.model:
                self._shelf.put(key, judge)

    def _opened(self, station: Station, key: Key) -> Judging:
        """A verified model."""
        with self._lock:
            if self._keys[station.name] == key and station.has_passed:
                return station.model
            judge = self._shelf.take(key)
        if judge is None:
            judge = self._open(key.pack)
            judge.self_check()
        return judge

    def _use(self, station: Station, key: Key, chosen: InUse) -> None:
        with self._lock:
            self._requests[station.name] = self._requests.get(station.name, 0) + 1
            self._use_locked(station, key, chosen)

    def _use_locked(self, station: Station, key: Key, chosen: InUse) -> None:
        before, has_passed = station.model, station.has_passed
        station.use(chosen)
        if has_passed and before is not chosen.judge:
            self._shelf.put(self._keys[station.name], before)
        self._keys[station.name] = key


def _chosen(store: Store, settings: StationSettings) -> tuple[str | None, Path]:
    """Code of the recipe and packed file of a station after a start; a choice of the settings file where it was changed."""
    name, of_settings = settings.name, settings.model.absolute()
    newest, of_file = store.ask(
        lambda connection: (_newest(connection, name), _newest(connection, name, who=BY_FILE))
    )
    if newest is None or of_file is None or Path(of_file["pack"]) != of_settings:
        why = "the settings file names this model"
    elif newest["who"] == BY_FILE:
        return None, settings.model
    elif newest["code"] is None:
        return None, Path(newest["pack"])
    elif newest["code"] in settings.recipes:
        return newest["code"], settings.recipes[newest["code"]]
    else:
        why = f"the settings file has no recipe {newest['code']} any more"
    old = None if newest is None else {"recipe": newest["code"], "model": newest["pack"]}
    entry = Entry(BY_FILE, "model", f"station {name}", old=old, new=str(of_settings), reason=why)
    _choose(store, name, None, of_settings, entry, is_first=newest is None)
    return None, settings.model


def _newest(connection: Connection, station: str, **equal: Any) -> dict[str, Any] | None:
    found = rows.find(
        connection, "model_choice", station_id=station_id(connection, station), limit=1, **equal
    )
    return found[0] if found else None


def _choose(
    store: Store,
    station: str,
    code: str | None,
    pack: Path,
    entry: Entry,
    *,
    is_first: bool = False,
    also: Callable[[Connection], object] | None = None,
) -> None:
    """Commit what a station uses from now on, with its row in the audit unless it is the first choice, which changes nothing."""

    def write(connection: Connection) -> None:
        at, number = store.clock(), station_id(connection, station)
        values = {"pack": str(pack.absolute()), "why": entry.reason, "who": entry.who, "at": at}
        rows.add(connection, "model_choice", station_id=number, code=code, **values)
        if not is_first:
            append(connection, entry, at)
        if also is not None:
            also(connection)

    store.write(write).result()
