"""What other machines have to be told, read from the tables in which it stands, and how far they have been told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from andon.line.store import rows
from andon.line.store.boxes import Box
from andon.line.store.inspections import JOINED, to_inspection
from andon.line.store.queries import station_id
from andon.line.store.records import Inspection
from andon.line.store.schema import alarm, alarm_event, inspection, station

MOST_COUNTED = 100_000
"""Waiting reports are counted up to this number."""


class Stream(StrEnum):
    """What is told, each in the order of its ids."""

    RESULT = "result"
    """Inspections."""
    ALARM = "alarm"
    """Changes of alarms and stops."""


class Position(NamedTuple):
    """How far a sink has been told of a stream."""

    id: int
    """Of the last inspection or change of an alarm that is done with."""
    seq: int = 0
    """Reports done with; those given up count."""
    lost: int = 0
    """Reports given up."""


@dataclass(frozen=True, slots=True)
class AlarmNews:
    """One change of an alarm or, without `rule`, of the stop of a station."""

    id: int
    at: int
    station: str
    alarm_id: int | None
    rule: str | None
    stops: bool | None
    """Whether the alarm stops the line; otherwise it calls a person."""
    event: str
    """`raise`, `clear`, `acknowledge`, `escalate`, ..."""
    old: str
    new: str
    who: str
    cause: str
    note: str
    """What fired, or what a person wrote."""
    count: int
    """How often the alarm was raised."""
    inspection_id: int | None
    """The last part because of which it was raised."""


class Waiting(NamedTuple):
    """What a sink has not been told yet."""

    n: int
    """At most `MOST_COUNTED`."""
    oldest: int | None
    """Time of the oldest, microseconds UTC."""


def position(connection: Connection, sink: str, stream: Stream) -> Position | None:
    """How far a sink has been told; None where it is new."""
    found = rows.find(connection, "outbox", sink=sink, stream=stream.value)
    return Position(found[0]["position"], found[0]["seq"], found[0]["lost"]) if found else None


def save(connection: Connection, sink: str, stream: Stream, at: Position) -> None:
    """Remember how far a sink has been told."""
    values = {"position": at.id, "seq": at.seq, "lost": at.lost}
    found = rows.find(connection, "outbox", sink=sink, stream=stream.value)
    if found:
        rows.change(connection, "outbox", found[0]["id"], **values)
    else:
        rows.add(connection, "outbox", sink=sink, stream=stream.value, **values)


def newest(connection: Connection, stream: Stream) -> int:
    """Id of the newest report of all stations; 0 where there is none."""
    return connection.execute(select(func.max(_table(stream).c.id))).scalar() or 0


def results_after(
    connection: Connection, box: Box, after: int, of: str | None, limit: int
) -> Sequence[Inspection]:
    """Inspections of a station (None: of all of the line), oldest first."""
    query = JOINED.where(*_chosen(connection, box, Stream.RESULT, after, of)).order_by(inspection.c.id)
    return [to_inspection(row) for row in connection.execute(query.limit(limit))]


def alarms_after(
    connection: Connection, box: Box, after: int, of: str | None, limit: int
) -> Sequence[AlarmNews]:
    """Changes of alarms and stops of a station (None: of all of the line), oldest first."""
    query = (
        select(alarm_event, station.c.name.label("station"), alarm.c.rule, alarm.c.state_json)
        .join(station, alarm_event.c.station_id == station.c.id)
        .outerjoin(alarm, alarm_event.c.alarm_id == alarm.c.id)
        .where(*_chosen(connection, box, Stream.ALARM, after, of))
        .order_by(alarm_event.c.id)
        .limit(limit)
    )
    return [
        AlarmNews(
            id=row.id,
            at=row.at,
            station=row.station,
            alarm_id=row.alarm_id,
            rule=row.rule,
            stops=None if row.rule is None else json.loads(row.state_json)["alarm"]["latched"],
            event=row.event,
            old=row.from_state,
            new=row.to_state,
            who=row.who,
            cause=row.cause,
            note=row.note,
            count=row.n,
            inspection_id=row.inspection_id,
        )
        for row in connection.execute(query)
    ]


def waiting(connection: Connection, box: Box, stream: Stream, after: int, of: str | None) -> Waiting:
    """How many reports of a station (None: of all of the line) have not been told yet, and the time of the oldest."""
    table = _table(stream)
    at = table.c.t_done if stream is Stream.RESULT else table.c.at
    chosen = select(table.c.id, at.label("at")).where(*_chosen(connection, box, stream, after, of))
    first = connection.execute(chosen.order_by(table.c.id).limit(1)).first()
    if first is None:
        return Waiting(0, None)
    some = (
        select(table.c.id).where(*_chosen(connection, box, stream, after, of)).limit(MOST_COUNTED).subquery()
    )
    count = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return Waiting(count, first.at)


def _table(stream: Stream) -> Any:
    return inspection if stream is Stream.RESULT else alarm_event


def _chosen(
    connection: Connection, box: Box, stream: Stream, after: int, of: str | None
) -> list[ColumnElement[bool]]:
    table = _table(stream)
    where: list[ColumnElement[bool]] = [table.c.id > after]
    if of is not None:
        return [*where, table.c.station_id == (station_id(connection, of) or 0)]
    return [*where, *box.own(table)]
