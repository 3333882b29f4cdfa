"""Routes of the pages: each reads what it shows and renders it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from andon.line.page.render import words
from andon.line.page.words import STATES, VERDICTS
from andon.line.rest import queries
from andon.line.rest.access import TheLine, TheRow, TheStation, requires
from andon.line.rest.html import html
from andon.line.rest.queries import Filters, chosen_of
from andon.line.rest.rules import rules_of
from andon.line.rest.shapes import PLAIN, PREFIX
from andon.line.roles import Role
from andon.line.store import Inspection, QueryTimeout, ReviewFilter, plant
from andon.line.verdicts import Verdict
from andon.line.views import Shown, VerdictName

router = APIRouter(default_response_class=HTMLResponse)
Gloves = Annotated[bool, Query()]
Text = Annotated[str, Query(max_length=300, pattern=PLAIN)]
PAGE = 50


@router.get("/", dependencies=[requires(Role.VIEWER)])
def overview(line: TheLine, gloves: Gloves = False) -> Response:
    """All stations; with one alone, its page; without any, the plant."""
    if not line.stations:
        return RedirectResponse("/plant")
    if len(line.stations) == 1:
        (name,) = line.stations
        return RedirectResponse(f"/stations/{name}" + ("?gloves=1" if gloves else ""))
    views = [station.view() for station in line.stations.values()]
    return html(
        "overview", gloves=gloves, name=line.settings.name, stations=views, state_signs=STATES, words=words()
    )


@router.get("/stations/{station}", dependencies=[requires(Role.VIEWER)])
def line_page(line: TheLine, station: TheStation, gloves: Gloves = False) -> Response:
    """What a person reads from two metres."""
    view = station.view()
    last = None if view.last_id is None else line.store.inspection(view.last_id)
    shows_verdict = last is not None and view.state in (Shown.RUNNING, Shown.REVIEW)
    hero = VERDICTS[last.verdict] if last is not None and shows_verdict else STATES[view.state]
    return html(
        "line",
        gloves=gloves,
        line_name=line.settings.name,
        relaxed=line.settings.durability == "relaxed",
        view=view,
        last=last,
        hero=hero,
        stopped=view.state is Shown.STOPPED,
        counts={verdict.name: view.counts.get(verdict, 0) for verdict in Verdict},
        initial={"view": view.to_json(), "words": words(), "rules": rules_of(line, station.name)},
    )


@router.get("/history", dependencies=[requires(Role.VIEWER)])
def history(
    request: Request,
    line: TheLine,
    station: Text = "",
    verdict: Text = "",
    part_id: Text = "",
    lot: Text = "",
    since: Text = "",
    reviewed: Text = "",
    before_id: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Response:
    """What happened, newest first, by station, verdict, part id, lot and time. Filters that cannot be read show nothing."""
    shown = {"station": station, "verdict": verdict, "part_id": part_id, "lot": lot, "since": since}
    shown["reviewed"] = reviewed
    begin, wrong_time = time_of(since)
    name, wrong_verdict = chosen_of(VerdictName, verdict, "verdict")
    review, wrong_review = chosen_of(ReviewFilter, reviewed, "review")
    filters = Filters(station or None, name, part_id or None, lot or None, review, begin)
    rows: list[Inspection] = []
    problem = wrong_time or wrong_verdict or wrong_review or queries.unknown(request)
    export = "" if problem else f"{PREFIX}/export.csv?{urlencode(filters.query())}"
    try:
        rows = [] if problem else line.store.inspections(**filters.asked(), before_id=before_id, limit=PAGE)
    except QueryTimeout as error:
        problem = str(error)
    kept = {key: value for key, value in shown.items() if value}
    older = "/history?" + urlencode({**kept, "before_id": rows[-1].id}) if len(rows) == PAGE else ""
    return html(
        "history",
        rows=rows,
        filters=shown,
        stations=line.store.ask(plant.stations),
        older=older,
        export=export,
        problem=problem,
    )


@router.get("/inspections/{id}", dependencies=[requires(Role.VIEWER)])
def inspection(line: TheLine, row: TheRow) -> Response:
    """One part."""
    return html("inspection", row=row, reviews=line.reviews.history(row.id))


@router.get("/docs", dependencies=[requires(Role.VIEWER)])
def docs(request: Request) -> Response:
    """Operations of the interface, from its OpenAPI description."""
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "text": " ".join(operation.get("description", "").split()),
            "query": ", ".join(p["name"] for p in operation.get("parameters", []) if p["in"] == "query"),
        }
        for path, methods in request.app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    return html("docs", operations=operations)


@router.get(f"{PREFIX}/openapi.json", dependencies=[requires(Role.VIEWER)])
def openapi(request: Request) -> JSONResponse:
    """Description of the interface."""
    return JSONResponse(request.app.openapi())


def time_of(text: str) -> tuple[int | None, str]:
    """Microseconds UTC of an ISO time, and what is wrong with it; both empty for an empty text."""
    if not text:
        return None, ""
    try:
        found = datetime.fromisoformat(text)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1e6), ""
    except (ValueError, OverflowError):
        return None, f"The time {text!r} cannot be read: give it as 2026-11-28T14:00."
