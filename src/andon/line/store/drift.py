"""Rows of the drift watch: references and state of a station, points over time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select

from andon.line.store import rows
from andon.line.store.audit import Entry, append
from andon.line.store.schema import drift_point

MOST_POINTS = 20_000
"""Rows of one question."""


class StoredReference(NamedTuple):
    """A version of the reference of a station and a model."""

    id: int
    parts: int
    why: str
    who: str
    at: int
    content: dict[str, Any]


class Point(NamedTuple):
    """A number at a time."""

    at: int
    name: str
    value: float
    n: int


def newest_reference(connection: Connection, station: str, model_sha256: str) -> StoredReference | None:
    """The reference in use; None where there is none."""
    place = _station(connection, station), _model(connection, model_sha256)
    if None in place:
        return None
    found = rows.find(connection, "drift_reference", limit=1, station_id=place[0], model_id=place[1])
    return _stored(found[0]) if found else None


def add_reference(
    connection: Connection,
    station: str,
    model_sha256: str,
    content: Mapping[str, Any],
    *,
    who: str,
    why: str,
    at: int,
) -> int:
    """Add a version with its row in the audit; its id."""
    parts = int(content["count"])
    added = rows.add(
        connection,
        "drift_reference",
        station_id=_station(connection, station),
        model_id=_model(connection, model_sha256),
        parts=parts,
        content_json=json.dumps(content),
        who=who,
        why=why,
        at=at,
    )
    new = {"version": added, "parts": parts, "model": model_sha256}
    append(connection, Entry(who, "drift reference", f"station {station}", new=new, reason=why), at)
    return added


def read_state(connection: Connection, station: str) -> dict[str, Any] | None:
    """The state that was written last; None before the first."""
    number = _station(connection, station)
    found = [] if number is None else rows.find(connection, "drift_state", limit=1, station_id=number)
    return json.loads(found[0]["state_json"]) if found else None


def write(connection: Connection, station: str, state: Mapping[str, Any], points: list[Point]) -> None:
    """Replace the state, add points."""
    number = _station(connection, station)
    text = json.dumps(state)
    found = rows.find(connection, "drift_state", limit=1, station_id=number)
    if found:
        rows.change(connection, "drift_state", found[0]["id"], state_json=text)
    else:
        rows.add(connection, "drift_state", station_id=number, state_json=text)
    if points:
        connection.execute(
            insert(drift_point), [{"station_id": number, **point._asdict()} for point in points]
        )


def points(connection: Connection, station: str, since: int) -> list[Point]:
    """Points since a time, oldest first; the newest `MOST_POINTS` of them."""
    query = (
        select(drift_point.c.at, drift_point.c.name, drift_point.c.value, drift_point.c.n)
        .where(drift_point.c.station_id == _station(connection, station), drift_point.c.at >= since)
        .order_by(drift_point.c.at.desc(), drift_point.c.id.desc())
        .limit(MOST_POINTS)
    )
    return [Point(*row) for row in connection.execute(query)][::-1]


def forget(connection: Connection, before: int) -> None:
    """Delete points before a time."""
    connection.execute(delete(drift_point).where(drift_point.c.at < before))


def _station(connection: Connection, name: str) -> int | None:
    found = rows.find(connection, "station", limit=1, name=name)
    return int(found[0]["id"]) if found else None


def _model(connection: Connection, sha256: str) -> int | None:
    found = rows.find(connection, "model", limit=1, sha256=sha256)
    return int(found[0]["id"]) if found else None


def _stored(row: Mapping[str, Any]) -> StoredReference:
    content = json.loads(row["content_json"])
    return StoredReference(row["id"], row["parts"], row["why"], row["who"], row["at"], content)
