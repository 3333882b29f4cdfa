"""Route and page of all stations of the database."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from andon.line import plant
from andon.line.page.words import OFFLINE, STATES, Sign
from andon.line.plant import PlantStation
from andon.line.rest.access import TheLine, requires
from andon.line.rest.html import html
from andon.line.rest.shapes import Shape
from andon.line.roles import Role
from andon.line.views import Shown

router = APIRouter(tags=["plant"])
page_router = APIRouter(default_response_class=HTMLResponse)


class PlantStationShape(Shape):
    """A station as its line reported it last."""

    name: str
    line: str
    """Name of the line that runs it."""
    address: str
    """Where the pages of that line are; empty where its settings do not say."""
    state: str
    """As on the page of the station, or `OFFLINE` where the line is silent for more than 30 seconds."""
    reason: str
    seen: int
    """Last sign of life of the line, by the clock of the database."""
    counts: dict[str, int]
    """Parts of the shift, by verdict."""
    shift_since: int
    per_minute: int
    last_stop: int | None
    """Start of the last stop."""
    last_stop_why: str


@router.get("/plant", dependencies=[requires(Role.VIEWER)])
def read_plant(line: TheLine) -> list[PlantStationShape]:
    """All stations of the database, also those of other lines."""
    return [PlantStationShape(**asdict(each)) for each in plant.stations(line.store)]


@page_router.get("/plant", dependencies=[requires(Role.VIEWER)])
def plant_page(line: TheLine) -> Response:
    """A tile for each station of the database."""
    found = [(each, _sign(each.state), _link(each, line.stations)) for each in plant.stations(line.store)]
    return html("plant", stations=found, own=line.settings.name)


def _sign(state: str) -> Sign:
    return OFFLINE if state == plant.OFFLINE else STATES[Shown(state)]


def _link(station: PlantStation, own: Collection[str]) -> str:
    """Address of the station's page; empty where its line does not say where it is."""
    is_own = station.name in own
    return f"{'' if is_own else station.address}/stations/{station.name}" if is_own or station.address else ""
