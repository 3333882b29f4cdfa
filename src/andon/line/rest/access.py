"""What routes take from the application: the line, its stations, rows of its store, and who asks.

@router.post("/stations/{station}/thresholds", dependencies=[requires(Role.ENGINEER)])
def add_version(line: TheLine, caller: TheCaller, body: ThresholdsBody) -> Versions: ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Request

from andon.line.line import Line
from andon.line.rest.pictures import Pictures
from andon.line.rest.problems import Problem, not_found
from andon.line.roles import Role
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


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Without accounts the name is empty, and whoever reaches the server may do everything."""

    name: str = ""
    role: Role = Role.ADMIN

    def author(self, said: str) -> str:
        """The name that is stored: that of the account, or without accounts what the request says."""
        return self.name or said


def _caller(request: Request) -> Caller:
    caller: Caller = getattr(request.state, "caller", Caller())
    return caller


TheCaller = Annotated[Caller, Depends(_caller)]


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a route needs of its caller; every route has one (a test asks the router)."""

    role: Role | None
    """At least this role; None: nothing, not even a name."""

    def __call__(self, caller: TheCaller) -> None:
        """Raises a 403 `Problem`."""
        if self.role is not None and caller.role < self.role:
            raise Problem(
                403, "role", f"this needs the role {self.role.name.lower()}: log in with another account"
            )


def requires(role: Role) -> Any:
    """Dependency of a route that needs at least `role`; otherwise a 403 `Problem`."""
    return Depends(Requirement(role))


def anyone() -> Any:
    """Dependency of a route that is open to everybody, without log-in: health, log-in itself."""
    return Depends(Requirement(None))


TheStation = Annotated[Station, Depends(_station)]
TheRow = Annotated[Inspection, Depends(_row)]
ThePictures = Annotated[Pictures, Depends(_pictures)]


def find_station(line: Line, name: str) -> Station:
    """The station of this name. Raises a 404 `Problem`."""
    found = line.stations.get(name)
    if found is None:
        raise not_found(f"station {name!r}; there are {', '.join(line.stations)}")
    return found
