"""States, transitions and methods of a vision system, as far as they are here. No OPC UA library is needed.

OPC 40100-1:2019, 8.2 (VisionStateMachineType), 8.3 (VisionAutomaticModeStateMachineType), 11.5 (SystemState).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from andon.line.opcua.states import State, way
from andon.line.views import StationView


class Mode(StrEnum):
    """State of the automatic mode, below `State.OPERATIONAL`."""

    INITIALIZED = "Initialized"
    """No recipe is prepared; parts are ERROR."""
    READY = "Ready"
    """A recipe is prepared, no job runs; parts are ERROR."""
    SINGLE = "SingleExecution"
    """One part is taken and judged."""
    CONTINUOUS = "ContinuousExecution"
    """Parts are judged as they come."""


class Call(StrEnum):
    """Methods that depend on the state."""

    HALT = "Halt"
    RESET = "Reset"
    SELECT = "SelectModeAutomatic"
    START_SINGLE = "StartSingleJob"
    START = "StartContinuous"
    STOP = "Stop"
    ABORT = "Abort"
    PREPARE = "PrepareRecipe"
    UNPREPARE = "UnprepareRecipe"


class Query(StrEnum):
    """Methods that are allowed in every state."""

    RESULT = "GetResultById"
    COMPONENTS = "GetResultComponentsById"
    RESULTS = "GetResultListFiltered"
    RECIPES = "GetRecipeListFiltered"


class SystemState(IntEnum):
    """States of SEMI E10."""

    PRODUCTION = 1
    STANDBY = 2
    ENGINEERING = 3
    SCHEDULED_DOWNTIME = 4
    UNSCHEDULED_DOWNTIME = 5
    NONSCHEDULED = 6


_I, _R, _S, _C = Mode.INITIALIZED, Mode.READY, Mode.SINGLE, Mode.CONTINUOUS
MODE_STEPS = {_I: (_R,), _R: (_I, _S, _C), _S: (_R,), _C: (_R,)}
ALLOWED: dict[Call, tuple[State | Mode, ...]] = {
    Call.HALT: (State.PREOPERATIONAL, State.OPERATIONAL, State.ERROR),
    Call.RESET: (State.OPERATIONAL, State.ERROR, State.HALTED),
    Call.SELECT: (State.PREOPERATIONAL,),
    Call.START_SINGLE: (_R,),
    Call.START: (_R,),
    Call.STOP: (_S, _C),
    Call.ABORT: (_S, _C),
    Call.PREPARE: (_I, _R),
    Call.UNPREPARE: (_R,),
}
CAUSED: dict[tuple[str, str], str] = {
    (State.HALTED, Call.HALT): "",
    (State.PREOPERATIONAL, Call.RESET): "",
    (_R, Call.PREPARE): "Recipe",
    (_I, Call.UNPREPARE): "Recipe",
    (_S, Call.START_SINGLE): "",
    (_C, Call.START): "",
    (_R, Call.STOP): "Stop",
    (_R, Call.ABORT): "Abort",
}
"""End of the name of a transition into a state that a method causes; `Auto` for all others."""


def mode_of(view: StationView, state: State, asked: Mode) -> Mode | None:
    """The automatic mode of a station; None outside `OPERATIONAL`. `asked`: by clients, while the station is suspended."""
    if state is not State.OPERATIONAL:
        return None
    return asked if view.suspended else Mode.CONTINUOUS


def mode_steps(start: Mode | None, end: Mode | None) -> list[Mode | None]:
    """Modes that follow `start` up to `end`, each allowed after the one before. The automatic mode begins in `INITIALIZED`."""
    if end is None:
        return [] if start is None else [None]
    if start is None:
        return [Mode.INITIALIZED, *way(Mode.INITIALIZED, end, MODE_STEPS)]
    return [*way(start, end, MODE_STEPS)]


def transition(before: State | Mode, after: State | Mode, call: str | None) -> str:
    """Name of the transition between two states of one state machine; `call`: the method that was called, None for none."""
    end = "Auto" if call is None else CAUSED.get((after, call), "Auto")
    return f"{before.value}To{after.value}{end}"


def is_allowed(call: Call, state: State, mode: Mode | None) -> bool:
    """Whether a method may be called now."""
    return state in ALLOWED[call] or mode in ALLOWED[call]


def system_state(state: State, mode: Mode | None) -> SystemState:
    """The state as SEMI E10 has it: verifying a model is scheduled downtime, halted by a client nonscheduled time."""
    if state is State.OPERATIONAL:
        return SystemState.PRODUCTION if mode in (Mode.SINGLE, Mode.CONTINUOUS) else SystemState.STANDBY
    return {
        State.PREOPERATIONAL: SystemState.SCHEDULED_DOWNTIME,
        State.ERROR: SystemState.UNSCHEDULED_DOWNTIME,
        State.HALTED: SystemState.NONSCHEDULED,
    }[state]
