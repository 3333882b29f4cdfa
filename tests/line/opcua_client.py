"""A line that OPC UA clients see, and a client of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from andon.line.line import Line
from andon.line.opcua.server import OpcUaServer
from andon.line.opcua.settings import OpcUaSettings
from andon.line.opcua.values import VALUES
from line.running import FakeJudge, running

NAMESPACE = "urn:andon:line"
STARTS = 120.0
"""Seconds in which the server has loaded on a busy computer."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class HashedJudge(FakeJudge):
    """A model with a real hash."""

    def __init__(self, pack: Path, *, threads: int = 1) -> None:
        super().__init__(pack, threads=threads)
        self.sha256 = sha256(pack.stem.encode()).hexdigest()


@contextmanager
def served(
    folder: Path, *names: str, station: Mapping[str, Any] = MappingProxyType({}), **opcua: Any
) -> Iterator[tuple[Line, OpcUaServer, str]]:
    """A running line whose server listens, and its address; `station`: more arguments of `running`."""
    port = free_port()
    settings = OpcUaSettings(port=port, **opcua)
    line_settings = {"opcua": settings, "durability": "relaxed"}
    with running(folder, *names, line=line_settings, **{"judge": HashedJudge, **station}) as line:
        server = next(each for each in line.followers if isinstance(each, OpcUaServer))
        assert server.listens.wait(STARTS), server.failure
        yield line, server, f"opc.tcp://127.0.0.1:{port}"


def client(
    url: str, use: Callable[[Seen], Awaitable[Any]], certificate: tuple[Path, Path] | None = None
) -> Any:
    """What `use` gets of a connected client."""

    async def run() -> Any:
        connection = Client(url, timeout=STARTS, watchdog_intervall=STARTS)
        if certificate is not None:
            connection.application_uri = "urn:test:client"
            await connection.set_security(
                SecurityPolicyBasic256Sha256,
                str(certificate[1]),
                str(certificate[0]),
                mode=ua.MessageSecurityMode.SignAndEncrypt,
            )
        async with connection:
            return await use(Seen(connection, await connection.get_namespace_index(NAMESPACE)))

    return asyncio.run(run())


class Seen:
    """What a client sees of the station `press`."""

    def __init__(self, connection: Client, index: int) -> None:
        self.connection, self.index = connection, index
        self.heard: list[Any] = []

    def node(self, name: str = "") -> Any:
        return self.connection.get_node(ua.NodeId(f"press/{name}" if name else "press", self.index))

    async def all(self) -> dict[str, Any]:
        """All values, by one request."""
        names = [value.name for value in VALUES]
        found = await self.connection.read_values([self.node(name) for name in names])
        return dict(zip(names, found, strict=True))

    async def call(self, method: str, *arguments: Any) -> str:
        """Name of the status of a call."""
        try:
            await self.node().call_method(self.node(method), *arguments)
        except ua.UaStatusCodeError as error:
            return ua.status_codes.get_name_and_doc(error.code)[0]
        return "Good"

    async def listen_to(self, node: Any, types: Sequence[Any]) -> None:
        """Collect the events of some types from a node."""
        subscription = await self.connection.create_subscription(20, self)
        await subscription.subscribe_events(node, list(types), queuesize=2000)

    async def listen(self, kind: str, at: Any = None) -> None:
        """Collect the events of a type, from the station or `at` another node."""
        types = self.connection.nodes.base_event_type
        made = await types.get_child(f"{self.index}:{kind}")
        subscription = await self.connection.create_subscription(20, self)
        await subscription.subscribe_events(at or self.node(), made, queuesize=2000)

    def event_notification(self, event: Any) -> None:
        self.heard.append(event)

    def status_change_notification(self, status: Any) -> None:
        """The subscription ended."""


async def becomes(condition: Callable[[], Any]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(20.0):
        while not condition():
            await asyncio.sleep(0.005)


async def aside(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(call, *arguments)


class Vision:
    """What a client sees of the vision system of the station `press`."""

    EVENTS: ClassVar = {
        "ResultReady": 1024,
        "StateChanged": 1018,
        "JobStarted": 1013,
        "Ready": 1023,
        "RecipePrepared": 1022,
    }

    @classmethod
    async def of(cls, seen: Seen) -> Vision:
        """Browse to it."""
        made = cls()
        made.index = await seen.connection.get_namespace_index("http://opcfoundation.org/UA/MachineVision")
        made.types = {name: ua.NodeId(number, made.index) for name, number in cls.EVENTS.items()}
        made.system = await seen.node().get_child(f"{seen.index}:VisionSystem")
        made.machine = await made.system.get_child(f"{made.index}:VisionStateMachine")
        made.automatic = await made.machine.get_child(f"{made.index}:AutomaticModeStateMachine")
        made.results = await made.system.get_child(f"{made.index}:ResultManagement")
        made.recipes = await made.system.get_child(f"{made.index}:RecipeManagement")
        await seen.listen_to(made.system, [seen.connection.get_node(each) for each in made.types.values()])
        return made

    async def states(self) -> tuple[str, str]:
        """State and automatic mode; empty where the automatic mode is not active."""
        state = await (await self.machine.get_child("0:CurrentState")).read_value()
        try:
            mode = (await (await self.automatic.get_child("0:CurrentState")).read_value()).Text
        except ua.uaerrors.BadStateNotActive:
            mode = ""
        return state.Text, mode

    async def until(self, state: str, mode: str) -> None:
        """Wait until these are the states."""
        async with asyncio.timeout(20.0):
            while await self.states() != (state, mode):
                await asyncio.sleep(0.005)

    async def call(self, node: Any, name: str, *arguments: Any) -> Any:
        """Outputs of a method; the status of one that is not carried out."""
        typed = [ua.Variant(each, _type(each)) for each in arguments]
        try:
            return await node.call_method(f"{self.index}:{name}", *typed)
        except ua.UaStatusCodeError as error:
            return ua.status_codes.get_name_and_doc(error.code)[0]


def _type(value: Any) -> ua.VariantType | None:
    kinds = {int: ua.VariantType.Int32, str: ua.VariantType.String, type(None): ua.VariantType.Null}
    return kinds.get(type(value), ua.VariantType.ExtensionObject)
