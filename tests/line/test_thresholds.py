"""Thresholds on a line: figures as `andon threshold` prints them, trials on stored parts, proposals, rollback."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete
from sqlalchemy import text as sql

from andon.line.judge import Judgement, Thresholds
from andon.line.line import Line
from andon.line.rules import InARow, SamePlace
from andon.line.store import PastScore, StoreError, rows
from andon.line.store.schema import review_item
from andon.line.studio.histogram import histogram
from andon.line.studio.whatif import what_if
from andon.line.verdicts import Opinion, Region, Verdict
from andon.thresholds.evidence import Evidence, Images
from line.asking import Client
from line.running import PICTURE, FakeJudge, answer, running, settings
from line.storing import part

ADDRESS = "/api/v1/stations/press/thresholds"
KNOWN = Evidence(
    good=Images((0.1, 0.2, 0.3, 1.05), ("a", "b", "c", "d"), ("mon", "mon", "tue", "tue")),
    bad=Images((0.9, 2.0), ("x", "y")),
    parts=(0.1, 0.2, 0.3, 1.05),
    promised=0.25,
)
EVA = {"who": "Eva", "why": "a band to look at"}


class KnowingJudge(FakeJudge):
    """A fake judge with scores of known images; parts score their number / 100."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.evidence, self.images = KNOWN, {"x": PICTURE}

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        found = super().judge(image, thresholds)
        if found.score is None:
            return found
        score = int(image.split(b"|")[2]) / 100
        return replace(found, verdict=thresholds.verdict(score), score=score, score_raw=score)


def review(connection, opinions: dict[int, Opinion]) -> None:
    """People have said this about parts of the one station."""
    for id, opinion in opinions.items():
        connection.execute(delete(review_item).where(review_item.c.id == id))
        values = {"wanted": 1, "given": 1, "opinion": opinion.value, "overridden": 0}
        rows.add(connection, "review_item", id=id, station_id=1, **values)


@pytest.fixture(scope="module")
def line(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A line that has judged 40 parts with scores from 0.8 to 1.19, the last an error."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("thresholds") / "store")
    with running(folder, judge=KnowingJudge, rules=(InARow(k=5),), queue=50) as started:
        for number in range(80, 119):
            answer(started.stations["press"], number)
        answer(started.stations["press"], 119, "ERROR")
        opinions = {11: Opinion.BAD, 31: Opinion.GOOD, 40: Opinion.BAD}  # the last has no score
        started.store.write(lambda connection: review(connection, opinions)).result()
        yield started


@pytest.fixture(scope="module")
def client(line: Line, client_of: Callable[..., Client]) -> Client:
    return client_of(line)


@pytest.fixture
def pair(folder: Path, client_of: Callable[..., Client]) -> Iterator[Client]:
    """Client of a line on which a second person approves."""
    line = Line(settings(folder).model_copy(update={"second_person": True}), open_judge=KnowingJudge)
    with line:
        yield client_of(line)


def scores(line: Line) -> list[tuple[float | None, float | None, Verdict]]:
    """All that is stored of the scores."""
    return [(row.score, row.score_raw, row.verdict) for row in line.store.inspections(limit=1000)]


def test_preview_judges_stored_parts_again_and_changes_nothing(line, client):
    before = scores(line)
    found = client.post(f"{ADDRESS}/preview", json={"accept": 0.9, "reject": 1.1}).json()
    assert (found["parts"], found["was"]) == (40, {"OK": 20, "NG": 19, "ERROR": 1})
    assert found["becomes"] == {"OK": 10, "REVIEW": 20, "NG": 9, "ERROR": 1}
    assert (found["stops_was"], found["stops_become"]) == (3, 1)
    assert (found["changed"], len(found["nearest"])) == (20, 20)
    assert found["nearest"][0] == {"id": 11, "score": 0.9, "was": "OK", "becomes": "REVIEW"}
    assert found["false_reject_rate"] == pytest.approx(1 / 5)
    assert (found["rules"][0]["stops"], found["rules"][0]["method"]) == (1, "exact")
    assert client.post(f"{ADDRESS}/preview", json={"accept": 1.2, "reject": 1.1}).status_code == 422
    few = client.post(f"{ADDRESS}/preview", json={"accept": 1, "reject": 1, "parts": 5}).json()
    assert (few["parts"], few["was"]) == (5, {"NG": 4, "ERROR": 1})
    assert client.post(ADDRESS, json={"accept": 0.5, "reject": 0.6, **EVA}).status_code == 201
    assert scores(line) == before


def test_scores_are_those_of_the_model_among_the_newest_parts(store):
    for number in range(6):
        store.record(part(number, model_sha256="ab"[number % 2] * 64, score=number / 10)).result()
    found = store.last_scores("press", "a" * 64, 4, regions_from=0.4)
    assert [(row.score, bool(row.regions)) for row in found] == [(0.2, False), (0.4, True)]
    assert store.last_scores("press", "c" * 64, 4, regions_from=0.0) == []
    assert store.last_scores("oven", "a" * 64, 4, regions_from=0.0) == []


def test_what_if_follows_places_of_the_parts_that_are_newly_rejected():
    here = (Region(10, 10, 5, 5, 1.2),)
    parts = [PastScore(k, k, Verdict.OK, 0.9, here) for k in range(4)]
    parts.append(PastScore(4, 4, Verdict.ERROR, None, ()))
    found = what_if(parts, [SamePlace(k=3, n=10)], 0.8, 0.8)
    assert (len(found.replay_was.stops), len(found.replay_becomes.stops)) == (0, 1)
    assert found.becomes == Counter({Verdict.NG: 4, Verdict.ERROR: 1})
    assert what_if([], [], 1.0, 1.0).parts == 0


def test_figures_at_the_thresholds_in_use_or_others(client):
    found = client.get(f"{ADDRESS}/figures", params={"accept": 1.0, "reject": 1.1}).json()
    assert (found["good"]["review"]["count"], found["good"]["stopped"]["count"]) == (1, 0)
    assert found["bad"]["passed"]["count"] == 1
    assert found["separation"]["state"] == "overlap"
    assert client.get(f"{ADDRESS}/figures", params={"accept": 2, "reject": 1}).status_code == 422


def test_page_says_all_before_any_script_runs(line, client):
    text = client.get(
        "/stations/press/thresholds", params={"accept": 0.95, "reject": 1.0, "percent": 10}
    ).text
    counts = dict(re.findall(r'data-count="([\w.]+)">([^<]*)<', text))
    assert counts["good.stopped"] == "1 of 4"
    assert counts["bad.passed"] == "1 of 2"
    assert (counts["line.passed"], counts["line.review"], counts["line.stopped"]) == (
        "15 of 39",
        "5 of 39",
        "19 of 39",
    )
    assert (counts["session.0.stopped"], counts["session.1.stopped"]) == ("0 of 2", "1 of 2")
    assert 'data-interval="good.stopped">0.6 to 80.6 %<' in text
    assert "No safe threshold exists: the highest good image scores 1.050, the lowest bad one 0.900." in text
    assert "The promise is broken." in text
    assert '<strong id="claim">473</strong>' in text
    assert f'<strong id="cost">{0.1 * 100 / 2 + 0.9 / 4:.4g}</strong>' in text
    assert "Bad, passes: x" in text and "Good, stopped: d" in text
    assert (counts["reviewed_good.stopped"], counts["reviewed_bad.passed"]) == ("1 of 1", "1 of 1")
    assert "Good, stopped: part 31" in text and "Bad, passes: part 11" in text
    assert 'src="/api/v1/inspections/11/thumbnail" alt' in text
    assert 'name=x" alt' in text and 'name=d" alt' not in text
    image = client.get(f"{ADDRESS}/image", params={"name": "x"})
    assert (image.headers["content-type"], image.content) == ("image/png", PICTURE)
    assert client.get(f"{ADDRESS}/image", params={"name": "d"}).status_code == 404
    assert client.get("/thresholds").headers["location"] == "/stations/press/thresholds"


def test_page_says_what_is_not_known(folder, client_of):
    with running(folder) as line:
        text = client_of(line).get("/stations/press/thresholds", params={"parts": 0}).text
    assert "No scores of good images" in text and "No scores of defective images" in text
    assert "promises no false-reject rate" in text and "None of the known images." in text


@given(st.lists(st.floats(-5, 40), max_size=30), st.floats(0.1, 1000))
def test_histogram_shows_every_score_and_the_thresholds(found, threshold):
    drawn = histogram([found, []], (threshold, threshold))
    assert sum(drawn.counts[0]) == len(found)
    assert sum(drawn.counts[1]) == 0
    assert drawn.low < min(threshold, 0) and drawn.high > max(threshold, 1)


def test_rollback_repeats_an_old_version_as_a_new_one(folder, client_of):
    with running(folder, judge=KnowingJudge) as line:
        client = client_of(line)
        first = client.post(ADDRESS, json={"accept": 0.9, "reject": 1.1, **EVA, "based_on": 0}).json()["now"]
        second = client.post(
            ADDRESS, json={"accept": 0.7, "reject": 0.8, **EVA, "based_on": first["version"]}
        )
        assert second.status_code == 201
        stale = client.post(ADDRESS, json={"accept": 0.7, "reject": 0.8, **EVA, "based_on": first["version"]})
        assert (stale.status_code, stale.json()["code"]) == (412, "stale")
        back = client.post(f"{ADDRESS}/rollback", json={"version": first["version"], "who": "Leo"}).json()
        assert (back["now"]["accept"], back["now"]["reject"], len(back["versions"])) == (0.9, 1.1, 3)
        assert back["versions"][0]["why"] == f"rolled back to version {first['version']}"
        packed = client.post(f"{ADDRESS}/rollback", json={"version": 0, "who": "Leo"}).json()
        assert (packed["now"]["accept"], packed["now"]["reject"]) == (1.0, 1.0)
        assert client.post(f"{ADDRESS}/rollback", json={"version": 99, "who": "Leo"}).status_code == 422
        assert answer(line.stations["press"], 95).threshold_version == packed["now"]["version"]


def test_four_eyes(pair):
    line = pair.app.state.line
    made = pair.post(ADDRESS, json={"accept": 0.9, "reject": 1.1, **EVA})
    assert (made.status_code, made.json()["now"]["accept"], made.json()["versions"]) == (202, 1.0, [])
    (waiting,) = made.json()["proposals"]
    place = f"{ADDRESS}/proposals/{waiting['proposal']}"
    for same in ("Eva", " eva ", "EVA"):
        refused = pair.post(f"{place}/approve", json={"who": same})
        assert (refused.status_code, refused.json()["code"]) == (409, "not_allowed")
    assert line.stations["press"].thresholds.accept == 1.0
    other = pair.post(ADDRESS, json={"accept": 0.8, "reject": 1.1, **EVA}).json()["proposals"][0]
    done = pair.post(f"{place}/approve", json={"who": "Leo"}).json()
    assert (done["now"]["accept"], done["versions"][0]["who"], len(done["proposals"])) == (0.9, "Eva", 1)
    assert pair.post(f"{place}/approve", json={"who": "Leo"}).status_code == 409
    late = pair.post(f"{ADDRESS}/proposals/{other['proposal']}/approve", json={"who": "Leo"})
    assert (late.status_code, late.json()["code"]) == (412, "stale")
    gone = pair.post(
        f"{ADDRESS}/proposals/{other['proposal']}/decline", json={"who": "Eva", "note": "too low"}
    )
    assert gone.json()["proposals"] == []
    assert pair.post(f"{ADDRESS}/rollback", json={"version": 0, "who": "Leo"}).status_code == 202
    assert pair.post(ADDRESS, json={"accept": 2.0, "reject": 1.1, **EVA}).status_code == 422
    audited = line.store.ask(lambda connection: rows.find(connection, "audit"))
    assert [row["action"] for row in audited if row["action"].startswith("threshold")][::-1] == [
        *("threshold proposed", "threshold proposed", "threshold", "threshold approved"),
        *("threshold declined", "threshold proposed"),
    ]
    for statement in ("UPDATE threshold_decision SET who = 'x'", "DELETE FROM threshold_proposal"):
        with pytest.raises(StoreError, match="never changed or deleted"):
            line.store.write(lambda connection, said=statement: connection.execute(sql(said))).result()


@pytest.mark.xdist_group("network")
def test_the_figures_are_those_of_andon_threshold(tiny_run, packed, tmp_path, folder, client_of, cli):
    """One run, with an evaluation: the command line and a line with its packed file print the same digits."""
    from andon.exporting import packed as packing
    from andon.line.judge import Judge

    run = shutil.copytree(tiny_run, tmp_path / "run")
    calibration = json.loads((run / "detector/detector.json").read_text())["calibration"]
    tests = [
        ["good/1.png", False, 0.9],
        ["good/2.png", False, 1.1],
        ["bad/1.png", True, 0.97],
        ["bad/2.png", True, 5],
    ]
    tests = [[name, bad, times * calibration["image"]["value"]] for name, bad, times in tests]
    lines = [f"{name},{int(bad)},{score}" for name, bad, score in tests]
    (run / "predictions.csv").write_text("\n".join(["id,label,raw_score", *lines, ""]))
    printed = json.loads(cli("threshold", run, "--json").out)
    members = packing.read_pack(packed).members | {"tests.json": json.dumps(tests).encode()}
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["tests.json"] = {"sha256": packing.hashlib.sha256(members["tests.json"]).hexdigest()}
    members["manifest.json"] = json.dumps(manifest).encode()
    (tmp_path / "part.andon").write_bytes(packing._sealed(members))
    with running(folder, judge=lambda pack, threads: Judge(tmp_path / "part.andon", threads=1)) as line:
        found = client_of(line).get(f"{ADDRESS}/figures").json()
    assert found == printed["figures"]
    assert found["good"]["stopped"]["n"] == len(calibration["scores"])
    measured = printed["measured"]
    tested = found["good_tests"]["stopped"]
    assert measured["image_fpr"]["value"] == tested["rate"]
    assert measured["image_fpr"]["interval"] == [tested["low"], tested["high"]]
    assert measured["image_recall"]["value"] == found["bad"]["stopped"]["rate"]
