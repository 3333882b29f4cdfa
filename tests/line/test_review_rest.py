"""Reviews by REST and pages: blind, If-Match, history and export, data sets that andon reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from andon.datasets import check_dataset, open_dataset
from andon.line.line import Line
from andon.line.review.settings import ReviewSettings
from andon.line.rules import InARow
from andon.line.store import ImageState
from line.asking import Client
from line.running import answer, running, until

API = "/api/v1"
REVIEW = ReviewSettings(sample=0.999999, second_opinion=0.0, defect_types=("crack", "dent"))


@pytest.fixture
def line(folder: Path) -> Iterator[Line]:
    """A line that asks people about parts 1 (OK, drawn), 3 (REVIEW) and 4 (ERROR); part 2 is NG."""
    with running(folder, rules=(InARow(k=9),), review=REVIEW) as started:
        for number, word in enumerate(("OK", "NG", "REVIEW", "ERROR"), start=1):
            answer(started.stations["press"], number, word)
        until(lambda: all(r.image_state is ImageState.STORED for r in started.store.inspections()))
        yield started


@pytest.fixture
def client(line: Line, client_of: Callable[..., Client]) -> Client:
    return client_of(line)


def put(client: Client, id: int, opinion: str, version: int = 0, **values: object):
    body = {"who": "Ada", "opinion": opinion, **values}
    return client.request(
        "PUT", f"{API}/inspections/{id}/review", json=body, headers={"If-Match": f'"{version}"'}
    )


def test_blind_parts_say_nothing_before_the_answer(client, line):
    found = client.post(f"{API}/reviews/next", json={"who": "Ada", "n": 9}).json()
    assert [item["id"] for item in found["items"]] == [1, 3, 4]
    assert found["waiting"] == 3
    for item in found["items"]:
        assert (item["verdict"], item["score"], item["why"]) == (None, None, None)
        assert set(item["links"]) == {"image", "preview", "thumbnail"}
    said = put(client, 3, "BAD", defect_type="crack")
    assert (said.status_code, said.json()["verdict"], said.headers["etag"]) == (200, "REVIEW", '"1"')
    assert said.json()["reviews"][0]["blind"]
    line.reviews.settings["press"] = REVIEW.model_copy(update={"blind": False})
    item = client.post(f"{API}/reviews/next", json={"who": "Ada"}).json()["items"][0]
    assert (item["verdict"], item["score"], item["why"]) == ("OK", 0.5, "sample")


def test_versions_and_holders(client):
    address = f"{API}/inspections/1/review"
    assert client.get(address).json()["reviews"] == []
    body = {"who": "Ada", "opinion": "GOOD"}
    assert client.request("PUT", address, json=body).status_code == 428
    assert put(client, 1, "GOOD", 5).status_code == 412
    client.post(f"{API}/reviews/next", json={"who": "Bob"})
    assert put(client, 1, "GOOD").json()["code"] == "held"
    assert put(client, 1, "GOOD", who="Bob").status_code == 200
    undo = client.post(f"{address}/undo", json={"who": "Bob"}, headers={"If-Match": '"1"'})
    assert [each["opinion"] for each in undo.json()["reviews"]] == ["WITHDRAWN", "GOOD"]
    assert put(client, 1, "BAD", 2, who="Bob", defect_type="scratch").status_code == 422
    assert put(client, 1, "BAD", 2, who="Bob", defect_type="../x").status_code == 422
    assert put(client, 999, "BAD").status_code == 404


def test_rework_in_history_export_and_pages(client):
    assert put(client, 2, "GOOD", reason="dust on the part").json()["overridden"]
    text = client.get("/history?reviewed=overridden").text
    assert "Ada: good, overridden" in text
    assert text.count("<tr data-id=") == 1
    page = client.get("/inspections/2").text
    assert "dust on the part" in page
    assert "<td>yes</td>" in page
    (row,) = csv.DictReader(io.StringIO(client.get(f"{API}/export.csv?reviewed=reviewed").text))
    assert (row["verdict"], row["opinion"], row["reviewer"], row["overridden"]) == (
        "NG",
        "GOOD",
        "Ada",
        "True",
    )
    listed = client.get(f"{API}/inspections?reviewed=overridden").json()["inspections"]
    assert [each["id"] for each in listed] == [2]
    found = client.get(f"{API}/reviews/figures?station=press").json()
    assert found["overrides"]["count"] == 1
    assert found["escapes"]["strata"][0]["drawn"] == 1
    assert found["reviewers"] == [{"who": "Ada", "n": 1, "counts": {"NG": {"GOOD": 1}}}]
    shown = client.get("/review/figures").text
    assert "about 1 of 1 parts" in shown
    assert "Take a snapshot" in shown
    assert 'id="answers"' in client.get("/review").text


def test_snapshot_is_read_as_a_data_set_and_stays(client, line):
    refused = client.post(f"{API}/snapshots", json={"who": "Eve"})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_data")
    for number in range(10, 22):
        answer(line.stations["press"], number, "OK", image=png(number))
    until(lambda: all(r.image_state is ImageState.STORED for r in line.store.inspections()))
    for row in line.store.inspections(limit=12):
        assert put(
            client, row.id, "BAD" if row.id > 13 else "GOOD", defect_type="crack" if row.id > 14 else None
        ).is_success
    put(client, 1, "UNSURE")
    made = client.post(f"{API}/snapshots", json={"who": "Eve"}).json()
    assert (made["good"], made["bad"], made["left_out"]) == (9, 3, {"unsure": 1})
    folder = Path(made["folder"])
    assert sorted(each.parent.name for each in folder.glob("defect/*/*.png")) == ["crack", "crack", "untyped"]
    assert client.post(f"{API}/snapshots", json={"who": "Zoe"}).json() == made
    assert [each["id"] for each in client.get(f"{API}/snapshots").json()] == [made["id"]]
    manifest = json.loads((folder / "snapshot.json").read_text())
    assert manifest["parts"][0]["reviews"][0]["who"] == "Ada"
    dataset = open_dataset(folder)
    assert check_dataset(dataset).errors == ()
    assert {record.defect_type for record in dataset.test} >= {"crack", "untyped"}
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 12
    assert not any(file.stat().st_mode & 0o222 for file in folder.rglob("*.*"))


def png(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (48, 48), (number * 5, 80, 70)).save(stream, "PNG")
    return stream.getvalue()
