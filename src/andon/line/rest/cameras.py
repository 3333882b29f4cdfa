"""Routes of cameras: trigger a part, and how a camera is."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import Field

from andon.line.cameras.shooting import StationCamera
from andon.line.line import Line
from andon.line.rest.access import TheLine, TheStation, requires
from andon.line.rest.inspections import UPLOADS, answer_of, taken
from andon.line.rest.problems import Problem, not_found
from andon.line.rest.shapes import InspectionShape, Shape
from andon.line.rest.upload import request_id_of
from andon.line.roles import Role
from andon.line.station import Part, Station

router = APIRouter(tags=["cameras"])
Text = Annotated[str | None, Field(max_length=200)]


class TriggerBody(Shape):
    """A part that stands before the camera."""

    part_id: Text = None
    lot: Text = None
    request_id: Text = None
    """The same id again: the answer of the first time, and no second image."""


class CameraShape(Shape):
    """A camera now."""

    kind: str
    source: str
    trigger: str
    connected: bool
    fault: str
    """What fails; empty where nothing does."""
    frames: int
    """Images since the start."""
    lost: int
    """Images that did not arrive, or not whole."""
    stale: int
    """Images that were too old to be judged."""
    opened: int
    """How often it was opened."""
    settings: dict[str, Any]
    expected: dict[str, Any]
    differences: list[str]
    """Settings that are not as expected, in words."""
    health: dict[str, Any]


@router.post(
    "/stations/{station}/trigger",
    status_code=201,
    response_model=InspectionShape,
    responses={200: {"model": InspectionShape}},
    dependencies=[requires(Role.LEADER, or_sends=True)],
)
async def trigger(
    request: Request, line: TheLine, station: TheStation, body: TriggerBody | None = None
) -> Response:
    """Take an image with the camera of the station and judge it. Without an image the part is a row with verdict ERROR."""
    wanted = body or TriggerBody()
    camera = _camera(line, station)
    if camera.each_is_part:
        raise Problem(
            409, "hardware_trigger", f"the camera of station {station.name} is triggered by hardware alone"
        )
    named = request_id_of(request, wanted.request_id)
    part = Part(b"", named or uuid.uuid4().hex, wanted.part_id, wanted.lot, t_trigger=line.clock())
    shoot = partial(line.cameras.trigger, station.name, part)
    future = await to_thread.run_sync(taken, shoot, limiter=UPLOADS)
    answer = await asyncio.wrap_future(future)
    return answer_of(answer.recorded, answer.why)


@router.get("/stations/{station}/camera", response_model=CameraShape, dependencies=[requires(Role.VIEWER)])
def camera_state(line: TheLine, station: TheStation) -> CameraShape:
    """Whether the camera works, what it counted, its settings and those that are expected."""
    camera = _camera(line, station)
    settings, view = camera.settings, camera.view
    return CameraShape(
        kind=settings.kind,
        source=settings.source,
        trigger=settings.trigger,
        connected=view.connected,
        fault=view.fault,
        frames=view.frames,
        lost=view.lost,
        stale=view.stale,
        opened=view.opened,
        settings=view.settings,
        expected=settings.expect,
        differences=list(view.differences),
        health=view.health,
    )


def _camera(line: Line, station: Station) -> StationCamera:
    found = line.cameras.of.get(station.name)
    if found is None:
        raise not_found(f"camera of station {station.name}")
    return found
