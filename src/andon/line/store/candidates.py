"""Rows of candidates: packed files that are compared with the model in use of a station."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select

from andon.line.store import rows
from andon.line.store.queries import OF_PRODUCTION
from andon.line.store.queries import station_id as known_station
from andon.line.store.records import ImageState
from andon.line.store.schema import candidate_score, inspection, recipe, review_item
from andon.line.verdicts import Opinion, Verdict

DECIDED = (Opinion.GOOD.value, Opinion.BAD.value)


class Candidate(NamedTuple):
    """A packed file that may replace the model of a station."""

    id: int
    station: str
    sha256: str
    name: str
    file: str
    """Path below the data folder."""
    why: str
    who: str
    at: int


class Step(NamedTuple):
    """Something that was done with a candidate."""

    id: int
    candidate_id: int
    action: str
    detail: dict[str, Any]
    why: str
    who: str
    at: int


class Scored(NamedTuple):
    """What one model says of a part."""

    verdict: Verdict
    """`NONE` where the part was left out."""
    score: float | None
    ms: float
    """Of the judgement."""


class Pair(NamedTuple):
    """What two models say of the same part."""

    inspection_id: int
    base: Scored
    """By the model in use."""
    candidate: Scored
    cause: str = ""
    """Why the part was left out; empty where it was not."""
    opinion: Opinion | None = None
    """What people say about it, where that is good or bad."""


def add(connection: Connection, station: int, **values: Any) -> int:
    """Add a candidate of a station by its number. Returns its id."""
    return rows.add(connection, "candidate", station_id=station, **values)


def candidates(connection: Connection, station: str) -> list[Candidate]:
    """Those of a station, newest first."""
    number = known_station(connection, station)
    found = [] if number is None else rows.find(connection, "candidate", station_id=number)
    names = [name for name in Candidate._fields if name != "station"]
    return [Candidate(station=station, **{name: row[name] for name in names}) for row in found]


def add_step(
    connection: Connection,
    candidate: int,
    action: str,
    detail: Mapping[str, Any],
    *,
    who: str,
    why: str,
    at: int,
) -> Step:
    """Add a step."""
    text = json.dumps(detail, separators=(",", ":"))
    id = rows.add(
        connection,
        "candidate_step",
        candidate_id=candidate,
        action=action,
        detail_json=text,
        why=why,
        who=who,
        at=at,
    )
    return Step(id, candidate, action, dict(detail), why, who, at)


def steps(connection: Connection, candidate: int) -> list[Step]:
    """All steps of a candidate, newest first."""
    found = rows.find(connection, "candidate_step", candidate_id=candidate)
    return [Step(detail=json.loads(row.pop("detail_json")), **row) for row in found]


def add_pairs(connection: Connection, step: int, pairs: Sequence[Pair]) -> None:
    """Add what both models say of parts."""
    values = [
        {
            "step_id": step,
            "inspection_id": pair.inspection_id,
            "verdict": pair.candidate.verdict.value,
            "score": pair.candidate.score,
            "ms": pair.candidate.ms,
            "base_verdict": pair.base.verdict.value,
            "base_score": pair.base.score,
            "base_ms": pair.base.ms,
            "cause": pair.cause,
        }
        for pair in pairs
    ]
    if values:
        connection.execute(insert(candidate_score), values)


def done(connection: Connection, step: int) -> set[int]:
    """Ids of the parts of a step that have been scored or left out."""
    query = select(candidate_score.c.inspection_id).where(candidate_score.c.step_id == step)
    return {*connection.execute(query).scalars()}


def count(connection: Connection, step: int) -> int:
    """How many parts of a step have been scored or left out."""
    query = select(func.count()).where(candidate_score.c.step_id == step)
    return int(connection.execute(query).scalar_one())


def pairs(connection: Connection, step: int) -> list[Pair]:
    """What both models say of the parts of a step, by part, with the opinion of people that counts now."""
    c = candidate_score.c
    query = (
        select(c.inspection_id, c.base_verdict, c.base_score, c.base_ms, c.verdict, c.score, c.ms, c.cause,
               review_item.c.opinion)
        .outerjoin(review_item, review_item.c.id == c.inspection_id)
        .where(c.step_id == step)
        .order_by(c.inspection_id)
    )  # fmt: skip
    return [
        Pair(
            id,
            Scored(Verdict(base_verdict), base_score, base_ms),
            Scored(Verdict(verdict), score, ms),
            cause,
            Opinion(opinion) if opinion in DECIDED else None,
        )
        for id, base_verdict, base_score, base_ms, verdict, score, ms, cause, opinion in connection.execute(
            query
        )
    ]


def with_images(
    connection: Connection, station: str, code: str | None, n: int, *, reviewed: bool = False
) -> list[int]:
    """Ids of the newest `n` parts of a station and a recipe with stored images, newest first; `reviewed`: called good or bad."""
    query = (
        select(inspection.c.id)
        .outerjoin(recipe, recipe.c.id == inspection.c.recipe_id)
        .where(
            inspection.c.station_id == known_station(connection, station),
            inspection.c.image_state == ImageState.STORED.value,
            recipe.c.code.is_(None) if code is None else recipe.c.code == code,
            OF_PRODUCTION,
        )
        .order_by(inspection.c.id.desc())
        .limit(n)
    )
    if reviewed:
        query = query.join(review_item, review_item.c.id == inspection.c.id).where(
            review_item.c.opinion.in_(DECIDED)
        )
    return [*connection.execute(query).scalars()]


def newest_first(steps: Sequence[Step], actions: Collection[str]) -> Step | None:
    """The newest step that is one of these actions; None where there is none."""
    return next((step for step in steps if step.action in actions), None)
