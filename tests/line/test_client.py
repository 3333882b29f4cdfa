"""Client and simulation against a real server and a drop folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from andon.cli.simulate import _station as chosen_station
from andon.client import Answer, Client, ClientError
from andon.core.errors import DataError, OutputError, UsageError
from andon.line import simulate
from andon.line.line import Line
from andon.line.settings import FolderSettings
from line.running import FakeJudge, part, running, until
from line.serving import served
from line.test_rest import MappedJudge


@pytest.fixture(scope="module")
def line(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with running(
        shutil.copytree(empty_store, tmp_path_factory.mktemp("client") / "s"), judge=MappedJudge
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(line: Line) -> Iterator[Client]:
    with served(line) as port, Client(f"http://127.0.0.1:{port}") as opened:
        yield opened
        line.events.close()


@pytest.mark.parametrize("timeout", [10.0, 70.0, 3600.0, 86_400.0])
def test_a_client_of_any_timeout_gets_its_verdict(client, timeout):
    with Client(str(client._http.base_url), timeout=timeout) as patient:
        assert patient.inspect("press", part(1).image).passes


@pytest.mark.parametrize("timeout", [0.0, -1.0, 1e10, float("inf"), float("nan")])
def test_times_that_are_none_are_one_sentence(timeout):
    with pytest.raises(UsageError, match="has to be above 0 and at most 86400 s"):
        Client(timeout=timeout)


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://", "http://[::1", "ftp://line", "line:8000", "localhost", "http://line:port"),
        *("http://a\x00b", "http://a:99999", "http://line?x=1", "http://" + "a" * 70_000),
    ],
)
def test_addresses_that_are_none_are_one_sentence(url):
    with pytest.raises(UsageError, match="is no address of a server") as caught:
        Client(url)
    assert "\n" not in str(caught.value)


def test_a_wrong_address_on_the_command_line(cli, tmp_path):
    (tmp_path / "a.png").write_bytes(part(1).image)
    found = cli("simulate", "images", str(tmp_path / "a.png"), "--url", "http://[::1")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "is no address of a server" in found.err


def test_a_stop_as_a_client_sees_it(line, client, tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(part(1).image)
    good = client.inspect("press", image, part_id="ä 1", lot="L")
    assert good.passes
    changes = {"image_state"}  # it is stored a moment later
    found = client.inspection(good.id)
    assert {k: found[k] for k in found.keys() - changes} == {
        k: good.data[k] for k in good.data.keys() - changes
    }
    events = client.events("press")
    assert next(events).kind  # has begun
    for k in range(3):
        bad = client.inspect("press", part(k, "NG").image, request_id=f"ng-{k}")
        assert (bad.verdict, bad.passes) == ("NG", False)
    assert client.inspect("press", part(2, "NG").image, request_id="ng-2").replayed
    until(lambda: client.station("press")["wants_stop"])
    assert client.outbox() == []  # nobody is told
    alarm = client.alarms()[0]
    assert client.acknowledge(alarm["id"], "eva")["ack_by"] == "eva"
    client.cause("press", "product", "eva")
    assert client.resume("press", "eva")["state"] == client.stations()[0]["state"] == "RUNNING"
    assert [row["verdict"] for row in client.inspections(verdict="NG", limit=2)] == ["NG"] * 3
    assert next(event for event in events if event.kind == "alarm").data["stops"]
    events.close()


def test_what_is_refused(line, client):
    broken = client.inspect("press", b"no image")
    assert (broken.verdict, broken.cause, broken.passes) == ("ERROR", "not_a_picture", False)
    assert client.inspection(broken.id)["verdict"] == "ERROR"
    for ask, code, status in [
        (lambda: client.inspect("away", part(9).image), "not_found", 404),
        (lambda: client.inspection(10**9), "not_found", 404),
        (lambda: client.resume("press", "eva"), None, 409),
    ]:
        with pytest.raises(ClientError) as caught:
            ask()
        assert caught.value.status == status
        assert code in (None, caught.value.code)


def test_a_broken_connection_is_tried_again_with_one_id():
    ids = []

    def answering(request: httpx.Request) -> httpx.Response:
        ids.append(request.url.params["request_id"])
        if len(ids) < 3:
            raise httpx.ReadError("cut")
        return httpx.Response(201, json={"verdict": "OK", "id": 7, "cause": ""})

    with Client(transport=httpx.MockTransport(answering)) as client:
        assert client.inspect("press", b"x").id == 7
        assert len(set(ids)) == 1
        ids.clear()
        with pytest.raises(ClientError, match="does not answer"):
            client.inspect("press", b"x", tries=2)


@pytest.mark.parametrize(
    ("status", "content"),
    [(202, {}), (503, {"verdict": "ERROR", "code": "overrun"}), (422, {"verdict": "ERROR", "code": "x"})],
)
def test_without_a_verdict_a_part_is_bad(status, content):
    with Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, json=content))) as client:
        assert not client.inspect("press", b"x").passes


@pytest.mark.parametrize(("status", "text"), [(200, "<html>"), (200, "{}"), (500, "[]"), (404, "{}")])
def test_other_servers(status, text):
    with Client(transport=httpx.MockTransport(lambda _: httpx.Response(status, text=text))) as client:
        with pytest.raises(ClientError):
            client.inspect("press", b"x")
        with pytest.raises(ClientError):
            next(client.events())


def test_simulated_parts_with_faults(client, tmp_path):
    (tmp_path / "a.png").write_bytes(part(1).image)
    files = simulate.images([tmp_path])
    result = simulate.run(simulate.to_server(client, "press"), files, rate=200, seconds=0.06, faults=0.5)
    found = result.to_json()
    assert (found["sent"], found["contradictions"]) == (12, 0)
    assert sum(found["answers"].values()) == 12
    assert found["answers"]["not_a_picture"] >= 1
    assert found["ms"]["p50"] <= found["ms"]["p99"] <= found["ms"]["largest"]


@pytest.mark.parametrize(("ids", "contradictions"), [((7, 7), 0), ((None, 7), 0), ((7, 8), 1)])
def test_only_two_rows_contradict_each_other(tmp_path, ids, contradictions):
    (tmp_path / "a.png").write_bytes(part(1).image)
    answers = [Answer("OK" if id else "ERROR", id, "", {}) for id in ids]
    result = simulate.run(lambda *_: answers, simulate.images([tmp_path]), rate=1000, seconds=0.001)
    assert (result.sent, result.contradictions) == (1, contradictions)


def test_simulated_parts_into_a_folder(folder, tmp_path):
    drop = tmp_path / "inbox"
    drop.mkdir()
    (tmp_path / "a.png").write_bytes(part(1).image)
    settings = FolderSettings(path=drop, stable_ms=1, poll_ms=20)
    with running(folder, judge=FakeJudge, folder=settings, rules=()):
        result = simulate.run(simulate.to_folder(drop), [tmp_path / "a.png"], rate=50, seconds=0.06)
    assert result.answers == {"OK": 3}


@pytest.mark.parametrize(("after", "answers"), [("move", 2), ("delete", 2), ("keep", 1)])
def test_a_file_that_comes_twice_gets_one_inspection(folder, tmp_path, after, answers, monkeypatch):
    """The second one has the name and time of the first; a folder that keeps its files takes no second one."""
    monkeypatch.setattr(simulate, "TAKEN_SECONDS", 0.3 if after == "keep" else 10.0)
    drop = tmp_path / "inbox"
    drop.mkdir()
    settings = FolderSettings(path=drop, stable_ms=1, poll_ms=20, after=after)
    with running(folder, judge=FakeJudge, folder=settings, rules=()) as line:
        found = simulate.to_folder(drop)(part(1).image, ".png", 2)
        assert [answer.verdict for answer in found] == ["OK"] * answers
        assert {answer.id for answer in found} == {row.id for row in line.store.inspections()}


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        ([], "", "this server has no stations: give the address of a line by --url"),
        ([], "press", "this server has no stations"),
        (["oven", "press"], "", r"several stations: give one by --station \(oven, press\)"),
        (["oven"], "press", r"no station press: give one by --station \(oven\)"),
    ],
)
def test_simulated_parts_need_a_station(names, asked, message):
    client = SimpleNamespace(stations=lambda: [{"name": name} for name in names])
    with pytest.raises(UsageError, match=message):
        chosen_station(client, asked)


def test_simulations_that_cannot_work(tmp_path):
    with pytest.raises(DataError, match="no images"):
        simulate.images([tmp_path])
    with pytest.raises(OutputError, match="no folder"):
        simulate.to_folder(tmp_path / "away")
