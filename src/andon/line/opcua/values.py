"""Values of a station in the flat folder: those of the register map of a PLC, and some that have no register."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from andon.line.opcua.states import State
from andon.line.plc.registers import LARGEST_WORD, RESULTS, SCHEMA_VERSION, Kind, Results, Status
from andon.line.plc.unit import around, outcome
from andon.line.store import Inspection
from andon.line.verdicts import Verdict
from andon.line.views import StationView, answer


class Value(NamedTuple):
    """Name of a value, and the built-in type of OPC UA that it has."""

    name: str
    type: str


HANDSHAKE = {"error", "missed"}
"""Fields of the register map that only a PLC with its handshake has."""
BITS = (
    *(Status.ONLINE, Status.INSPECTING, Status.RESULTS_VALID, Status.ERROR),
    *(Status.STOP_REQUEST, Status.CALL, Status.GOLDEN_DUE, Status.GOLDEN_FAILED),
)
"""Status bits that every station has; each is a value of its own too."""
TYPES = {Kind.BITS: "UInt16", Kind.WORD: "UInt32", Kind.LONG: "UInt64", Kind.FLOAT: "Float"}
LARGEST = {"UInt16": (1 << 16) - 1, "UInt32": (1 << 32) - 1, "UInt64": (1 << 64) - 1}


def _name(of: str) -> str:
    return of.title().replace("_", "")


def _bit(bit: Status) -> str:
    return f"Is{_name(str(bit.name))}"


PART = (
    Value("PartId", "String"),
    Value("Lot", "String"),
    Value("Result", "String"),
)
"""Of the last part; `Result`: JSON as REST answers it."""
NUMBERS = tuple(
    Value(_name(field.name), TYPES[field.kind]) for field in RESULTS if field.name not in HANDSHAKE
)
VALUES = (
    *NUMBERS,
    *(Value(_bit(bit), "Boolean") for bit in BITS),
    *PART,
    Value("RecipeCode", "String"),
    Value("State", "String"),
    Value("Lost", "UInt32"),
)
EVENT = (
    *(value for value in NUMBERS if value.name in {"Inspection", "Verdict", "TriggerNo", "Score"}),
    *PART,
)
"""Fields of the event of a part, besides those of every event."""


def values(
    view: StationView, row: Inspection | None, state: State, *, heartbeat: int = 0, lost: int = 0
) -> dict[str, Any]:
    """All of `VALUES`. The verdict is 0 without a part, and OK only while parts are judged."""
    shown = row if row is not None and (state is State.OPERATIONAL or row.verdict is not Verdict.OK) else None
    results = replace(results_of(view, shown, state), heartbeat=heartbeat)
    numbers = {
        **asdict(results),
        "complement": LARGEST_WORD - results.verdict,
        "schema_version": SCHEMA_VERSION,
    }
    found = {_name(name): value for name, value in numbers.items()}
    found |= {_bit(bit): bit in results.status for bit in BITS}
    found |= part_texts(shown) | {"RecipeCode": view.recipe or "", "State": state.value, "Lost": lost}
    return {value.name: _fitting(value, found[value.name]) for value in VALUES}


def event(row: Inspection) -> dict[str, Any]:
    """All of `EVENT` for a committed part."""
    found = outcome(row)
    numbers = {
        "Inspection": found.inspection,
        "Verdict": int(found.verdict),
        "TriggerNo": row.trigger_no or 0,
        "Score": found.score,
    }
    texts = part_texts(row)
    return {value.name: _fitting(value, {**numbers, **texts}[value.name]) for value in EVENT}


def results_of(view: StationView, row: Inspection | None, state: State) -> Results:
    """What the register map holds, as far as a station has it without a handshake."""
    bits = {
        Status.ONLINE: state is State.OPERATIONAL and not view.suspended,
        Status.INSPECTING: view.queue > 0,
        Status.RESULTS_VALID: row is not None,
        Status.ERROR: bool(view.faults),
    }
    base = around(view)
    status = base.status | Status(sum(bit for bit, is_set in bits.items() if is_set))
    base = replace(base, status=status, queue=view.queue)
    if row is None:
        return base
    return replace(base, trigger_no=row.trigger_no or 0, **outcome(row)._asdict())


def part_texts(row: Inspection | None) -> dict[str, str]:
    """The texts of a part; empty where there is none."""
    if row is None:
        return {"PartId": "", "Lot": "", "Result": ""}
    return {"PartId": row.part_id or "", "Lot": row.lot or "", "Result": json.dumps(answer(row))}


def _fitting(value: Value, found: Any) -> Any:
    """`found` as the type of `value` has it; numbers that do not fit are cut to the lowest bits."""
    if value.type == "Float":
        return float(found) if math.isfinite(found) else math.nan
    return int(found) & LARGEST[value.type] if value.type in LARGEST else found
