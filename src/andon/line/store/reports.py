"""What reports read: parts of a shift or lot counted by what judged them, changes of alarms, versions, golden checks."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from andon.core.errors import UsageError
from andon.line.andon_states import Change
from andon.line.store.queries import OF_PRODUCTION, station_id
from andon.line.store.schema import alarm, alarm_event, golden_result, golden_run, inspection, model
from andon.line.store.schema.inspections import rule_version, threshold_version
from andon.line.verdicts import Verdict

MOST_CHANGES = 100_000
"""Changes of alarms that one report reads; one of more is refused."""


class Period(NamedTuple):
    """Parts of a station done from `since` up to before `until` (microseconds UTC), of one lot or of all."""

    station: str
    since: int
    until: int
    lot: str | None = None


class Counted(NamedTuple):
    """Parts with the same verdict, cause, model and thresholds."""

    verdict: Verdict
    cause: str
    model: str
    """SHA-256 of the packed file."""
    model_name: str
    threshold_version: int | None
    n: int


class ThresholdsRow(NamedTuple):
    """A version of thresholds."""

    id: int
    accept: float
    reject: float
    who: str
    why: str
    at: int


class RulesRow(NamedTuple):
    """A version of the stop rules."""

    id: int
    who: str
    why: str
    at: int


class GoldenRow(NamedTuple):
    """A check of golden parts."""

    at: int
    passed: bool
    is_trial: bool
    why: str
    who: str
    parts: int
    wrong: tuple[str, ...]
    """`NAME: how it differs` for each part that came out wrong."""


def span_of_lot(connection: Connection, station: str, lot: str) -> tuple[int, int] | None:
    """Times of the first and the last part of a lot; None where the station has none."""
    first, last = connection.execute(
        select(func.min(inspection.c.t_done), func.max(inspection.c.t_done)).where(
            inspection.c.station_id == station_id(connection, station),
            inspection.c.lot == lot,
            OF_PRODUCTION,
        )
    ).one()
    return None if first is None else (int(first), int(last))


def counted(connection: Connection, period: Period) -> list[Counted]:
    """Parts of the period; golden parts are left out."""
    names = (inspection.c.verdict, inspection.c.cause, model.c.sha256, model.c.name)
    query = (
        select(*names, inspection.c.threshold_version_id, func.count())
        .join(model, inspection.c.model_id == model.c.id)
        .where(*of_period(connection, period), OF_PRODUCTION)
        .group_by(*names, inspection.c.threshold_version_id)
        .order_by(inspection.c.verdict, inspection.c.cause, func.count().desc())
    )
    return [Counted(Verdict(row[0]), *row[1:]) for row in connection.execute(query)]


def changes(connection: Connection, period: Period) -> list[Change]:
    """Changes of the station and its alarms, in order, subject: the rule, empty for the station.

    They begin at the last return to running before the period and end at the first one after it, so that stops which
    reach over its ends are whole. Raises `UsageError` for more than `MOST_CHANGES`.
    """
    number = station_id(connection, period.station)
    runs = (
        alarm_event.c.station_id == number,
        alarm_event.c.alarm_id.is_(None),
        alarm_event.c.to_state == "run",
    )
    before = select(func.max(alarm_event.c.id)).where(*runs, alarm_event.c.at < period.since)
    after = select(func.min(alarm_event.c.id)).where(*runs, alarm_event.c.at >= period.until)
    first, last = connection.execute(before).scalar() or 0, connection.execute(after).scalar()
    where = [alarm_event.c.station_id == number, alarm_event.c.id > first]
    if last is not None:
        where.append(alarm_event.c.id <= last)
    columns = ("at", "event", "from_state", "to_state", "who", "cause", "note", "n")
    query = (
        select(alarm.c.rule, *(alarm_event.c[name] for name in columns))
        .outerjoin(alarm, alarm_event.c.alarm_id == alarm.c.id)
        .where(*where)
        .order_by(alarm_event.c.id)
        .limit(MOST_CHANGES + 1)
    )
    found = [Change(rule or "", *values) for rule, *values in connection.execute(query)]
    if len(found) > MOST_CHANGES:
        raise UsageError(
            f"station {period.station} has more than {MOST_CHANGES} changes of alarms in this time: ask for a shorter one"
        )
    return found


def thresholds(connection: Connection, ids: set[int]) -> list[ThresholdsRow]:
    """Versions of thresholds by id, oldest first."""
    columns = [threshold_version.c[name] for name in ThresholdsRow._fields]
    query = select(*columns).where(threshold_version.c.id.in_(ids)).order_by(threshold_version.c.id)
    return [ThresholdsRow(*row) for row in connection.execute(query)]


def rules(connection: Connection, period: Period) -> list[RulesRow]:
    """Versions of the stop rules that were in use, oldest first."""
    columns = [rule_version.c[name] for name in RulesRow._fields]
    query = (
        select(*columns)
        .where(
            rule_version.c.station_id == station_id(connection, period.station),
            rule_version.c.at < period.until,
        )
        .order_by(rule_version.c.id)
    )
    found = [RulesRow(*row) for row in connection.execute(query)]
    before = [row for row in found if row.at < period.since]
    return before[-1:] + [row for row in found if row.at >= period.since]


def golden(connection: Connection, period: Period) -> list[GoldenRow]:
    """Checks of golden parts that ended in the period, oldest first."""
    runs = connection.execute(
        select(golden_run)
        .where(
            golden_run.c.station_id == station_id(connection, period.station),
            golden_run.c.ended >= period.since,
            golden_run.c.ended < period.until,
        )
        .order_by(golden_run.c.id)
    ).all()
    results: dict[int, list[tuple[str, str]]] = {row.id: [] for row in runs}
    of_runs = select(golden_result.c.run_id, golden_result.c.name, golden_result.c.why)
    for run, name, why in connection.execute(of_runs.where(golden_result.c.run_id.in_(results))):
        results[run].append((name, why))
    return [
        GoldenRow(
            row.ended,
            row.passed,
            row.is_trial,
            row.why,
            row.who,
            len(results[row.id]),
            tuple(f"{name}: {why}" for name, why in results[row.id] if why),
        )
        for row in runs
    ]


def of_period(connection: Connection, period: Period) -> list[ColumnElement[bool]]:
    """Conditions for the parts of a period."""
    where = [
        inspection.c.station_id == station_id(connection, period.station),
        inspection.c.t_done >= period.since,
        inspection.c.t_done < period.until,
    ]
    return where if period.lot is None else [*where, inspection.c.lot == period.lot]
