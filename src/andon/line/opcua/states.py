"""State of a station as OPC UA clients see it: four states, the steps between them, and the methods that each allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from andon.line.faults import Fault
from andon.line.views import StationView

S = TypeVar("S")


class State(StrEnum):
    """One state of a station."""

    PREOPERATIONAL = "Preoperational"
    """The packed model is not verified yet."""
    OPERATIONAL = "Operational"
    """Parts are judged."""
    ERROR = "Error"
    """Disk, database, model or PLC fail."""
    HALTED = "Halted"
    """A client halted the station; parts are ERROR until it is reset."""


class Method(StrEnum):
    """What a client may call at a station."""

    HALT = "Halt"
    RESET = "Reset"
    SET_RECIPE = "SetRecipe"
    START_GOLDEN = "StartGolden"
    STOP_SEEN = "StopSeen"


_P, _O, _E, _H = State.PREOPERATIONAL, State.OPERATIONAL, State.ERROR, State.HALTED
STEPS = {_P: (_O, _E, _H), _O: (_P, _E, _H), _E: (_P, _H), _H: (_P,)}
"""States that may follow each state directly: out of `Error` and `Halted` only by verifying again."""
ALLOWED = {
    Method.HALT: (_P, _O, _E),
    Method.RESET: (_H,),
    Method.SET_RECIPE: (_O,),
    Method.START_GOLDEN: (_O,),
    Method.STOP_SEEN: (_P, _O, _E, _H),
}
"""States in which a method may be called; `StopSeen` needs a requested stop besides."""


def target(view: StationView) -> State:
    """The state in which a station is. One that takes no parts though it could is operational."""
    if Fault.HALTED in view.faults:
        return State.HALTED
    if view.faults:
        return State.ERROR
    return State.OPERATIONAL if view.is_ready or view.suspended else State.PREOPERATIONAL


def steps(start: State, end: State) -> list[State]:
    """States that follow `start` up to `end`, each allowed after the one before; empty where both are the same."""
    return way(start, end, STEPS)


def way(start: S, end: S, after: Mapping[S, Sequence[S]]) -> list[S]:
    """The shortest way from `start`, which is left out, to `end`; `after`: what may follow each directly."""
    ways: list[list[S]] = [[start]]
    while ways[0][-1] is not end:
        first = ways.pop(0)
        ways += [[*first, each] for each in after[first[-1]]]
    return ways[0][1:]


def is_allowed(method: Method, state: State, view: StationView) -> bool:
    """Whether a method may be called now."""
    return state in ALLOWED[method] and (method is not Method.STOP_SEEN or view.wants_stop)
