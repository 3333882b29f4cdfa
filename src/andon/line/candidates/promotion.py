"""Use of a candidate: with a reason, after a comparison, where configured by two persons; and the way back to the model before.

Every change goes through `Line.set_model`: golden parts have to come out right, and it counts from the next part on.
"""

from __future__ import annotations

from pathlib import Path

from andon.core.errors import UsageError
from andon.line.andon_states import NotAllowed
from andon.line.candidates.candidates import View
from andon.line.candidates.standing import Action
from andon.line.line import Line
from andon.line.store import Connection
from andon.line.store import candidates as stored
from andon.line.store.audit import Entry, append
from andon.line.store.candidates import Candidate, Step
from andon.line.studio.proposals import same_name
from andon.line.versions import Stale

SHORTEST_REASON = 10
"""Characters."""


def promote(line: Line, station: str, id: int, *, who: str, why: str, based_on: str | None = None) -> bool:
    """Judge by a candidate from the next part on; False where it waits for a second person now.

    `based_on`: SHA-256 of the model that the person saw in use. Raises `Stale` where another one is, `NotAllowed` without a
    comparison with it, while a recipe is in use, and where golden parts come out wrong.
    """
    _check_reason(who, why)
    view = line.candidates.one(station, id)
    _check(line, view, based_on)
    if not line.settings.second_person:
        _use(line, view.candidate, who=who, why=why)
        return True
    if view.standing.proposal is not None:
        raise NotAllowed(f"candidate {id} waits for a second person already")
    detail = {"base_sha256": line.stations[station].model.sha256}
    line.candidates.note(view.candidate, Action.PROPOSED, detail, who, why)
    return False


def approve(line: Line, station: str, id: int, *, who: str) -> None:
    """Use a proposed candidate. Raises `NotAllowed` for the person who proposed it, and as `promote`."""
    view, proposal = _proposed(line, station, id)
    if same_name(who) == same_name(proposal.who):
        raise NotAllowed(f"{proposal.who} has proposed candidate {id}: another person has to approve it")
    _check(line, view, proposal.detail["base_sha256"])
    _use(line, view.candidate, who=proposal.who, why=proposal.why, approved_by=who)


def decline(line: Line, station: str, id: int, *, who: str, note: str) -> None:
    """Refuse a proposed candidate, or take back one's own proposal."""
    view, _ = _proposed(line, station, id)
    if not who.strip():
        raise UsageError("a decision needs a name: give it")
    line.candidates.note(view.candidate, Action.DECLINED, {}, who, note)


def before(line: Line, station: str) -> tuple[View, Step] | None:
    """The candidate that judges and the step by which it came into use, where the model before can be taken back."""
    for view in line.candidates.all(station):
        if view.is_used and view.standing.promoted is not None:
            return view, view.standing.promoted
    return None


def take_back(line: Line, station: str, *, who: str, why: str) -> None:
    """Judge by the model before the candidate in use, with its thresholds, from the next part on; at once, by one person."""
    if not who.strip():
        raise UsageError("the model before needs a person: give a name")
    found = before(line, station)
    if found is None:
        raise NotAllowed(f"no candidate is in use at station {station}: there is no model before it")
    view, step = found

    def also(connection: Connection) -> None:
        at, detail = line.clock(), {"step": step.id}
        stored.add_step(connection, view.candidate.id, Action.RETURNED, detail, who=who, why=why, at=at)

    reason = why.strip() or f"candidate {view.candidate.id} is taken back"
    line.set_model(station, Path(step.detail["before"]), who=who, why=reason, also=also)


def _check(line: Line, view: View, based_on: str | None) -> None:
    """Raises `NotAllowed` and `Stale` where the candidate may not be used now."""
    station, id = line.stations[view.candidate.station], view.candidate.id
    now = station.model.sha256
    if based_on not in (None, now):
        raise Stale(f"model {station.model.name} ({now[:16]}) is in use now: look at it first")
    if view.is_used:
        raise NotAllowed(f"candidate {id} judges at station {station.name} already")
    if station.recipe is not None:
        raise NotAllowed(
            f"station {station.name} uses recipe {station.recipe}, whose packed file the settings name: name the candidate there"
        )
    found = view.standing
    if found.comparison is None or found.outcome is None or found.outcome.action != Action.COMPARED:
        raise NotAllowed(f"candidate {id} has no complete comparison: compare it first")
    if found.comparison.detail["base_sha256"] != now:
        raise NotAllowed(
            f"candidate {id} was compared with another model than the one in use: compare it again"
        )


def _use(line: Line, candidate: Candidate, *, who: str, why: str, approved_by: str = "") -> None:
    station = line.stations[candidate.station]
    detail = {
        "before": str(line.candidates.pack_in_use(station.name).absolute()),
        "before_name": station.model.name,
        "before_sha256": station.model.sha256,
        "approved_by": approved_by,
    }

    def also(connection: Connection) -> None:
        at = line.clock()
        stored.add_step(connection, candidate.id, Action.PROMOTED, detail, who=who, why=why, at=at)
        if approved_by:
            new = {"candidate": candidate.id, "sha256": candidate.sha256, "who": who}
            place = f"station {station.name}"
            append(connection, Entry(approved_by, "candidate approved", place, new=new, reason=why), at)

    line.set_model(station.name, line.candidates.pack(candidate), who=who, why=why, also=also)


def _proposed(line: Line, station: str, id: int) -> tuple[View, Step]:
    view = line.candidates.one(station, id)
    if view.standing.proposal is None:
        raise NotAllowed(f"candidate {id} waits for nobody: load the page again")
    return view, view.standing.proposal


def _check_reason(who: str, why: str) -> None:
    if not who.strip() or len(why.strip()) < SHORTEST_REASON:
        raise UsageError(
            f"another model needs a name and a reason of {SHORTEST_REASON} characters: give both"
        )
