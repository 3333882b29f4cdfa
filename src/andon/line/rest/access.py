"""What routes take from the application: the line, its stations, rows of its store."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from andon.line.line import Line
from andon.line.rest.pictures import Pictures
from andon.line.rest.problems import not_found
from andon.line.station import Station
from andon.line.store import Inspection


async def _line(request: Request) -> Line:
    line: Line = request.app.state.line
    return line


TheLine = Annotated[Line, Depends(_line)]


async def _station(line: TheLine, station: str) -> Station:
    return find_station(line, station)


def _row(line: TheLine, id: Annotated[int, Path(ge=0, lt=2**63)]) -> Inspection:
    row = line.store.inspection(id)
    if row is None:
        raise not_found(f"inspection {id}")
    return row


def _pictures(request: Request) -> Pictures:
    pictures: Pictures = request.app.state.pictures
    return pictures


TheStation = Annotated[Station, Depends(_station)]
TheRow = Annotated[Inspection, Depends(_row)]
ThePictures = Annotated[Pictures, Depends(_pictures)]


def find_station(line: Line, name: str) -> Station:
    """The station of this name. Raises a 404 `Problem`."""
    found = line.stations.get(name)
    if found is None:
        raise not_found(f"station {name!r}; there are {', '.join(line.stations)}")
    return found
