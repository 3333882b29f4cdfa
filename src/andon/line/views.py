"""What people and interfaces see of a station and its alarms: frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from andon.line.andon_states import AlarmState, StationState, StopCause
from andon.line.judge import Thresholds
from andon.line.store import Inspection
from andon.line.verdicts import Verdict

VerdictName = Literal["OK", "NG", "REVIEW", "ERROR"]


class Shown(StrEnum):
    """State of a station in one word."""

    RUNNING = "RUNNING"
    WAITING = "WAITING"
    """No part for some cycles."""
    REVIEW = "REVIEW"
    """A person is called, or the last part is to be looked at; the line runs."""
    STOPPED = "STOPPED"
    FAULT = "FAULT"
    """Disk, database or model fail."""
    SETUP = "SETUP"
    """The packed model has not been verified yet, or another machine keeps the station from judging."""


@dataclass(frozen=True, slots=True)
class AlarmView:
    """One alarm that is not over. Times are microseconds UTC."""

    id: int
    station: str
    rule: str
    state: AlarmState
    stops: bool
    """Whether it stops the line; otherwise it calls a person."""
    why: str
    count: int
    """Times raised."""
    raised: int
    acked: int | None
    ack_by: str
    shelved_until: int | None
    inspection_from: int | None
    """Oldest part because of which it was raised."""
    inspection_to: int | None
    level: int = 0
    """How many of the times of escalation have passed without acknowledgement."""
    rule_version: int | None = None
    """Id of the version of the stop rules that raised it; None for a condition or a person."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "state": self.state.value}


@dataclass(frozen=True, slots=True)
class GoldenView:
    """Golden parts of one station now. Times are microseconds UTC, None where there is none."""

    state: str = "clear"
    """`clear`, `due`, `overdue`, `failed`, `overridden`; while `overdue` and `failed` no part is OK."""
    text: str = ""
    """One line for people; empty while `clear`."""
    items: int = 0
    """Golden parts for the model in use."""
    needs: str | None = None
    """What clears it: `files` (stored images) or `parts` (shown to the camera)."""
    due: int | None = None
    """Since when."""
    grace_until: int | None = None
    """Up to when parts may be OK while it is due."""
    passed_at: int | None = None
    """The last check that passed."""
    override_until: int | None = None
    left: tuple[str, ...] = ()
    """Parts that are still to be shown in the check that has begun."""
    waits_for: str | None = None
    """The next part of the station is taken as this one."""
    message: str = ""
    """What went wrong with the part shown last."""


@dataclass(frozen=True, slots=True)
class StationView:
    """One station now. Times are microseconds UTC."""

    name: str
    state: Shown
    reason: str
    """Why the state is not RUNNING; empty otherwise."""
    since: int
    """Start of the state."""
    machine: StationState
    """State of the stop: `run`, `call`, `stopped`, `cause_given`, ..."""
    wants_stop: bool
    """The line must not move."""
    cause: StopCause | None
    """Cause of the stop, as a person gave it."""
    check_due: bool
    """Known parts have to be judged right before the line may resume."""
    is_ready: bool
    """Whether parts are judged."""
    suspended: str
    """Why a station that could judge takes no parts; empty otherwise."""
    faults: tuple[str, ...]
    model_name: str
    model_sha256: str
    recipe: str | None
    """Code of the recipe in use."""
    recipes: tuple[str, ...]
    """Codes to which the station can change."""
    thresholds: Thresholds
    rule_version: int
    """Id of the version of the stop rules in use."""
    cycle_s: float
    queue: int
    """Parts that wait."""
    queue_limit: int
    counts: Mapping[Verdict, int]
    """Parts of the shift."""
    shift_since: int
    """Start of the shift: 6, 14 or 22 o'clock, local time."""
    per_minute: int
    """Parts of the last minute."""
    last_id: int | None
    """The last inspection."""
    strip: tuple[tuple[int, Verdict], ...]
    """Id and verdict of the last parts, oldest first."""
    alarms: tuple[AlarmView, ...]
    golden: GoldenView = GoldenView()

    def to_json(self) -> dict[str, Any]:
        """Plain values; verdicts by name."""
        return {
            **asdict(self),
            "state": self.state.value,
            "machine": self.machine.value,
            "cause": None if self.cause is None else self.cause.value,
            "thresholds": self.thresholds._asdict(),
            "counts": {verdict.name: n for verdict, n in self.counts.items()},
            "strip": [{"id": id, "verdict": verdict.name} for id, verdict in self.strip],
            "faults": list(self.faults),
            "alarms": [alarm.to_json() for alarm in self.alarms],
        }


class Health(NamedTuple):
    """Whether the process works, and whether every station can judge."""

    live: bool
    ready: bool
    reasons: tuple[str, ...]
    """Why not, one for each station and fault."""


def summary(row: Inspection) -> dict[str, Any]:
    """A committed inspection as the event `inspection` has it."""
    return {
        "id": row.id,
        "station": row.station,
        "request_id": row.request_id,
        "part_id": row.part_id,
        "lot": row.lot,
        "t_trigger": row.t_trigger,
        "t_done": row.t_done,
        "verdict": row.verdict.name,
        "cause": row.cause,
        "score": row.score,
        "regions": [region._asdict() for region in row.regions],
        "image_state": row.image_state.name.lower(),
        "same_as": row.same_as,
        "has_map": row.map_key is not None,
        "ms": dict(row.ms),
    }


def answer(row: Inspection) -> dict[str, Any]:
    """A committed inspection as interfaces answer it: plain values, no addresses."""
    return {
        "id": row.id,
        "station": row.station,
        "request_id": row.request_id,
        "part_id": row.part_id,
        "lot": row.lot,
        "recipe": row.recipe,
        "trigger_no": row.trigger_no,
        "t_trigger": row.t_trigger,
        "t_done": row.t_done,
        "verdict": verdict_name(row.verdict),
        "score": row.score,
        "score_raw": row.score_raw,
        "cause": row.cause,
        "threshold_version": row.threshold_version,
        "model_sha256": row.model_sha256,
        "regions": [region._asdict() for region in row.regions],
        "ms": dict(row.ms),
        "image_state": row.image_state.name.lower(),
        "image_sha256": row.image_sha256,
        "same_as": row.same_as,
    }


def verdict_name(verdict: Verdict) -> VerdictName:
    """Name of a verdict; none is ERROR."""
    names: dict[Verdict, VerdictName] = {Verdict.OK: "OK", Verdict.NG: "NG", Verdict.REVIEW: "REVIEW"}
    return names.get(verdict, "ERROR")
