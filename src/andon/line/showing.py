"""What people see of a station, and of the health of the process, from what the parts of the line know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from andon.line import andon_states
from andon.line.andon_states import StationState
from andon.line.clock import SECOND
from andon.line.station import Station
from andon.line.tally import Tally
from andon.line.verdicts import Verdict
from andon.line.views import AlarmView, GoldenView, Health, Shown, StationView

SILENT_CYCLES = 5
"""Cycles without a part after which a station is WAITING."""
HANGS_SECONDS, HANGS_CYCLES = 60.0, 10
"""After the longer of both a judgement hangs for good: only a restart of the process helps."""


def health(stations: Iterable[Station], *, works: bool) -> Health:
    """Whether the process works, and whether every station can judge; `works`: the thread of the line does."""
    live = works
    reasons = [] if works else ["the line does not work: see the log"]
    for station in stations:
        name = station.name
        if station.judging_seconds > max(HANGS_SECONDS, HANGS_CYCLES * station.settings.cycle_s):
            live = False
            reasons.append(f"station {name}: a judgement does not end; restart")
        if station.holds and not station.faults:
            reasons.append(f"station {name}: {station.holds}")
        reasons += [f"station {name}, {fault}: {why}" for fault, why in station.faults.items()]
    return Health(live, not reasons, tuple(reasons))


def station_view(
    station: Station,
    machine: andon_states.Station,
    alarms: Sequence[AlarmView],
    tally: Tally,
    *,
    rule_version: int,
    golden: GoldenView,
    started: int,
    now: int,
) -> StationView:
    """The station at `now`; `machine`: state of its stop, `started`: when the process began."""
    strip = tally.strip()
    last_verdict = strip[-1][1] if strip else None
    silent_since = max(started, machine.since, tally.last_done or 0)
    state, reason, since = _state(
        station, machine, last_verdict, started=started, silent_since=silent_since, now=now
    )
    shift, counts = tally.counts(now)
    return StationView(
        name=station.name,
        state=state,
        reason=reason,
        since=since,
        machine=machine.state,
        wants_stop=machine.wants_stop,
        cause=machine.cause,
        check_due=machine.check_due,
        is_ready=not station.holds and not station.faults,
        suspended=station.suspended,
        faults=tuple(station.faults),
        model_name=station.model.name,
        model_sha256=station.model.sha256,
        recipe=station.recipe,
        recipes=tuple(station.settings.recipes),
        thresholds=station.thresholds,
        rule_version=rule_version,
        cycle_s=station.settings.cycle_s,
        queue=station.waiting,
        queue_limit=station.settings.queue,
        counts=counts,
        shift_since=shift,
        per_minute=tally.per_minute(),
        last_id=strip[-1][0] if strip else None,
        strip=strip,
        alarms=tuple(alarms),
        golden=golden,
    )


def _state(
    station: Station,
    machine: andon_states.Station,
    last_verdict: Verdict | None,
    *,
    started: int,
    silent_since: int,
    now: int,
) -> tuple[Shown, str, int]:
    """State for people, its reason, and its begin."""
    if machine.wants_stop:
        return Shown.STOPPED, machine.why, machine.since
    faults = station.faults
    if faults:
        return Shown.FAULT, "; ".join(faults.values()), machine.since
    if why := station.holds:
        return Shown.SETUP, why, started
    if machine.state is StationState.CALL:
        return Shown.REVIEW, machine.why, machine.since
    if now - silent_since > SILENT_CYCLES * station.settings.cycle_s * SECOND:
        return Shown.WAITING, "no part comes", silent_since
    if last_verdict is Verdict.REVIEW:
        return Shown.REVIEW, "the last part is to be looked at", silent_since
    return Shown.RUNNING, "", machine.since
