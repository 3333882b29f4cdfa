"""Versions of the stop rules of a station: who set them, when and why. Rows are added, never changed.

A version holds all rules of its station; the newest is in use. Rules of the settings file become a version when they differ
from those that the file had before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from andon.core.errors import UsageError
from andon.line.rules import Rule, parse_rule
from andon.line.settings import StationSettings, check_rules
from andon.line.store import Connection, Store, rows
from andon.line.store.audit import Entry, append
from andon.line.versions import BY_FILE, Stale, station_id


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """All stop rules of a station, as they were set once."""

    id: int
    rules: tuple[Rule, ...]
    why: str
    who: str
    at: int
    """Microseconds UTC."""
    prev_id: int | None
    """The version before."""

    @property
    def plain(self) -> list[dict[str, Any]]:
        """The rules as plain values."""
        return plain(self.rules)


def plain(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Rules as plain values, from which `parse_rule` makes them again."""
    return [rule.model_dump(mode="json") for rule in rules]


def versions(store: Store, station: str, *, limit: int | None = None) -> list[RuleVersion]:
    """The versions of a station, newest first."""
    return store.ask(lambda connection: _versions(connection, station, limit))


def add_version(store: Store, station: str, rules: Sequence[Rule], *, who: str, why: str) -> RuleVersion:
    """A new version, committed with its row in the audit.

    Raises `UsageError` without name or reason, `ConfigError` where two rules are the same.
    """
    if not who.strip() or not why.strip():
        raise UsageError(f"new rules of station {station} need a name and a reason: give both")
    check_rules(rules, where=f"station {station}")

    def write(connection: Connection) -> RuleVersion:
        before = next(iter(_versions(connection, station, 1)), None)
        at, prev_id = store.clock(), None if before is None else before.id
        id = rows.add(
            connection,
            "rule_version",
            station_id=station_id(connection, station),
            settings_json=json.dumps(plain(rules)),
            why=why,
            who=who,
            at=at,
            prev_id=prev_id,
        )
        old = None if before is None else before.plain
        new = {"rules": plain(rules), "version": id}
        append(connection, Entry(who, "rules", f"station {station}", old=old, new=new, reason=why), at)
        return RuleVersion(id, tuple(rules), why, who, at, prev_id)

    return store.write(write).result()


def check_base(now: RuleVersion, based_on: int | None) -> None:
    """Raises `Stale` where another version than `based_on` is in use; None: any."""
    if based_on not in (None, now.id):
        raise Stale(f"version {now.id} of the rules, by {now.who}, is in use: look at it first")


def at_start(store: Store, settings: StationSettings) -> RuleVersion:
    """The version of a station after a start: the newest one; a new one where the settings file was changed."""
    found = versions(store, settings.name)
    of_file = next((version for version in found if version.who == BY_FILE), None)
    if of_file is None or of_file.plain != plain(settings.rules):
        why = "the settings file has these rules"
        return add_version(store, settings.name, settings.rules, who=BY_FILE, why=why)
    return found[0]


def _versions(connection: Connection, station: str, limit: int | None) -> list[RuleVersion]:
    found = rows.find(connection, "rule_version", station_id=station_id(connection, station), limit=limit)
    return [
        RuleVersion(
            rules=tuple(
                parse_rule(values, where=f"version {row['id']} of the rules of station {station}")
                for values in json.loads(row["settings_json"])
            ),
            **{name: row[name] for name in ("id", "why", "who", "at", "prev_id")},
        )
        for row in found
    ]
