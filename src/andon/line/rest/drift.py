"""Routes and page of the drift watch."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from andon.core.errors import UsageError
from andon.line.clock import DAY
from andon.line.drift.reference import NAMES
from andon.line.drift.settings import ReferenceParts
from andon.line.drift.view import DriftView, NumberView, view
from andon.line.line import Line
from andon.line.rest.access import TheCaller, TheLine, TheStation, requires
from andon.line.rest.html import html
from andon.line.rest.shapes import PLAIN, Author, Shape
from andon.line.roles import Role
from andon.line.store import drift as stored
from andon.line.store.drift import Point

router = APIRouter(tags=["drift"])
page_router = APIRouter(default_response_class=HTMLResponse)
DAYS = 2
"""Days that the charts show."""
WIDTH, HEIGHT = 600, 120
"""Of a chart, units of its drawing."""
MOST_DRAWN = 400
"""Points of a chart."""


class NumberShape(Shape):
    """One number: median of the reference, value now, moving average (standard deviations) and its limit."""

    name: str
    usual: float
    now: float
    average: float
    limit: float
    autocorrelation: float


class RateShape(Shape):
    """Parts of a verdict in the last block of 50, the limit, and the usual rate; None while it is learned."""

    verdict: str
    usual: float | None
    last: int | None
    limit: int | None


class DriftShape(Shape):
    """The drift watch of one station."""

    text: str
    """What drifts, why and since when; empty where nothing does."""
    cause: str | None
    """`light`, `blur`, `shift`, `colour`, `new product`, `unknown`; None where no average is beyond its limit."""
    place: str
    since: int | None
    """Estimated begin."""
    unlike: str
    """How images are unlike those that the model was trained on."""
    learning: tuple[int, int] | None
    """Parts of a reference that is being learned, and how many it needs."""
    reference: dict[str, int | str] | None
    """`version`, `parts`, `who`, `why`, `at`."""
    parts: int
    """Parts that were compared."""
    numbers: list[NumberShape]
    cells: list[list[float]]
    """Relative change of the brightness of 4 x 4 cells, rows from the top."""
    rates: list[RateShape]
    shift: dict[str, Any] | None
    """Comparison of the last shift: `begin`, `count`, `numbers` (distance, p, PSI), `found`."""
    timing: dict[str, tuple[float, float]]
    """`judging_ms` and `interval_s`: median of the reference, and now."""


class DriftAnswer(Shape):
    """All stations, and how many images and parts were left out since the start."""

    lost: int
    stations: dict[str, DriftShape]


class ReferenceBody(Shape):
    """A new reference, learned from the next passed parts."""

    who: Author = ""
    why: str = Field(min_length=10, max_length=1000, pattern=PLAIN)
    """Reason, at least 10 characters; kept with the version."""
    parts: ReferenceParts | None = None
    """By default the setting `reference_parts`."""


@router.get("/drift", dependencies=[requires(Role.VIEWER)])
def read_drift(line: TheLine) -> DriftAnswer:
    """Drift of each station: numbers against their reference, cause and place, rates, last shift."""
    return DriftAnswer(
        lost=line.drift.lost, stations={name: _shape(_view(line, name)) for name in line.stations}
    )


@router.post("/stations/{station}/drift/reference", status_code=202, dependencies=[requires(Role.ENGINEER)])
def new_reference(line: TheLine, station: TheStation, caller: TheCaller, body: ReferenceBody) -> DriftShape:
    """Learn a new reference from the next passed parts, with a reason; the one in use stays until it is complete."""
    if not line.settings.drift.watch:
        raise UsageError("drift is not watched on this line: set watch = true in [drift] and restart")
    line.drift.set_reference(station.name, who=caller.author(body.who), why=body.why, parts=body.parts)
    return _shape(_view(line, station.name))


@page_router.get("/drift", dependencies=[requires(Role.VIEWER)])
def overview(line: TheLine) -> Response:
    """Drift of all stations; with one alone, its page."""
    if len(line.stations) == 1:
        (name,) = line.stations
        return RedirectResponse(f"/stations/{name}/drift")
    return html("drift_overview", stations={name: _view(line, name) for name in line.stations})


@page_router.get("/stations/{station}/drift", dependencies=[requires(Role.VIEWER)])
def drift_page(line: TheLine, station: TheStation) -> Response:
    """Each number over time with its limits, cells, rates, last shift."""
    found, now = _view(line, station.name), line.clock()
    points = line.store.ask(lambda connection: stored.points(connection, station.name, now - DAYS * DAY))
    charts = [chart(number, [p for p in points if p.name == number.name], now) for number in found.numbers]
    return html(
        "drift",
        station=station.name,
        watched=line.settings.drift.watch,
        view=found,
        charts=charts,
        days=DAYS,
        lost=line.drift.lost,
        width=WIDTH,
        height=HEIGHT,
        numbers=len(NAMES),
    )


class Chart(NamedTuple):
    """A moving average over time, in units of a drawing `WIDTH` x `HEIGHT`, zero in the middle."""

    number: NumberView
    lines: tuple[str, ...]
    """Points of polylines; a new one after a pause or a new reference."""
    limit: float
    """Distance of the limits from the middle."""
    is_outside: bool


def chart(number: NumberView, points: list[Point], now: int) -> Chart:
    """The chart of a number; its scale is twice the limit, or the largest value."""
    points = points[:: max(1, len(points) // MOST_DRAWN)]
    most = max(2 * number.limit, abs(number.average), *(abs(point.value) for point in points), 1e-9)
    scale, begin = HEIGHT / 2 / most, now - DAYS * DAY
    lines: list[list[str]] = [[]]
    for before, point in zip([None, *points], points, strict=False):
        if before is not None and point.n < before.n:
            lines.append([])
        across = WIDTH * (point.at - begin) / (DAYS * DAY)
        lines[-1].append(f"{across:.1f},{HEIGHT / 2 - point.value * scale:.1f}")
    return Chart(
        number,
        tuple(" ".join(line) for line in lines if line),
        number.limit * scale,
        abs(number.average) > number.limit,
    )


def _view(line: Line, station: str) -> DriftView:
    return line.drift.read(station, view)


def _shape(found: DriftView) -> DriftShape:
    drift = found.drift
    return DriftShape(
        text=found.text,
        cause=None if drift is None else drift.named.cause.value,
        place="" if drift is None else drift.named.place,
        since=None if drift is None else drift.since,
        unlike=found.unlike,
        learning=found.learning,
        reference=None if found.reference is None else dict(found.reference),
        parts=found.parts,
        numbers=[NumberShape(**number._asdict()) for number in found.numbers],
        cells=[list(row) for row in found.cells],
        rates=[RateShape(**rate._asdict()) for rate in found.rates],
        shift=None if found.shift is None else found.shift.to_json(),
        timing=dict(found.timing),
    )
