"""Metrics as Prometheus reads them, the dashboard that asks for them, and the outbox as REST and page show it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from conftest import ROOT
from prometheus_client.parser import text_string_to_metric_families

from andon.line.outbox.courier import Figures
from andon.line.outbox.reports import Undelivered
from andon.line.prometheus import golden_age, outbox_metrics
from andon.line.verdicts import Cause
from andon.line.views import GoldenView
from line.running import answer, running, until
from line.telling import FakeSink

NAMES = {
    *("andon_inspections_total", "andon_judge_seconds_bucket", "andon_judge_seconds_count", "andon_judge_seconds_sum"),
    *("andon_queue_depth", "andon_errors_total", "andon_alarm_active", "andon_stopped", "andon_ready", "andon_store_bytes"),
    *("andon_image_lost_total", "andon_outbox_depth", "andon_outbox_age_seconds", "andon_outbox_failing"),
    *("andon_outbox_lost_total", "andon_model_info", "andon_store_spooling"),
}  # fmt: skip


@pytest.fixture
def failing(monkeypatch):
    """The one receiver of the next line; it is not reached."""
    sink = FakeSink()
    sink.fails, sink.most = Undelivered("<the broker> is gone"), 0
    monkeypatch.setattr("andon.line.outbox.outbox._sinks", lambda *_: [sink])
    return sink


def samples(client) -> dict[tuple[str, ...], float]:
    """{(name, station, other label values...): value}."""
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    return {
        (
            each.name,
            *(each.labels[key] for key in sorted(each.labels, key=lambda key: (key != "station", key))),
        ): each.value
        for each in found
        if not each.name.endswith("_created")
    }


def test_what_prometheus_reads(folder, client_of, failing):
    with running(folder, cycle_s=30.0, line={"metrics": True}) as line:
        client, press = client_of(line), line.stations["press"]
        rows = [
            answer(press, i, word, lot="lot-7")
            for i, word in enumerate(("OK", "ERROR", "NG", "NG", "NG"), start=1)
        ]
        line.metrics.part(replace(rows[1], cause=Cause.GOLDEN_PART.value))  # counts for nothing
        until(lambda: line.outbox.figures()[0].error and line.alarms.station("press").wants_stop)
        found = samples(client)
        assert {name for name, *_ in found} == NAMES
        assert found["andon_inspections_total", "press", "NG"] == 3
        assert found["andon_inspections_total", "press", "REVIEW"] == 0
        assert found["andon_errors_total", "press", "judge_failed"] == 1
        assert found["andon_judge_seconds_count", "press"] == 4
        assert found["andon_judge_seconds_bucket", "press", "0.005"] == 4
        assert ("andon_judge_seconds_bucket", "press", "30.0") in found  # the cycle
        assert found["andon_stopped", "press"] == found["andon_alarm_active", "press", "3 NG in a row"] == 1
        assert found["andon_outbox_failing", "fake"] == 1 and found["andon_outbox_depth", "fake"] > 0
        assert found["andon_store_bytes",] > 10_000
        text = client.get("/metrics").text
        assert "part-1" not in text and "lot-7" not in text and "request-1" not in text
        sink = client.get("/api/v1/outbox").json()[0]
        assert (sink["sink"], sink["error"], sink["told"]) == ("fake", "<the broker> is gone", 0)
        page = client.get("/outbox").text
        assert "not reached since" in page and "&lt;the broker&gt; is gone" in page


def test_metrics_are_off_by_default_and_nobody_is_told(folder, client_of):
    with running(folder) as line:
        client = client_of(line)
        assert client.get("/metrics").status_code == 404
        assert client.get("/api/v1/outbox").json() == []
        assert "Nobody is told" in client.get("/outbox").text
        view = line.stations["press"].view()
        checked = replace(view, name="oven", golden=GoldenView(passed_at=1_000_000))
        age = [(s.labels["station"], s.value) for s in golden_age([view, checked], 3_500_000).samples]
        assert age == [("oven", 2.5)]


def test_figures_of_receivers():
    figures = [Figures("a", 3, 5_000_000, 7, 2, "gone", 1), Figures("b", 0, None, 7, 0, "", None)]
    values = {f.name: [s.value for s in f.samples] for f in outbox_metrics(figures, 6_500_000)}
    assert values == {
        "andon_outbox_depth": [3, 0],
        "andon_outbox_age_seconds": [1.5, 0],
        "andon_outbox_failing": [1, 0],
        "andon_outbox_lost": [2, 0],
    }


def test_the_dashboard_asks_for_metrics_that_there_are():
    board = json.loads((ROOT / "examples" / "grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [each["query"] for each in board["templating"]["list"]]
    asked = {name for query in queries for name in re.findall(r"andon_\w+", query)}
    assert asked <= NAMES | {"andon_golden_age_seconds", "andon_drift_ewma"}  # have no values at first
    assert NAMES - asked == {"andon_judge_seconds_count", "andon_judge_seconds_sum"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
