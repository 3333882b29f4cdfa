"""What is remembered of the golden parts of one station, and what time and events make due."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from andon.line.andon_states import CHECKED_CAUSES
from andon.line.andon_states import Station as Machine
from andon.line.clock import HOUR, MINUTE, SECOND
from andon.line.golden.gate import OF_CAMERA, Clearance, Gate, Reason
from andon.line.golden.items import GoldenSet, Item, Mode, Result
from andon.line.golden.settings import GoldenSettings
from andon.line.parts import Taken
from andon.line.station import Station
from andon.line.tally import shift_begin
from andon.line.views import GoldenView

PATIENCE = MINUTE
"""How long a check that the station does by itself may be due before a person is called."""
CLOCK_SLACK = MINUTE
"""How far the clock may be set back without consequences."""


@dataclass(eq=False, slots=True)
class Showing:
    """Parts that are being shown to the camera."""

    who: str
    golden: GoldenSet
    started: int
    results: list[Result]
    waiting: Item | None = None
    """The next part of the station is taken as this one."""
    future: Future[Taken] | None = None
    until: int = 0
    """When the wait ends."""
    message: str = ""
    """What went wrong with the last one."""

    @property
    def left(self) -> list[Item]:
        """Parts that have not been shown."""
        done = {each.name for each in self.results if each.mode is Mode.PARTS}
        return [item for item in self.golden.items if item.has_part and item.name not in done]


@dataclass(eq=False, slots=True)
class Post:
    """One station. Changed under the lock of `Golden`; values are frozen, so that any thread may read them."""

    station: Station
    settings: GoldenSettings
    golden: GoldenSet | None
    """Golden parts for the model in use."""
    gate: Gate
    model_sha256: str
    showing: Showing | None = None
    running: threading.Lock = field(default_factory=threading.Lock)
    retry_at: int = 0
    """When the station may check by itself again."""
    unsaved: bool = False
    told: tuple[Clearance, str, bool, bool] | None = None
    """What alarms and pages know."""

    @property
    def name(self) -> str:
        """Of the station."""
        return self.station.name

    @property
    def guarded(self) -> bool:
        """Whether there are golden parts for the model in use."""
        return self.golden is not None and bool(self.golden.items)

    @property
    def has_parts(self) -> bool:
        """Whether golden parts can be shown to the camera."""
        return self.golden is not None and self.golden.has_parts

    def clearance(self, now: int) -> Clearance:
        """What follows for the station at a time."""
        return self.gate.clearance(now, guarded=self.guarded)

    def may_pass(self, now: int) -> bool:
        """Whether a part may be OK."""
        return self.clearance(now).may_pass

    def made_due(self, reason: Reason, now: int) -> Gate:
        """The gate with a further reason."""
        return self.gate.made_due(reason, now, round(self.settings.grace_minutes * MINUTE))

    def reasons(self, machine: Machine, now: int) -> list[Reason]:
        """What has made a check due by now and is not noted yet. `machine`: state of the stop of the station."""
        if not self.guarded:
            return []
        passed = self.gate.passed_at
        found = []
        if machine.check_due and machine.cause in CHECKED_CAUSES:
            found.append(Reason.CAUSE)
        if passed is not None and passed > now + CLOCK_SLACK:
            found.append(Reason.CLOCK)
        if self.settings.at_shift and (passed is None or passed < shift_begin(now)):
            found.append(Reason.SHIFT)
        hours = round(self.settings.every_hours * HOUR)
        if hours and (passed is None or passed + hours <= now):
            found.append(Reason.HOURS)
        return [reason for reason in found if reason not in self.gate.reasons]

    def checks_itself(self, now: int) -> bool:
        """Whether the station should judge the stored images now, without a person."""
        useful = any(reason not in OF_CAMERA or not self.has_parts for reason in self.gate.reasons)
        return (
            useful
            and self.settings.automatic
            and self.guarded
            and not self.gate.failed
            and self.showing is None
            and self.station.is_verified
            and now >= self.retry_at
        )

    def calls_person(self, now: int) -> bool:
        """Whether a person has to do something about a check that is due."""
        if self.clearance(now) is not Clearance.DUE or self.gate.due is None:
            return False
        by_itself = self.settings.automatic and self.gate.needed(has_parts=self.has_parts) is Mode.FILES
        return not by_itself or now - self.gate.due > PATIENCE

    def text(self, now: int) -> str:
        """One line for people; empty where there is nothing to say."""
        gate, clearance = self.gate, self.clearance(now)
        reasons = ", ".join(gate.reasons) or "asked for"
        if clearance is Clearance.CLEAR:
            return ""
        if clearance is Clearance.DUE:
            return f"golden parts are due ({reasons}), at the latest at {local(gate.grace_until)}"
        if clearance is Clearance.OVERRIDDEN:
            return (
                f"golden parts are not judged right, overridden until {local(gate.override_until)} "
                f"by {gate.override_who}: {gate.override_why}"
            )
        if clearance is Clearance.OVERDUE:
            return f"golden parts are overdue ({reasons}): no part is OK until they are judged right"
        return f"golden parts were judged wrong ({gate.failed}): no part is OK until they are judged right"

    def view(self, now: int) -> GoldenView:
        """What people and interfaces see."""
        showing, gate = self.showing, self.gate
        needed = gate.needed(has_parts=self.has_parts)
        return GoldenView(
            state=self.clearance(now).value,
            text=self.text(now),
            items=len(self.golden.items) if self.golden else 0,
            needs=None if needed is None or not (self.guarded or gate.failed) else needed.value,
            due=gate.due if self.guarded else None,
            grace_until=gate.grace_until if self.guarded else None,
            passed_at=gate.passed_at,
            override_until=gate.override_until,
            left=tuple(item.name for item in showing.left) if showing else (),
            waits_for=showing.waiting.name if showing and showing.waiting else None,
            message=showing.message if showing else "",
        )


def local(t: int | None) -> str:
    """Hour and minute, local time."""
    return "" if t is None else time.strftime("%H:%M", time.localtime(t // SECOND))
