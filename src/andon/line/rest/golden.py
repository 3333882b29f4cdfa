"""Routes of golden parts: what is known and due, checks, parts shown to the camera, the override."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import HTMLResponse

from andon.core.errors import DataError
from andon.line.golden.items import Mode, check_reason
from andon.line.golden.trend import trends
from andon.line.judge import decoded, suffix_of
from andon.line.line import Line
from andon.line.rest.access import TheCaller, TheLine, TheStation, requires
from andon.line.rest.golden_shapes import (
    FromInspection,
    GoldenOverrideBody,
    GoldenRemoveBody,
    GoldenRunBody,
    GoldenRunShape,
    GoldenShape,
    NewItem,
    ShowBody,
    golden_shape,
    run_shape,
)
from andon.line.rest.html import html
from andon.line.rest.problems import Problem, not_found
from andon.line.rest.shapes import PREFIX, Who
from andon.line.roles import Role

router = APIRouter(tags=["golden parts"])
page_router = APIRouter(default_response_class=HTMLResponse)
SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".bmp": "image/bmp", ".webp": "image/webp"}
"""Formats that browsers show."""
SHOWN_RUNS = 20
TREND_RUNS = 60
"""Checks on the page, and in the trend of each golden part."""
Id = Annotated[int, Path(ge=0, lt=2**63)]


@router.get("/golden", dependencies=[requires(Role.VIEWER)])
def all_golden(line: TheLine) -> list[GoldenShape]:
    """Golden parts of all stations, and what is due."""
    return [_shape(line, name) for name in line.stations]


@router.get("/golden/{station}", dependencies=[requires(Role.VIEWER)])
def golden_of(line: TheLine, station: TheStation) -> GoldenShape:
    """Golden parts of a station, and what is due."""
    return _shape(line, station.name)


@router.get("/golden/{station}/items/{id}/image", dependencies=[requires(Role.VIEWER)])
def golden_image(line: TheLine, station: TheStation, id: Id) -> Response:
    """The stored image of a golden part."""
    content = line.golden.image(station.name, id)
    if content is None:
        raise not_found(f"image of golden part {id}")
    return Response(content, media_type=SUFFIXES.get(suffix_of(content), "application/octet-stream"))


@router.get("/golden/{station}/runs", dependencies=[requires(Role.VIEWER)])
def list_runs(
    line: TheLine,
    station: TheStation,
    before_id: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> list[GoldenRunShape]:
    """Checks of a station with their results, newest first; the next page begins before the last id of this one."""
    return [run_shape(run) for run in line.golden.runs(station.name, limit, before_id)]


@router.post("/golden/{station}/runs", status_code=201, dependencies=[requires(Role.LEADER)])
def run_golden(
    line: TheLine, station: TheStation, caller: TheCaller, body: GoldenRunBody, response: Response
) -> GoldenRunShape | None:
    """Judge the stored images of all golden parts. With `mode` = `parts`: 202, and the station waits for parts to be shown."""
    who = caller.author(body.who)
    if body.mode is Mode.FILES:
        return run_shape(line.golden.run(station.name, who, body.note or "asked for"))
    failed = line.golden.begin_showing(station.name, who)
    if failed is not None:
        return run_shape(failed)
    response.status_code = 202
    return None


@router.post("/golden/{station}/show", dependencies=[requires(Role.LEADER)])
def show_part(line: TheLine, station: TheStation, body: ShowBody) -> GoldenShape:
    """The next part of the station is this golden part; its row is ERROR (`golden_part`) and counts for nothing else."""
    line.golden.show(station.name, body.item)
    return _shape(line, station.name)


@router.post("/golden/{station}/cancel", dependencies=[requires(Role.LEADER)])
def cancel_showing(line: TheLine, station: TheStation, caller: TheCaller, body: Who) -> GoldenShape:
    """Wait for no further golden parts. What is due stays due."""
    line.golden.cancel(station.name, caller.author(body.who))
    return _shape(line, station.name)


@router.post("/golden/{station}/override", dependencies=[requires(Role.ADMIN)])
def override(line: TheLine, station: TheStation, caller: TheCaller, body: GoldenOverrideBody) -> GoldenShape:
    """Let parts be OK for at most 8 hours although a check is due or failed; needs a reason of at least 10 characters."""
    line.golden.override(station.name, body.minutes, caller.author(body.who), body.why)
    return _shape(line, station.name)


@router.post("/golden/{station}/items", status_code=201, dependencies=[requires(Role.ENGINEER)])
def add_from_inspection(
    line: TheLine, station: TheStation, caller: TheCaller, body: FromInspection
) -> GoldenShape:
    """Add a golden part with the image of an inspection. A check is due then."""
    row = line.store.inspection(body.inspection)
    content = None if row is None else line.store.image(row)
    if row is None or content is None:
        raise not_found(f"image of inspection {body.inspection}")
    if row.station != station.name:
        raise Problem(422, "invalid", f"inspection {row.id} is of station {row.station}: add it there")
    _add(line, station.name, content, body, caller.author(body.who), row.id)
    return _shape(line, station.name)


@router.post("/golden/{station}/images", status_code=201, dependencies=[requires(Role.ENGINEER)])
async def add_image(
    request: Request, line: TheLine, station: TheStation, caller: TheCaller, item: Annotated[NewItem, Query()]
) -> GoldenShape:
    """Add a golden part with the image in the body, its values in the query. A check is due then."""
    content = await request.body()
    await to_thread.run_sync(_add, line, station.name, content, item, caller.author(item.who), None)
    return await to_thread.run_sync(_shape, line, station.name)


@router.post("/golden/{station}/items/remove", dependencies=[requires(Role.ENGINEER)])
def remove_items(
    line: TheLine, station: TheStation, caller: TheCaller, body: GoldenRemoveBody
) -> GoldenShape:
    """Take golden parts out of the set. While a check failed or is overdue the last one stays."""
    line.golden.change(station.name, remove=body.names, who=caller.author(body.who), why=body.why)
    return _shape(line, station.name)


@page_router.get("/golden", dependencies=[requires(Role.VIEWER)])
def golden_page(line: TheLine, inspection: Annotated[int | None, Query(ge=0, lt=2**63)] = None) -> Response:
    """Golden parts of all stations with what is due, their checks and the trend of their scores."""
    chosen = None if inspection is None else line.store.inspection(inspection)
    stations = []
    for name in line.stations:
        runs = line.golden.runs(name, TREND_RUNS)
        shape = _shape(line, name)
        last = {each.name: each for run in reversed(runs) if not run.is_trial for each in run.results}
        of_items = trends([item.name for item in shape.items], runs)
        stations.append({"golden": shape, "runs": runs[:SHOWN_RUNS], "last": last, "trends": of_items})
    return html("golden", stations=stations, chosen=chosen, prefix=PREFIX)


def _shape(line: Line, station: str) -> GoldenShape:
    return golden_shape(station, line.golden.view(station), line.golden.current(station))


def _add(line: Line, station: str, content: bytes, new: NewItem, who: str, inspection: int | None) -> None:
    check_reason(new.why)
    if not content:
        raise Problem(422, "no_image", "the request has no image: send its bytes as the body")
    try:
        decoded(content)
    except DataError as error:
        raise Problem(422, "not_a_picture", str(error)) from None
    key, sha256 = line.golden.keep_image(content, suffix_of(content))
    line.golden.change(station, add=[new.item(key, sha256, inspection)], who=who, why=new.why)
