"""The Modbus server of a line, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from andon.core.errors import ConfigError
from andon.line.clock import Clock
from andon.line.follower import Follower
from andon.line.models import Models
from andon.line.plc.unit import Shoot, Unit
from andon.line.settings import LineSettings
from andon.line.station import Station
from andon.line.store import Store
from andon.line.store.audit import Entry


def followers(
    settings: LineSettings,
    stations: Mapping[str, Station],
    store: Store,
    shoot: Mapping[str, Shoot],
    clock: Clock,
    models: Models,
) -> list[Follower]:
    """The server for all stations with a PLC; empty where there is none. `shoot`: what takes the images, by station.

    Raises `ConfigError` where pymodbus is not installed.
    """

    def stop_seen(station: str) -> None:
        store.audit(Entry("plc", "stands", f"station {station}"))

    def set_recipe(station: Station, code: str) -> None:
        models.set_recipe(station, code, who="plc", why="asked for by the PLC")

    units = [
        Unit(
            stations[each.name],
            each.plc,
            shoot=shoot.get(each.name),
            set_recipe=set_recipe,
            stop_seen=stop_seen,
            clock=clock,
        )
        for each in settings.stations
        if each.plc is not None
    ]
    if not units:
        return []
    if find_spec("pymodbus") is None:
        raise ConfigError("a PLC needs pymodbus, which is not installed: pip install 'andon[modbus]'")
    from andon.line.plc.server import PlcServer

    return [PlcServer(settings.modbus, units)]
