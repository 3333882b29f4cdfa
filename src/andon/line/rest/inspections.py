"""Routes of inspections: send a part, read rows and their pictures, export them.

A client takes a part as good where the status is 200 or 201 and the verdict OK, and as bad in every other case.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlencode

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from andon.core.interface import LONGEST_WAIT
from andon.core.text import safe_cell
from andon.line.line import Line
from andon.line.rest import drawings
from andon.line.rest.access import TheCaller, TheDrawings, TheLine, TheRow, TheStation, requires
from andon.line.rest.problems import RETRY_SECONDS, Problem, document, not_found
from andon.line.rest.queries import TheFilters
from andon.line.rest.shapes import (
    PREFIX,
    Accepted,
    Filter,
    InspectionShape,
    Page,
    inspection_shape,
)
from andon.line.rest.upload import FIELDS, NUMBERS, read_part
from andon.line.roles import Role
from andon.line.station import Answer, NotReady, NoTrigger, Part, QueueFull, Station
from andon.line.store import Inspection, Recorded
from andon.line.store import Request as Asked
from andon.line.store.audit import Entry
from andon.line.verdicts import Cause, Region

router = APIRouter(tags=["inspections"])
UPLOADS = CapacityLimiter(16)
"""Threads of their own, so that parts do not wait behind pages."""
NO_IMAGES = {Cause.NOT_AN_IMAGE.value, Cause.IMAGE_DIFFERS.value}
"""Causes that are the sender's: the row is stored, the answer is 422."""
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
EXPORT_PAGE = 500
UPLOAD_SCHEMA: dict[str, Any] = {
    "parameters": [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {"type": "integer" if name in NUMBERS else "string"},
        }
        for name in FIELDS
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        **{name: {"type": "integer" if name in NUMBERS else "string"} for name in FIELDS},
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}


@router.post(
    "/stations/{station}/inspections",
    status_code=201,
    response_model=InspectionShape,
    responses={200: {"model": InspectionShape}, 202: {"model": Accepted}},
    openapi_extra=UPLOAD_SCHEMA,
    dependencies=[requires(Role.LEADER, or_sends=True)],
)
async def send_part(
    request: Request,
    line: TheLine,
    station: TheStation,
    wait: Annotated[int, Query(ge=0, le=LONGEST_WAIT)] = LONGEST_WAIT,
) -> Response:
    """Judge one part. The same request id with the same image gives the first answer again.

    `wait`: milliseconds; a part without a verdict by then is answered with 202. Queue full: 503, and a row with verdict
    ERROR, because a part was there. A request id of another image, of another station or of a trigger is refused: 422.
    """
    part = await read_part(request)
    known = await to_thread.run_sync(_known, line, station, part, limiter=UPLOADS)
    if known is not None:
        return answer_of(known)
    future = await to_thread.run_sync(submit_part, station, part, limiter=UPLOADS)
    answered = asyncio.wrap_future(future)
    answered.add_done_callback(_take_error)
    try:
        answer = await asyncio.wait_for(asyncio.shield(answered), wait / 1000)
    except TimeoutError:
        later = {"self": f"{PREFIX}/inspections?{urlencode({'request_id': part.request_id})}"}
        accepted = Accepted(request_id=part.request_id, links=later)
        return JSONResponse(accepted.model_dump(), 202, {"Retry-After": str(RETRY_SECONDS)})
    return answer_of(answer.recorded, answer.why)


def _take_error(answered: asyncio.Future[Answer]) -> None:
    """An error that comes after the sender has its 202 is the station's to log, not asyncio's."""
    if not answered.cancelled():
        answered.exception()


@router.get("/inspections", response_model=Page, dependencies=[requires(Role.VIEWER)])
def list_inspections(
    line: TheLine,
    filters: TheFilters,
    before_id: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    request_id: Filter = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Page:
    """Inspections, newest first. The next page begins before the last id of this one: follow `next`."""
    if request_id is not None:
        row = line.store.by_request(request_id)
        return Page(inspections=[] if row is None else [inspection_shape(row)], next=None)
    rows = line.store.inspections(**filters.asked(), before_id=before_id, limit=limit)
    following = None
    if len(rows) == limit:
        query = {**filters.query(), "before_id": rows[-1].id, "limit": limit}
        following = f"{PREFIX}/inspections?{urlencode(query)}"
    return Page(inspections=[inspection_shape(row) for row in rows], next=following)


@router.get("/inspections/{id}", response_model=InspectionShape, dependencies=[requires(Role.VIEWER)])
def one_inspection(row: TheRow) -> InspectionShape:
    """One inspection."""
    return inspection_shape(row)


@router.get("/inspections/{id}/image", response_class=Response, dependencies=[requires(Role.VIEWER)])
def image(line: TheLine, row: TheRow) -> Response:
    """The image as it came. 404 where it was not kept, or is not written yet."""
    assert row.image_key is None or "." in row.image_key
    suffix = (row.image_key or ".").rsplit(".", 1)[1]
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    known = kind in ("jpeg", "png", "bmp", "tiff", "webp")
    return _file(line.store.image(row), f"image/{kind}" if known else "application/octet-stream", row)


@router.get("/inspections/{id}/preview", response_class=Response, dependencies=[requires(Role.VIEWER)])
def preview(line: TheLine, row: TheRow, kept: TheDrawings) -> Response:
    """JPEG of the image, at most 1280 pixels."""

    def draw() -> bytes | None:
        content = line.store.image(row)
        return None if content is None else drawings.preview(content)

    return _file(kept.get("preview", row.id, draw), "image/jpeg", row)


@router.get("/inspections/{id}/thumbnail", response_class=Response, dependencies=[requires(Role.VIEWER)])
def thumbnail(line: TheLine, row: TheRow) -> Response:
    """JPEG of the image, at most 320 pixels."""
    return _file(line.store.thumbnail(row), "image/jpeg", row)


@router.get("/inspections/{id}/map", response_class=Response, dependencies=[requires(Role.VIEWER)])
def anomaly_map(line: TheLine, row: TheRow) -> Response:
    """Anomaly map, PNG of 8 bits: 0 to 255 is 0 to 2 x threshold."""
    return _file(line.store.map(row), "image/png", row)


@router.get("/inspections/{id}/heat", response_class=Response, dependencies=[requires(Role.VIEWER)])
def heat(line: TheLine, row: TheRow, kept: TheDrawings) -> Response:
    """PNG with transparency to be laid over the preview: the map in colours, regions outlined; the same scale for all parts."""
    found = kept.get("heat", row.id, lambda: _drawn(line, row, drawings.heat_layer))
    return _file(found, "image/png", row)


@router.get("/inspections/{id}/overlay", response_class=Response, dependencies=[requires(Role.VIEWER)])
def overlay(line: TheLine, row: TheRow, kept: TheDrawings) -> Response:
    """JPEG of the image under its map in colours, abnormal regions outlined."""
    found = kept.get("overlay", row.id, lambda: _drawn(line, row, drawings.overlay))
    return _file(found, "image/jpeg", row)


@router.get("/export.csv", response_class=StreamingResponse, dependencies=[requires(Role.VIEWER)])
def export(line: TheLine, caller: TheCaller, filters: TheFilters) -> StreamingResponse:
    """All inspections, newest first, as CSV; sent page by page."""
    if caller.name:
        line.store.audit(Entry(caller.name, "export", "inspections", new=asdict(filters)))
    rows = _export(line, **filters.asked())
    headers = {"Content-Disposition": 'attachment; filename="inspections.csv"'}
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


def _known(line: Line, station: Station, part: Part) -> Recorded | None:
    """The answer that was given to this request before. Raises `RequestConflict` where it was another part."""
    sha256 = hashlib.sha256(part.image).hexdigest()
    return line.store.answered(Asked(station.name, part.request_id, sha256))


def submit_part(station: Station, part: Part) -> Future[Answer]:
    """Queue a part. Raises `Problem` where the station refuses it."""
    return taken(lambda: station.submit(station.triggered(part)))


def taken(submit: Callable[[], Future[Answer]]) -> Future[Answer]:
    """What `submit` returns. Raises `Problem` where the station refuses the part."""
    try:
        return submit()
    except NoTrigger as error:
        raise Problem(409, "no_trigger", str(error), retry=RETRY_SECONDS) from None
    except QueueFull as error:
        raise Problem(503, "overrun", str(error), retry=RETRY_SECONDS, verdict="ERROR") from None
    except NotReady as error:
        raise Problem(503, "not_ready", str(error), retry=5, verdict="ERROR") from None


def answer_of(recorded: Recorded, why: str = "") -> Response:
    """The committed row: 201, 200 where it was answered before, 422 where the image could not be taken."""
    row = recorded.row
    headers = {"Location": f"{PREFIX}/inspections/{row.id}"}
    if recorded.replayed:
        headers["Idempotency-Replayed"] = "true"
    if row.cause in NO_IMAGES:
        detail = f"{why or 'the image cannot be used'}: inspection {row.id} is ERROR"
        return document(422, row.cause, detail, headers, id=row.id, verdict="ERROR")
    return JSONResponse(inspection_shape(row).model_dump(), 200 if recorded.replayed else 201, headers)


def _drawn(
    line: Line, row: Inspection, draw: Callable[[bytes, bytes, tuple[Region, ...]], bytes | None]
) -> bytes | None:
    image, anomaly_map = line.store.image(row), line.store.map(row)
    return None if image is None or anomaly_map is None else draw(image, anomaly_map, row.regions)


def _file(content: bytes | None, media_type: str, row: Inspection) -> Response:
    if content is None:
        raise not_found(f"such picture of inspection {row.id}: {row.image_state.name.lower()}")
    return Response(content, media_type=media_type, headers=FOREVER)


COLUMNS = (
    *("id", "station", "t_trigger", "t_done", "part_id", "lot", "recipe", "verdict", "score", "score_raw"),
    *("cause", "threshold_version", "model_sha256", "image_state", "request_id"),
    *("opinion", "defect_type", "reviewer", "overridden"),
)


def _export(line: Line, **filters: Any) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    before: int | None = None
    while True:
        page = line.store.inspections(**filters, before_id=before, limit=EXPORT_PAGE)
        for row in page:
            shape = inspection_shape(row)
            writer.writerow([_cell(getattr(shape, name)) for name in COLUMNS])
        yield buffer.getvalue()
        if len(page) < EXPORT_PAGE:
            return
        before = page[-1].id
        buffer.seek(0)
        buffer.truncate()


def _cell(value: object) -> object:
    return safe_cell(value) if isinstance(value, str) else value
