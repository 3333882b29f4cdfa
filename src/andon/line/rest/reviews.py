"""Routes of reviews: take parts, judge them, read figures, take a snapshot as a data set; and their pages."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import HTMLResponse

from andon.core.errors import DataError
from andon.line.line import Line
from andon.line.rest.access import TheCaller, TheLine, TheRow, find_station, requires
from andon.line.rest.html import html
from andon.line.rest.problems import Problem
from andon.line.rest.review_shapes import (
    ConfusionShape,
    EscapesShape,
    FiguresShape,
    Items,
    ItemShape,
    KappaShape,
    NextBody,
    OverrideShape,
    ReviewBody,
    ReviewShape,
    ReviewsShape,
    SnapshotBody,
    SnapshotShape,
    StratumShape,
    UndoBody,
)
from andon.line.rest.shapes import Filter, links
from andon.line.review import snapshot
from andon.line.review.figures import Confusion
from andon.line.review.reviews import Answer, Item
from andon.line.review.snapshot import Snapshot
from andon.line.roles import Role
from andon.line.store import Inspection
from andon.line.verdicts import Opinion, Verdict
from andon.line.views import verdict_name

router = APIRouter(tags=["reviews"])
page_router = APIRouter(default_response_class=HTMLResponse)
IfMatch = Annotated[str | None, Header(max_length=100)]
Since = Annotated[int | None, Query(ge=0, lt=2**63)]
HIDDEN = ("heat", "map", "overlay", "self")
"""Addresses that say what the machine found."""


@router.post("/reviews/next", dependencies=[requires(Role.INSPECTOR)])
def take(line: TheLine, caller: TheCaller, body: NextBody) -> Items:
    """Take parts to judge, the oldest first; nobody else gets them for 60 seconds."""
    who = caller.author(body.who)
    for station in body.stations:
        find_station(line, station)
    items = line.reviews.take(who, n=body.n, stations=body.stations, skip=body.skip)
    return Items(
        items=[_item(line, item) for item in items], waiting=line.reviews.waiting(who, body.stations)
    )


@router.get("/inspections/{id}/review", dependencies=[requires(Role.VIEWER)])
def reviews_of(line: TheLine, row: TheRow, response: Response) -> ReviewsShape:
    """What people said about a part; `ETag` is for `If-Match`."""
    return _reviews(line, row, response)


@router.put("/inspections/{id}/review", dependencies=[requires(Role.INSPECTOR)])
def judge(
    line: TheLine,
    row: TheRow,
    caller: TheCaller,
    body: ReviewBody,
    response: Response,
    if_match: IfMatch = None,
) -> ReviewsShape:
    """Judge a part. The verdict of the machine stays.

    Needs `If-Match` with the version that was seen: 412 where another opinion came since, 409 while another person holds it.
    """
    answer = Answer(caller.author(body.who), Opinion[body.opinion], body.defect_type, body.reason)
    line.reviews.judge(row, answer, based_on=_version(if_match))
    return _reviews(line, row, response)


@router.post("/inspections/{id}/review/undo", dependencies=[requires(Role.INSPECTOR)])
def undo(
    line: TheLine,
    row: TheRow,
    caller: TheCaller,
    body: UndoBody,
    response: Response,
    if_match: IfMatch = None,
) -> ReviewsShape:
    """Withdraw one's own last opinion on a part, by a new row. Needs `If-Match`."""
    line.reviews.undo(row, caller.author(body.who), based_on=_version(if_match))
    return _reviews(line, row, response)


@router.get("/reviews/figures", dependencies=[requires(Role.INSPECTOR)])
def figures(line: TheLine, station: Filter = None, since: Since = None) -> FiguresShape:
    """Escape rate from the random sample, overrides, what each reviewer said, agreement of two people."""
    found = line.reviews.figures(station=station, since=since)
    over = found.overrides
    return FiguresShape(
        escapes=EscapesShape(
            **asdict(found.escapes), strata=[StratumShape(**each._asdict()) for each in found.strata]
        ),
        overrides=OverrideShape(**asdict(over), rate=over.count / over.n if over.n else None),
        reviewers=[_confusion(each) for each in found.confusions],
        kappa=KappaShape(**asdict(found.kappa)),
    )


@router.post("/snapshots", status_code=201, dependencies=[requires(Role.ENGINEER)])
def take_snapshot(line: TheLine, caller: TheCaller, body: SnapshotBody) -> SnapshotShape:
    """Write the reviewed parts as a data set that `andon fit` reads and that never changes."""
    if body.station is not None:
        find_station(line, body.station)
    try:
        found = snapshot.make(
            line.store,
            line.reviews,
            who=caller.author(body.who),
            station=body.station,
            since=body.since,
        )
    except DataError as error:
        raise Problem(409, "no_data", str(error)) from None
    return _snapshot(found)


@router.get("/snapshots", dependencies=[requires(Role.VIEWER)])
def list_snapshots(line: TheLine) -> list[SnapshotShape]:
    """Data sets of reviewed parts, newest first."""
    return [_snapshot(each) for each in snapshot.snapshots(line.store)]


@page_router.get("/review", dependencies=[requires(Role.INSPECTOR)])
def review_page(station: Filter = None) -> Response:
    """One part after the other, judged by keys."""
    return html("review", initial={"stations": [station] if station else []})


@page_router.get("/review/figures", dependencies=[requires(Role.INSPECTOR)])
def figures_page(line: TheLine, caller: TheCaller, station: Filter = None) -> Response:
    """Figures of reviews, and data sets of reviewed parts."""
    return html(
        "review_figures",
        found=figures(line, station or None),
        stations=[*line.stations],
        station=station or "",
        snapshots=list_snapshots(line),
        verdicts=[each.name for each in Verdict if each is not Verdict.NONE],
        opinions=[Opinion.GOOD.name, Opinion.BAD.name, Opinion.UNSURE.name],
        may_snapshot=caller.role >= Role.ENGINEER,
    )


def _version(if_match: str | None) -> int:
    """The version that an `If-Match` header names. Raises a 428 `Problem`."""
    match = re.fullmatch(r'"(\d{1,18})"', if_match or "")
    if match is None:
        raise Problem(428, "if_match", 'send If-Match with the version that was seen, e.g. If-Match: "0"')
    return int(match[1])


def _item(line: Line, item: Item) -> ItemShape:
    row, settings = item.inspection, line.reviews.settings[item.inspection.station]
    shown = {name: to for name, to in links(row).items() if not (settings.blind and name in HIDDEN)}
    why = None if row.review_why is None else row.review_why.name.lower()
    return ItemShape(
        id=row.id,
        station=row.station,
        part_id=row.part_id,
        lot=row.lot,
        version=item.version,
        second=item.second,
        blind=settings.blind,
        defect_types=[*settings.defect_types],
        verdict=None if settings.blind else verdict_name(row.verdict),
        score=None if settings.blind else row.score,
        why=None if settings.blind else why,
        links=shown,
    )


def _reviews(line: Line, row: Inspection, response: Response) -> ReviewsShape:
    history = line.reviews.history(row.id)
    version = history[0].id if history else 0
    response.headers["ETag"] = f'"{version}"'
    now = line.store.inspection(row.id)
    counts = None if now is None else now.reviewed
    return ReviewsShape(
        inspection=row.id,
        version=version,
        verdict=verdict_name(row.verdict),
        score=row.score,
        opinion=None if counts is None else counts.opinion.name,
        overridden=counts is not None and counts.overridden,
        reviews=[
            ReviewShape(
                id=each.id,
                at=each.at,
                who=each.who,
                number=each.opinion,
                opinion=each.verdict.name,
                defect_type=each.defect_type,
                reason=each.reason,
                blind=each.blind,
            )
            for each in history
        ],
    )


def _confusion(found: Confusion) -> ConfusionShape:
    counts: dict[str, dict[str, int]] = {}
    for (machine, said), n in found.counts.items():
        counts.setdefault(machine.name, {})[said.name] = n
    return ConfusionShape(who=found.who, n=found.n, counts=counts)


def _snapshot(found: Snapshot) -> SnapshotShape:
    values: dict[str, Any] = {**asdict(found), "folder": str(found.folder)}
    return SnapshotShape(**values)
