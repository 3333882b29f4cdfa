"""The registers of a PLC that is the Modbus server, for the simulated PLC: a station reads and writes them.

with Memory(5030) as memory:
    Plc(memory).run(100)
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any, Self

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from andon.core.errors import UsageError
from andon.line.plc.master import PlcError
from andon.line.plc.registers import COMMAND_WORDS, RESULT_WORDS, Commands, Results, encode, encode_commands

SILENT_SECONDS = 1.0
"""Without a block of the station, after which the last one does not count any more."""


CONNECT_SECONDS = 60.0
"""How long a station is waited for."""


class Memory:
    """Two blocks of holding registers, with what `Master` offers: `write` that of the PLC, `read` that of the station."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", unit: int = 1, command: int = 0, result: int = 32
    ) -> None:
        self._host, self._port, self._unit = host, port, unit
        self._command, self._result = command, result
        self._commands, self._block = encode_commands(Commands()), encode(Results())
        self._reads, self._written_at = 0, float("-inf")
        self._news = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        """While it listens."""
        self._server: Any = None
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

    def open(self) -> None:
        """Listen. Raises `UsageError` where the port cannot be used."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="andon-plc-memory", daemon=True)
        self._thread.start()
        if not self._call(self._listen()):
            self._end()
            raise UsageError(f"{self._host} port {self._port} cannot be used: choose another port")

    def close(self) -> None:
        """End, with all connections."""
        if self._loop is not None:
            self._call(self._server.shutdown())
            self._end()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        found: int = self._server.transport.sockets[0].getsockname()[1]
        return found

    def ready(self) -> None:
        """Wait for the station. Raises `PlcError` where none connects."""
        with self._news:
            if not self._news.wait_for(lambda: self._written_at > 0.0, CONNECT_SECONDS):
                raise PlcError(
                    f"no station connected within {CONNECT_SECONDS:g} s: see `connect`, `command` and `result` of the station"
                )

    def read(self) -> list[int]:
        """The block of the station. Raises `PlcError` where it is old: the heartbeat of the station stands still."""
        with self._news:
            if time.monotonic() - self._written_at > SILENT_SECONDS:
                raise PlcError("no station writes the registers: see host, port and addresses")
            return list(self._block)

    def write(self, commands: Commands) -> None:
        """The block of the PLC; returns once the station has read it, so that it sees every level. Raises `PlcError`."""
        with self._news:
            self._commands, before = encode_commands(commands), self._reads
            if not self._news.wait_for(lambda: self._reads > before, SILENT_SECONDS):
                raise PlcError("no station reads the registers: see host, port and addresses")

    def drop(self) -> None:
        """Break the connection of the station."""
        self._call(self._drop())

    # The thread of the server -------------------------------------------------------------------------------------

    async def _listen(self) -> bool:
        blocks = [
            SimData(self._command, count=COMMAND_WORDS, datatype=DataType.REGISTERS),
            SimData(self._result, count=RESULT_WORDS, datatype=DataType.REGISTERS),
        ]
        device = SimDevice(self._unit, simdata=blocks, action=self._access)
        self._server = ModbusTcpServer(device, address=(self._host, self._port))
        return bool(await self._server.listen())

    async def _access(
        self,
        _function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        with self._news:
            if values is None and address == self._command and count == COMMAND_WORDS:
                registers[address - start : address - start + count] = self._commands
                self._reads += 1
            elif values is not None and address == self._result and len(values) == RESULT_WORDS:
                self._block, self._written_at = [int(value) for value in values], time.monotonic()
            else:
                return ExcCodes.ILLEGAL_ADDRESS
            self._news.notify_all()
        return None

    async def _drop(self) -> None:
        for connection in list(self._server.active_connections.values()):
            connection.close()

    def _call(self, work: Any) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = None
