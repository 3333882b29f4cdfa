"""Routes of thresholds: versions are added, never changed; a new one counts from the next part on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from andon.core.errors import UsageError
from andon.line.line import Line
from andon.line.rest.access import TheCaller, TheLine, TheStation, requires
from andon.line.rest.rules import preview_shape
from andon.line.rest.shapes import ThresholdsShape
from andon.line.rest.threshold_shapes import (
    ChangedShape,
    DecisionBody,
    ProposalShape,
    RollbackBody,
    ThresholdsBody,
    Trial,
    TrialBody,
    Versions,
    VersionShape,
)
from andon.line.roles import Role
from andon.line.rules import preview
from andon.line.station import Station
from andon.line.studio import proposals
from andon.line.studio.proposals import Proposal
from andon.line.studio.whatif import what_if
from andon.line.versions import Version
from andon.line.views import verdict_name
from andon.thresholds.figures import figures

router = APIRouter(tags=["thresholds"])
NEAREST = 24
"""Parts with another verdict that are listed."""
Score = Annotated[float | None, Query(gt=0, le=1000, allow_inf_nan=False)]


@router.get("/stations/{station}/thresholds", dependencies=[requires(Role.VIEWER)])
def list_versions(line: TheLine, station: TheStation) -> Versions:
    """Thresholds of a station, all versions stored for it and its model, and open proposals, newest first."""
    return versions_shape(line, station)


@router.post("/stations/{station}/thresholds", status_code=201, dependencies=[requires(Role.ENGINEER)])
def add_version(
    line: TheLine, station: TheStation, caller: TheCaller, body: ThresholdsBody, response: Response
) -> Versions:
    """Add a version, with a reason of at least 10 characters. It counts from the next part on; stored scores stay.

    Where the settings want a second person: 202, and a proposal that another person approves.
    """
    made = proposals.change(
        line,
        station.name,
        body.accept,
        body.reject,
        who=caller.author(body.who),
        why=body.why,
        based_on=body.based_on,
    )
    return _changed(line, station, made, response)


@router.post(
    "/stations/{station}/thresholds/rollback", status_code=201, dependencies=[requires(Role.ENGINEER)]
)
def roll_back(
    line: TheLine, station: TheStation, caller: TheCaller, body: RollbackBody, response: Response
) -> Versions:
    """Use the thresholds of an earlier version again, as a new version; 0: those of the packed file."""
    why = body.why or f"rolled back to version {body.version}"
    made = proposals.roll_back(line, station.name, body.version, who=caller.author(body.who), why=why)
    return _changed(line, station, made, response)


@router.post(
    "/stations/{station}/thresholds/proposals/{id}/approve",
    status_code=201,
    dependencies=[requires(Role.ENGINEER)],
)
def approve(line: TheLine, station: TheStation, caller: TheCaller, id: int, body: DecisionBody) -> Versions:
    """Use proposed thresholds. 409 for the person who proposed them; 412 where others came into use since."""
    proposals.approve(line, station.name, id, who=caller.author(body.who))
    return versions_shape(line, station)


@router.post("/stations/{station}/thresholds/proposals/{id}/decline", dependencies=[requires(Role.ENGINEER)])
def decline(line: TheLine, station: TheStation, caller: TheCaller, id: int, body: DecisionBody) -> Versions:
    """Refuse a proposal, or take back one's own."""
    proposals.decline(line, station.name, id, who=caller.author(body.who), note=body.note)
    return versions_shape(line, station)


@router.get("/stations/{station}/thresholds/figures", dependencies=[requires(Role.VIEWER)])
def known_images(station: TheStation, accept: Score = None, reject: Score = None) -> dict[str, Any]:
    """What two thresholds do with images whose truth is known: the `figures` of `andon threshold --json`.

    By default at the thresholds in use.
    """
    now = station.thresholds
    chosen = accept or now.accept, reject or now.reject
    if chosen[0] > chosen[1]:
        raise UsageError(f"accept={chosen[0]:g} is above reject={chosen[1]:g}: exchange them")
    return figures(station.model.evidence, *chosen).to_json()


@router.post("/stations/{station}/thresholds/preview", dependencies=[requires(Role.VIEWER)])
def try_thresholds(line: TheLine, station: TheStation, body: TrialBody) -> Trial:
    """What thresholds would have done with the newest stored parts, by their scores, stop rules included."""
    if body.accept > body.reject:
        raise UsageError(f"accept={body.accept:g} is above reject={body.reject:g}: exchange them")
    model, rules = station.model, line.alarms.rules(station.name).rules
    lowest = min(body.reject, station.thresholds.reject)
    parts = line.store.last_scores(station.name, model.sha256, body.parts, regions_from=lowest)
    found = what_if(parts, rules, body.accept, body.reject)
    promise = figures(model.evidence, body.accept, body.reject).promise
    rate = None if promise is None or promise.expected >= 1 else promise.expected
    return Trial(
        parts=found.parts,
        since=parts[0].t_done if parts else None,
        was={verdict.name: n for verdict, n in found.was.items()},
        becomes={verdict.name: n for verdict, n in found.becomes.items()},
        stops_was=len(found.replay_was.stops),
        stops_become=len(found.replay_becomes.stops),
        calls_was=len(found.replay_was.calls),
        calls_become=len(found.replay_becomes.calls),
        changed=len(found.changed),
        nearest=[
            ChangedShape(
                id=part.id, score=part.score, was=verdict_name(part.was), becomes=verdict_name(part.becomes)
            )
            for part in found.changed[:NEAREST]
        ],
        false_reject_rate=rate,
        rules=[preview_shape(each) for each in preview(rules, found.judged_again, rate or 0.0)]
        if rate
        else [],
    )


def _changed(line: Line, station: Station, made: Version | Proposal, response: Response) -> Versions:
    if isinstance(made, Proposal):
        response.status_code = 202
    return versions_shape(line, station)


def versions_shape(line: Line, station: Station) -> Versions:
    """Thresholds in use, versions and open proposals of a station."""
    versions = [
        VersionShape(accept=v.accept, reject=v.reject, version=v.id, why=v.why, who=v.who, at=v.at)
        for v in line.threshold_versions(station.name)
    ]
    waiting = [
        ProposalShape(
            proposal=p.id,
            accept=p.accept,
            reject=p.reject,
            why=p.why,
            who=p.who,
            at=p.at,
            based_on=p.based_on,
        )
        for p in proposals.open_proposals(line, station.name)
    ]
    packed = station.model.thresholds._replace(version=0)
    return Versions(
        now=ThresholdsShape(**station.thresholds._asdict()),
        packed=ThresholdsShape(**packed._asdict()),
        versions=versions,
        second_person=line.settings.second_person,
        proposals=waiting,
    )
