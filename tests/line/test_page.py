"""Pages: what they show, readable at a distance, nothing from elsewhere, nothing of the line's texts taken for HTML."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from andon.line import page
from andon.line.andon_states import StopCause
from andon.line.line import Line
from andon.line.page.render import data_block, utc, words
from andon.line.page.words import ERROR_CAUSES, OFFLINE, STATES, STOP_CAUSES, VERDICTS
from andon.line.rules import InARow
from andon.line.store import QueryTimeout
from andon.line.verdicts import Cause, Verdict
from andon.line.views import Shown
from line.asking import Client
from line.running import BadModel, answer, running, until

FOLDER = Path(page.__file__).parent
STATIC = sorted((FOLDER / "static").iterdir())
TEMPLATES = sorted((FOLDER / "templates").iterdir())
SERVED = [file for file in TEMPLATES if not file.name.endswith("_file.html")]
"""Templates of pages; the others make files for mail and archive, which are whole by themselves."""
STYLE = (FOLDER / "static" / "app.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def line(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A line with two stations and a few parts."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("pages") / "store")
    with running(folder, "press", "oven", rules=(), queue=50) as started:
        for number in range(12):
            word = "NG" if number % 3 == 0 else "OK"
            answer(started.stations["press"], number, word, lot="L1" if number < 6 else "L2")
        answer(started.stations["oven"], 1000, "ERROR", part_id="<script>alert(1)</script>")
        yield started


@pytest.fixture(autouse=True)
def short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten parts on a page of the history."""
    monkeypatch.setattr("andon.line.rest.pages.PAGE", 10)


@pytest.fixture(scope="module")
def client(line: Line, client_of: Callable[..., Client]) -> Client:
    return client_of(line)


def rows(text: str) -> list[int]:
    """Ids of the rows of a history page."""
    return [int(id) for id in re.findall(r'<tr data-id="(\d+)">', text)]


# What is shown --------------------------------------------------------------------------------------------------------


def test_line_page_shows_the_last_verdict_before_any_script_runs(client):
    text = client.get("/stations/press").text
    assert re.search(r'id="hero-word">OK<', text)
    assert re.search(r'id="state" class="badge is-running"', text)
    assert re.search(r'data-count="NG">4<', text)
    assert re.search(r'<section class="stop" id="stop"[^>]*hidden>', text)
    assert "part-11" in text


def test_first_page_shows_all_stations_or_the_only_one(client, client_of, folder):
    text = client.get("/").text
    assert re.findall(r'href="/stations/(\w+)"', text) == ["press", "oven"]
    with running(folder, rules=()) as alone:
        found = client_of(alone).get("/?gloves=1")
        assert (found.status_code, found.headers["location"]) == (307, "/stations/press?gloves=1")


def test_stopped_line_shows_why_and_what_to_do(folder, client_of):
    with running(folder, rules=(InARow(k=2),)) as line:
        for number in range(2):
            answer(line.stations["press"], number, "NG")
        until(lambda: line.stations["press"].view().state is Shown.STOPPED)
        text = client_of(line).get("/stations/press").text
    assert re.search(r'id="hero-word">STOPPED<', text)
    assert "2 parts in a row were rejected (NG)" in text
    assert not re.search(r'<section class="stop" id="stop"[^>]*hidden>', text)
    assert re.findall(r'data-cause="(\w+)"', text) == [cause.value for cause in StopCause]


def test_fault_is_shown_with_its_reason(folder, client_of):
    with running(folder, rules=(), judge=BadModel) as line:
        text = client_of(line).get("/stations/press").text
    assert re.search(r'id="hero-word">FAULT<', text)
    assert "does not answer here" in text


def test_no_score_on_the_line_page(client):
    text = client.get("/stations/press").text
    shown = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)
    assert not re.search(r"score|sigma|threshold:|\d\.\d", shown)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 10),
        ({"station": "oven"}, 1),
        ({"verdict": "NG"}, 4),
        ({"verdict": "nonsense"}, 0),
        ({"verdict": "ng"}, 0),
        ({"reviewed": "nobody"}, 0),
        ({"since": "tomorrow"}, 0),
        ({"part": "part-7"}, 0),
        ({"lot": "L1", "verdict": "NG"}, 2),
        ({"part_id": "part-7"}, 1),
        ({"part_id": "none"}, 0),
        ({"reviewed": "overridden"}, 0),
        ({"since": "2999-01-01T00:00"}, 0),
        ({"since": "1999-01-01T00:00"}, 10),
    ],
)
def test_history_filters(client, query, expected):
    assert len(rows(client.get("/history", params=query).text)) == expected


def test_history_goes_back_to_the_first_part(client):
    text = client.get("/history").text
    first = rows(text)
    older = re.search(r'id="older" href="([^"]+)"', text)[1].replace("&amp;", "&")
    second = rows(client.get(older).text)
    assert (first + second)[::-1] == sorted(first + second)
    assert len(first + second) == 13


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("since=tomorrow", "cannot be read"),
        ("verdict=ng", "There is no verdict &#39;ng&#39;: choose one of OK, NG, REVIEW, ERROR."),
        ("reviewed=nobody", "There is no review &#39;nobody&#39;"),
        ("part=part-7", "there is no query parameter &#39;part&#39;"),
    ],
)
def test_history_says_which_filter_it_cannot_read(client, query, message):
    text = client.get(f"/history?{query}").text
    assert message in text
    assert ">CSV<" not in text


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"station": "oven"},
        {"verdict": "NG"},
        {"lot": "L1", "verdict": "NG"},
        {"part_id": "part-7"},
        {"part_id": "none"},
        {"reviewed": "overridden"},
        {"since": "2999-01-01T00:00"},
    ],
)
def test_the_page_exports_and_lists_what_it_shows(client, query, monkeypatch):
    monkeypatch.setattr("andon.line.rest.pages.PAGE", 100)
    text = client.get("/history", params=query).text
    export = re.search(r'href="([^"]+)">CSV<', text)[1].replace("&amp;", "&")
    exported = [int(row["id"]) for row in csv.DictReader(io.StringIO(client.get(export).text))]
    listed = client.get(export.replace("export.csv", "inspections")).json()["inspections"]
    assert rows(text) == exported == [row["id"] for row in listed]


def test_history_that_takes_too_long_says_so(client, line, monkeypatch):
    def slow(**_: object) -> None:
        raise QueryTimeout("the query took longer than 1 s")

    monkeypatch.setattr(line.store, "inspections", slow)
    assert "took longer than 1 s" in client.get("/history").text


def test_inspection_page(client, line):
    id = line.store.inspections(station="press", verdict=Verdict.NG, limit=1)[0].id
    text = client.get(f"/inspections/{id}").text
    assert "NG" in text
    assert f'src="/api/v1/inspections/{id}/preview' in text
    assert client.get("/inspections/999999").status_code == 404


def test_rules_page_prints_expected_false_stops(folder, client_of):
    with running(folder, rules=(InARow(k=3),)) as line:
        text = client_of(line).get("/rules?percent=5").text
    assert "3 NG in a row" in text
    assert "1.2 – too often" in text
    assert "People stop believing" in text


def test_a_proposal_is_tried_before_it_is_saved(client):
    assert "No rules" in client.get("/rules/press").text
    query = "kind=in_a_row&action=stop&verdict=NG&k=1&n=&iou=&seconds=&kind=no_part&action=call&verdict=NG&k=9&n=&iou=&seconds=5"
    text = client.get(f"/rules/press?percent=1&{query}").text
    proposed = json.loads(re.search(r'id="initial"[^>]*>(.*)</script>', text)[1])
    assert [(rule["kind"], rule["action"]) for rule in proposed["rules"]] == [
        ("in_a_row", "stop"),
        ("no_part", "call"),
    ]
    assert re.search(r"<td>1 NG in a row</td><td>stop</td>\s*<td>1e\+02 – too often</td>\s*<td>4</td>", text)
    assert '<form id="save" class="filters">' in text
    wrong = client.get("/rules/press?kind=in_window&k=5&n=2").text
    assert "do not fit into a window of n=2" in wrong
    assert '<form id="save" class="filters" hidden>' in wrong
    assert client.get("/rules/nowhere").status_code == 404


def test_docs_page_lists_every_operation(client):
    text = client.get("/docs").text
    for path in client.get("/api/v1/openapi.json").json()["paths"]:
        assert path in text


def test_texts_of_parts_are_no_html(client):
    for address in ("/stations/oven", "/history?station=oven"):
        text = client.get(address).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text or "\\u003cscript\\u003e" in text
    assert data_block({"a": "</script>&"}) == '{"a": "\\u003c/script\\u003e\\u0026"}'


def test_gloves(client):
    assert '<html lang="en" class="gloves">' in client.get("/stations/press?gloves=1").text
    assert re.search(r"\.gloves \{ --target: 64px; \}", STYLE)


def test_time_of_a_page():
    assert utc(1_800_000_000_000_000) == "2027-01-15T08:00:00Z"


# Signs ----------------------------------------------------------------------------------------------------------------


def test_every_verdict_state_and_cause_has_a_sign():
    assert set(VERDICTS) == set(Verdict)
    assert set(STATES) == set(Shown)
    assert list(STOP_CAUSES) == list(StopCause)
    assert set(ERROR_CAUSES) == set(Cause)
    symbols = re.findall(r'<symbol id="icon-(\w+)"', (FOLDER / "templates" / "icons.svg").read_text())
    assert {sign.icon for sign in (*VERDICTS.values(), *STATES.values())} | {"offline"} <= set(symbols)


def test_shapes_and_words_differ_where_colours_do():
    for signs in (words()["verdicts"], words()["states"]):
        found = [(sign["word"], sign["icon"]) for key, sign in signs.items() if key != "NONE"]
        assert len({word for word, _ in found}) == len({shape for _, shape in found}) == len(found)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


ICONS = sorted({sign.icon for sign in (*VERDICTS.values(), *STATES.values(), OFFLINE)})


@pytest.mark.parametrize("icon", ICONS)
def test_contrast_of_signs(icon):
    """At least 7:1, on the lightest and darkest ground of each sign."""
    rule = re.search(rf"\.is-{icon}\b[^{{]*\{{([^}}]*)\}}", STYLE)[1]
    colours = re.findall(r"#[0-9a-f]{6}", rule)
    *grounds, ink = colours
    for ground in grounds:
        dark, light = sorted((luminance(ground), luminance(ink)))
        assert (light + 0.05) / (dark + 0.05) >= 7.0, (icon, ground, ink)


# Offline and strict ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [*STATIC, *TEMPLATES], ids=lambda file: file.name)
def test_nothing_from_elsewhere(file):
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//\w+\.\w+/|@import|url\(", text)


@pytest.mark.parametrize("file", SERVED, ids=lambda file: file.name)
def test_nothing_inline_that_the_policy_refuses(file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all(
        re.search(r"type=\"application/json\"|src=", tag) for tag in re.findall(r"<script[^>]*>", text)
    )


def test_scripts_are_small():
    assert sum(file.stat().st_size for file in STATIC if file.suffix == ".js") < 150_000


def test_files_of_the_pages_are_served(client):
    for file in STATIC:
        answered = client.get(f"/static/{file.name}")
        assert (answered.status_code, answered.headers["cache-control"]) == (200, "no-cache")
    assert client.get("/static/../render.py").status_code == 404
    assert client.get("/static/%2e%2e/render.py").status_code == 404
