"""OPC UA server of a line: one port, one thread, in which asyncua is loaded and runs.

asyncua takes some seconds to load its address space and the model of machine vision; the line judges meanwhile. It is
imported below `line/opcua` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from andon.core.errors import AndonError, UsageError
from andon.line.alarms import Alarms
from andon.line.follower import Follower
from andon.line.opcua.settings import OpcUaSettings
from andon.line.opcua.states import Method, State, is_allowed
from andon.line.plc.connect import Hooks
from andon.line.plc.unit import Shoot
from andon.line.station import Station
from andon.line.store import Inspection
from andon.line.views import StationView

if TYPE_CHECKING:
    from asyncua import Server, ua

    from andon.line.opcua.nodes import StationNodes
    from andon.line.opcua.vision.methods import VisionMethods

LOG = logging.getLogger(__name__)

QUEUE = 1000
"""Parts that may wait for the thread of the server; of more the oldest get no event."""
BEAT_SECONDS = 1.0
CALLS = 3
"""Methods of one station that run at a time: one may wait for the part of a single job."""
ALARM = "opcua"


class Access(NamedTuple):
    """What clients may do."""

    unencrypted: bool
    """Connect without encryption, unknown."""
    calls: bool
    """Call methods."""


class OpcUaServer(Follower):
    """Shows the stations of a line to OPC UA clients."""

    def __init__(
        self,
        settings: OpcUaSettings,
        folder: Path,
        stations: Mapping[str, Station],
        line: Hooks,
        alarms: Alarms,
        access: Callable[[], Access],
        shoots: Mapping[str, Shoot],
    ) -> None:
        """`folder`: of the certificates; `line`: carries out what clients ask for; `access` is asked once, at the start;
        `shoots`: what takes an image on request, by station.
        """
        self._host, self._port, self._folder = settings.host, settings.port, folder
        self._stations, self._line, self._alarms, self._access = stations, line, alarms, access
        self._shoots = shoots
        self._parts: deque[Inspection] = deque(maxlen=QUEUE)
        self._views: dict[str, StationView] = {}
        self.lost = 0
        """Parts that got no event because too many waited."""
        self.failure = ""
        """Why the server does not work; empty while it does, or still loads."""
        self.listens = threading.Event()
        """Set once clients can connect."""
        self._nodes: dict[str, StationNodes] = {}
        self._methods: list[VisionMethods] = []
        self._beats = 0
        self._loop = asyncio.new_event_loop()
        self._news, self._ended = asyncio.Event(), threading.Event()
        self._pool = ThreadPoolExecutor(CALLS * len(stations), thread_name_prefix="andon-opcua-call")
        self._thread = threading.Thread(target=self._run, name="andon-opcua", daemon=True)
        logging.getLogger("asyncua").setLevel(logging.ERROR)  # it logs each request

    def start(self) -> None:
        """Begin to load. Raises `UsageError` where the address cannot be used."""
        try:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            socket.create_server((self._host, self._port), family=family).close()
        except OSError as error:
            raise UsageError(
                f"[opcua] {self._host} port {self._port} cannot be used ({error.strerror or error}): choose another port or host"
            ) from None
        self._views = {name: station.view() for name, station in self._stations.items()}
        self._thread.start()

    def part(self, row: Inspection) -> None:
        """Announce a committed part."""
        if len(self._parts) == QUEUE:
            self.lost += 1
        self._parts.append(row)
        self._views[row.station] = self._stations[row.station].view()
        self._wake()

    def tick(self) -> None:
        """Show states, counts and alarms."""
        for name, station in self._stations.items():
            self._views[name] = station.view()
            self._alarms.condition(name, ALARM, bool(self.failure), self.failure)
        self._wake()

    def stop(self, timeout: float) -> None:
        """Close all connections."""
        self._ended.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._pool.shutdown(wait=False, cancel_futures=True)

    # Inside; in the thread of the server ----------------------------------------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._news.set)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            LOG.exception("OPC UA failed")
            self.failure = f"OPC UA clients see nothing ({error}): see the log and restart"
        finally:
            self.listens.clear()
            self._loop.close()

    async def _serve(self) -> None:
        server = await self._load()
        if self._ended.is_set():
            return
        await server.start()
        self.listens.set()
        LOG.info("OPC UA on %s port %d", self._host, self._port)
        try:
            while not self._ended.is_set():
                await self._show()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), BEAT_SECONDS)
                self._news.clear()
            await self._show()
        finally:
            for methods in self._methods:
                await methods.close()
            await server.stop()

    async def _load(self) -> Server:
        """Encryption, who may connect, and all nodes."""
        from asyncua import Server

        from andon.line.opcua import nodes
        from andon.line.opcua.clients import secure
        from andon.line.opcua.vision import model

        access = self._access()
        server = Server(user_manager=None)
        await server.init()
        server.set_server_name("andon")
        name = f"[{self._host}]" if ":" in self._host else self._host
        server.set_endpoint(f"opc.tcp://{name}:{self._port}")
        await secure(server, self._folder, unencrypted=access.unencrypted)
        types = await nodes.types(server)
        folder = await server.nodes.objects.add_folder(types.namespace, "Andon")
        vision = await model.load(server, types.namespace)
        for name in self._stations:
            made = self._nodes[name] = nodes.StationNodes(name, server)
            call = partial(self._called, name, access.calls)
            station = await made.make(folder, types, self._views[name], call)
            methods = self._vision_methods(name, access.calls)
            await made.vision.make(station, vision, methods.all())
            self._methods.append(methods)
        return server

    def _vision_methods(self, name: str, may_call: bool) -> VisionMethods:
        from andon.line.opcua.vision.methods import VisionMethods
        from andon.line.opcua.vision.shooting import single

        shoot, station, nodes = self._shoots.get(name), self._stations[name], self._nodes[name]
        take = None if shoot is None else partial(single, station, shoot)
        return VisionMethods(nodes.vision, station, self._line, Served(self, nodes), take, may_call=may_call)

    async def _show(self) -> None:
        rows: dict[str, list[Inspection]] = {name: [] for name in self._nodes}
        for _ in range(len(self._parts)):
            row = self._parts.popleft()
            rows[row.station].append(row)
        self._beats += 1
        for name, nodes in self._nodes.items():
            await self._see(nodes, rows[name])

    async def _see(
        self, nodes: StationNodes, rows: Sequence[Inspection] = (), *, through: bool = False
    ) -> None:
        try:
            await nodes.see(rows, self._views[nodes.name], self._beats, self.lost, through)
        except Exception as error:
            LOG.exception("station %s: OPC UA shows old values", nodes.name)
            self.failure = f"OPC UA clients see old values ({error}): see the log and restart"

    async def _act(self, name: str, work: Callable[[], None]) -> None:
        """Do something that may wait in a thread of its own, then look at the station."""

        def done() -> None:
            try:
                work()
            finally:
                self._views[name] = self._stations[name].view()

        await self._loop.run_in_executor(self._pool, done)

    async def _called(
        self, name: str, may_call: bool, method: Method, arguments: Sequence[Any]
    ) -> ua.StatusCode:
        """A client called a method of a station."""
        from asyncua import ua

        codes, nodes, station = ua.StatusCodes, self._nodes[name], self._stations[name]
        expected = 1 if method is Method.SET_RECIPE else 0
        if not may_call:
            return ua.StatusCode(codes.BadUserAccessDenied)
        if len(arguments) != expected:
            return ua.StatusCode(
                codes.BadArgumentsMissing if len(arguments) < expected else codes.BadTooManyArguments
            )
        if not all(isinstance(argument, str) for argument in arguments):
            return ua.StatusCode(codes.BadInvalidArgument)
        if not is_allowed(method, nodes.state, self._views[name]):
            LOG.warning("station %s: an OPC UA client called %s in state %s", name, method, nodes.state)
            return ua.StatusCode(codes.BadInvalidState)
        LOG.info("station %s: an OPC UA client called %s", name, method)
        nodes.vision.called = method
        try:
            await self._act(name, partial(self._carry_out, station, method, arguments))
        except AndonError as error:
            LOG.warning("station %s: %s asked for by an OPC UA client: %s", name, method, error)
            return ua.StatusCode(codes.BadInvalidArgument if arguments else codes.BadInvalidState)
        else:
            await self._see(nodes)
        finally:
            nodes.vision.called = None
        return ua.StatusCode(codes.Good)

    def _carry_out(self, station: Station, method: Method, arguments: Sequence[str]) -> None:
        """In a thread of its own."""
        if method is Method.HALT:
            self._line.audit(station, "halts")
            station.halt("a client of OPC UA halted the station: reset it there")
        elif method is Method.RESET:
            self._line.audit(station, "resets")
            station.release()
        elif method is Method.SET_RECIPE:
            self._line.set_recipe(station, arguments[0])
        elif method is Method.START_GOLDEN:
            self._line.start_golden(station)
        else:
            self._line.stop_seen(station)


class Served:
    """The server, as the methods of one vision system see it."""

    def __init__(self, server: OpcUaServer, nodes: StationNodes) -> None:
        self._server, self._nodes = server, nodes

    async def act(self, work: Callable[[], None]) -> None:
        """Do something that may wait, and look at the station again."""
        await self._server._act(self._nodes.name, work)

    async def show(self, *, through: bool = False) -> None:
        """Show clients the station now; `through`: by way of `Preoperational`."""
        await self._server._see(self._nodes, through=through)

    @property
    def view(self) -> StationView:
        """The station now."""
        return self._server._views[self._nodes.name]

    @property
    def state(self) -> State:
        """Its state, as it was shown last."""
        return self._nodes.state
