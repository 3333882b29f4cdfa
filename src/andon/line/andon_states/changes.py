"""What both tables share: the change that is stored, the person who acts, the causes of a stop."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from andon.core.errors import UsageError


class NotAllowed(UsageError):  # noqa: N818 (not a fault of the machine)
    """A person's action that does not apply in this state, or lacks a name, a cause or a reason."""


class StopCause(StrEnum):
    """Why the line stopped, as a person gives it (keys 1 to 6 of the page)."""

    PRODUCT = "product"
    """The parts are really bad."""
    CAMERA = "camera"
    """Camera or lens: moved, dirty, out of focus."""
    LIGHT = "light"
    SETTING = "setting"
    """Detector, threshold or recipe does not fit the product."""
    FALSE_STOP = "false_stop"
    """The parts were good, and nothing was found."""
    OTHER = "other"
    """Needs a note."""


@dataclass(frozen=True, slots=True)
class Change:
    """One transition, for `alarm_event` and `audit`. Texts are empty where they do not apply."""

    subject: str
    """Key of the alarm (station and rule) or name of the station."""
    t: int
    """Microseconds UTC."""
    event: str
    old: str
    new: str
    who: str = ""
    cause: str = ""
    why: str = ""
    """What fired, or the reason or note of a person."""
    count: int = 0
    """How often the alarm was raised up to now."""


class By(NamedTuple):
    """A person's action: who, and the cause, reason or note that it needs."""

    who: str
    cause: StopCause | None = None
    why: str = ""


def named(by: By | None, subject: str, event: StrEnum) -> By:
    """`by`, which must have a name. Raises `NotAllowed` otherwise."""
    if by is None or not by.who.strip():
        raise NotAllowed(f"{subject}: {event!s} needs a person: give a name")
    return by


def check_cause(by: By, subject: str) -> None:
    """Raises `NotAllowed` without a cause, and for `other` without a note."""
    if by.cause is None:
        raise NotAllowed(f"{subject}: give the cause, one of {', '.join(StopCause)}")
    if by.cause is StopCause.OTHER and not by.why.strip():
        raise NotAllowed(f"{subject}: cause {by.cause} needs a note")
