"""What each line of a database says of its stations, and how long ago. Times of life are those of the database's clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, text

from andon.line.clock import Clock
from andon.line.store import rows
from andon.line.store.boxes import Box
from andon.line.store.schema import box, station, station_report


class StoredReport(NamedTuple):
    """The last report of a station."""

    station: str
    line: str
    address: str
    """Where the pages of the line are; empty where it does not say."""
    seen: int
    """Last sign of life of the line, microseconds UTC."""
    silent_s: float
    """Seconds since then."""
    report: dict[str, Any]


def save(
    connection: Connection, of: Box, address: str, reports: Mapping[str, Mapping[str, Any]], clock: Clock
) -> None:
    """Note that a line lives, and what it says of its stations."""
    rows.change(connection, "box", of.id, address=address, seen=_now(connection, clock))
    for name, report in reports.items():
        number = connection.execute(select(station.c.id).where(station.c.name == name)).scalar_one()
        values = {"report_json": json.dumps(report)}
        new = rows.dialect(connection).insert(station_report).values(station_id=number, **values)
        connection.execute(new.on_conflict_do_update(index_elements=["station_id"], set_=values))


def read(connection: Connection, clock: Clock) -> list[StoredReport]:
    """The last report of each station of the database, by line and name."""
    now = _now(connection, clock)
    query = (
        select(
            station.c.name, box.c.name.label("line"), box.c.address, box.c.seen, station_report.c.report_json
        )
        .join(box, station.c.box_id == box.c.id)
        .join(station_report, station_report.c.station_id == station.c.id)
        .order_by(box.c.name, station.c.name)
    )
    return [
        StoredReport(
            row.name,
            row.line,
            row.address,
            row.seen or 0,
            (now - (row.seen or 0)) / 1e6,
            json.loads(row.report_json),
        )
        for row in connection.execute(query)
    ]


def stations(connection: Connection) -> list[str]:
    """Names of all stations of the database."""
    return [*connection.execute(select(station.c.name).order_by(station.c.name)).scalars()]


def _now(connection: Connection, clock: Clock) -> int:
    """Microseconds UTC by the clock that all lines of the database share."""
    if connection.dialect.name == "sqlite":
        return clock()
    now = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    return int(connection.execute(now).scalar_one())
