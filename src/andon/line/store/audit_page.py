"""Pages of the audit, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from andon.line.store.schema import audit

LONGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rows; empty and None: all."""

    who: str = ""
    action: str = ""
    object: str = ""
    """Start of the object, e.g. `station press`."""
    since: int | None = None
    until: int | None = None


def page(
    connection: Connection, filters: Filters, *, before: int | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """At most `limit` rows with a number below `before`."""
    where = [audit.c[name] == text for name in ("who", "action") if (text := getattr(filters, name))]
    if filters.object:
        where.append(audit.c.object.startswith(filters.object, autoescape=True))
    if filters.since is not None:
        where.append(audit.c.at >= filters.since)
    if filters.until is not None:
        where.append(audit.c.at < filters.until)
    if before is not None:
        where.append(audit.c.seq < before)
    query = select(audit).where(*where).order_by(audit.c.seq.desc()).limit(max(0, min(limit, LONGEST_PAGE)))
    return [dict(row) for row in connection.execute(query).mappings()]
