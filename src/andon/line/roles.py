"""Roles of people and tokens, each with all that those before it may do, and who acts now."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

from andon.core.errors import UsageError


class Role(IntEnum):
    """Who may do what; a higher role may do all that a lower one may."""

    VIEWER = 1
    """Sees pages and results."""
    INSPECTOR = 2
    """Reviews parts, acknowledges alarms, calls and stops."""
    LEADER = 3
    """Gives causes, resumes, puts calls aside, sends parts, reads the audit."""
    ENGINEER = 4
    """Changes thresholds, rules, models, golden sets."""
    ADMIN = 5
    """Keeps accounts and tokens, overrides a check of golden parts that failed or is due, releases retention."""

    @property
    def word(self) -> str:
        """Lower-case name, as people write it."""
        return self.name.lower()

    @classmethod
    def parse(cls, word: str) -> Role:
        """Inverse of `word`. Raises `UsageError`."""
        try:
            return cls[word.upper()]
        except KeyError:
            known = ", ".join(role.word for role in cls)
            raise UsageError(f"there is no role {word!r}: give one of {known}") from None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Without accounts the name is empty, and whoever reaches the server may do everything."""

    name: str = ""
    role: Role = Role.ADMIN
    station: str | None = None
    """The only station that a token may change; None: all."""
    sends: bool = False
    """Whether a token may send parts, whatever its role."""
    is_locked: bool = False
    """An idle log-in: only sees, up to a new log-in."""
    csrf: str = ""
    """What changes by a browser have to repeat; empty where nothing is sent along without the sender's doing."""
    origin: tuple[str, str] | None = None
    """Kind and key by which the caller is recognised again; None without accounts."""

    def author(self, said: str = "") -> str:
        """The name that is stored: that of the account, or without accounts what the request says."""
        if not (name := self.name or said):
            raise UsageError("nobody is named: give a name (who)")
        return name


ACTING: ContextVar[Caller | None] = ContextVar("acting", default=None)
"""Who asked for what runs now; None in the threads of the line."""


def acting_role() -> str:
    """Role of the account that acts now; empty where none does."""
    caller = ACTING.get()
    return caller.role.word if caller is not None and caller.name else ""
