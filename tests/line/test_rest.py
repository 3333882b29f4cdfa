"""REST interface, in process: only a committed OK passes, everything else is a problem or a bad part."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.datastructures import Headers

from andon.line.judge import Judgement, Thresholds
from andon.line.line import Line
from andon.line.rest import drawings, events, upload
from andon.line.rest.guard import Guard, host_name
from andon.line.rules import InARow
from andon.line.store import Store, StoreUnavailable
from andon.line.verdicts import Cause, Region, Verdict
from line.asking import Client
from line.running import PATIENCE, BadModel, FakeJudge, part, running, until

ROOT = Path(__file__).parents[2]
API = "/api/v1"
INSPECTIONS = f"{API}/stations/press/inspections"
NUMBERS = itertools.count(5000)


class MappedJudge(FakeJudge):
    """A fake judge whose judgements have maps, and which refuses images as the real one does."""

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        if b"PNG" not in image[:8]:
            return Judgement.failed(Cause.NOT_AN_IMAGE, "the image is none")
        if b"|wide|" in image:
            return Judgement.failed(Cause.IMAGE_DIFFERS, "the image is 9 x 1 pixels")
        found = super().judge(image, thresholds)
        heat = io.BytesIO()
        Image.fromarray(np.full((6, 8), 200, np.uint8)).save(heat, "PNG")
        return Judgement(
            found.verdict,
            found.score_raw,
            found.score,
            found.regions,
            heat.getvalue(),
            found.cause,
            ms=found.ms,
        )


@pytest.fixture(scope="module")
def line(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A running line without rules, shared by the tests that leave it as it was."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("rest") / "store")
    with running(folder, judge=MappedJudge, rules=(), queue=50) as started:
        yield started


@pytest.fixture(scope="module")
def client(line: Line, client_of: Callable[..., Client]) -> Client:
    return client_of(line)


def image(word: str = "OK", number: int | None = None) -> bytes:
    """A picture of its own that the judge judges as `word`."""
    return part(next(NUMBERS) if number is None else number, word).image


def is_problem(answer: object, status: int, code: str) -> bool:
    """Whether an answer is a complete problem document."""
    content = answer.json()
    complete = {"type", "title", "status", "detail", "code"} <= set(content)
    kind = answer.headers["content-type"] == "application/problem+json"
    return (answer.status_code, content["status"], content["code"], complete, kind) == (
        status,
        status,
        code,
        True,
        True,
    )


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["OK", "NG", "REVIEW"])
def test_answer_is_the_committed_row(line, client, word):
    form = {"part_id": "P-1", "lot": "L7", "t_trigger": "1800000000000000"}
    answer = client.post(INSPECTIONS, files={"image": image(word)}, data=form)
    assert answer.status_code == 201
    found = answer.json()
    assert (found["verdict"], found["part_id"], found["lot"], found["t_trigger"]) == (
        word,
        "P-1",
        "L7",
        1800000000000000,
    )
    assert answer.headers["location"] == found["links"]["self"] == f"{API}/inspections/{found['id']}"
    assert line.store.inspection(found["id"]).verdict is Verdict[word]
    assert found["regions"] == [{"x": 1, "y": 2, "w": 3, "h": 4, "peak": found["score"]}]
    assert client.get(found["links"]["self"]).json()["verdict"] == word


def test_raw_body_with_texts_in_the_query(client):
    answer = client.post(f"{INSPECTIONS}?part_id=P-2&trigger_no=77", content=image())
    assert (answer.status_code, answer.json()["part_id"], answer.json()["trigger_no"]) == (201, "P-2", 77)


@pytest.mark.parametrize("word", ["raise", "nan", "ERROR"])
def test_a_failing_judge_answers_error(client, word):
    answer = client.post(INSPECTIONS, content=image(word))
    assert (answer.status_code, answer.json()["verdict"], answer.json()["score"]) == (201, "ERROR", None)


@pytest.mark.parametrize(
    ("content", "code"), [(b"no picture", "not_a_picture"), (image("wide"), "picture_differs")]
)
def test_images_that_cannot_be_judged_are_problems_with_a_row(line, client, content, code):
    answer = client.post(INSPECTIONS, content=content)
    assert is_problem(answer, 422, code)
    assert line.store.inspection(answer.json()["id"]).verdict is Verdict.ERROR


def test_same_request_gives_the_first_answer(client):
    content = image("NG")
    first = client.post(INSPECTIONS, content=content, headers={"Idempotency-Key": '"key-1"'})
    again = client.post(f"{INSPECTIONS}?request_id=key-1", content=content)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert is_problem(
        client.post(f"{INSPECTIONS}?request_id=key-1", content=image()), 422, "request_conflict"
    )
    found = client.get(f"{API}/inspections", params={"request_id": "key-1"}).json()["inspections"]
    assert [row["id"] for row in found] == [first.json()["id"]]


def test_another_station_gets_no_verdict_of_this_one(tmp_path, client_of):
    with running(tmp_path, "press", "oven", rules=()) as line:
        client, content = client_of(line), image("OK")
        address = f"{API}/stations/{{}}/inspections?request_id=key-1"
        assert client.post(address.format("press"), content=content).status_code == 201
        assert is_problem(client.post(address.format("oven"), content=content), 422, "request_conflict")
        assert client.post(address.format("press"), content=content).status_code == 200
        assert len(line.store.inspections()) == 1


def test_parts_are_taken_while_the_database_cannot_be_asked(line, client, monkeypatch):
    def away(_request_id: str) -> None:
        raise StoreUnavailable("the database cannot be reached")

    monkeypatch.setattr(line.store, "by_request", away)
    address, content = f"{INSPECTIONS}?request_id=key-away", image("NG")
    first, again = (client.post(address, content=content) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert is_problem(client.post(address, content=image()), 422, "request_conflict")


def test_the_same_request_at_once_is_one_row(line, client):
    content = image()
    with ThreadPoolExecutor(8) as pool:
        answers = [
            *pool.map(lambda _: client.post(f"{INSPECTIONS}?request_id=at-once", content=content), range(8))
        ]
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("address", "options", "code"),
    [
        (INSPECTIONS, {"content": b""}, "no_image"),
        (INSPECTIONS, {"files": {"other": b"x"}}, "no_image"),
        (INSPECTIONS, {"data": {"image": "text"}, "files": {"x": b""}}, "no_image"),
        (f"{INSPECTIONS}?trigger_no=x", {"content": b"x"}, "invalid"),
        (f"{INSPECTIONS}?trigger_no={2**63}", {"content": b"x"}, "invalid"),
        (f"{INSPECTIONS}?wait=-1", {"content": b"x"}, "invalid"),
        (f"{INSPECTIONS}?request_id={'x' * 301}", {"content": b"x"}, "invalid"),
        (f"{INSPECTIONS}?request_id=a", {"content": b"x", "headers": {"Idempotency-Key": "b"}}, "invalid"),
        (f"{INSPECTIONS}?part_id={'x' * 301}", {"content": b"x"}, "invalid"),
        (f"{INSPECTIONS}?request_id=%20", {"content": b"x"}, "invalid"),
        (f"{INSPECTIONS}?part_id=%00", {"content": b"x"}, "invalid"),
        (INSPECTIONS, {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "invalid"),
        (INSPECTIONS, {"files": [("image", b"a"), ("image", b"b")]}, "invalid"),
    ],
)
def test_requests_that_cannot_be_a_part(client, address, options, code):
    answer = client.post(address, **options)
    assert is_problem(answer, 422, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/api/v1/inspections/0", 404, "not_found"),
        ("GET", "/api/v1/inspections/0/image", 404, "not_found"),
        ("GET", "/api/v1/inspections/99999999999999999999", 422, "invalid"),
        ("GET", "/api/v1/inspections/x", 422, "invalid"),
        ("GET", "/api/v1/inspections?verdict=GOOD", 422, "invalid"),
        ("GET", "/api/v1/inspections?limit=0", 422, "invalid"),
        ("GET", "/api/v1/inspections?part_id=%00", 422, "invalid"),
        ("GET", "/history?lot=%00", 422, "invalid"),
        ("GET", "/api/v1/stations/other/state", 404, "not_found"),
        ("POST", "/api/v1/stations/other/inspections", 404, "not_found"),
        ("DELETE", "/api/v1/inspections/1", 405, "method_not_allowed"),
        ("POST", "/api/v1/alarms/1/acknowledge", 422, "invalid"),
    ],
)
def test_addresses_that_lead_nowhere(client, method, path, status, code):
    assert is_problem(client.request(method, path), status, code)


def test_large_bodies_are_refused_before_and_while_they_come(line, client_of):
    small = client_of(line, largest=1000)
    assert is_problem(small.post(INSPECTIONS, content=b"x" * 1001), 413, "too_large")
    assert is_problem(small.post(INSPECTIONS, content=chunks(b"x" * 600, b"x" * 600)), 413, "too_large")
    assert is_problem(small.post(f"{API}/rules/preview", content=b"x" * (2**20 + 1)), 413, "too_large")


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """A body without a length."""
    for each in parts:
        yield each


async def late(body: bytes) -> AsyncIterator[bytes]:
    """A body whose second half comes late."""
    yield body[:10]
    await asyncio.sleep(0.1)
    yield body[10:]


def test_a_body_that_does_not_come_is_given_up(client, monkeypatch):
    monkeypatch.setattr(upload, "BODY_SECONDS", 0.01)
    assert is_problem(client.post(INSPECTIONS, content=late(image())), 408, "timeout")


def test_full_queue_is_a_problem_and_a_bad_part(folder, client_of):
    with running(folder, rules=(), queue=1) as line, ThreadPoolExecutor(2) as pool:
        client, judge = client_of(line), line.stations["press"].model
        busy = pool.submit(client.post, INSPECTIONS, content=image("hang"))
        until(lambda: judge.judged)
        waiting = pool.submit(client.post, INSPECTIONS, content=image())
        until(lambda: line.stations["press"].waiting == 1)
        refused = client.post(f"{INSPECTIONS}?request_id=third", content=image())
        judge.go.set()
        assert is_problem(refused, 503, "overrun")
        assert int(refused.headers["retry-after"]) > 0
        assert line.store.by_request("third").cause == Cause.OVERRUN
        assert (busy.result(PATIENCE).json()["verdict"], waiting.result(PATIENCE).json()["verdict"]) == (
            "OK",
            "OK",
        )


def test_a_part_without_verdict_in_time_is_accepted_and_found_later(folder, client_of):
    with running(folder, rules=()) as line:
        client = client_of(line)
        answer = client.post(f"{INSPECTIONS}?wait=1&request_id=slow", content=image("hang"))
        assert (answer.status_code, answer.json()["verdict"]) == (202, None)
        line.stations["press"].model.go.set()
        until(lambda: client.get(answer.json()["links"]["self"]).json()["inspections"])


def test_station_that_is_not_ready_refuses(folder, client_of):
    with running(folder, rules=(), judge=BadModel) as line:
        client = client_of(line)
        assert is_problem(client.post(INSPECTIONS, content=image()), 503, "not_ready")
        ready = client.get(f"{API}/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert "does not answer here" in ready.json()["reasons"][0]
        assert client.get(f"{API}/health/live").status_code == 200


def test_store_that_fails_is_a_bad_part(line, client, monkeypatch):
    def fail(_new: object) -> None:
        raise StoreUnavailable("the database is gone")

    monkeypatch.setattr(line.store, "record", fail)
    assert is_problem(client.post(INSPECTIONS, content=image()), 503, "store_unavailable")
    monkeypatch.undo()
    until(lambda: not line.stations["press"].faults)
    assert client.post(INSPECTIONS, content=image()).json()["verdict"] == "OK"


def test_unexpected_errors_tell_nothing(line, client, monkeypatch):
    monkeypatch.setattr(line.store, "by_request", lambda _id: 1 / 0)
    answer = client.post(INSPECTIONS, content=image())
    assert is_problem(answer, 500, "internal")
    assert "division" not in answer.text


# Rows -----------------------------------------------------------------------------------------------------------------


def test_pages_follow_each_other_without_gaps(client):
    sent = [client.post(f"{INSPECTIONS}?lot=pages", content=image("NG")).json()["id"] for _ in range(5)]
    found, address = [], f"{API}/inspections?lot=pages&verdict=NG&station=press&limit=2"
    while address:
        page = client.get(address).json()
        found += [row["id"] for row in page["inspections"]]
        address = page["next"]
    assert found == sent[::-1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("/export.csv?partid=4711", "there is no query parameter 'partid': there are lot, part_id"),
        ("/inspections?before=7", "there is no query parameter 'before'"),
        ("/inspections?verdict=ng", "verdict"),
        ("/export.csv?reviewed=yes", "reviewed"),
        ("/stations/press/state?gloves=1", "there are none here"),
        ("/golden/press/runs?stations=press", "before_id, limit"),
    ],
)
def test_a_query_that_is_not_understood_is_refused(client, query, message):
    answer = client.get(f"{API}{query}")
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_what_a_part_may_be_sent_with_is_described_and_taken(client):
    found = client.get(f"{API}/openapi.json").json()["paths"][f"{API}/stations/{{station}}/inspections"][
        "post"
    ]
    names = {each["name"] for each in found["parameters"] if each["in"] == "query"}
    assert names == {"wait", "part_id", "lot", "request_id", "t_trigger", "trigger_no"}
    query = {"part_id": "q", "lot": "q", "request_id": "q-1", "t_trigger": 5, "wait": 60_000}
    place = f"{API}/stations/press/inspections"
    assert client.post(place, params=query, content=part(1).image).status_code == 201
    answer = client.post(place, params={"partid": "q"}, content=part(1).image)
    assert (answer.status_code, "'partid'" in answer.json()["detail"]) == (422, True)


MANY = pytest.param("9" * 5000, id="many digits")


@pytest.mark.parametrize("name", ["t_trigger", "trigger_no"])
@pytest.mark.parametrize("text", [MANY, str(2**63), "-1", "1.5", "٣", "²"])
def test_numbers_that_are_none_are_refused(client, name, text):
    for sent in ({"data": {name: text}}, {"params": {name: text}}):
        answer = client.post(INSPECTIONS, files={"image": b"x"}, **sent)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
        assert len(answer.content) < 1000


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "utf-16", "unicode_escape"])
def test_charsets_by_which_a_form_has_no_texts_are_refused(client, charset):
    text = b"\\ud800" if charset == "unicode_escape" else "ä".encode() + b"-\xd8\x00"
    field = b"--x\r\nContent-Disposition: form-data; name="
    body = field + b'"image"; filename="a"\r\n\r\n' + part(1).image + b"\r\n"
    body += field + b'"part_id"\r\n\r\n' + text + b"\r\n--x--\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = client.post(INSPECTIONS, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"] in ("invalid", "no_image")) == (422, True)


@pytest.mark.parametrize("number", [MANY, "²", "-1", ""])
def test_an_event_id_that_is_no_number_begins_anew(line, number):
    assert events._number(f"{line.store.session}.{number}", line.store.session) is None


def test_a_length_that_is_no_number_is_refused(line, client):
    guard = Guard(lambda *_: None)
    for length, status in (("9" * 5000, 413), ("7", None), ("²", None)):
        refused = guard._refusal("POST", Headers({"host": "localhost", "content-length": length}), 100)
        assert (None if refused is None else refused.response().status_code) == status


def test_export_has_every_row_and_no_formulas(client, monkeypatch):
    monkeypatch.setattr("andon.line.rest.inspections.EXPORT_PAGE", 2)
    sent = [
        client.post(f"{INSPECTIONS}?lot=csv&part_id=%3D1%2B1", content=image()).json()["id"] for _ in range(5)
    ]
    answer = client.get(f"{API}/export.csv?lot=csv")
    rows = [*csv.DictReader(io.StringIO(answer.text))]
    assert answer.headers["content-type"].startswith("text/csv")
    assert [int(row["id"]) for row in rows] == sent[::-1]
    assert {row["part_id"] for row in rows} == {"./=1+1"}


def test_pictures_of_an_inspection(line, client):
    content = image("NG")
    links = client.post(INSPECTIONS, content=content).json()["links"]
    until(lambda: client.get(links["image"]).status_code == 200)
    assert client.get(links["image"]).content == content
    assert client.get(links["image"]).headers["content-type"] == "image/png"
    until(lambda: client.get(links["map"]).status_code == 200)
    for name, form, size in [
        ("preview", "JPEG", (16, 12)), ("thumbnail", "JPEG", (16, 12)), ("overlay", "JPEG", (16, 12)),
        ("heat", "PNG", (16, 12)), ("map", "PNG", (8, 6)),
    ]:  # fmt: skip
        with Image.open(io.BytesIO(client.get(links[name]).content)) as opened:
            assert (name, opened.format, opened.size) == (name, form, size)


def test_a_picture_is_drawn_once_for_all_who_ask():
    kept, drawn = drawings.Drawings(most=2), []

    def draw() -> bytes:
        time.sleep(0.02)
        drawn.append(1)
        return b"picture"

    with ThreadPoolExecutor(8) as pool:
        assert {*pool.map(lambda _: kept.get("preview", 1, draw), range(8))} == {b"picture"}
    assert len(drawn) == 1
    assert kept.get("preview", 2, lambda: None) is None
    assert kept.get("preview", 2, lambda: b"later") == b"later"
    kept.get("preview", 3, draw)
    assert kept.get("preview", 1, lambda: b"again") == b"again"


def test_heat_has_one_scale():
    heat = io.BytesIO()
    Image.fromarray(np.array([[0, 63, 128, 255]], np.uint8).repeat(4, 0)).save(heat, "PNG")
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    layer = drawings.heat_layer(stream.getvalue(), heat.getvalue(), ())
    with Image.open(io.BytesIO(layer)) as opened:
        nothing, half, threshold, twice = np.asarray(opened)[0]
    assert nothing[3] == half[3] == 0
    assert (threshold[0] > 250, threshold[1] < 10) == (True, True)
    assert twice[0] < threshold[0]
    assert twice[3] > threshold[3] > 100


def test_what_is_no_image_has_no_preview():
    assert drawings.preview(b"no picture") is None
    assert drawings.overlay(b"no picture", b"", (Region(0, 0, 1, 1, 1.0),)) is None


# Stations, alarms, thresholds, rules ------------------------------------------------------------------------------------


def test_from_stop_to_running_by_requests(folder, client_of):
    with running(folder, rules=(InARow(k=2),)) as line:
        client = client_of(line)
        for number in range(2):
            client.post(INSPECTIONS, content=image("NG", number))
        until(lambda: client.get(f"{API}/stations").json()[0]["state"] == "STOPPED")
        (alarm,) = client.get(f"{API}/alarms").json()
        assert (alarm["stops"], alarm["state"], alarm["inspection_from"]) == (True, "active_unack", 1)
        press, who = f"{API}/stations/press", {"who": "ann"}
        assert is_problem(client.post(f"{press}/resume", json=who), 409, "not_allowed")
        assert client.post(f"{API}/alarms/{alarm['id']}/acknowledge", json=who).json()["ack_by"] == "ann"
        assert is_problem(client.post(f"{press}/cause", json={**who, "cause": "other"}), 409, "not_allowed")
        assert is_problem(client.post(f"{press}/cause", json={**who, "cause": "magic"}), 422, "invalid")
        assert client.post(f"{press}/cause", json={**who, "cause": "light"}).json()["cause"] == "light"
        assert client.post(f"{press}/resume", json=who).json()["state"] == "RUNNING"
        assert client.get(f"{press}/state").json()["recent"] == []


def test_an_action_that_is_not_stored_in_time_is_no_broken_part(folder, client_of, monkeypatch):
    with running(folder, rules=()) as line:
        client = client_of(line)
        monkeypatch.setattr(line.alarms, "stop", lambda *_: Future().result(0.01))
        refused = client.post(f"{API}/stations/press/stop", json={"who": "bob"})
        assert is_problem(refused, 503, "store_unavailable")
        assert "not stored yet" in refused.json()["detail"]


def test_people_call_stop_and_shelve(folder, client_of):
    with running(folder, rules=()) as line:
        client = client_of(line)
        press, who = f"{API}/stations/press", {"who": "bob"}
        assert client.post(f"{press}/call", json=who).json()["state"] == "REVIEW"
        (alarm,) = client.get(f"{API}/alarms").json()
        shelf = {**who, "minutes": 10}
        assert is_problem(client.post(f"{API}/alarms/{alarm['id']}/shelve", json=shelf), 409, "not_allowed")
        shelved = client.post(f"{API}/alarms/{alarm['id']}/shelve", json={**shelf, "note": "known"})
        assert shelved.json()["state"] == "shelved"
        back = client.post(f"{API}/alarms/{alarm['id']}/unshelve", json=who)
        assert (back.status_code, back.json()["state"]) == (200, "normal")
        line.alarms.condition("press", "disk", True, "nearly full")
        (alarm,) = client.get(f"{API}/alarms").json()
        cause = {**who, "cause": "other", "note": "old images deleted"}
        resolve = f"{API}/alarms/{alarm['id']}/resolve"
        assert is_problem(client.post(resolve, json=cause), 409, "not_allowed")
        client.post(f"{API}/alarms/{alarm['id']}/acknowledge", json=who)
        assert client.post(resolve, json=cause).json()["state"] == "normal"
        assert client.get(f"{API}/alarms").json() == []
        assert client.post(f"{press}/stop", json=who).json()["state"] == "STOPPED"
        assert is_problem(client.post(f"{press}/stop", json={"who": ""}), 422, "invalid")


@pytest.mark.parametrize(
    "body",
    [
        b'{"who": "a\\u0000"}',
        b'{"who": "\\ud800"}',
        b'{"who": "a", "note": "\\u001b[2J"}',
        b'{"who": 1}',
        b"[]",
        b"{",
        b"\xff",
    ],
)
def test_bodies_that_no_person_sends(line, client, body):
    answer = client.post(
        f"{API}/stations/press/stop", content=body, headers={"Content-Type": "application/json"}
    )
    assert is_problem(answer, 400 if body == b"\xff" else 422, "invalid")
    assert not line.stations["press"].view().wants_stop


def test_a_recipe_is_chosen_by_its_code(folder, client_of):
    with running(folder, recipes={"nut": Path("nut.andon")}) as line:
        client, path = client_of(line), f"{API}/stations/press/recipe"
        assert is_problem(client.post(path, json={"code": "bolt", "who": "plc"}), 404, "unknown_recipe")
        assert client.post(path, json={"code": "nut", "who": "plc"}).json()["recipes"] == ["nut"]
        until(lambda: line.stations["press"].is_verified)
        assert client.post(INSPECTIONS, content=image()).json()["recipe"] == "nut"


def test_thresholds_are_versions_with_reasons(folder, client_of):
    with running(folder, rules=()) as line:
        client, path = client_of(line), f"{API}/stations/press/thresholds"
        assert client.get(path).json() == {
            "now": {"accept": 1.0, "reject": 1.0, "version": None},
            "packed": {"accept": 1.0, "reject": 1.0, "version": 0},
            "versions": [],
            "second_person": False,
            "proposals": [],
        }
        new = {"accept": 0.4, "reject": 1.0, "why": "two scratches passed", "who": "ann"}
        assert client.post(path, json=new).status_code == 201
        found = client.get(path).json()
        assert found["now"] == {"accept": 0.4, "reject": 1.0, "version": found["versions"][0]["version"]}
        assert found["versions"][0]["why"] == "two scratches passed"
        assert (
            client.post(INSPECTIONS, content=image()).json()["threshold_version"] == found["now"]["version"]
        )
        assert is_problem(client.post(path, json={**new, "why": "short"}), 422, "invalid")
        assert is_problem(client.post(path, json={**new, "accept": 2.0}), 422, "invalid")
        assert is_problem(client.post(path, json={**new, "extra": 1}), 422, "invalid")
        assert client.get(path).json() == found


def test_rules_with_their_false_stops(client):
    assert client.get(f"{API}/rules").json() == {"press": []}
    rules = [{"kind": "in_a_row", "k": 3}, {"kind": "in_window", "k": 5, "n": 50, "action": "call"}]
    body = {"station": "press", "rules": rules, "false_reject_rate": 0.05}
    found = client.post(f"{API}/rules/preview", json=body).json()
    first, second = found["rules"]
    assert first["per_10_000"] == pytest.approx(1.1875, rel=1e-3)
    assert second["useless"]
    assert "false rejects" in found["advice"]
    assert is_problem(
        client.post(f"{API}/rules/preview", json={**body, "rules": [{"kind": "no"}]}), 422, "invalid"
    )
    assert is_problem(client.post(f"{API}/rules/preview", json={**body, "station": "no"}), 404, "not_found")


def test_rules_are_changed_with_a_reason(folder, client_of):
    with running(folder) as line:
        client, path = client_of(line), f"{API}/rules/press"
        (first,) = client.get(path).json()
        rules = [*first["rules"][:2], {"kind": "no_part", "seconds": 60, "action": "call"}]
        body = {"rules": rules, "who": "ann", "why": "the feeder jams", "based_on": first["version"]}
        changed = client.request("PUT", path, json=body).json()
        assert changed["rules"][2]["title"] == "no part for 60 s"
        assert client.get(path).json() == [changed, first]
        assert client.get(f"{API}/rules").json() == {"press": changed["rules"]}
        put = partial(client.request, "PUT", path)
        assert is_problem(put(json=body), 412, "stale")
        assert is_problem(put(json={**body, "why": "short"}), 422, "invalid")
        assert is_problem(put(json={**body, "rules": [{"kind": "in_a_row", "k": 0}]}), 422, "invalid")


# Who may ask ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("127.0.0.1:8000", True), ("localhost", True), ("[::1]:80", True), ("10.0.0.7", True), ("LINE-PC:8000", True),
        ("evil.example", False), ("localhost.evil.example", False), ("", False), ("a@localhost", False), ("x y", False),
    ],
)  # fmt: skip
def test_host_names_that_are_not_ours_are_refused(line, host, served, client_of):
    answer = client_of(line, hosts=["line-pc"]).get(f"{API}/stations", headers={"Host": host})
    assert answer.status_code == 200 if served else is_problem(answer, 421, "host")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://127.0.0.1:9000"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_pages_of_other_sites_change_nothing(client, headers, allowed):
    answer = client.post(INSPECTIONS, content=image(), headers=headers)
    assert answer.status_code == 201 if allowed else is_problem(answer, 403, "cross_site")


def test_nothing_is_shared_across_origins(client):
    answer = client.get(f"{API}/stations", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("host", "name"), [("a:1", "a"), ("[::1]:1", "::1"), ("a:b", ""), ("a:1:2", "")])
def test_name_of_a_host_header(host, name):
    assert host_name(host) == name


MISSING = ("/items/{id}/image", "/candidates/{id}", "/studies/{id}", "/camera")
"""Ends of paths to things of which there are none."""


def test_browsers_get_a_problem_as_a_page(client, line, monkeypatch):
    browser = {"Accept": "text/html,application/xhtml+xml"}
    missing = client.get("/stations/no%3Cne", headers=browser)
    assert (missing.status_code, missing.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "Not Found" in missing.text
    assert "no&lt;ne" in missing.text
    assert 'href="/plant"' in missing.text  # the way on
    assert "http-equiv" not in missing.text

    def away(*_):
        raise StoreUnavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(line.store, "ask", away)
        page = client.get("/plant", headers=browser)
        assert is_problem(client.get("/plant"), 503, "store_unavailable")
    assert page.status_code == 503
    assert page.headers["Retry-After"] == "1"
    assert "the database is away" in page.text
    assert '<meta http-equiv="refresh" content="5">' in page.text
    with monkeypatch.context() as patch:
        patch.setattr(line.store, "ask", lambda *_: 1 / 0)
        failed = client.get("/plant", headers=browser)
    assert (failed.status_code, "see its log" in failed.text) == (500, True)


def test_reading_changes_nothing(line, client):
    """Every GET of the description, called once, leaves rows and audit as they were."""
    client.post(INSPECTIONS, content=image())
    until(lambda: all(row.image_state.name != "PENDING" for row in line.store.inspections(limit=1000)))
    before = dump(line.store)
    for path, methods in client.get(f"{API}/openapi.json").json()["paths"].items():
        if "get" in methods and not path.endswith("/events"):  # which does not end
            id = line.store.inspections(limit=1)[0].id
            wanted = 404 if path.endswith(MISSING) else 200
            assert client.get(path.format(station="press", id=id)).status_code == wanted, path
    assert dump(line.store) == before


def dump(store: Store) -> list[list[object]]:
    """All rows of all tables."""
    from sqlalchemy import text

    tables = (
        "inspection",
        "alarm",
        "alarm_event",
        "audit",
        "threshold_version",
        "recipe",
        "station",
        "counter",
    )
    return store.ask(
        lambda c: [[tuple(row) for row in c.execute(text(f"SELECT * FROM {t}"))] for t in tables]
    )


# Events ---------------------------------------------------------------------------------------------------------------


def test_events_come_after_their_commit_and_again_by_number(folder, client_of):
    with running(folder, rules=()) as line, ThreadPoolExecutor(1) as pool:
        client = client_of(line)
        reading = pool.submit(events_of, client)
        until(lambda: line.events.listeners)
        id = client.post(INSPECTIONS, content=image()).json()["id"]
        until(lambda: [event for event in line.events._kept if event.data.get("id") == id])
        line.events.publish("inspection", {"station": "other", "id": 0})
        last = line.events.publish("inspection", {"station": "press", "id": id + 1})
        line.events.close()
        told = reading.result(PATIENCE)
        assert told[0]["event"] == "reset"  # a new reader reads the state
        found = [event for event in told if event["event"] == "inspection"]
        assert [json.loads(event["data"])["id"] for event in found] == [id, id + 1]
        assert found[1]["id"] == f"{line.store.session}.{last.id}"
        for seen, kinds in [(found[0]["id"], "inspection"), ("1.1", "reset"), ("nonsense", "reset")]:
            reading = pool.submit(events_of, client, seen)
            until(lambda: line.events.listeners)
            line.events.close()
            assert reading.result(PATIENCE)[0]["event"] in (kinds, "state")


def events_of(client: Client, last: str | None = None) -> list[dict[str, str]]:
    """Events of one connection up to its end."""
    headers = {} if last is None else {"Last-Event-ID": last}
    text = client.get(f"{API}/events?station=press", headers=headers).text
    blocks = [block for block in re.split(r"\r?\n\r?\n", text) if "event:" in block]
    return [dict(re.findall(r"^(\w+): ?(.*?)\r?$", block, re.M)) for block in blocks]


def test_the_reference_lists_every_operation(client):
    """`docs/reference/rest.md` has the first line of each description."""
    page = (ROOT / "docs" / "reference" / "rest.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (.*) \|$", page, re.M))
    assert documented == {
        f"{method.upper()} {path.removeprefix(API)}": operation["description"].split("\n")[0]
        for path, methods in client.get(f"{API}/openapi.json").json()["paths"].items()
        for method, operation in methods.items()
    }
