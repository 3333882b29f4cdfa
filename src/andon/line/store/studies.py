"""Parts that were shown several times, and signed studies of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from andon.line.store import rows
from andon.line.store.audit import Entry, append
from andon.line.store.queries import OF_PRODUCTION
from andon.line.store.reports import Period, of_period
from andon.line.store.schema import inspection, model, review_item, study
from andon.line.verdicts import Opinion, Verdict

MOST_PARTS = 50
"""Parts of one study; the newest count."""


class Shot(NamedTuple):
    """One time a part was judged."""

    id: int
    part_id: str
    verdict: Verdict
    opinion: Opinion | None
    """What a person said about it; None where nobody did."""
    reviewer: str | None


class Shots(NamedTuple):
    """Shots of parts that were judged several times by one model and one version of the thresholds: those used last."""

    model: str
    """SHA-256 of the packed file; empty where there are no shots."""
    threshold_version: int | None
    shots: list[Shot]
    """In the order in which they were judged."""


class Study(NamedTuple):
    """A signed study."""

    id: int
    at: int
    who: str
    why: str
    content: dict[str, Any]
    sha256: str
    audit_seq: int
    is_sound: bool
    """The content has this hash, and the row of the audit names it."""


def shots(connection: Connection, period: Period, repeats: int) -> Shots:
    """Shots of the newest `MOST_PARTS` parts of the period that were judged at least `repeats` times."""
    where = [*of_period(connection, period), OF_PRODUCTION, inspection.c.part_id.is_not(None)]
    newest = connection.execute(
        select(inspection.c.model_id, inspection.c.threshold_version_id, model.c.sha256)
        .join(model, inspection.c.model_id == model.c.id)
        .where(*where)
        .order_by(inspection.c.id.desc())
        .limit(1)
    ).one_or_none()
    if newest is None:
        return Shots("", None, [])
    where += [
        inspection.c.model_id == newest.model_id,
        inspection.c.threshold_version_id.is_not_distinct_from(newest.threshold_version_id),
    ]
    parts = (
        select(inspection.c.part_id)
        .where(*where)
        .group_by(inspection.c.part_id)
        .having(func.count() >= repeats)
        .order_by(func.max(inspection.c.id).desc())
        .limit(MOST_PARTS)
    )
    names = [*connection.execute(parts).scalars()]
    query = (
        select(
            inspection.c.id,
            inspection.c.part_id,
            inspection.c.verdict,
            review_item.c.opinion,
            review_item.c.who,
        )
        .outerjoin(review_item, review_item.c.id == inspection.c.id)
        .where(*where, inspection.c.part_id.in_(names))
        .order_by(inspection.c.id)
    )
    found = [
        Shot(id, part_id, Verdict(verdict), None if opinion is None else Opinion(opinion), who)
        for id, part_id, verdict, opinion, who in connection.execute(query)
    ]
    return Shots(newest.sha256, newest.threshold_version_id, found)


def add(connection: Connection, content: dict[str, Any], *, who: str, why: str, at: int) -> int:
    """Add a signed study with its row in the audit, which holds the hash; its id."""
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    station = content["station"]
    new = {"sha256": digest, "parts": len(content["parts"]), "repeats": content["repeats"]}
    head = append(connection, Entry(who, "gauge study", f"station {station}", new=new, reason=why), at)
    return rows.add(
        connection,
        "study",
        station_id=rows.find(connection, "station", name=station, limit=1)[0]["id"],
        at=at,
        who=who,
        why=why,
        content_json=text,
        sha256=digest,
        audit_seq=head.seq,
    )


def studies(connection: Connection, limit: int) -> list[Study]:
    """Signed studies of all stations, newest first."""
    return [_study(connection, row) for row in rows.find(connection, study.name, limit=limit)]


def one(connection: Connection, id: int) -> Study | None:
    """A signed study."""
    found = rows.find(connection, study.name, id=id)
    return _study(connection, found[0]) if found else None


def _study(connection: Connection, row: dict[str, Any]) -> Study:
    digest = hashlib.sha256(row["content_json"].encode()).hexdigest()
    signed = rows.find(connection, "audit", seq=row["audit_seq"])
    named = json.loads(signed[0]["new_json"] or "{}").get("sha256") if signed else None
    return Study(
        row["id"],
        row["at"],
        row["who"],
        row["why"],
        json.loads(row["content_json"]),
        row["sha256"],
        row["audit_seq"],
        digest == row["sha256"] == named,
    )
