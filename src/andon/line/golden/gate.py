"""Whether a station may give OK as far as its golden parts are concerned. A frozen value, no I/O, no clock.

    CLEAR -> DUE -> OVERDUE, and FAILED at any time, until a check has passed; OVERRIDDEN for a time, by an administrator

Times are microseconds UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from andon.line.golden.items import Mode


class Reason(StrEnum):
    """Why a check is due."""

    SHIFT = "begin of the shift"
    CHANGEOVER = "change of the product"
    SET = "other golden parts"
    CAUSE = "stop because of camera, light or setting"
    HOURS = "hours since the last check"
    RESTART = "restart"
    RESTORE = "restore of a backup"
    CLOCK = "clock set back"


OF_CAMERA = frozenset({Reason.SHIFT, Reason.CHANGEOVER, Reason.CAUSE, Reason.HOURS, Reason.RESTORE})
"""Reasons for which parts have to be shown to the camera, where the set has parts; images suffice for the others."""


class Clearance(StrEnum):
    """What follows for the station."""

    CLEAR = "clear"
    DUE = "due"
    """A person is called; parts may be OK for a time."""
    OVERDUE = "overdue"
    """No part is OK."""
    FAILED = "failed"
    """No part is OK."""
    OVERRIDDEN = "overridden"
    """Parts may be OK although the check is due or failed."""

    @property
    def may_pass(self) -> bool:
        """Whether parts may be OK."""
        return self not in (Clearance.OVERDUE, Clearance.FAILED)


@dataclass(frozen=True, slots=True)
class Gate:
    """What is due and what failed. It outlives restarts, so that a restart skips nothing."""

    due: int | None = None
    """Since when a check is due; None where none is."""
    grace_until: int | None = None
    """Until when parts may be OK while it is due."""
    reasons: tuple[Reason, ...] = ()
    failed: str = ""
    """Names of parts that came out wrong; empty where none did."""
    failed_mode: Mode = Mode.FILES
    passed_at: int | None = None
    """The last check that passed as a whole."""
    override_from: int | None = None
    override_until: int | None = None
    override_who: str = ""
    override_why: str = ""

    def needed(self, *, has_parts: bool) -> Mode | None:
        """The check that clears the gate; None where none is needed."""
        if not self.reasons and not self.failed:
            return None
        shown = any(reason in OF_CAMERA for reason in self.reasons)
        shown = shown or (bool(self.failed) and self.failed_mode is Mode.PARTS)
        return Mode.PARTS if shown and has_parts else Mode.FILES

    def clearance(self, now: int, *, guarded: bool) -> Clearance:
        """What follows at a time. `guarded`: the station has golden parts for its model; a failed check counts without."""
        due = self.due is not None and guarded
        if not self.failed and not due:
            return Clearance.CLEAR
        if self.override_until is not None and now < self.override_until:
            return Clearance.OVERRIDDEN
        if self.failed:
            return Clearance.FAILED
        return Clearance.DUE if self.grace_until is None or now < self.grace_until else Clearance.OVERDUE

    def made_due(self, reason: Reason, now: int, grace: int) -> Gate:
        """With a further reason for a check; the time that is left does not grow."""
        if reason in self.reasons:
            return self
        until = now + grace
        return replace(
            self,
            due=now if self.due is None else self.due,
            grace_until=until if self.grace_until is None else min(self.grace_until, until),
            reasons=(*self.reasons, reason),
        )

    def after(self, why: str, mode: Mode, now: int, *, has_parts: bool) -> Gate:
        """After a check. `why`: what came out wrong, empty where it passed.

        Stored images that pass clear neither what needs parts nor parts that failed.
        """
        if why:
            due = now if self.due is None else self.due
            worse = Mode.PARTS if self.failed and self.failed_mode is Mode.PARTS else mode
            return replace(self, failed=why, failed_mode=worse, due=due, override_until=None)
        if mode is Mode.PARTS or self.needed(has_parts=has_parts) is not Mode.PARTS:
            whole = mode is Mode.PARTS or not has_parts
            return Gate(passed_at=now if whole else self.passed_at)
        still_failed = self.failed if self.failed_mode is Mode.PARTS else ""
        return replace(self, failed=still_failed, reasons=tuple(r for r in self.reasons if r in OF_CAMERA))

    def overridden(self, now: int, until: int, who: str, why: str) -> Gate:
        """Parts may be OK up to a time."""
        return replace(self, override_from=now, override_until=until, override_who=who, override_why=why)

    def set_back(self, back: int) -> Gate:
        """After the clock was set back: an override is over, and the time that is left while a check is due stays."""
        due = None if self.due is None else self.due - back
        grace = None if self.grace_until is None else self.grace_until - back
        return replace(self, due=due, grace_until=grace, override_until=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives the same gate."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`."""
        reasons = tuple(Reason(reason) for reason in values["reasons"])
        return cls(**{**values, "reasons": reasons, "failed_mode": Mode(values["failed_mode"])})
