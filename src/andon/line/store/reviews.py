"""Queue and figures of reviews. An item is a part that a person is to look at or has looked at; its id is the inspection's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, func, insert, or_, select, update

from andon.line.store.records import ImageState, Inspection
from andon.line.store.schema import inspection, review, review_item, station
from andon.line.store.schema.reviews import OPEN
from andon.line.verdicts import Opinion, Verdict

SHOWN = (ImageState.PENDING.value, ImageState.STORED.value)
"""States of images that a person can look at."""


class Among(NamedTuple):
    """Which parts are counted; None: all."""

    station: str | None = None
    since: int | None = None
    """Done since this time, microseconds UTC."""
    until: int | None = None
    """Done before this time."""
    lot: str | None = None


class Drawn(NamedTuple):
    """Parts of a station that passed and were drawn at one rate, by the opinion that counts (None: not reviewed)."""

    station: str
    rate: float
    opinion: Opinion | None
    n: int


class Said(NamedTuple):
    """The last word of one opinion on a part."""

    inspection_id: int
    opinion: int
    """1 for the first person, 2 for the second."""
    who: str
    said: Opinion
    machine: Verdict


def enqueue(connection: Connection, row: Inspection, station_id: int) -> None:
    """Put a new part into the queue where a person is to look at it and its image is kept."""
    if row.review_why is None or row.image_key is None:
        return
    values = {"id": row.id, "station_id": station_id, "why": row.review_why.value}
    connection.execute(insert(review_item).values(**values, wanted=1, given=0, overridden=0))


def take(
    connection: Connection,
    *,
    who: str,
    stations: Collection[str],
    n: int,
    skip: Sequence[int],
    now: int,
    until: int,
) -> list[int]:
    """Ids of at most `n` parts for a reviewer, leased up to `until`: own leases first, then the oldest that nobody holds.

    Never a part that the reviewer has judged. Parts in `skip` are let go.
    """
    held = and_(review_item.c.lease_who == who, review_item.c.lease_until > now)
    free = or_(review_item.c.lease_who.is_(None), review_item.c.lease_until <= now)
    connection.execute(
        update(review_item).where(held, review_item.c.id.in_(skip)).values(lease_who=None, lease_until=None)
    )
    taken: list[int] = []
    for condition in (held, free):
        query = (
            _waiting(who, stations, skip).where(condition).order_by(review_item.c.id).limit(n - len(taken))
        )
        taken += [row.id for row in connection.execute(query)]
    connection.execute(
        update(review_item).where(review_item.c.id.in_(taken)).values(lease_who=who, lease_until=until)
    )
    return taken


def waiting(connection: Connection, *, who: str, stations: Collection[str], most: int) -> int:
    """How many parts a reviewer could judge, counted up to `most`."""
    found = _waiting(who, stations, ()).limit(most).subquery()
    return int(connection.execute(select(func.count()).select_from(found)).scalar_one())


def drawn(connection: Connection, among: Among) -> list[Drawn]:
    """The random sample of parts that passed."""
    query = (
        select(station.c.name, inspection.c.sample_rate, review_item.c.opinion, func.count())
        .join(station, inspection.c.station_id == station.c.id)
        .outerjoin(review_item, review_item.c.id == inspection.c.id)
        .where(inspection.c.sample_rate.is_not(None))
        .group_by(station.c.name, inspection.c.sample_rate, review_item.c.opinion)
        .order_by(station.c.name, inspection.c.sample_rate)
    )
    return [
        Drawn(name, rate, None if said is None else Opinion(said), n)
        for name, rate, said, n in connection.execute(_among(query, among))
    ]


def said(connection: Connection, among: Among) -> list[Said]:
    """The last word of each opinion, withdrawn ones left out, by part and opinion."""
    last = select(func.max(review.c.id)).group_by(review.c.inspection_id, review.c.opinion)
    query = (
        select(review.c.inspection_id, review.c.opinion, review.c.who, review.c.verdict, inspection.c.verdict)
        .join(inspection, review.c.inspection_id == inspection.c.id)
        .join(station, inspection.c.station_id == station.c.id)
        .where(review.c.id.in_(last), review.c.verdict != Opinion.WITHDRAWN.value)
        .order_by(review.c.inspection_id, review.c.opinion)
    )
    return [
        Said(id, opinion, who, Opinion(verdict), Verdict(machine))
        for id, opinion, who, verdict, machine in connection.execute(_among(query, among))
    ]


def judged(connection: Connection, *, after: int, limit: int) -> list[int]:
    """Ids of parts with an opinion that counts, ascending, above `after`."""
    query = select(review_item.c.id).where(review_item.c.opinion.is_not(None), review_item.c.id > after)
    return [*connection.execute(query.order_by(review_item.c.id).limit(limit)).scalars()]


def decided(connection: Connection, *, station_name: str, first: int) -> dict[int, Opinion]:
    """Parts of a station from an id on that a person called good or bad, with the opinion that counts."""
    query = (
        select(review_item.c.id, review_item.c.opinion)
        .join(station, review_item.c.station_id == station.c.id)
        .where(
            station.c.name == station_name,
            review_item.c.id >= first,
            review_item.c.opinion.in_([Opinion.GOOD.value, Opinion.BAD.value]),
        )
    )
    return {row: Opinion(opinion) for row, opinion in connection.execute(query)}


def _waiting(who: str, stations: Collection[str], skip: Sequence[int]) -> Select[tuple[int]]:
    return (
        select(review_item.c.id)
        .join(inspection, inspection.c.id == review_item.c.id)
        .join(station, station.c.id == review_item.c.station_id)
        .where(
            OPEN,
            or_(review_item.c.first_who.is_(None), review_item.c.first_who != who),
            inspection.c.image_state.in_(SHOWN),
            station.c.name.in_(stations),
            review_item.c.id.not_in(skip),
        )
    )


def _among(query: Select[Any], among: Among) -> Select[Any]:
    if among.station is not None:
        query = query.where(station.c.name == among.station)
    if among.since is not None:
        query = query.where(inspection.c.t_done >= among.since)
    if among.until is not None:
        query = query.where(inspection.c.t_done < among.until)
    return query if among.lot is None else query.where(inspection.c.lot == among.lot)
