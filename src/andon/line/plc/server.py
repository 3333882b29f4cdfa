"""Modbus TCP server of a line: one port, one unit for each station with a PLC, one thread.

pymodbus is imported here and in `plc/master` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from andon.core.errors import UsageError
from andon.line.follower import Follower
from andon.line.plc.registers import COMMAND_WORDS, RESULT_WORDS
from andon.line.plc.settings import ModbusSettings
from andon.line.plc.unit import Unit
from andon.line.store import Inspection

LOG = logging.getLogger(__name__)

TICK_SECONDS = 0.1
THREADS = 3
"""For each unit: an image that is taken, rows of parts without one."""
BITS = 16
"""Coils and discrete inputs of a unit, one register of each."""
WRITE_BITS, READ_COILS, READ_INPUTS, READ_RESULTS = (5, 15), 1, 2, 4
"""Function codes; all others of pymodbus concern holding registers."""


class PlcServer(Follower):
    """Lets PLCs trigger the stations of a line."""

    def __init__(self, settings: ModbusSettings, units: Sequence[Unit]) -> None:
        self._host, self._port = settings.host, settings.port
        self._units: Mapping[str, Unit] = {unit.station.name: unit for unit in units}
        self._loop: asyncio.AbstractEventLoop | None = None
        """While the server runs."""
        self._thread = threading.Thread(target=self._run, name="andon-modbus", daemon=True)
        self._pool = ThreadPoolExecutor(THREADS * len(units), thread_name_prefix="andon-plc")
        self._server: Any = None
        self._ended = asyncio.Event()
        logging.getLogger("pymodbus").setLevel(
            logging.CRITICAL
        )  # it reports each broken connection as an error

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        found: int = self._server.transport.sockets[0].getsockname()[1]
        return found

    def start(self) -> None:
        """Listen. Raises `UsageError` where the address cannot be used."""
        for unit in self._units.values():
            unit.connect(self._pool, self._post)
        loop = self._loop = asyncio.new_event_loop()
        self._thread.start()
        if not asyncio.run_coroutine_threadsafe(self._listen(), loop).result():
            self._end()
            raise UsageError(
                f"[modbus] {self._host} port {self._port} cannot be used: choose another port (below 1024 needs rights) "
                "or host"
            )
        LOG.info("Modbus TCP on %s port %d", self._host, self.port)

    def part(self, row: Inspection) -> None:
        """Show the verdict of a committed part to its PLC."""
        unit = self._units.get(row.station)
        if unit is not None:
            unit.look(unit.station.view())
            unit.part(row)

    def tick(self) -> None:
        """Show stops, calls, counts and alarms."""
        for unit in self._units.values():
            unit.look(unit.station.view())

    def stop(self, timeout: float) -> None:
        """Close all connections; parts whose image has not come get their row."""
        if not self._thread.is_alive():
            return
        self._end()
        self._pool.shutdown(cancel_futures=True)
        for unit in self._units.values():
            unit.close()

    # Inside -------------------------------------------------------------------------------------------------------

    def _post(self, call: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *arguments)

    def _run(self) -> None:
        assert self._loop is not None
        self._loop.run_until_complete(self._ticks())
        self._loop.close()

    async def _listen(self) -> bool:
        server = ModbusTcpServer(
            [_device(unit) for unit in self._units.values()], address=(self._host, self._port)
        )
        if not await server.listen():
            return False
        self._server = server
        return True

    async def _ticks(self) -> None:
        while not self._ended.is_set():
            for unit in self._units.values():
                try:
                    unit.tick()
                except Exception:
                    LOG.exception("station %s: the handshake with the PLC failed", unit.station.name)
            try:
                await asyncio.wait_for(self._ended.wait(), TICK_SECONDS)
            except TimeoutError:
                continue
        if self._server is not None:
            await self._server.shutdown()

    def _end(self) -> None:
        self._post(self._ended.set)
        self._thread.join()


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
