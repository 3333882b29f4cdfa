"""Modbus TCP where the PLC is the server: the line reads the block of the PLC and writes that of the station."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import Any

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from andon.line.plc.link import PlcLink
from andon.line.plc.master import PlcError
from andon.line.plc.registers import COMMAND_WORDS, Results, encode
from andon.line.plc.unit import Unit

LOG = logging.getLogger(__name__)

POLL_SECONDS = 0.01
"""From one look at the PLC to the next."""
ANSWER_SECONDS = 1.0
"""How long an answer, or a connection, is waited for."""
AGAIN_SECONDS = 0.5
"""Pause before a broken connection is tried again."""


class PlcClient(PlcLink):
    """Connects to the PLCs that are servers, and again whenever a connection breaks."""

    async def _open(self) -> None:
        self._tasks = [asyncio.create_task(Peer(unit, self._ended).keep()) for unit in self._units.values()]

    async def _close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Peer:
    """The PLC of one unit."""

    def __init__(self, unit: Unit, ended: asyncio.Event) -> None:
        self._unit, self._settings, self._ended = unit, unit.settings, ended

    async def keep(self) -> None:
        """Exchange blocks up to the end."""
        where = self._settings.connect
        while not self._ended.is_set():
            try:
                await self._connection()
            except (PlcError, ModbusException, OSError) as error:
                self._unit.lost(
                    f"the PLC at {where} cannot be reached ({error}): see PLC, cable and settings"
                )
            except Exception as error:
                LOG.exception("the exchange with the PLC at %s failed", where)
                self._unit.lost(f"the exchange with the PLC at {where} failed ({error}): see the log")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), AGAIN_SECONDS)

    async def _connection(self) -> None:
        """One connection, up to the end or to its break, which ends a request that waits."""
        host, port = self._settings.address
        broken = asyncio.Event()
        client = AsyncModbusTcpClient(
            host,
            port=port,
            timeout=ANSWER_SECONDS,
            retries=0,
            reconnect_delay=0.0,
            trace_connect=lambda connected: None if connected else broken.set(),
        )
        try:
            if not await client.connect():
                raise PlcError("nobody answers")
            exchange = asyncio.create_task(self._exchange(client))
            watch = asyncio.create_task(broken.wait())
            await asyncio.wait({exchange, watch}, return_when=asyncio.FIRST_COMPLETED)
            watch.cancel()
            if not exchange.done():
                exchange.cancel()
                raise PlcError("the connection broke")
            await exchange
        finally:
            client.close()

    async def _exchange(self, client: AsyncModbusTcpClient) -> None:
        """Read and write. Ends with a block without result, so that no old one stays in the PLC."""
        unit, settings, loop = self._unit, self._settings, asyncio.get_running_loop()

        async def write(block: list[int]) -> None:
            await _answer(client.write_registers(settings.result, block, device_id=settings.unit))

        written: list[int] = []
        while not self._ended.is_set():
            begin = loop.time()
            read = client.read_holding_registers(
                settings.command, count=COMMAND_WORDS, device_id=settings.unit
            )
            commands = (await _answer(read)).registers
            if commands != unit.commands():
                unit.write(0, commands)
            if (block := unit.results()) != written:
                await write(block)
                written = block
            unit.reached()
            await asyncio.sleep(max(0.0, begin + POLL_SECONDS - loop.time()))
        await write(encode(Results()))


async def _answer(request: Awaitable[Any]) -> Any:
    """The answer to a request. Raises `PlcError` where the PLC refuses it."""
    answer = await request
    if answer.isError():
        raise PlcError(f"it refuses the request ({answer}): see unit, command and result")
    return answer
