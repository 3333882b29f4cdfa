"""Nodes of one station in the address space: `Objects/Andon/STATION` with values, methods and events.

Everything here runs in the thread of the server.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from asyncua import Node, Server, ua

from andon.line.opcua.emitting import emit
from andon.line.opcua.states import Method, State, steps, target
from andon.line.opcua.values import EVENT, VALUES, Value, event, values
from andon.line.opcua.vision.nodes import VisionNodes
from andon.line.store import Inspection
from andon.line.verdicts import Verdict
from andon.line.views import StationView

LOG = logging.getLogger(__name__)

NAMESPACE = "urn:andon:line"
SEVERITY = {Verdict.OK: 100, Verdict.REVIEW: 300, Verdict.NG: 500, Verdict.ERROR: 700}
"""1 to 1000, as OPC UA has it."""
STATE_SEVERITY = {
    State.PREOPERATIONAL: 200,
    State.OPERATIONAL: 100,
    State.HALTED: 500,
    State.ERROR: 700,
}
STEP = (Value("FromState", "String"), Value("ToState", "String"))
"""Fields of the event of a change of state."""

Call = Callable[[Method, Sequence[Any]], Awaitable[ua.StatusCode]]
"""Does what a client asked for."""


class Types(NamedTuple):
    """Types of the events, in a namespace."""

    namespace: int
    part: Node
    state: Node


async def types(server: Server) -> Types:
    """Register the namespace and the types of the events."""
    index = await server.register_namespace(NAMESPACE)
    made = [
        await server.create_custom_event_type(
            index, name, ua.ObjectIds.BaseEventType, [(each.name, _type(each)) for each in fields]
        )
        for name, fields in (("PartEventType", EVENT), ("StateEventType", STEP))
    ]
    return Types(index, *made)


class StationNodes:
    """The nodes of one station."""

    def __init__(self, name: str, server: Server) -> None:
        self.name, self.state = name, State.PREOPERATIONAL
        self.vision = VisionNodes(name, server)
        self._server = server
        self._row: Inspection | None = None
        """The last part since parts are judged."""
        self._nodes: dict[str, ua.NodeId] = {}
        self._written: dict[str, Any] = {}
        self._parts: Any = None
        self._states: Any = None

    async def make(self, folder: Node, types: Types, view: StationView, call: Call) -> Node:
        """Add all nodes of the flat folder below `folder`; every value has one from the beginning. Returns the station."""
        index, name = types.namespace, self.name
        station = await folder.add_object(ua.NodeId(name, index), ua.QualifiedName(name, index))
        found = values(view, None, self.state)
        for value in VALUES:
            place = ua.NodeId(f"{name}/{value.name}", index)
            await station.add_variable(
                place, ua.QualifiedName(value.name, index), found[value.name], _type(value)
            )
            self._nodes[value.name] = place
        self._written = found
        for method in Method:
            place = ua.NodeId(f"{name}/{method.value}", index)
            inputs = [_argument("Code", "code of the recipe")] if method is Method.SET_RECIPE else []
            await station.add_method(
                place, ua.QualifiedName(method.value, index), _called(method, call), inputs, []
            )
        self._parts = await self._server.get_event_generator(types.part, emitting_node=station)
        self._states = await self._server.get_event_generator(types.state, emitting_node=station)
        return station

    async def see(
        self,
        rows: Sequence[Inspection],
        view: StationView,
        heartbeat: int,
        lost: int,
        through: bool = False,
    ) -> None:
        """An event for each part, one for each step of the state, then the values as they are now.

        `through`: by way of `Preoperational`, as after `Reset` of a station that is not halted.
        """
        for row in rows:
            self._row = row
            await emit(self._parts, event(row), _says(row), SEVERITY[row.verdict], row.t_done)
            await self.vision.part(row)
        for end in (State.PREOPERATIONAL, target(view)) if through else (target(view),):
            for state in steps(self.state, end):
                await self._step(state, view)
        await self.vision.settle(view, self.state)
        if self.state is not State.OPERATIONAL:
            self._row = None
        await self._write(values(view, self._row, self.state, heartbeat=heartbeat, lost=lost))

    async def _step(self, state: State, view: StationView) -> None:
        """Show the next state, and tell it."""
        before, self.state = self.state, state
        await self._write({"State": state.value})
        step = {"FromState": before.value, "ToState": state.value}
        await emit(self._states, step, f"{self.name}: {state.value}", STATE_SEVERITY[state])
        await self.vision.step(before, state)
        if state is not State.OPERATIONAL:
            await self.vision.settle(view, state)

    async def _write(self, found: dict[str, Any]) -> None:
        """Values that changed. Nothing else of the loop runs in between, so that a request never reads two parts."""
        for value in VALUES:
            new = found.get(value.name, self._written[value.name])
            if new != self._written[value.name] or new != new:
                data = ua.DataValue(ua.Variant(new, _type(value)), SourceTimestamp=datetime.now(UTC))
                await self._server.write_attribute_value(self._nodes[value.name], data)
                self._written[value.name] = new


def _says(row: Inspection) -> str:
    return f"{row.station}: {row.verdict.name}" + (f", part {row.part_id}" if row.part_id else "")


def _type(value: Value) -> ua.VariantType:
    return ua.VariantType[value.type]


def _argument(name: str, text: str) -> ua.Argument:
    return ua.Argument(
        Name=name,
        DataType=ua.NodeId(ua.ObjectIds.String),
        ValueRank=-1,
        Description=ua.LocalizedText(text),
    )


def _called(method: Method, call: Call) -> Callable[..., Awaitable[ua.StatusCode]]:
    async def called(_parent: ua.NodeId, *arguments: ua.Variant) -> ua.StatusCode:
        return await call(method, [argument.Value for argument in arguments])

    return called
