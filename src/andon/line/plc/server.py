"""Modbus TCP server of a line: one port, one unit for each station with a PLC that connects, one thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from andon.core.errors import UsageError
from andon.line.plc.link import PlcLink
from andon.line.plc.registers import COMMAND_WORDS, RESULT_WORDS
from andon.line.plc.settings import ModbusSettings
from andon.line.plc.unit import Unit

LOG = logging.getLogger(__name__)

BITS = 16
"""Coils and discrete inputs of a unit, one register of each."""
WRITE_BITS, READ_COILS, READ_INPUTS, READ_RESULTS = (5, 15), 1, 2, 4
"""Function codes; all others of pymodbus concern holding registers."""


class PlcServer(PlcLink):
    """Listens for PLCs."""

    def __init__(self, settings: ModbusSettings, units: Sequence[Unit]) -> None:
        super().__init__(units)
        self._host, self._port = settings.host, settings.port
        self._server: Any = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        found: int = self._server.transport.sockets[0].getsockname()[1]
        return found

    async def _open(self) -> None:
        server = ModbusTcpServer(
            [_device(unit) for unit in self._units.values()], address=(self._host, self._port)
        )
        if not await server.listen():
            raise UsageError(
                f"[modbus] {self._host} port {self._port} cannot be used: choose another port (below 1024 needs rights) "
                "or host"
            )
        self._server = server
        LOG.info("Modbus TCP on %s port %d", self._host, self.port)

    async def _close(self) -> None:
        if self._server is not None:
            await self._server.shutdown()


def _device(unit: Unit) -> SimDevice:
    """Memory of one unit; its blocks are filled when they are read."""
    base = unit.settings.base
    bits = [SimData(base // BITS, values=[False] * BITS, datatype=DataType.BITS)]
    commands = [SimData(base, count=COMMAND_WORDS, datatype=DataType.REGISTERS)]
    results = [SimData(base, count=RESULT_WORDS, datatype=DataType.REGISTERS)]
    return SimDevice(
        unit.settings.unit, simdata=(bits, list(bits), commands, results), action=partial(_access, unit)
    )


async def _access(
    unit: Unit,
    function: int,
    _start: int,
    address: int,
    _count: int,
    registers: list[int],
    values: list[int] | list[bool] | None,
) -> ExcCodes | None:
    """A request: what was written goes to the unit, what is read comes from it. Without a pause, so that blocks stay whole."""
    offset = address - unit.settings.base
    if values is not None and function in WRITE_BITS:
        unit.write_bits(offset, [bool(value) for value in values])
    elif values is not None:
        unit.write(offset, [int(value) for value in values])
    elif function == READ_RESULTS:
        registers[:] = unit.results()
    elif function == READ_INPUTS:
        registers[:] = unit.results()[:1]
    elif function in (READ_COILS, *WRITE_BITS):
        registers[:] = unit.commands()[:1]
    else:
        registers[:] = unit.commands()
    return None
