"""Metrics for Prometheus: counters of parts as they come, and gauges that are read when somebody asks.

No label names a part, a lot or a person: each label value is one more time series. prometheus_client is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from andon.line.clock import SECOND
from andon.line.drift.view import DriftView
from andon.line.follower import Follower
from andon.line.outbox.courier import Figures
from andon.line.store import Inspection, StoreError, queries
from andon.line.verdicts import Cause, Verdict
from andon.line.views import StationView, verdict_name

if TYPE_CHECKING:
    from andon.line.line import Line

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds; the cycle of each station is a further bound."""


class Metrics(Follower):
    """Counts what is judged. Counters begin at 0 with the process."""

    def __init__(self, line: Line) -> None:
        self._registry = CollectorRegistry()
        cycles = {station.cycle_s for station in line.settings.stations}
        self._inspections = Counter(
            "andon_inspections", "Committed parts.", ["station", "verdict"], registry=self._registry
        )
        self._errors = Counter(
            "andon_errors", "Parts with verdict ERROR.", ["station", "cause"], registry=self._registry
        )
        self._judge = Histogram(
            "andon_judge_seconds",
            "Time of the judgement of a part, without queue and store.",
            ["station"],
            buckets=sorted({*BUCKETS, *cycles}),
            registry=self._registry,
        )
        for station in line.settings.stations:
            self._judge.labels(station.name)
            for verdict in (Verdict.OK, Verdict.NG, Verdict.REVIEW, Verdict.ERROR):
                self._inspections.labels(station.name, verdict_name(verdict))
        self._registry.register(Now(line))

    def part(self, row: Inspection) -> None:
        """Count a part of the production."""
        if row.cause == Cause.GOLDEN_PART:
            return
        self._inspections.labels(row.station, verdict_name(row.verdict)).inc()
        if row.verdict is Verdict.ERROR:
            self._errors.labels(row.station, row.cause).inc()
        if "judge" in row.ms:
            self._judge.labels(row.station).observe(row.ms["judge"] / 1000)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class Now(Collector):
    """What a line shows now, read at each question."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def collect(self) -> Iterator[Metric]:
        """All families."""
        line = self._line
        views = [station.view() for station in line.stations.values()]
        yield from station_metrics(views)
        yield golden_age(views, line.clock())
        yield drift_averages({name: line.drift_view(name) for name in line.stations})
        yield from outbox_metrics(line.outbox.figures(), line.clock())
        yield from _store_metrics(line)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the line is not asked before it has started."""
        return ()


def station_metrics(views: Iterable[StationView]) -> Iterator[Metric]:
    """Queue, stop, alarms and model of each station."""
    depth = GaugeMetricFamily("andon_queue_depth", "Parts that wait to be judged.", labels=["station"])
    stopped = GaugeMetricFamily("andon_stopped", "1 while the line must not move.", labels=["station"])
    ready = GaugeMetricFamily("andon_ready", "1 while the station judges parts.", labels=["station"])
    alarms = GaugeMetricFamily(
        "andon_alarm_active", "1 for each alarm that is not over.", labels=["station", "rule"]
    )
    models = GaugeMetricFamily("andon_model_info", "The model in use.", labels=["station", "name", "sha"])
    for view in views:
        depth.add_metric([view.name], view.queue)
        stopped.add_metric([view.name], view.wants_stop)
        ready.add_metric([view.name], view.is_ready)
        models.add_metric([view.name, view.model_name, view.model_sha256], 1)
        for alarm in view.alarms:
            alarms.add_metric([view.name, alarm.rule], 1)
    yield from (depth, stopped, ready, alarms, models)


def golden_age(views: Iterable[StationView], now: int) -> Metric:
    """Time since golden parts were last judged right, of stations where that has been."""
    age = GaugeMetricFamily(
        "andon_golden_age_seconds", "Since golden parts were last judged right.", labels=["station"]
    )
    for view in views:
        if view.golden.passed_at is not None:
            age.add_metric([view.name], max(0, now - view.golden.passed_at) / SECOND)
    return age


def drift_averages(views: Mapping[str, DriftView | None]) -> Metric:
    """Moving averages of the numbers that are watched, of stations with a reference."""
    average = GaugeMetricFamily(
        "andon_drift_ewma",
        "Moving average of a number, in standard deviations of the reference.",
        labels=["station", "name"],
    )
    for station, view in views.items():
        for number in view.numbers if view is not None else ():
            average.add_metric([station, number.name], number.average)
    return average


def outbox_metrics(figures: Iterable[Figures], now: int) -> Iterator[Metric]:
    """What each receiver has not been told."""
    depth = GaugeMetricFamily("andon_outbox_depth", "Reports that wait for a receiver.", labels=["sink"])
    age = GaugeMetricFamily("andon_outbox_age_seconds", "Age of the oldest of them.", labels=["sink"])
    failing = GaugeMetricFamily("andon_outbox_failing", "1 while a receiver is not reached.", labels=["sink"])
    lost = CounterMetricFamily("andon_outbox_lost", "Reports that were given up.", labels=["sink"])
    for each in figures:
        depth.add_metric([each.sink], each.waiting)
        age.add_metric([each.sink], 0.0 if each.oldest is None else max(0, now - each.oldest) / SECOND)
        failing.add_metric([each.sink], bool(each.error))
        lost.add_metric([each.sink], each.lost)
    yield from (depth, age, failing, lost)


def _store_metrics(line: Line) -> Iterator[Metric]:
    try:
        size = line.store.ask(queries.size)
    except StoreError:
        pass  # the database is gone: its size is missing, everything else is there
    else:
        yield GaugeMetricFamily("andon_store_bytes", "Size of the database.", value=size)
    spooling = GaugeMetricFamily("andon_store_spooling", "1 while the database cannot be reached.")
    spooling.add_metric([], line.store.spooling)
    yield spooling
    yield CounterMetricFamily(
        "andon_image_lost", "Images that could not be written.", value=line.store.images_lost
    )
