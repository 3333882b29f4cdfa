"""Report of a shift or lot of one station: counts, rates with intervals, stops, versions in use, golden parts, drift, reviews."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from andon.core.errors import DataError, UsageError
from andon.line.andon_states import AlarmState, Change, Stop, Summary, stops, summary
from andon.line.clock import DAY, SECOND
from andon.line.drift.follower import DRIFT, MORE, UNLIKE
from andon.line.review.figures import Escapes, Overrides
from andon.line.review.reviews import read_figures
from andon.line.store import Connection, queries
from andon.line.store import reports as stored
from andon.line.store.reports import Counted, GoldenRow, Period, RulesRow, ThresholdsRow
from andon.line.store.reviews import Among
from andon.line.tally import shift_begin
from andon.line.verdicts import Verdict
from andon.metrics.counts import exact_interval

LONGEST = 92 * DAY
"""Longest period of a report."""
REPORT_SECONDS = 20.0
"""Time limit of the questions of one report."""
WORDS = (Verdict.OK, Verdict.NG, Verdict.REVIEW, Verdict.ERROR)
DRIFT_TITLES = {DRIFT, UNLIKE, *(MORE.format(verdict.name) for verdict in WORDS)}
"""Alarms of the drift watch."""


class Rate(NamedTuple):
    """Parts of a verdict, of all parts, with the exact 95 % interval of their share."""

    verdict: str
    n: int
    rate: float | None
    """None where there are no parts."""
    low: float
    high: float


class Raised(NamedTuple):
    """An alarm, by its rule, and how often it was raised in the period."""

    rule: str
    n: int


class Note(NamedTuple):
    """What the drift watch named."""

    at: int
    rule: str
    why: str


class ThresholdsUsed(NamedTuple):
    """Thresholds by which parts were judged; without `version` those of the packed file."""

    parts: int
    version: ThresholdsRow | None


class ModelUsed(NamedTuple):
    """A packed model that judged parts."""

    parts: int
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ShiftReport:
    """What happened at a station in a period. Times are microseconds UTC."""

    line: str
    station: str
    lot: str | None
    since: int
    until: int
    made: int
    parts: int
    rates: tuple[Rate, ...]
    causes: tuple[tuple[str, int], ...]
    """Causes of ERROR and their numbers, the most frequent first."""
    stops: tuple[Stop, ...]
    """Stops of which some time lies in the period."""
    stop_summary: Summary
    down_seconds: float
    """Seconds of the period between a stop and running again."""
    alarms: tuple[Raised, ...]
    thresholds: tuple[ThresholdsUsed, ...]
    models: tuple[ModelUsed, ...]
    rules: tuple[RulesRow, ...]
    golden: tuple[GoldenRow, ...]
    drift: tuple[Note, ...]
    escapes: Escapes
    overrides: Overrides

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "rates": [each._asdict() for each in self.rates],
            "causes": dict(self.causes),
            "stop_summary": self.stop_summary._asdict(),
            "alarms": [each._asdict() for each in self.alarms],
            "thresholds": [
                {"parts": parts, "version": None if version is None else version._asdict()}
                for parts, version in self.thresholds
            ],
            "models": [each._asdict() for each in self.models],
            "rules": [each._asdict() for each in self.rules],
            "golden": [each._asdict() for each in self.golden],
            "drift": [each._asdict() for each in self.drift],
        }


def period(
    connection: Connection,
    station: str,
    *,
    now: int,
    since: int | None = None,
    until: int | None = None,
    lot: str | None = None,
) -> Period:
    """The period of a report: a lot from its first to its last part, otherwise the running shift or what is given.

    Raises `DataError` for a station or lot without parts, `UsageError` for times in the wrong order or too far apart.
    """
    if queries.station_id(connection, station) is None:
        raise DataError(f"no part of station {station!r} is stored: give the name of a station of this line")
    if lot is not None:
        span = stored.span_of_lot(connection, station, lot)
        if span is None:
            raise DataError(f"station {station} has no part of lot {lot!r}: give a lot as /history shows it")
        begin, end = span[0], span[1] + 1
        since, until = max(begin, since or 0), min(end, until or end)
    else:
        until = now if until is None else until
        since = shift_begin(until - 1) if since is None else since
    if since < 0:
        raise UsageError("the report begins before 1970: give a later time")
    if not since < until:
        raise UsageError("the report ends before it begins: give until later than since")
    if until - since > LONGEST:
        raise UsageError(
            f"a report covers at most {LONGEST // DAY} days: give since and until closer together"
        )
    return Period(station, since, until, lot)


def last_shift(now: int) -> tuple[int, int]:
    """Begin and end of the shift before the running one."""
    end = shift_begin(now)
    return shift_begin(end - 1), end


def read(connection: Connection, of: Period, *, line: str, now: int) -> ShiftReport:
    """The report of a period, from the store."""
    counted = stored.counted(connection, of)
    changes = stored.changes(connection, of)
    reviewed = read_figures(connection, Among(of.station, of.since, of.until, of.lot))
    found = [stop for stop in stops(changes) if _overlaps(stop, of)]
    versions = {each.threshold_version for each in counted}
    return ShiftReport(
        line=line,
        station=of.station,
        lot=of.lot,
        since=of.since,
        until=of.until,
        made=now,
        parts=sum(each.n for each in counted),
        rates=rates(counted),
        causes=causes(counted),
        stops=tuple(found),
        stop_summary=summary(found),
        down_seconds=down_seconds(found, of.since, min(of.until, now)),
        alarms=raised(changes, of),
        thresholds=_thresholds(counted, stored.thresholds(connection, {id for id in versions if id})),
        models=_models(counted),
        rules=tuple(stored.rules(connection, of)),
        golden=tuple(stored.golden(connection, of)),
        drift=drift_notes(changes, of),
        escapes=reviewed.escapes,
        overrides=reviewed.overrides,
    )


def rates(counted: Iterable[Counted]) -> tuple[Rate, ...]:
    """Share of each verdict with its exact interval (Clopper and Pearson 1934)."""
    n: Counter[Verdict] = Counter()
    for each in counted:
        n[each.verdict] += each.n
    total = n.total()
    return tuple(
        Rate(word.name, n[word], n[word] / total if total else None, *exact_interval(n[word], total))
        for word in WORDS
    )


def causes(counted: Iterable[Counted]) -> tuple[tuple[str, int], ...]:
    """Causes of ERROR, the most frequent first."""
    n: Counter[str] = Counter()
    for each in counted:
        if each.verdict is Verdict.ERROR:
            n[each.cause] += each.n
    return tuple(n.most_common())


def down_seconds(found: Iterable[Stop], since: int, until: int) -> float:
    """Seconds between two times in which the station was stopped; a stop without end lasts until the second one."""
    spans = [(max(s.requested, since), min(until if s.resumed is None else s.resumed, until)) for s in found]
    return sum(max(0, end - begin) for begin, end in spans) / SECOND


def raised(changes: Iterable[Change], of: Period) -> tuple[Raised, ...]:
    """How often each alarm was raised in the period, the most frequent first."""
    n = Counter(each.subject for each in changes if _is_raised(each, of))
    return tuple(Raised(rule, times) for rule, times in n.most_common())


def drift_notes(changes: Iterable[Change], of: Period) -> tuple[Note, ...]:
    """What the drift watch named in the period, oldest first."""
    return tuple(
        Note(each.t, each.subject, each.why)
        for each in changes
        if each.subject in DRIFT_TITLES and _is_raised(each, of)
    )


def _is_raised(change: Change, of: Period) -> bool:
    begins = change.new == AlarmState.ACTIVE_UNACK and change.old != change.new
    return bool(change.subject) and begins and of.since <= change.t < of.until


def _overlaps(stop: Stop, of: Period) -> bool:
    return stop.requested < of.until and (stop.resumed is None or stop.resumed > of.since)


def _thresholds(counted: Sequence[Counted], versions: Iterable[ThresholdsRow]) -> tuple[ThresholdsUsed, ...]:
    by_id: dict[int | None, ThresholdsRow | None] = {None: None, **{each.id: each for each in versions}}
    parts: Counter[int | None] = Counter()
    for each in counted:
        parts[each.threshold_version] += each.n
    return tuple(ThresholdsUsed(parts[id], by_id[id]) for id in by_id if parts[id])


def _models(counted: Iterable[Counted]) -> tuple[ModelUsed, ...]:
    parts: Counter[tuple[str, str]] = Counter()
    for each in counted:
        parts[each.model_name, each.model] += each.n
    return tuple(ModelUsed(n, *key) for key, n in parts.most_common())
