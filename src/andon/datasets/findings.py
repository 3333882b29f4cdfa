"""Findings: what is noticed while a data set is read or checked, as errors, warnings and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

NAMED = 3
"""Files that a message names; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Messages about a data set, one line each."""

    errors: tuple[str, ...] = ()
    """Results would be wrong: correct the data first."""
    warnings: tuple[str, ...] = ()
    """Results may be worse or incomplete."""
    notes: tuple[str, ...] = ()
    """Information."""
    excluded: tuple[str, ...] = ()
    """Ids of good images that were left out on request."""
    guesses: tuple[str, ...] = ()
    """What was concluded from names of folders."""
    told: tuple[Path, ...] = field(default=(), repr=False)
    """Images that are not read, for a reason that a message says."""

    def lines(self) -> list[str]:
        """All messages as `error: ...`, `warning: ...`, `guess: ...`, `note: ...`, in this order."""
        ranks = (
            ("error", self.errors),
            ("warning", self.warnings),
            ("guess", self.guesses),
            ("note", self.notes),
        )
        return [f"{rank}: {message}" for rank, messages in ranks for message in messages]

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            self.errors + other.errors,
            self.warnings + other.warnings,
            self.notes + other.notes,
            self.excluded + other.excluded,
            self.guesses + other.guesses,
            self.told + other.told,
        )


@dataclass(slots=True)
class FindingsLog:
    """Collects findings while a data set is read."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    guesses: list[str] = field(default_factory=list)
    told: list[Path] = field(default_factory=list)

    def findings(self) -> Findings:
        """The collected messages in order, without duplicates."""
        ranks = (self.errors, self.warnings, self.notes, self.excluded, self.guesses)
        errors, warnings, notes, excluded, guesses = (tuple(dict.fromkeys(rank)) for rank in ranks)
        return Findings(errors, warnings, notes, excluded, guesses, tuple(self.told))


def first_few(items: Sequence[str | Path], limit: int = NAMED) -> str:
    """`a, b, c and 7 more`."""
    named = ", ".join(str(item) for item in items[:limit])
    return f"{named} and {len(items) - limit} more" if len(items) > limit else named
