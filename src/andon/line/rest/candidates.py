"""Routes of candidates: packed files that may replace the model of a station, their comparison, shadow mode, use and way back."""

from __future__ import annotations

import shutil
from pathlib import Path as File
from typing import Annotated

from anyio import open_file, to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.requests import ClientDisconnect

from andon.core.errors import DataError
from andon.line.candidates import promotion
from andon.line.candidates.candidates import View
from andon.line.line import Line
from andon.line.rest.access import TheCaller, TheLine, TheStation, first_station, requires
from andon.line.rest.candidate_shapes import (
    CandidateShape,
    CompareBody,
    NewCandidate,
    PromoteBody,
    ReturnBody,
    ShadowBody,
    candidate_shape,
)
from andon.line.rest.html import html
from andon.line.rest.problems import Problem, not_found
from andon.line.rest.shapes import PREFIX
from andon.line.rest.threshold_pages import share_text
from andon.line.rest.threshold_shapes import DecisionBody
from andon.line.roles import Role
from andon.thresholds.figures import Share

router = APIRouter(tags=["candidates"])
page_router = APIRouter(default_response_class=HTMLResponse)
Id = Annotated[int, Path(ge=0, lt=2**63)]
PLACE = "/stations/{station}/candidates"


@router.get(PLACE, dependencies=[requires(Role.VIEWER)])
def list_candidates(line: TheLine, station: TheStation) -> list[CandidateShape]:
    """Candidates of a station, newest first, without the figures of their comparisons."""
    return [candidate_shape(view) for view in line.candidates.all(station.name)]


@router.post(PLACE, status_code=201, dependencies=[requires(Role.ENGINEER)])
async def add_candidate(
    request: Request,
    line: TheLine,
    station: TheStation,
    caller: TheCaller,
    new: Annotated[NewCandidate, Query()],
) -> CandidateShape:
    """Verify a packed file and keep it as a candidate: the body, or with an empty body the file `name` in `candidates/`."""
    who = caller.author(new.who)
    with line.candidates.incoming(new.name) as path:
        if not await _received(request, path):
            await to_thread.run_sync(shutil.copyfile, line.candidates.delivered(new.name), path)
        return await to_thread.run_sync(_add, line, station.name, path, who, new)


@router.get(PLACE + "/{id}", dependencies=[requires(Role.VIEWER)])
def candidate(line: TheLine, station: TheStation, id: Id) -> CandidateShape:
    """A candidate with the figures of its newest comparison and shadow run."""
    return _shape(line, _view(line, station.name, id))


@router.post(PLACE + "/{id}/compare", status_code=202, dependencies=[requires(Role.ENGINEER)])
def compare(
    line: TheLine, station: TheStation, caller: TheCaller, id: Id, body: CompareBody
) -> CandidateShape:
    """Judge reviewed parts and a random sample of the newest ones by the candidate and the model in use, beside the line."""
    _view(line, station.name, id)
    line.candidates.compare(station.name, id, who=caller.author(body.who), sample=body.sample)
    return candidate_shape(_view(line, station.name, id))


@router.post(PLACE + "/{id}/shadow", dependencies=[requires(Role.ENGINEER)])
def shadow(line: TheLine, station: TheStation, caller: TheCaller, id: Id, body: ShadowBody) -> CandidateShape:
    """Begin or end shadow mode: the candidate scores parts after their answers, and its verdicts reach nobody."""
    view, who = _view(line, station.name, id), caller.author(body.who)
    if body.on:
        line.candidates.shadow_on(station.name, id, who=who, why=body.why)
    elif view.standing.is_shadow:
        line.candidates.shadow_off(station.name, who=who, why=body.why)
    return candidate_shape(_view(line, station.name, id))


@router.post(PLACE + "/{id}/promote", status_code=201, dependencies=[requires(Role.ENGINEER)])
def promote(
    line: TheLine, station: TheStation, caller: TheCaller, id: Id, body: PromoteBody, response: Response
) -> CandidateShape:
    """Judge by the candidate from the next part on. Golden parts have to come out right.

    Where the settings want a second person: 202, and a proposal that another person approves.
    """
    _view(line, station.name, id)
    who = caller.author(body.who)
    try:
        is_used = promotion.promote(line, station.name, id, who=who, why=body.why, based_on=body.based_on)
    except DataError as error:
        raise _unusable(error) from None
    if not is_used:
        response.status_code = 202
    return candidate_shape(_view(line, station.name, id))


@router.post(PLACE + "/{id}/approve", status_code=201, dependencies=[requires(Role.ENGINEER)])
def approve(
    line: TheLine, station: TheStation, caller: TheCaller, id: Id, body: DecisionBody
) -> CandidateShape:
    """Use a proposed candidate. 409 for the person who proposed it; 412 where another model came into use since."""
    _view(line, station.name, id)
    try:
        promotion.approve(line, station.name, id, who=caller.author(body.who))
    except DataError as error:
        raise _unusable(error) from None
    return candidate_shape(_view(line, station.name, id))


@router.post(PLACE + "/{id}/decline", dependencies=[requires(Role.ENGINEER)])
def decline(
    line: TheLine, station: TheStation, caller: TheCaller, id: Id, body: DecisionBody
) -> CandidateShape:
    """Refuse a proposed candidate, or take back one's own proposal."""
    _view(line, station.name, id)
    promotion.decline(line, station.name, id, who=caller.author(body.who), note=body.note)
    return candidate_shape(_view(line, station.name, id))


@router.post(PLACE + "/return", status_code=201, dependencies=[requires(Role.ENGINEER)])
def take_back(
    line: TheLine, station: TheStation, caller: TheCaller, body: ReturnBody
) -> list[CandidateShape]:
    """Judge by the model before the candidate in use from the next part on, with its thresholds."""
    try:
        promotion.take_back(line, station.name, who=caller.author(body.who), why=body.why)
    except DataError as error:
        raise _unusable(error) from None
    return list_candidates(line, station)


@page_router.get("/candidate", dependencies=[requires(Role.VIEWER)])
def first_candidate(line: TheLine) -> Response:
    """The page of the first station."""
    return RedirectResponse(f"/stations/{first_station(line)}/candidate")


@page_router.get("/stations/{station}/candidate", dependencies=[requires(Role.VIEWER)])
def candidate_page(
    line: TheLine, station: TheStation, id: Annotated[int | None, Query(ge=0, lt=2**63)] = None
) -> Response:
    """Candidates of a station, and the figures of one of them beside the model in use; by default of the newest."""
    views = line.candidates.all(station.name)
    chosen = None
    if views:
        chosen = _shape(line, views[0] if id is None else _view(line, station.name, id))
    before = promotion.before(line, station.name)
    return html(
        "candidate",
        station=station.name,
        stations=[*line.stations],
        model=station.model,
        candidates=[candidate_shape(view) for view in views],
        chosen=chosen,
        before=None if before is None else before[1].detail["before_name"],
        second_person=line.settings.second_person,
        share=lambda shape: share_text(Share(shape.count, shape.n)),
        prefix=PREFIX,
    )


async def _received(request: Request, path: File) -> bool:
    """Write the body to a file; False, and no file, where it is empty."""
    size = 0
    try:
        async with await open_file(path, "wb") as file:
            async for chunk in request.stream():
                size += await file.write(chunk)
    except ClientDisconnect:
        raise Problem(400, "disconnected", "the connection ended before the body") from None
    except OSError as error:
        raise Problem(507, "disk", f"the packed file cannot be kept: {error.strerror}; make room") from None
    if not size:
        path.unlink()
    return size > 0


def _add(line: Line, station: str, path: File, who: str, new: NewCandidate) -> CandidateShape:
    try:
        made = line.candidates.add(station, path, who=who, why=new.why, given=new.name)
    except DataError as error:
        raise _unusable(error) from None
    return candidate_shape(line.candidates.one(station, made.id))


def _view(line: Line, station: str, id: int) -> View:
    found = next((view for view in line.candidates.all(station) if view.candidate.id == id), None)
    if found is None:
        raise not_found(f"candidate {id} of station {station}")
    return found


def _shape(line: Line, view: View) -> CandidateShape:
    """With all figures."""
    found = view.standing
    comparison = line.candidates.pairs(found.comparison) if found.comparison else None
    shadow = line.candidates.pairs(found.shadow) if found.shadow else None
    return candidate_shape(view, comparison, shadow)


def _unusable(error: DataError) -> Problem:
    return Problem(422, "unusable_model", str(error))
