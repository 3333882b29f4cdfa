"""Questions to the store. Pages go by id (`before_id`), never by offset, and no query counts rows of a whole table.

Ids order parts; times may go back. A filter by time takes the smallest id of the first `SLACK` that it selects, found by index,
and goes through the rows from there on.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import ColumnElement, Connection, case, func, or_, select, text

from andon.line.clock import HOUR
from andon.line.store.inspections import JOINED, to_inspection
from andon.line.store.records import Inspection, PastScore, PastVerdict, regions_from_text
from andon.line.store.schema import NOT_OK, counter, inspection, model, review_item, station
from andon.line.verdicts import Cause, Verdict

ReviewFilter = Literal["reviewed", "overridden"]
"""Parts that a person judged, or of which a person said the opposite of the machine."""
LONGEST_PAGE = 1000
SLACK = 2 * HOUR
"""How far the clock may be set back without a filter by time missing rows."""

OF_PRODUCTION = or_(
    inspection.c.verdict != Verdict.ERROR.value, inspection.c.cause != Cause.GOLDEN_PART.value
)
"""Not a golden part. The verdict comes first: indices have it, and only rows of ERROR are read for their cause."""


def one(connection: Connection, row: int) -> Inspection | None:
    """The inspection with this id."""
    found = connection.execute(JOINED.where(inspection.c.id == row)).one_or_none()
    return None if found is None else to_inspection(found)


def by_request(connection: Connection, request_id: str) -> Inspection | None:
    """The inspection of this request."""
    found = connection.execute(JOINED.where(inspection.c.request_id == request_id)).one_or_none()
    return None if found is None else to_inspection(found)


def page(
    connection: Connection,
    *,
    station_name: str | None,
    verdict: Verdict | None,
    part_id: str | None,
    lot: str | None,
    since: int | None,
    before_id: int | None,
    limit: int,
    reviewed: ReviewFilter | None = None,
) -> list[Inspection]:
    """Newest first, at most `limit` and `LONGEST_PAGE`."""
    where: list[ColumnElement[bool]] = []
    number: int | None = None
    if station_name is not None:
        number = station_id(connection, station_name)
        if number is None:
            return []
        where.append(inspection.c.station_id == number)
    if verdict is not None:
        where.append(inspection.c.verdict == verdict.value)
    if part_id is not None:
        where.append(inspection.c.part_id == part_id)
    if lot is not None:
        where.append(inspection.c.lot == lot)
    if since is not None:
        first = _first_since(connection, number, since)
        if first is None:
            return []
        # The sum keeps SQLite from sorting all rows that an index by time finds.
        where += [inspection.c.id >= first, inspection.c.t_done + 0 >= since]
    if before_id is not None:
        where.append(inspection.c.id < before_id)
    if reviewed is not None:
        where.append(review_item.c.opinion.is_not(None))
    if reviewed == "overridden":
        where.append(review_item.c.overridden == 1)
    query = JOINED.where(*where)
    if verdict not in (None, Verdict.OK):
        query = query.where(NOT_OK)
    query = query.order_by(inspection.c.id.desc()).limit(max(0, min(limit, LONGEST_PAGE)))
    return [to_inspection(row) for row in connection.execute(query)]


def counts(connection: Connection, station_name: str, since: int) -> dict[Verdict, int]:
    """Parts of each verdict done since a time: whole hours from the counters, the first partial hour by index."""
    number = station_id(connection, station_name)
    if number is None:
        return {}
    whole = -(-since // HOUR)  # the first hour that lies completely after `since`
    hours = (
        select(counter.c.verdict, func.sum(counter.c.n))
        .where(counter.c.station_id == number, counter.c.hour >= whole)
        .group_by(counter.c.verdict)
    )
    part = (
        select(inspection.c.verdict, func.count())
        .where(
            inspection.c.station_id == number,
            inspection.c.t_done >= since,
            inspection.c.t_done < whole * HOUR,
            OF_PRODUCTION,
        )
        .group_by(inspection.c.verdict)
    )
    total: dict[Verdict, int] = {}
    for query in (hours, part):
        for verdict, n in connection.execute(query):
            total[Verdict(verdict)] = total.get(Verdict(verdict), 0) + int(n)
    return total


def last_verdicts(connection: Connection, station_name: str, n: int) -> list[PastVerdict]:
    """The newest `n` parts of a station, oldest first, golden ones excepted; without the regions of parts that passed."""
    number = station_id(connection, station_name)
    if number is None:
        return []
    newest = (
        select(inspection.c.id, inspection.c.t_done, inspection.c.verdict)
        .where(inspection.c.station_id == number, OF_PRODUCTION)
        .order_by(inspection.c.id.desc())
        .limit(n)
    )
    rows = connection.execute(newest).all()[::-1]  # from the index, rows of ERROR excepted
    if not rows:
        return []
    bad = select(inspection.c.id, inspection.c.regions_json).where(
        inspection.c.station_id == number, NOT_OK, inspection.c.id >= rows[0].id
    )
    regions = {row: regions_from_text(found) for row, found in connection.execute(bad)}
    return [PastVerdict(row, t_done, Verdict(verdict), regions.get(row, ())) for row, t_done, verdict in rows]


def last_scores(
    connection: Connection, station_name: str, model_sha256: str, n: int, regions_from: float
) -> list[PastScore]:
    """Those of the newest `n` parts of a station that a model judged, oldest first; regions from a score on."""
    newest = (
        select(inspection)
        .where(inspection.c.station_id == station_id(connection, station_name))
        .order_by(inspection.c.id.desc())
        .limit(n)
        .subquery()  # at most `n` rows are read, also where the model is new
    )
    columns = (newest.c.id, newest.c.t_done, newest.c.verdict, newest.c.score)
    regions = case((newest.c.score >= regions_from, newest.c.regions_json))
    of_model = newest.c.model_id == select(model.c.id).where(model.c.sha256 == model_sha256).scalar_subquery()
    found = connection.execute(select(*columns, regions).where(of_model).order_by(newest.c.id))
    return [
        PastScore(row, t_done, Verdict(verdict), score, regions_from_text(text))
        for row, t_done, verdict, score, text in found
    ]


def size(connection: Connection) -> int:
    """Bytes of the database."""
    if connection.dialect.name == "sqlite":
        pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        return int(connection.execute(text(pages)).scalar_one())
    return int(connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one())


def station_id(connection: Connection, name: str) -> int | None:
    """Id of a station; None where no part of it was stored yet."""
    return connection.execute(select(station.c.id).where(station.c.name == name)).scalar()


def _first_since(connection: Connection, number: int | None, since: int) -> int | None:
    """An id below which no row was done since a time, of one station or of all; None where no row was."""
    numbers = [number] if number is not None else [*connection.execute(select(station.c.id)).scalars()]
    firsts = []
    for each in numbers:
        of_station = inspection.c.station_id == each
        earliest = select(func.min(inspection.c.t_done)).where(of_station, inspection.c.t_done >= since)
        if (begin := connection.execute(earliest).scalar()) is not None:
            near = inspection.c.t_done.between(begin, begin + SLACK)
            smallest = select(func.min(inspection.c.id + 0))  # the sum keeps SQLite from a walk along all ids
            firsts.append(connection.execute(smallest.where(of_station, near)).scalar_one())
    return min(firsts, default=None)
