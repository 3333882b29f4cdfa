"""What routes take from the application: the line, its stations, rows of its store, and who asks.

@router.post("/stations/{station}/thresholds", dependencies=[requires(Role.ENGINEER)])
def add_version(line: TheLine, caller: TheCaller, body: ThresholdsBody) -> Versions: ...
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from fastapi.responses import JSONResponse

from andon.line.accounts import LogIn
from andon.line.line import Line
from andon.line.rest.drawings import Drawings
from andon.line.rest.guard import READS
from andon.line.rest.problems import Problem, not_found
from andon.line.roles import Caller, Role
from andon.line.station import Station
from andon.line.store import Inspection

CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf"
"""Where scripts and forms repeat `Caller.csrf`."""


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


def _drawings(request: Request) -> Drawings:
    drawings: Drawings = request.app.state.drawings
    return drawings


def _caller(request: Request) -> Caller:
    caller: Caller | None = request.state.caller
    if caller is None:
        raise NoCaller
    return caller


TheCaller = Annotated[Caller, Depends(_caller)]


class NoCaller(Problem):
    """401: accounts are required, and nobody is recognised. Pages lead to the log-in instead."""

    def __init__(self) -> None:
        super().__init__(
            401,
            "log_in",
            "this needs an account or a token: log in at /login, or send a token (Authorization: Bearer)",
        )

    def response(self) -> JSONResponse:
        """The document; pages know by the header that their log-in has ended."""
        answer = super().response()
        answer.headers["WWW-Authenticate"] = 'Bearer realm="andon"'
        return answer


def _log_in(request: Request) -> LogIn:
    log_in: LogIn = request.app.state.log_in
    return log_in


TheLogIn = Annotated[LogIn, Depends(_log_in)]


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a route needs of its caller; every route has one (a test asks the router)."""

    role: Role | None
    """At least this role; None: nothing, not even a name."""
    or_sends: bool = False
    """Whether a token that may send parts is enough."""

    async def __call__(self, request: Request) -> None:
        """Raises a 401 or 403 `Problem`."""
        if self.role is None:
            return
        caller = _caller(request)
        if caller.role < self.role and not (self.or_sends and caller.sends):
            raise Problem(403, "role", _missing(self.role, caller))
        if request.method in READS:
            return
        if caller.station is not None and request.path_params.get("station") != caller.station:
            raise Problem(403, "station", f"this token may change station {caller.station} alone")
        if caller.csrf:
            await _check_csrf(request, caller.csrf)


def requires(role: Role, *, or_sends: bool = False) -> Any:
    """Dependency of a route that needs at least `role`, or a token that may send parts; otherwise a 403 `Problem`."""
    return Depends(Requirement(role, or_sends))


def anyone() -> Any:
    """Dependency of a route that is open to everybody, without log-in: health, log-in itself."""
    return Depends(Requirement(None))


def _missing(role: Role, caller: Caller) -> str:
    if caller.is_locked:
        return "the log-in is locked because nothing was done for a while: log in again"
    return f"this needs the role {role.word}: log in with another account"


async def _check_csrf(request: Request, wanted: str) -> None:
    """Browsers send cookies along with what other pages make them send, but no header or field that these do not know."""
    given = request.headers.get(CSRF_HEADER, "")
    if not given and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        given = str((await request.form()).get(CSRF_FIELD, ""))
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        raise Problem(403, "csrf", "the page is older than the server: load it again")


TheStation = Annotated[Station, Depends(_station)]
TheRow = Annotated[Inspection, Depends(_row)]
TheDrawings = Annotated[Drawings, Depends(_drawings)]


NO_STATION = "station on this server; the page /plant links to those of each line"


def first_station(line: Line) -> str:
    """Name of the first station. Raises a 404 `Problem` where there is none, as with `andon serve --plant`."""
    for name in line.stations:
        return name
    raise not_found(NO_STATION)


def chosen_station(line: Line, name: str | None) -> str:
    """`name`, by default that of the first station. Raises a 404 `Problem` for an unknown one."""
    return find_station(line, name or first_station(line)).name


def find_station(line: Line, name: str) -> Station:
    """The station of this name. Raises a 404 `Problem`."""
    found = line.stations.get(name)
    if found is None:
        raise not_found(
            f"station {name!r}; there are {', '.join(line.stations)}" if line.stations else NO_STATION
        )
    return found
