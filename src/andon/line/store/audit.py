"""Audit: who changed what and why, as a chain of hashes.

Each row holds SHA-256 of the previous hash and its own content in canonical JSON, so that a changed or deleted row shows.
Triggers refuse UPDATE and DELETE. What the chain cannot show by itself is that its last rows are gone: the head is written to
the log each day and into every backup, and `verify` compares with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, text

from andon.core.errors import DataError, UsageError
from andon.core.text import whole_number
from andon.line.roles import acting_role
from andon.line.store.connection import ask_database
from andon.line.store.schema import audit

BEGIN = "0" * 64
"""Previous hash of the first row."""
APPENDING = 0x616E6470
"""Key of the lock of a transaction that adds rows: several lines may do so."""
VERIFY_SECONDS = 3600.0
"""Time limit of `verify_database`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `old` and `new` are JSON values, None where there is none."""

    who: str
    action: str
    """What was done, e.g. `threshold`, `acknowledge`, `retention`."""
    object: str = ""
    """To what, e.g. `station press`."""
    role: str = field(default_factory=acting_role)
    """Role of the account that acted; empty without accounts and for what the line did by itself."""
    old: Any = None
    new: Any = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of the chain; 0 rows where there is none."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Inverse of `str`. Raises `UsageError`."""
        seq, _, digest = text.strip().partition(":")
        number = whole_number(seq)
        if number is None or len(digest) != 64:
            raise UsageError(
                f"{text!r} is no head of an audit: give NUMBER:HASH as the log or the manifest has it"
            )
        return cls(number, digest)


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of `verify`: the head reached, and what is wrong in one line; empty where nothing is."""

    head: Head
    problem: str


def append(connection: Connection, entry: Entry, at: int) -> Head:
    """Add a row to the chain, in the transaction of `connection`. Returns the new head."""
    hold(connection)
    last = head(connection)
    seq = last.seq + 1
    row = {
        "seq": seq,
        "at": at,
        "who": entry.who,
        "role": entry.role,
        "action": entry.action,
        "object": entry.object,
        "old_json": _json(entry.old),
        "new_json": _json(entry.new),
        "reason": entry.reason,
        "prev_hash": last.hash,
    }
    digest = row_hash(row)
    connection.execute(insert(audit).values(**row, hash=digest))
    return Head(seq, digest)


def hold(connection: Connection) -> None:
    """Keep other processes from adding rows up to the end of the transaction: what is read from now on is the newest."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": APPENDING})


def head(connection: Connection) -> Head:
    """The last row of the chain."""
    last = connection.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).first()
    return Head(0, BEGIN) if last is None else Head(last.seq, last.hash)


def verify(connection: Connection, known: Head | None = None) -> Verification:
    """Go through the whole chain. `known`: a head noted earlier, which has to be part of it."""
    reached = Head(0, BEGIN)
    for stored in connection.execute(select(audit).order_by(audit.c.seq)).mappings():
        row = dict(stored)
        if row["seq"] != reached.seq + 1:
            return Verification(reached, f"row {reached.seq + 1} is missing before row {row['seq']}")
        if row["prev_hash"] != reached.hash:
            return Verification(reached, f"row {row['seq']} does not follow row {reached.seq}")
        if row["hash"] != row_hash(row):
            return Verification(reached, f"row {row['seq']} was changed")
        reached = Head(row["seq"], row["hash"])
        if known is not None and reached.seq == known.seq and reached.hash != known.hash:
            return Verification(
                reached, f"row {known.seq} is not the one that was noted: the chain was rewritten"
            )
    if known is not None and known.seq > reached.seq:
        return Verification(reached, f"rows {reached.seq + 1} to {known.seq} at the end are missing")
    return Verification(reached, "")


def check(connection: Connection, known: Head | None = None) -> Head:
    """The head of a sound chain. Raises `DataError`."""
    result = verify(connection, known)
    if result.problem:
        raise DataError(f"the audit is not sound: {result.problem}; compare with a backup")
    return result.head


def verify_database(url_or_folder: str | Path, known: Head | None = None) -> Verification:
    """Check the audit of a PostgreSQL URL or a data folder; a line may write meanwhile.

    Raises `DataError` where there is no database, `StoreError` where it cannot be read.
    """
    return ask_database(url_or_folder, lambda connection: verify(connection, known), seconds=VERIFY_SECONDS)


def row_hash(row: Mapping[str, Any]) -> str:
    """SHA-256 of the previous hash and the content of a row."""
    names = ("seq", "at", "who", "role", "action", "object", "old_json", "new_json", "reason")
    content = json.dumps([row[name] for name in names], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(row["prev_hash"].encode() + content.encode()).hexdigest()


def _json(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
