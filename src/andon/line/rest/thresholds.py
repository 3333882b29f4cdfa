"""Routes of thresholds: versions are added, never changed; a new one counts from the next part on."""

from __future__ import annotations

from fastapi import APIRouter

from andon.line.line import Line
from andon.line.rest.access import TheCaller, TheLine, TheStation, requires
from andon.line.rest.shapes import ThresholdsBody, ThresholdsShape, Versions, VersionShape
from andon.line.roles import Role
from andon.line.station import Station

router = APIRouter(tags=["thresholds"])


@router.get("/stations/{station}/thresholds", dependencies=[requires(Role.VIEWER)])
def list_versions(line: TheLine, station: TheStation) -> Versions:
    """Thresholds of a station, and all versions stored for it and its model, newest first."""
    return _versions(line, station)


@router.post("/stations/{station}/thresholds", status_code=201, dependencies=[requires(Role.ENGINEER)])
def add_version(line: TheLine, station: TheStation, caller: TheCaller, body: ThresholdsBody) -> Versions:
    """Add a version, with a reason of at least 10 characters. It counts from the next part on; stored scores stay."""
    line.set_thresholds(station.name, body.accept, body.reject, who=caller.author(body.who), why=body.why)
    return _versions(line, station)


def _versions(line: Line, station: Station) -> Versions:
    versions = [
        VersionShape(accept=v.accept, reject=v.reject, version=v.id, why=v.why, who=v.who, at=v.at)
        for v in line.threshold_versions(station.name)
    ]
    return Versions(now=ThresholdsShape(**station.thresholds._asdict()), versions=versions)
