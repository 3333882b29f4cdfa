"""Changes of thresholds by people: at once, or as a proposal that a second person approves (`second_person`).

Every change that counts goes through `Line.activate_thresholds`. Proposals and decisions are rows that are added, never changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from andon.core.errors import UsageError
from andon.line.andon_states import NotAllowed
from andon.line.line import Line
from andon.line.store import Connection, rows
from andon.line.store.audit import Entry, append
from andon.line.versions import PACKED, Version, check_base, check_change, model_id, station_id


@dataclass(frozen=True, slots=True)
class Proposal:
    """Thresholds that wait for a second person."""

    id: int
    accept: float
    reject: float
    why: str
    who: str
    at: int
    """Microseconds UTC."""
    based_on: int
    """Version that was in use; `PACKED`: the thresholds of the packed file."""


def change(
    line: Line, station: str, accept: float, reject: float, *, who: str, why: str, based_on: int | None = None
) -> Version | Proposal:
    """New thresholds in use, or a proposal where the settings want a second person.

    `based_on`: the version that the person saw. Raises `Stale` where another one is in use, `UsageError` for thresholds in the
    wrong order or without name and reason.
    """
    if not line.settings.second_person:
        return line.activate_thresholds(station, accept, reject, who=who, why=why, based_on=based_on)
    check_base(line.stations[station].thresholds, based_on)
    return _propose(line, station, accept, reject, who=who, why=why)


def roll_back(line: Line, station: str, version: int, *, who: str, why: str) -> Version | Proposal:
    """The thresholds of an earlier version again, as a new one. `PACKED`: those of the packed file."""
    if version == PACKED:
        accept, reject, _ = line.stations[station].model.thresholds
    else:
        found = next((each for each in line.threshold_versions(station) if each.id == version), None)
        if found is None:
            raise UsageError(
                f"station {station} and its model have no version {version}: choose one of the list"
            )
        accept, reject = found.accept, found.reject
    return change(line, station, accept, reject, who=who, why=why)


def approve(line: Line, station: str, proposal: int, *, who: str) -> Version:
    """Use proposed thresholds. Raises `NotAllowed` for the person who proposed them and for decided proposals.

    Raises `Stale` where the thresholds in use are no longer those that the proposal began from.
    """
    found = _open(line, station, proposal)
    if same_name(who) == same_name(found.who):
        raise NotAllowed(f"{found.who} has proposed these thresholds: another person has to approve them")
    return line.activate_thresholds(
        station,
        found.accept,
        found.reject,
        who=found.who,
        why=found.why,
        based_on=found.based_on,
        also=lambda connection, version: _decide(line, connection, found, True, who, version=version),
    )


def decline(line: Line, station: str, proposal: int, *, who: str, note: str) -> None:
    """Refuse a proposal, or take back one's own. Raises `NotAllowed` for decided proposals."""
    found = _open(line, station, proposal)
    if not who.strip():
        raise UsageError("a decision needs a name: give it")

    def write(connection: Connection) -> None:
        _decide(line, connection, found, False, who, note=note)
        entry = Entry(who, "threshold declined", f"station {station}", old=_plain(found), reason=note)
        append(connection, entry, line.clock())

    line.store.write(write).result()


def open_proposals(line: Line, station: str) -> list[Proposal]:
    """Proposals for a station and its model that nobody has decided, newest first."""
    sha256 = line.stations[station].model.sha256

    def ask(connection: Connection) -> list[Proposal]:
        models = rows.find(connection, "model", sha256=sha256, limit=1)
        if not models:
            return []
        found = rows.find(
            connection,
            "threshold_proposal",
            station_id=station_id(connection, station),
            model_id=models[0]["id"],
        )
        return [_proposal(row) for row in found if not _is_decided(connection, row["id"])]

    return line.store.ask(ask)


def _propose(line: Line, station: str, accept: float, reject: float, *, who: str, why: str) -> Proposal:
    check_change(station, accept, reject, who=who, why=why)
    target, at = line.stations[station], line.clock()

    def write(connection: Connection) -> Proposal:
        values = {"accept": accept, "reject": reject, "why": why, "who": who, "at": at}
        id = rows.add(
            connection,
            "threshold_proposal",
            station_id=station_id(connection, station),
            model_id=model_id(connection, target.model, at),
            based_on=target.thresholds.version,
            **values,
        )
        made = Proposal(id, accept, reject, why, who, at, target.thresholds.version or PACKED)
        entry = Entry(who, "threshold proposed", f"station {station}", new=_plain(made), reason=why)
        append(connection, entry, at)
        return made

    return line.store.write(write).result()


def _open(line: Line, station: str, proposal: int) -> Proposal:
    found = next((each for each in open_proposals(line, station) if each.id == proposal), None)
    if found is None:
        raise NotAllowed(
            f"proposal {proposal} of station {station} is decided or not there: load the page again"
        )
    return found


def _decide(
    line: Line,
    connection: Connection,
    proposal: Proposal,
    approved: bool,
    who: str,
    *,
    note: str = "",
    version: int | None = None,
) -> None:
    if _is_decided(connection, proposal.id):
        raise NotAllowed(f"proposal {proposal.id} was decided in the meantime: load the page again")
    rows.add(
        connection,
        "threshold_decision",
        proposal_id=proposal.id,
        approved=approved,
        who=who,
        at=line.clock(),
        note=note,
        version_id=version,
    )
    if approved:
        entry = Entry(
            who, "threshold approved", f"proposal {proposal.id}", new=_plain(proposal), reason=proposal.why
        )
        append(connection, entry, line.clock())


def _is_decided(connection: Connection, proposal: int) -> bool:
    return bool(rows.find(connection, "threshold_decision", proposal_id=proposal, limit=1))


def _proposal(row: dict[str, Any]) -> Proposal:
    names = ("id", "accept", "reject", "why", "who", "at")
    return Proposal(**{name: row[name] for name in names}, based_on=row["based_on"] or PACKED)


def _plain(proposal: Proposal) -> dict[str, Any]:
    return {
        "proposal": proposal.id,
        "accept": proposal.accept,
        "reject": proposal.reject,
        "who": proposal.who,
    }


def same_name(name: str) -> str:
    """A name without case and surplus space, by which people are told apart."""
    return " ".join(name.split()).casefold()
