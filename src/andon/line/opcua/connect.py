"""The OPC UA server of a line, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from andon.core.errors import ConfigError
from andon.line.addresses import is_loopback
from andon.line.follower import Follower
from andon.line.opcua.server import Access, OpcUaServer
from andon.line.plc.connect import Hooks
from andon.line.plc.unit import Shoot

if TYPE_CHECKING:
    from andon.line.line import Line

CLIENT, REASON = "opcua", "asked for by a client of OPC UA"
"""Who acts and why, in the audit."""


def followers(line: Line, shoots: Mapping[str, Shoot]) -> list[Follower]:
    """The server; empty where the settings have no `[opcua]`. `shoots`: what takes an image on request, by station.

    Raises `ConfigError` where asyncua is not installed.
    """
    settings = line.settings.opcua
    if settings is None:
        return []
    if find_spec("asyncua") is None:
        raise ConfigError("[opcua] needs asyncua, which is not installed: pip install 'andon[opcua]'")

    def access() -> Access:
        """Without encryption only for programs of this computer, as long as nobody has to log in."""
        local = is_loopback(settings.host) and not line.accounts.are_required
        return Access(unencrypted=settings.unencrypted or local, calls=not settings.unencrypted)

    hooks = Hooks(line, CLIENT, REASON)
    folder = line.settings.data / "opcua"
    return [OpcUaServer(settings, folder, line.stations, hooks, line.alarms, access, shoots)]
