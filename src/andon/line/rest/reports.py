"""Report of a shift or lot, as JSON and as a page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, Response

from andon.core.errors import DataError, UsageError
from andon.line.line import Line
from andon.line.reports import shift
from andon.line.reports.shift import ShiftReport, last_shift
from andon.line.rest.access import TheLine, chosen_station, requires
from andon.line.rest.html import html
from andon.line.rest.pages import Text, time_of
from andon.line.rest.problems import Problem
from andon.line.rest.shapes import Filter
from andon.line.roles import Role
from andon.line.store import QueryTimeout

router = APIRouter(tags=["reports"])
page_router = APIRouter(default_response_class=HTMLResponse)
Time = Annotated[int | None, Query(ge=0, lt=2**53)]


@router.get("/reports/shift", dependencies=[requires(Role.VIEWER)])
def read_report(
    line: TheLine, station: Filter = None, since: Time = None, until: Time = None, lot: Filter = None
) -> dict[str, Any]:
    """Report of a shift or lot: counts, rates with intervals, stops, versions in use, golden checks, drift, reviews.

    By default of the running shift.
    """
    name = chosen_station(line, station)
    try:
        return _report(line, name, since, until, lot or None).to_json()
    except DataError as error:
        raise Problem(404, "not_found", str(error)) from None


@page_router.get("/reports/shift", dependencies=[requires(Role.VIEWER)])
def report_page(
    line: TheLine,
    station: Text = "",
    since: Text = "",
    until: Text = "",
    lot: Text = "",
    which: Annotated[Literal["", "last"], Query(alias="shift")] = "",
) -> Response:
    """One page for a shift or lot, to be printed."""
    name = chosen_station(line, station)
    (begin, problem), (end, also) = time_of(since), time_of(until)
    if which == "last":
        begin, end = last_shift(line.clock())
    report = None
    if not (problem := problem or also):
        try:
            report = _report(line, name, begin, end, lot or None)
        except (DataError, UsageError, QueryTimeout) as error:
            problem = f"{str(error)[:1].upper()}{str(error)[1:]}."
    filters = {"station": name, "since": since, "until": until, "lot": lot}
    return html("shift", report=report, problem=problem, filters=filters, stations=[*line.stations])


def _report(line: Line, station: str, since: int | None, until: int | None, lot: str | None) -> ShiftReport:
    now = line.clock()

    def read(connection: Any) -> ShiftReport:
        of = shift.period(connection, station, now=now, since=since, until=until, lot=lot)
        return shift.read(connection, of, line=line.settings.name, now=now)

    return line.store.ask(read, seconds=shift.REPORT_SECONDS)
