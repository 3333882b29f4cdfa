"""What connects a line to its PLCs, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from andon.core.errors import ConfigError
from andon.line.follower import Follower
from andon.line.plc.unit import Shoot, Unit
from andon.line.station import Station
from andon.line.store.audit import Entry

if TYPE_CHECKING:
    from andon.line.line import Line

PLC, REASON = "plc", "asked for by the PLC"
"""Who acts and why, in the audit."""


def followers(line: Line, shoot: Mapping[str, Shoot]) -> list[Follower]:
    """The server for PLCs that connect, the client of those that are servers. `shoot`: what takes the images, by station.

    Raises `ConfigError` where pymodbus is not installed.
    """
    units = [
        Unit(
            line.stations[each.name],
            each.plc,
            Hooks(line),
            shoot=shoot.get(each.name),
            clock=line.clock,
        )
        for each in line.settings.stations
        if each.plc is not None
    ]
    if not units:
        return []
    if find_spec("pymodbus") is None:
        raise ConfigError("a PLC needs pymodbus, which is not installed: pip install 'andon[modbus]'")
    from andon.line.plc.client import PlcClient
    from andon.line.plc.server import PlcServer

    called = [unit for unit in units if unit.settings.connect]
    calling = [unit for unit in units if not unit.settings.connect]
    found: list[Follower] = [PlcServer(line.settings.modbus, calling)] if calling else []
    return [*found, PlcClient(called)] if called else found


class Hooks:
    """What a PLC, or another machine named `who`, may ask of a line besides judging parts. May wait."""

    def __init__(self, line: Line, who: str = PLC, reason: str = REASON) -> None:
        self._line, self._who, self._reason = line, who, reason

    def set_recipe(self, station: Station, code: str) -> None:
        """Judge by another recipe, which is in use once the station is verified with it. Raises `AndonError`."""
        self._line.set_recipe(station.name, code, who=self._who, why=self._reason)

    def start_golden(self, station: Station) -> None:
        """Judge the stored images of the golden parts. Raises `AndonError`."""
        self._line.golden.run(station.name, self._who, self._reason)

    def stop_seen(self, station: Station) -> None:
        """The line stands."""
        self.audit(station, "stands")

    def audit(self, station: Station, action: str) -> None:
        """Note in the audit what was done."""
        self._line.store.audit(Entry(self._who, action, f"station {station.name}"))
