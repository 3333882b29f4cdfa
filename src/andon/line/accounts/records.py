"""Accounts, log-ins and tokens as rows, and their names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from andon.core.errors import UsageError
from andon.line.roles import Role


@dataclass(frozen=True, slots=True)
class Account:
    """A person who logs in."""

    id: int
    name: str
    role: Role
    created: int
    is_disabled: bool = False
    password_hash: str = field(default="", repr=False)
    pin_hash: str | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, without hashes."""
        return {
            "name": self.name,
            "role": self.role.word,
            "is_disabled": self.is_disabled,
            "has_pin": self.pin_hash is not None,
            "created": self.created,
        }


@dataclass(frozen=True, slots=True)
class Token:
    """A program that asks."""

    id: int
    name: str
    role: Role
    sends: bool
    """Whether it may send parts, whatever its role."""
    station: str | None
    """The only station that it may change; None: all."""
    created: int
    created_by: str
    expires: int | None
    secret_hash: str = field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain values, without hashes."""
        names = ("name", "sends", "station", "created", "created_by", "expires")
        return {"role": self.role.word, **{name: getattr(self, name) for name in names}}


@dataclass(slots=True)
class Login:
    """A browser in which a person has logged in."""

    id: int
    account_id: int
    secret_hash: str = field(repr=False)
    created: int
    seen: int
    """When the person last did something."""
    stored_seen: int
    """`seen` as it is in the database."""


def clean_name(text: str) -> str:
    """Name of an account or token: lower case, one form of each letter. Raises `UsageError`."""
    name = unicodedata.normalize("NFKC", text).strip().lower()
    if not re.fullmatch(r"\w[\w.@-]{0,99}", name):
        raise UsageError(
            f"the name {text[:100]!r} cannot be used: give 1 to 100 letters, digits, '.', '-', '_' or '@', without spaces"
        )
    return name
