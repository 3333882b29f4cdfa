"""Nodes of one vision system below its station: `Objects/Andon/STATION/VisionSystem`. Runs in the thread of the server."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from asyncua import Node, Server, ua
from asyncua.common.instantiate_util import instantiate

from andon.line.opcua.emitting import emit, moment
from andon.line.opcua.states import State
from andon.line.opcua.vision import model as of
from andon.line.opcua.vision.model import Model
from andon.line.opcua.vision.states import (
    Call,
    Mode,
    Query,
    SystemState,
    mode_of,
    mode_steps,
    system_state,
    transition,
)
from andon.line.opcua.vision.values import NO_JOB, Job, Recipe, Result, in_use, result
from andon.line.store import Inspection
from andon.line.verdicts import Cause
from andon.line.views import StationView

RESULTS = 100
"""Results that are kept in memory."""
EVENTS = {
    "ResultReady": 1024,
    "StateChanged": 1018,
    "JobStarted": 1013,
    "Ready": 1023,
    "RecipePrepared": 1022,
}
"""Types of the events, without the end `EventType` of their names."""
SEVERITY = 100
FAILED_SEVERITY = 500
"""1 to 1000, as OPC UA has it."""
TRANSITION_TYPE = ua.NodeId(ua.ObjectIds.FiniteTransitionVariableType)

Method = Callable[..., Awaitable[Any]]


class VisionNodes:
    """The vision system of a station: state machines, results, recipes and events."""

    def __init__(self, station: str, server: Server) -> None:
        self.station, self._server = station, server
        self.mode: Mode | None = None
        self.asked = Mode.READY
        """The mode that clients want while the station is suspended."""
        self.called: str | None = None
        """The method that is being carried out; it is the cause of transitions meanwhile."""
        self.results: deque[Result] = deque(maxlen=RESULTS)
        self.job = self.next_job = NO_JOB
        """The last job, and the one that a client starts."""
        self._continuous = NO_JOB
        self._single: deque[tuple[str, Job]] = deque(maxlen=RESULTS)
        self._prepared: Recipe | None = None
        self._shown: SystemState | None = None
        self._slots: list[tuple[Node, dict[str, Node]]] = []
        self._parts = 0
        self._events: dict[str, Any] = {}

    async def make(self, station: Node, model: Model, methods: dict[str, Method]) -> None:
        """Add all nodes below the node of a station; `methods` by name."""
        self._model = model
        place = f"{self.station}/VisionSystem"
        system = await self._add(station, 1003, place, ua.QualifiedName("VisionSystem", model.own))
        machine = (await of.children(system))["VisionStateMachine"]
        automatic = await self._add(
            machine, of.AUTOMATIC_MODE, f"{place}.Automatic", "AutomaticModeStateMachine"
        )
        results = await self._add(system, 1007, f"{place}.ResultManagement", "ResultManagement")
        recipes = await self._add(system, 1004, f"{place}.RecipeManagement", "RecipeManagement")
        self._folder = await self._add(results, 1016, f"{place}.Results", "Results")
        self._machines = {
            State: await self._variables(machine, f"{place}.Transition"),
            Mode: await self._variables(automatic, f"{place}.Automatic.Transition"),
        }
        select = ua.NodeId(f"{place}.{Call.SELECT.value}", model.own)
        error = ua.Argument(Name="Error", DataType=ua.NodeId(ua.ObjectIds.Int32), ValueRank=-1)
        await machine.add_method(select, self._named(Call.SELECT), methods[Call.SELECT], [], [error])
        for parent in (machine, automatic, results, recipes):
            for name, node in (await of.children(parent)).items():
                if name in (*Call, *Query) and name != Call.SELECT:
                    self._server.link_method(node, methods[name])
        state = ua.NodeId(f"{place}.SystemState", model.own)
        kind = model.id(3024)
        self._system_state = await system.add_variable(
            state, self._named("SystemState"), ua.Variant(), ua.VariantType.ExtensionObject, kind
        )
        for name, number in EVENTS.items():
            self._events[name] = await self._server.get_event_generator(
                self._server.get_node(model.id(number)), emitting_node=system
            )
        await self._inactive()

    def begin(self, measurement: str) -> Job:
        """A new job, which the next start of an execution gets."""
        self.next_job = Job(f"{self.station}-{uuid.uuid4().hex[:12]}", measurement)
        return self.next_job

    def expect(self, request_id: str, job: Job) -> None:
        """The part of a request belongs to a job of a single part."""
        self._single.append((request_id, job))

    async def part(self, row: Inspection) -> None:
        """Keep a committed part as a result, and tell it."""
        found = result(row, self._job_of(row))
        self.results.append(found)
        made = of.structure(found)
        values = of.components(made)
        await self._keep(made, values)
        text = f"{self.station}: result {found.id}, {row.verdict.name}"
        await self._emit("ResultReady", values, text, at=row.t_done)

    async def step(self, before: State | Mode, after: State | Mode) -> None:
        """Show a step of a state machine, and tell it."""
        name, now = transition(before, after, self.called), moment()
        nodes, states = self._machines[type(after)], self._model.states
        await self._enter(nodes, after)
        await self._write(nodes["LastTransition"], _text(name))
        await self._write(nodes["LastTransition/Id"], ua.Variant(states[name]))
        await self._write(nodes["LastTransition/TransitionTime"], ua.Variant(now))
        fields: dict[str, Any] = {}
        for field, value in (("Transition", name), ("FromState", before.value), ("ToState", after.value)):
            fields |= {field: _text(value), f"{field}/Id": ua.Variant(states[value])}
        failed = after in (State.ERROR, State.HALTED)
        await self._emit("StateChanged", fields, f"{self.station}: {name}", failed=failed)

    async def settle(self, view: StationView, state: State) -> None:
        """Show the automatic mode, the recipe and the state as SEMI E10 has it."""
        for mode in mode_steps(self.mode, mode_of(view, state, self.asked)):
            before, self.mode = self.mode, mode
            if mode is None:
                await self._inactive()
            elif before is None:
                await self._enter(self._machines[Mode], mode)
            else:
                await self._execution(before, mode)
                await self.step(before, mode)
        recipe = None if self.mode in (None, Mode.INITIALIZED) else in_use(view)
        if recipe is not None and recipe != self._prepared:
            fields = {
                "InternalId": of.variant(of.internal(recipe)),
                "ExternalId": of.variant(of.external(recipe)),
            }
            await self._emit("RecipePrepared", fields, f"{self.station}: recipe {recipe.id} is prepared")
        self._prepared = recipe
        if (shown := system_state(state, self.mode)) is not self._shown:
            value = ua.SystemStateDescriptionDataType(State=ua.SystemStateDataType(shown))
            await self._write(self._system_state, of.variant(value))
            self._shown = shown

    # Inside --------------------------------------------------------------------------------------------------------

    async def _execution(self, before: Mode, after: Mode) -> None:
        """Begin or end a job, and tell it."""
        if after in (Mode.SINGLE, Mode.CONTINUOUS):
            self.job, self.next_job = (self.next_job if self.next_job.id else self.begin("")), NO_JOB
            if after is Mode.CONTINUOUS:
                self._continuous = self.job
            event, text = "JobStarted", f"job {self.job.id} starts"
        elif before in (Mode.SINGLE, Mode.CONTINUOUS):
            event, text = "Ready", f"job {self.job.id} has ended"
        else:
            return
        job = of.variant(ua.JobIdDataType(Id=self.job.id))
        await self._emit(event, {"JobId": job}, f"{self.station}: {text}")

    def _job_of(self, row: Inspection) -> Job:
        single = next((job for request, job in self._single if request == row.request_id), None)
        if single is not None:
            return single
        return NO_JOB if row.cause == Cause.NOT_READY else self._continuous

    async def _keep(self, made: Any, values: dict[str, ua.Variant]) -> None:
        """Show a result in the place of the oldest."""
        place = self._parts % RESULTS
        self._parts += 1
        if place == len(self._slots):
            name = f"Result{place + 1:03}"
            node = await self._add(self._folder, 2002, f"{self.station}/VisionSystem.{name}", name)
            self._slots.append((node, await of.children(node)))
        node, parts = self._slots[place]
        await self._write(node, of.variant(made))
        for name, part in parts.items():
            await self._write(part, values[name])

    async def _variables(self, machine: Node, place: str) -> dict[str, Node]:
        """Variables of a state machine: its state, and its last transition, which is added."""
        state = (await of.children(machine))["CurrentState"]
        made = await instantiate(
            machine,
            self._server.get_node(TRANSITION_TYPE),
            ua.NodeId(place, self._model.own),
            ua.QualifiedName("LastTransition", 0),
            instantiate_optional=False,
        )
        time = ua.NodeId(f"{place}.TransitionTime", self._model.own)
        at = await made[0].add_property(time, ua.QualifiedName("TransitionTime", 0), moment())
        return {
            "CurrentState": state,
            "CurrentState/Id": (await of.children(state))["Id"],
            "LastTransition": made[0],
            "LastTransition/Id": (await of.children(made[0]))["Id"],
            "LastTransition/TransitionTime": at,
        }

    async def _enter(self, nodes: dict[str, Node], state: State | Mode) -> None:
        await self._write(nodes["CurrentState"], _text(state.value))
        await self._write(nodes["CurrentState/Id"], ua.Variant(self._model.states[state.value]))

    async def _inactive(self) -> None:
        """The automatic mode has no state outside `OPERATIONAL`."""
        nothing = ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadStateNotActive))
        for name in ("CurrentState", "CurrentState/Id"):
            await self._server.write_attribute_value(self._machines[Mode][name].nodeid, nothing)

    async def _add(self, parent: Node, kind: int, place: str, name: str | ua.QualifiedName) -> Node:
        """A node of a type of the model, with what is mandatory below."""
        made = await instantiate(
            parent,
            self._server.get_node(self._model.id(kind)),
            ua.NodeId(place, self._model.own),
            self._named(name) if isinstance(name, str) else name,
            dname=ua.LocalizedText(name if isinstance(name, str) else name.Name),
            instantiate_optional=False,
        )
        return made[0]

    def _named(self, name: str) -> ua.QualifiedName:
        return ua.QualifiedName(str(name), self._model.namespace)

    async def _write(self, node: Node, value: ua.Variant) -> None:
        data = ua.DataValue(value, SourceTimestamp=moment())
        await self._server.write_attribute_value(node.nodeid, data)

    async def _emit(
        self, event: str, fields: dict[str, Any], text: str, *, at: int | None = None, failed: bool = False
    ) -> None:
        await emit(self._events[event], fields, text, FAILED_SEVERITY if failed else SEVERITY, at)


def _text(value: str) -> ua.Variant:
    return ua.Variant(ua.LocalizedText(str(value)))
