"""Gauge studies: what the history offers, signing, signed studies; as JSON and as pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Form, Path, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from andon.core.errors import AndonError, DataError, UsageError
from andon.line.line import Line
from andon.line.reports import shift, study
from andon.line.reports.agreement import Agreement
from andon.line.reports.study import MOST_REPEATS, Candidate
from andon.line.rest.access import TheCaller, TheLine, chosen_station, find_station, requires
from andon.line.rest.html import html
from andon.line.rest.pages import Text, time_of
from andon.line.rest.problems import not_found
from andon.line.rest.shapes import PLAIN, Author, Reason, Shape
from andon.line.roles import Role
from andon.line.store import studies as stored
from andon.line.store.reports import Period
from andon.line.store.studies import Study
from andon.line.verdicts import Opinion

router = APIRouter(tags=["reports"])
page_router = APIRouter(default_response_class=HTMLResponse)
NEWEST = 100
"""Signed studies that are listed."""
Number = Annotated[int, Path(ge=0, lt=2**63)]
Repeats = Annotated[int, Query(ge=2, le=MOST_REPEATS)]
PartId = Annotated[str, Field(max_length=300, pattern=PLAIN)]
Typed = Annotated[str, Form(max_length=300, pattern=PLAIN)]
Time = Annotated[int | None, Field(ge=0, lt=2**53)]


class StudyBody(Shape):
    """A study to be signed. Parts are taken from the history of the period, their newest shots count."""

    station: str
    since: Time = None
    """Microseconds UTC; by default the start of the running shift."""
    until: Time = None
    lot: str | None = Field(None, max_length=300, pattern=PLAIN)
    repeats: int = Field(3, ge=2, le=MOST_REPEATS)
    """Shots of each part."""
    references: dict[PartId, Literal["GOOD", "BAD"] | None] = Field(default_factory=dict, max_length=1000)
    """What a part is; None leaves it out. Parts that are not named have the reference of their reviews."""
    who: Author = ""
    why: Reason


class StudyShape(Shape):
    """A signed study."""

    id: int
    at: int
    who: str
    why: str
    sha256: str
    """Of its content; also in row `audit_seq` of the audit."""
    audit_seq: int
    is_sound: bool
    """The stored content has this hash, and the audit names it."""
    content: dict[str, Any]
    """Period, parts with references, verdicts and inspections, model, thresholds, figures."""


@router.get("/studies", dependencies=[requires(Role.VIEWER)])
def list_studies(line: TheLine) -> list[StudyShape]:
    """Signed gauge studies, newest first."""
    return [_shape(each) for each in line.store.ask(lambda c: stored.studies(c, NEWEST))]


@router.get("/studies/{id}", dependencies=[requires(Role.VIEWER)])
def read_study(line: TheLine, id: Number) -> StudyShape:
    """A signed gauge study."""
    found = line.store.ask(lambda c: stored.one(c, id))
    if found is None:
        raise not_found(f"study {id}")
    return _shape(found)


@router.post("/studies", status_code=201, dependencies=[requires(Role.ENGINEER)])
def sign_study(line: TheLine, caller: TheCaller, body: StudyBody) -> StudyShape:
    """Sign a gauge study of parts that a station judged several times, with a reason of at least 10 characters."""
    find_station(line, body.station)
    references = {part: Opinion[said] if said else None for part, said in body.references.items()}
    who = caller.author(body.who)
    try:
        of = _period(line, body.station, body.since, body.until, body.lot)
    except DataError as error:
        raise UsageError(str(error)) from None
    return read_study(line, _sign(line, of, body.repeats, references, who, body.why))


@page_router.get("/studies", dependencies=[requires(Role.VIEWER)])
def studies_page(
    line: TheLine,
    caller: TheCaller,
    station: Text = "",
    since: Text = "",
    until: Text = "",
    lot: Text = "",
    repeats: Repeats = 3,
) -> Response:
    """Signed studies, and what the history offers for the next one."""
    name = chosen_station(line, station)
    return _offer(line, caller.role, Offer(name, since, until, lot, repeats))


@page_router.post("/studies", dependencies=[requires(Role.ENGINEER)])
def sign_page(
    line: TheLine,
    caller: TheCaller,
    station: Typed,
    since: Annotated[int, Form(ge=0, lt=2**53)],
    until: Annotated[int, Form(ge=0, lt=2**53)],
    repeats: Annotated[int, Form(ge=2, le=MOST_REPEATS)],
    why: Annotated[str, Form(max_length=1000, pattern=PLAIN)],
    part: Annotated[list[PartId], Form(max_length=1000)],
    reference: Annotated[list[Literal["GOOD", "BAD", ""]], Form(max_length=1000)],
    who: Typed = "",
    lot: Typed = "",
) -> Response:
    """Sign the study of the page."""
    find_station(line, station)
    said = {id: Opinion[word] if word else None for id, word in zip(part, reference, strict=False)}
    try:
        if len(why.strip()) < 10:
            raise UsageError("a study needs a reason of at least 10 characters: say what it is for")
        of = _period(line, station, since, until, lot or None)
        signed = _sign(line, of, repeats, said, caller.author(who), why)
    except AndonError as error:
        answer = _offer(line, caller.role, Offer(station, "", "", lot, repeats), str(error))
        answer.status_code = 422
        return answer
    return RedirectResponse(f"/studies/{signed}", 303)


@page_router.get("/studies/{id}", dependencies=[requires(Role.VIEWER)])
def study_page(line: TheLine, id: Number) -> Response:
    """One signed study, to be printed."""
    found = line.store.ask(lambda c: stored.one(c, id))
    figures = None if found is None else Agreement.from_json(found.content["figures"])
    answer = html("study", study=found, number=id, figures=figures, name=line.settings.name)
    answer.status_code = 404 if found is None else 200
    return answer


class Offer(NamedTuple):
    """What a person asks the history for; times as typed."""

    station: str
    since: str
    until: str
    lot: str
    repeats: int


def _offer(line: Line, role: Role, asked: Offer, message: str = "") -> HTMLResponse:
    (begin, problem), (end, also) = time_of(asked.since), time_of(asked.until)
    message = message or problem or also
    of, found = None, list[Candidate]()
    if not (problem or also):
        try:
            of = _period(line, asked.station, begin, end, asked.lot or None)
            found = _candidates(line, of, asked.repeats)
        except (DataError, UsageError) as error:
            message = message or str(error)
    known = study.with_references(found, {}, "")
    return html(
        "studies",
        studies=line.store.ask(lambda c: stored.studies(c, NEWEST)),
        asked=asked,
        of=of,
        candidates=found,
        known=len(known),
        problem=study.problem(known) if found else "",
        message=message,
        stations=[*line.stations],
        may_sign=role >= Role.ENGINEER,
        most_repeats=MOST_REPEATS,
    )


def _period(line: Line, station: str, since: int | None, until: int | None, lot: str | None) -> Period:
    now = line.clock()
    return line.store.ask(
        lambda c: shift.period(c, station, now=now, since=since, until=until, lot=lot),
        seconds=shift.REPORT_SECONDS,
    )


def _candidates(line: Line, of: Period, repeats: int) -> list[Candidate]:
    return line.store.ask(lambda c: study.read(c, of, repeats)[1], seconds=shift.REPORT_SECONDS)


def _sign(
    line: Line, of: Period, repeats: int, references: Mapping[str, Opinion | None], who: str, why: str
) -> int:
    """Read without the writer, so that parts do not wait for the figures; write in order."""
    now = line.clock()
    content = line.store.ask(
        lambda c: study.content(c, of, repeats, references, who=who, why=why, at=now),
        seconds=shift.REPORT_SECONDS,
    )
    return line.store.write(lambda c: stored.add(c, content, who=who, why=why, at=now)).result()


def _shape(found: Study) -> StudyShape:
    return StudyShape(**found._asdict())
