"""Units of a line in one thread with an event loop; whether PLCs connect to the line or the line to PLCs is for subclasses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from andon.line.follower import Follower
from andon.line.plc.unit import Unit
from andon.line.store import Inspection

LOG = logging.getLogger(__name__)

TICK_SECONDS = 0.1
THREADS = 3
"""For each unit: an image that is taken, rows of parts without one."""


class PlcLink(Follower):
    """Lets PLCs trigger the stations of a line."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units: Mapping[str, Unit] = {unit.station.name: unit for unit in units}
        self._loop: asyncio.AbstractEventLoop | None = None
        """While the thread runs."""
        self._thread = threading.Thread(target=self._run, name=f"andon-{type(self).__name__}", daemon=True)
        self._pool = ThreadPoolExecutor(THREADS * len(units), thread_name_prefix="andon-plc")
        self._ended = asyncio.Event()
        logging.getLogger("pymodbus").setLevel(
            logging.CRITICAL
        )  # it reports each broken connection as an error

    @abstractmethod
    async def _open(self) -> None:
        """Begin the exchange with PLCs. Raises `UsageError` where that cannot work."""

    @abstractmethod
    async def _close(self) -> None:
        """End it; `_ended` is set."""

    def start(self) -> None:
        """Take triggers from now on. Raises `UsageError` where an address cannot be used."""
        for unit in self._units.values():
            unit.connect(self._pool, self._post)
        loop = self._loop = asyncio.new_event_loop()
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(), loop).result()
        except BaseException:
            self._end()
            raise

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
        with contextlib.suppress(RuntimeError):  # the loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *arguments)

    def _run(self) -> None:
        assert self._loop is not None
        self._loop.run_until_complete(self._ticks())
        self._loop.close()

    async def _ticks(self) -> None:
        while not self._ended.is_set():
            for unit in self._units.values():
                try:
                    unit.tick()
                except Exception:
                    LOG.exception("station %s: the handshake with the PLC failed", unit.station.name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), TICK_SECONDS)
        await self._close()

    def _end(self) -> None:
        self._post(self._ended.set)
        self._thread.join()
