"""Routes of stations and alarms: what they show, and what a person does about a stop."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from andon.line.rest.access import TheCaller, TheLine, TheStation, requires
from andon.line.rest.shapes import CauseBody, RecipeBody, ShelveBody, Who
from andon.line.roles import Role

router = APIRouter(tags=["stations and alarms"])
RECENT = 1000
"""Parts of the state of a station that the rules may still count."""


@router.get("/stations", dependencies=[requires(Role.VIEWER)])
def list_stations(line: TheLine) -> list[dict[str, Any]]:
    """All stations as the line page shows them."""
    return [station.view().to_json() for station in line.stations.values()]


@router.get("/stations/{station}/state", dependencies=[requires(Role.VIEWER)])
def station_state(line: TheLine, station: TheStation) -> dict[str, Any]:
    """State, model, thresholds, counts of the shift, alarms; `recent`: verdicts since the last stop, oldest first."""
    begin = line.alarms.windows_begin_after(station.name)
    reach = max([rule.reach for rule in line.alarms.rules(station.name).rules], default=0)
    past = line.store.last_verdicts(station.name, min(reach, RECENT))
    recent = [part.verdict.name for part in past if part.id > begin]
    return {**station.view().to_json(), "recent": recent}


@router.post("/stations/{station}/cause", dependencies=[requires(Role.LEADER)])
def give_cause(line: TheLine, station: TheStation, caller: TheCaller, body: CauseBody) -> dict[str, Any]:
    """Say why the line stopped: `product`, `camera`, `light`, `setting`, `false_stop`, `other` (with a note).

    Acknowledges the alarms of the stop. Returns the state of the station, as the next ones.
    """
    line.alarms.give_cause(station.name, body.cause.value, body.note, caller.author(body.who))
    return station.view().to_json()


@router.post("/stations/{station}/resume", dependencies=[requires(Role.LEADER)])
def resume(line: TheLine, station: TheStation, caller: TheCaller, body: Who) -> dict[str, Any]:
    """Let the line run again; needs a cause."""
    line.alarms.resume(station.name, caller.author(body.who))
    return station.view().to_json()


@router.post("/stations/{station}/call", dependencies=[requires(Role.INSPECTOR)])
def call(line: TheLine, station: TheStation, caller: TheCaller, body: Who) -> dict[str, Any]:
    """Call a person to the station; the line runs on."""
    line.alarms.call(station.name, caller.author(body.who), body.note)
    return station.view().to_json()


@router.post("/stations/{station}/stop", dependencies=[requires(Role.INSPECTOR)])
def stop(line: TheLine, station: TheStation, caller: TheCaller, body: Who) -> dict[str, Any]:
    """Stop the line."""
    line.alarms.stop(station.name, caller.author(body.who), body.note)
    return station.view().to_json()


@router.post("/stations/{station}/recipe", dependencies=[requires(Role.LEADER)])
def change_recipe(line: TheLine, station: TheStation, caller: TheCaller, body: RecipeBody) -> dict[str, Any]:
    """Judge by another recipe of the settings. No part is judged by the one before from now on.

    The station is not ready (`is_ready`) while the model is opened. Unknown code: 404.
    """
    line.set_recipe(station.name, body.code, who=caller.author(body.who), why=body.note)
    return station.view().to_json()


@router.get("/alarms", dependencies=[requires(Role.VIEWER)])
def list_alarms(line: TheLine) -> list[dict[str, Any]]:
    """Alarms that are not over, oldest first."""
    return [alarm.to_json() for alarm in line.alarms.active()]


@router.post("/alarms/{id}/acknowledge", dependencies=[requires(Role.INSPECTOR)])
def acknowledge(line: TheLine, id: int, caller: TheCaller, body: Who) -> dict[str, Any]:
    """Say that a person knows. Returns the alarm, as the next ones."""
    return line.alarms.acknowledge(id, caller.author(body.who)).to_json()


@router.post("/alarms/{id}/resolve", dependencies=[requires(Role.LEADER)])
def resolve(line: TheLine, id: int, caller: TheCaller, body: CauseBody) -> dict[str, Any]:
    """Give the cause of one acknowledged alarm, which is over then. A stopped line also needs the cause of its stop."""
    return line.alarms.resolve(id, body.cause.value, body.note, caller.author(body.who)).to_json()


@router.post("/alarms/{id}/unshelve", dependencies=[requires(Role.LEADER)])
def unshelve(line: TheLine, id: int, caller: TheCaller, body: Who) -> dict[str, Any]:
    """End the shelf of an alarm before its time; it is raised again where its condition is there."""
    return line.alarms.unshelve(id, caller.author(body.who)).to_json()


@router.post("/alarms/{id}/shelve", dependencies=[requires(Role.LEADER)])
def shelve(line: TheLine, id: int, caller: TheCaller, body: ShelveBody) -> dict[str, Any]:
    """Put a call aside for at most 8 hours; needs a note. A stop cannot be put aside."""
    return line.alarms.shelve(id, caller.author(body.who), body.note, body.minutes).to_json()
