"""Candidates: kept and verified, compared on the same parts, run beside the model in use, used with a reason, taken back."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from scipy import stats

from andon.core.errors import DataError, UsageError
from andon.exporting.packed import read_pack
from andon.line.andon_states import NotAllowed
from andon.line.candidates import promotion, work
from andon.line.candidates.comparing import NO_IMAGE, drawn
from andon.line.candidates.figures import figures
from andon.line.candidates.standing import Action, standing
from andon.line.golden.items import Item, Kind
from andon.line.line import Line
from andon.line.review.reviews import Answer
from andon.line.review.settings import ReviewSettings
from andon.line.station import Part
from andon.line.store import ImageState, StoreError, rows
from andon.line.store.candidates import Pair, Scored, Step
from andon.line.verdicts import Opinion, Verdict
from andon.line.versions import Stale
from line.running import PATIENCE, PICTURE, FakeJudge, answer, part, running, until
from line.serving import served

V, O = Verdict, Opinion  # noqa: E741
WHY = "trained with the parts of May"


class Other(FakeJudge):
    """Packs named `strict...` call REVIEW NG, `blind...` let NG pass, `slow...` wait for `GO`; `broken` fails its self-check."""

    GO = threading.Event()

    def self_check(self) -> None:
        if self.name == "broken":
            raise DataError("it does not answer here as where it was made")

    def judge(self, image: bytes, thresholds: Any) -> Any:
        if self.name.startswith("slow") and b"|" in image:
            assert self.GO.wait(PATIENCE)
        if self.name.startswith("strict"):
            image = image.replace(b"|REVIEW|", b"|NG|")
        if self.name.startswith("blind"):
            image = image.replace(b"|NG|", b"|OK|")
        return super().judge(image, thresholds)


def line_of(folder: Path, **changes: Any) -> Any:
    review = ReviewSettings(sample=0.999999, second_opinion=0.0, ng=True)
    return running(folder, judge=Other, **{"rules": (), "queue": 50, "review": review, **changes})


def add(line: Line, name: str = "strict", **changes: Any) -> Any:
    with line.candidates.incoming(name) as path:
        path.write_bytes(b"a packed file")
        return line.candidates.add("press", path, **{"who": "eva", "why": WHY, **changes})


def feed(line: Line, words: str, first: int = 1) -> list[Any]:
    names = {"o": "OK", "n": "NG", "r": "REVIEW", "e": "ERROR"}
    made = [answer(line.stations["press"], first + k, names[word]) for k, word in enumerate(words)]
    until(lambda: all(row.image_state is ImageState.STORED for row in line.store.inspections()))
    return made


def compared(line: Line, id: int, **changes: Any) -> Any:
    line.candidates.compare("press", id, **{"who": "eva", **changes})
    until(lambda: line.candidates.one("press", id).standing.outcome)
    return line.candidates.one("press", id)


def verdicts(line: Line, step: Step) -> list[tuple[str, str]]:
    return [(pair.base.verdict.name, pair.candidate.verdict.name) for pair in line.candidates.pairs(step)]


# Values -----------------------------------------------------------------------------------------------------------------

score = st.one_of(st.none(), st.integers(0, 30).map(lambda k: k / 10))
scored = st.builds(
    lambda s, ms: Scored(V.ERROR if s is None else V.OK if s < 1 else V.REVIEW if s < 2 else V.NG, s, ms),
    score,
    st.floats(0.1, 9),
)
found = st.builds(
    Pair,
    st.integers(1, 10**6),
    scored,
    scored,
    st.sampled_from(["", "", NO_IMAGE]),
    st.sampled_from([None, O.GOOD, O.BAD]),
)


@given_settings(max_examples=60, deadline=None)
@given(st.lists(found, max_size=30, unique_by=lambda pair: pair.inspection_id))
def test_figures_equal_plain_counting(pairs):
    got, kept = figures(pairs), [p for p in pairs if not p.cause]
    assert (got.parts, got.left_out.total()) == (len(kept), len(pairs) - len(kept))
    assert sum(got.table.values()) == got.parts
    assert got.agreement.count + len(got.flips) == got.parts
    for share, of, verdict in (
        (got.escapes.base, O.BAD, V.OK),
        (got.false_rejects.base, O.GOOD, V.NG),
    ):
        count = sum(p.opinion is of and p.base.verdict is verdict for p in kept)
        n = sum(p.opinion is of for p in kept)
        assert (share.count, share.n) == (count, n)
        if n:
            exact = stats.binomtest(count, n).proportion_ci(method="exact")
            assert share.interval == pytest.approx((exact.low, exact.high), abs=1e-9)
    both = [p for p in kept if p.base.score is not None and p.candidate.score is not None]
    good, bad = ([p for p in both if p.opinion is o] for o in (O.GOOD, O.BAD))
    assert (got.auroc is None) == (not good or not bad)
    if got.auroc is not None:
        for name in ("base", "candidate"):
            higher = [
                (getattr(b, name).score > getattr(g, name).score)
                + (getattr(b, name).score == getattr(g, name).score) / 2
                for b in bad
                for g in good
            ]
            assert getattr(got.auroc, name) == pytest.approx(np.mean(higher))
        assert got.auroc.difference == pytest.approx(got.auroc.candidate - got.auroc.base)
        assert (got.auroc.interval is None) == (min(len(good), len(bad)) < 2)


def test_the_sample_is_the_same_again():
    ids = list(range(1000, 0, -1))
    assert drawn(ids, 50, 3) == drawn(ids, 50, 3) != drawn(ids, 50, 4)
    assert len(set(drawn(ids, 50, 3))) == 50
    assert drawn(ids, 2000, 3) == ids


def test_standing_reads_the_newest_steps():
    def at(*actions: str) -> Any:
        steps = [Step(k, 1, action, {}, "", "eva", k) for k, action in enumerate(actions, start=1)]
        return standing(steps[::-1])

    assert at(Action.COMPARE).is_comparing
    assert not at(Action.COMPARE, Action.FAILED).is_comparing
    assert at(Action.COMPARE, Action.COMPARED, Action.COMPARE).outcome is None
    assert at(Action.SHADOW_ON).is_shadow
    assert not at(Action.SHADOW_ON, Action.SHADOW_OFF).is_shadow
    assert at(Action.PROPOSED).proposal
    assert at(Action.PROPOSED, Action.DECLINED).proposal is None
    assert at(Action.PROMOTED, Action.RETURNED).promoted is None
    assert at(Action.PROMOTED, Action.RETURNED, Action.PROMOTED).promoted.id == 3


# Files ------------------------------------------------------------------------------------------------------------------


def test_a_candidate_is_verified_and_kept_once(folder):
    with line_of(folder) as line:
        made = add(line)
        assert line.candidates.pack(made).read_bytes() == b"a packed file"
        assert add(line) == made
        for name, error, says in (
            ("broken", DataError, "broken.andon is not taken: it does not answer"),
            ("press", UsageError, "judges at station press already"),
            ("../x", UsageError, "no name of a candidate"),
        ):
            with pytest.raises(error, match=says):
                add(line, name)
        with pytest.raises(UsageError, match="copy it there"):
            line.candidates.delivered("../andon.sqlite")
        with pytest.raises(UsageError, match="no candidate 99"):
            line.candidates.one("press", 99)
        assert [path.name for path in (folder / "candidates").iterdir()] == [made.sha256[:16]]
        assert [view.candidate for view in line.candidates.all("press")] == [made]
        with pytest.raises(StoreError, match="never changed"):
            line.store.write(lambda c: rows.change(c, "candidate", made.id, why="x")).result()


def test_a_file_that_is_not_taken_is_named_as_it_was_given(folder, client_of):
    class Reading(Other):
        def __init__(self, pack: Path, **values: Any) -> None:
            super().__init__(pack, **values)
            if pack.parent.name.startswith("incoming"):
                read_pack(pack)

    with running(folder, judge=Reading, rules=()) as line:
        refused = client_of(line).post(
            "/api/v1/stations/press/candidates",
            params={"name": "serve.log", "who": "eva", "why": WHY},
            content=b"INFO: started",
        )
        said = refused.json()["detail"]
        assert said.startswith("serve.log is not taken: serve.log is no packed detector")


# Comparison -------------------------------------------------------------------------------------------------------------


def test_both_models_judge_the_same_parts(folder):
    with line_of(folder) as line:
        made = add(line)
        with pytest.raises(NotAllowed, match="no parts with images"):
            line.candidates.compare("press", made.id, who="eva")
        good, bad, band, _ = feed(line, "onre")
        for row, said in ((good, O.GOOD), (bad, O.BAD), (band, O.BAD)):
            line.reviews.judge(row, Answer("ada", said), based_on=0)
        view = compared(line, made.id)
        assert (view.done, view.total, view.standing.outcome.detail["passed"]) == (4, 4, None)
        assert verdicts(line, view.standing.comparison) == [
            ("OK", "OK"),
            ("NG", "NG"),
            ("REVIEW", "NG"),
            ("ERROR", "ERROR"),
        ]
        got = figures(line.candidates.pairs(view.standing.comparison))
        assert [pair.inspection_id for pair in got.flips] == [band.id]
        assert (got.auroc.good, got.auroc.bad, got.escapes.base.n, got.agreement.count) == (1, 2, 2, 3)
        (folder / bad.image_key).unlink()
        (folder / band.image_key).write_bytes(PICTURE)
        again = compared(line, made.id, sample=0)
        assert again.total == 3  # the reviewed ones alone
        left = figures(line.candidates.pairs(again.standing.comparison)).left_out
        assert dict(left) == {"no_image": 1, "other_image": 1}
        assert [row.verdict for row in line.store.inspections()] == [V.ERROR, V.REVIEW, V.NG, V.OK]


def test_a_comparison_goes_on_after_a_restart(folder, monkeypatch):
    monkeypatch.setattr(work, "BATCH", 1)
    Other.GO.clear()
    with line_of(folder) as line:
        made = add(line, "slow")
        feed(line, "onr")
        line.candidates.compare("press", made.id, who="eva")
        with pytest.raises(NotAllowed, match="being compared"):
            line.candidates.compare("press", made.id, who="eva")
        stop = threading.Timer(0.05, Other.GO.set)
        line.candidates._ending.set()  # the process ends at the first part
        stop.start()
    with line_of(folder) as line:
        until(lambda: line.candidates.one("press", made.id).standing.outcome)
        view = line.candidates.one("press", made.id)
        assert (view.done, view.total, view.standing.outcome.action) == (3, 3, Action.COMPARED)


def test_a_comparison_with_a_model_that_is_gone_fails(folder):
    Other.GO.clear()
    with line_of(folder) as line:
        first, second = add(line, "slow"), add(line)
        feed(line, "on")
        line.candidates.compare("press", first.id, who="eva")
        line.candidates.compare("press", second.id, who="eva")
        line.set_model("press", Path("new.andon"), who="eva", why=WHY)
        Other.GO.set()
        until(lambda: line.candidates.one("press", second.id).standing.outcome)
        outcome = line.candidates.one("press", second.id).standing.outcome
        assert outcome.action == Action.FAILED
        assert "compare again" in outcome.detail["why"]


# Shadow mode ------------------------------------------------------------------------------------------------------------


def test_shadow_verdicts_are_stored_and_reach_nobody(folder):
    with line_of(folder) as line:
        made = add(line)
        line.candidates.shadow_on("press", made.id, who="eva")
        with pytest.raises(NotAllowed, match="already"):
            line.candidates.shadow_on("press", made.id, who="eva")
        feed(line, "orne")
        until(lambda: line.candidates.one("press", made.id).shadowed == 4)
        step = line.candidates.one("press", made.id).standing.shadow
        assert verdicts(line, step) == [("OK", "OK"), ("REVIEW", "NG"), ("NG", "NG"), ("ERROR", "ERROR")]
        assert {row.model_sha256 for row in line.store.inspections()} == {line.stations["press"].model.sha256}
    with line_of(folder) as line:  # goes on
        feed(line, "r", first=10)
        until(lambda: line.candidates.one("press", made.id).shadowed == 5)
        other = add(line, "blind")
        line.candidates.shadow_on("press", other.id, who="eva")
        assert not line.candidates.one("press", made.id).standing.is_shadow
        line.set_model("press", Path("new.andon"), who="eva", why=WHY)
        feed(line, "o", first=20)
        until(lambda: not line.candidates.one("press", other.id).standing.is_shadow)
        with pytest.raises(NotAllowed, match="no candidate"):
            line.candidates.shadow_off("press", who="eva")


def test_a_slow_candidate_holds_up_nobody(folder, monkeypatch):
    monkeypatch.setattr(work, "WAITING", 2)
    Other.GO.clear()
    with line_of(folder) as line:
        made = add(line, "slow")
        line.candidates.shadow_on("press", made.id, who="eva")
        feed(line, "oooooo")  # all have their answers
        until(lambda: line.candidates.one("press", made.id).dropped >= 3)
        dropped = line.candidates.one("press", made.id).dropped
        Other.GO.set()
        until(lambda: line.candidates.one("press", made.id).shadowed == 6 - dropped)
        line.candidates.shadow_off("press", who="eva", why="seen enough")
        entry = line.store.ask(lambda c: rows.find(c, "audit", action="candidate shadow off"))[0]
        assert (entry["who"], f'"dropped":{dropped}' in entry["new_json"]) == ("eva", True)


# Use --------------------------------------------------------------------------------------------------------------------


def test_use_needs_a_comparison_and_is_taken_back_by_one_click(folder):
    with line_of(folder) as line:
        press, made = line.stations["press"], add(line)
        first = press.model
        feed(line, "or")
        with pytest.raises(NotAllowed, match="compare it first"):
            promotion.promote(line, "press", made.id, who="eva", why=WHY)
        compared(line, made.id)
        with pytest.raises(UsageError, match="reason of 10"):
            promotion.promote(line, "press", made.id, who="eva", why="short")
        with pytest.raises(Stale):
            promotion.promote(line, "press", made.id, who="eva", why=WHY, based_on="0" * 64)
        with pytest.raises(NotAllowed, match="no candidate is in use"):
            promotion.take_back(line, "press", who="eva", why="")
        assert promotion.promote(line, "press", made.id, who="eva", why=WHY, based_on=first.sha256)
        assert answer(press, 10, "REVIEW").verdict is V.NG
        with pytest.raises(NotAllowed, match="judges at station press already"):
            promotion.promote(line, "press", made.id, who="eva", why=WHY)
    with line_of(folder) as line:  # outlives a restart
        press = line.stations["press"]
        assert press.model.name == "strict"
        promotion.take_back(line, "press", who="ada", why="")
        assert (press.model.name, answer(press, 11, "REVIEW").verdict) == ("press", V.REVIEW)
        assert promotion.before(line, "press") is None
        audited = line.store.ask(lambda c: rows.find(c, "audit", action="model"))
        assert [(row["who"], row["reason"]) for row in audited][:2] == [
            ("ada", f"candidate {made.id} is taken back"),
            ("eva", WHY),
        ]


def test_golden_parts_hold_back_a_blind_candidate(folder):
    with line_of(folder) as line:
        made = add(line, "blind")
        feed(line, "on")
        key, sha256 = line.golden.keep_image(part(1, "NG").image, ".png")
        crack = Item(name="crack", kind=Kind.BAD, image_key=key, image_sha256=sha256, expected=V.NG)
        line.golden.change("press", add=[crack], who="eva", why="known crack")
        until(lambda: line.golden.view("press").state == "clear")
        view = compared(line, made.id)
        assert (view.standing.outcome.detail["passed"], view.standing.outcome.action) == (
            False,
            Action.COMPARED,
        )
        with pytest.raises(NotAllowed, match="crack"):
            promotion.promote(line, "press", made.id, who="eva", why=WHY)
        assert line.stations["press"].model.name == "press"


def test_a_second_person_decides(folder):
    with line_of(folder, line={"second_person": True}) as line:
        made = add(line)
        feed(line, "o")
        compared(line, made.id)
        assert not promotion.promote(line, "press", made.id, who="Eva", why=WHY)
        with pytest.raises(NotAllowed, match="another person"):
            promotion.approve(line, "press", made.id, who=" eva ")
        promotion.decline(line, "press", made.id, who="ada", note="after the shift")
        with pytest.raises(NotAllowed, match="waits for nobody"):
            promotion.approve(line, "press", made.id, who="ada")
        assert line.stations["press"].model.name == "press"
        promotion.promote(line, "press", made.id, who="Eva", why=WHY)
        promotion.approve(line, "press", made.id, who="ada")
        assert line.stations["press"].model.name == "strict"
        approved = line.store.ask(lambda c: rows.find(c, "audit", action="candidate approved"))
        assert approved[0]["who"] == "ada"


def test_a_recipe_keeps_its_model(folder):
    with line_of(folder, recipes={"nut": Path("nut.andon")}) as line:
        made = add(line)
        feed(line, "o")
        line.set_recipe("press", "nut", who="plc")
        until(lambda: line.stations["press"].is_verified and line.stations["press"].recipe == "nut")
        feed(line, "r", first=10)
        view = compared(line, made.id)
        assert view.total == 1  # parts of the recipe alone
        with pytest.raises(NotAllowed, match="uses recipe nut"):
            promotion.promote(line, "press", made.id, who="eva", why=WHY)


# REST and page ----------------------------------------------------------------------------------------------------------


def test_by_rest_and_on_the_page(folder, client_of):
    place = "/api/v1/stations/press/candidates"
    with line_of(folder) as line:
        client = client_of(line)
        feed(line, "onr")
        query = {"name": "strict.andon", "who": "eva", "why": WHY}
        made = client.post(place, params=query, content=b"a packed file")
        assert (made.status_code, made.json()["name"], made.json()["comparison"]) == (201, "strict", None)
        one = f"{place}/{made.json()['id']}"
        (folder / "candidates" / "blind.andon").write_bytes(b"laid there")
        assert (
            client.post(place, params=query | {"name": "blind.andon"}).json()["id"] == made.json()["id"] + 1
        )
        for name, status in (("broken.andon", 422), ("nowhere.andon", 422), ("..", 422)):
            content = b"x" if name == "broken.andon" else b""
            assert client.post(place, params=query | {"name": name}, content=content).status_code == status
        assert {path.name for path in (folder / "candidates").glob("incoming*")} == set()
        assert client.get(f"{place}/99").status_code == 404
        assert client.post(f"{one}/promote", json={"who": "eva", "why": WHY}).status_code == 409
        assert client.post(f"{one}/compare", json={"who": "eva", "sample": 50}).status_code == 202
        until(lambda: not client.get(one).json()["comparison"]["is_running"])
        assert client.post(f"{one}/shadow", json={"who": "eva", "on": True}).json()["shadow"]["is_running"]
        until(lambda: client.get(one).json()["shadow"]["total"] is None)
        feed(line, "r", first=10)
        until(lambda: client.get(one).json()["shadow"]["done"] == 1)
        found = client.get(one).json()
        assert found["comparison"]["figures"]["table"] == [
            {"base": "OK", "candidate": "OK", "n": 1},
            {"base": "NG", "candidate": "NG", "n": 1},
            {"base": "REVIEW", "candidate": "NG", "n": 1},
        ]
        assert [flip["inspection"] for flip in found["shadow"]["figures"]["flips"]] == [4]
        page = client.get(f"/stations/press/candidate?id={made.json()['id']}").text
        for text in (
            "Part 3: REVIEW → NG",
            "2 of 3",
            "Part 4: REVIEW → NG",
            "End shadow mode",
            "Use from the next part on",
        ):
            assert text in page
        off = client.post(f"{one}/shadow", json={"who": "eva", "on": False}).json()
        assert not off["shadow"]["is_running"]
        body = {"who": "eva", "why": WHY, "based_on": "0" * 64}
        assert client.post(f"{one}/promote", json=body).status_code == 412
        body["based_on"] = line.stations["press"].model.sha256
        assert client.post(f"{one}/promote", json=body).json()["is_used"]
        assert "Return to press" in client.get("/stations/press/candidate").text
        assert client.get("/candidate").headers["location"] == "/stations/press/candidate"
        back = client.post(f"{place}/return", json={"who": "eva"})
        assert (back.status_code, [each["is_used"] for each in back.json()]) == (201, [False, False])


# Commands ---------------------------------------------------------------------------------------------------------------


@pytest.mark.service
def test_commands_add_compare_use_and_return(folder, tmp_path, cli):
    pack = tmp_path / "strict.andon"
    pack.write_bytes(b"a packed file")
    with line_of(folder) as line, served(line) as port:
        feed(line, "onr")

        def said(*arguments: str) -> str:
            done = cli("candidate", *arguments, "--url", f"http://127.0.0.1:{port}")
            assert done.code == 0, done
            return done.out + done.err

        assert "candidate 1 is strict" in said("add", "press", str(pack), "--why", WHY)
        assert "REVIEW -> NG: 1" in said("compare", "press", "1")
        assert "shadow mode is on" in said("shadow", "press", "1")
        assert "shadow mode is off" in said("shadow", "press", "1", "--off")
        assert "candidate 1 judges" in said("promote", "press", "1", "--why", WHY)
        assert "1: strict, in use" in said("list", "press")
        assert "is judged by press again" in said("return", "press")
        bad = next(row for row in line.store.inspections() if row.verdict is V.NG)
        line.reviews.judge(bad, Answer("ada", O.BAD), based_on=0)
        blind = tmp_path / "blind.andon"
        blind.write_bytes(b"another packed file")
        said("add", "press", str(blind), "--why", WHY)
        said("compare", "press", "2")
        noted = said("promote", "press", "2", "--why", WHY)
        assert "of 1 part that people called bad it lets 1 pass, the model before 0" in noted
        assert "candidate return press` takes it back" in noted
        refused = cli("candidate", "promote", "press", "9", "--why", WHY, "--url", f"http://127.0.0.1:{port}")
        assert "no candidate 9" in refused.complaint()


@pytest.mark.service
def test_promote_that_waits_for_a_second_person_has_nothing_to_take_back(folder, cli):
    with line_of(folder, line={"second_person": True}) as line, served(line) as port:
        feed(line, "n")
        bad = next(row for row in line.store.inspections() if row.verdict is V.NG)
        line.reviews.judge(bad, Answer("ada", O.BAD), based_on=0)
        compared(line, add(line, "blind").id)
        done = cli("candidate", "promote", "press", "1", "--why", WHY, "--url", f"http://127.0.0.1:{port}")
        said = done.out + done.err
        assert done.code == 0
        assert "candidate 1 waits for a second person" in said
        assert "it lets 1 pass, the model before 0; the second person should weigh it" in said


@pytest.mark.service
@pytest.mark.xdist_group("network")
def test_two_packed_models_on_real_images(folder, packed, dataset_folder, tmp_path):
    """Both files are verified and judge as on a line; they differ in their hash alone, so that all scores agree."""
    if find_spec("torch") is None:
        pytest.skip("packing needs PyTorch")
    from andon.exporting import packed as packing
    from andon.line.judge import Judge

    members = packing.read_pack(packed).members | {"tests.json": b"[]"}
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["tests.json"] = {"sha256": hashlib.sha256(b"[]").hexdigest()}
    members["manifest.json"] = json.dumps(manifest).encode()
    (tmp_path / "second.andon").write_bytes(packing._sealed(members))
    images = sorted(dataset_folder.glob("test/*/*.png"))[2:]
    with running(folder, rules=(), queue=50, model=packed, judge=Judge) as line:
        press = line.stations["press"]
        for number, image in enumerate(images):
            row = press.submit(Part(image.read_bytes(), request_id=f"{number}")).result(PATIENCE).recorded.row
            said = O.GOOD if "good" in image.parts else O.BAD
            line.reviews.judge(row, Answer("ada", said), based_on=0)
        until(lambda: all(row.image_state is ImageState.STORED for row in line.store.inspections()))
        before = {row.id: row.score for row in line.store.inspections()}
        with line.candidates.incoming("second") as path:
            shutil.copyfile(tmp_path / "second.andon", path)
            made = line.candidates.add("press", path, who="eva", why=WHY)
        view = compared(line, made.id)
        pairs = line.candidates.pairs(view.standing.comparison)
        assert {pair.inspection_id: pair.base.score for pair in pairs} == pytest.approx(before)
        assert {pair.inspection_id: pair.candidate.score for pair in pairs} == pytest.approx(before)
        judge = Judge(tmp_path / "second.andon", threads=1)
        for pair, image in zip(pairs, images, strict=True):
            alone = judge.judge(image.read_bytes(), judge.thresholds)
            assert (pair.candidate.verdict, pair.candidate.score) == (
                alone.verdict,
                pytest.approx(alone.score),
            )
        line.candidates.shadow_on("press", made.id, who="eva")
        press.submit(Part(images[0].read_bytes(), request_id="again")).result(PATIENCE)
        until(lambda: line.candidates.one("press", made.id).shadowed == 1)
        shadowed = line.candidates.pairs(line.candidates.one("press", made.id).standing.shadow)[0]
        assert shadowed.candidate.score == pytest.approx(pairs[0].candidate.score)
        promotion.promote(line, "press", made.id, who="eva", why=WHY)
        assert press.model.sha256 == judge.sha256
    with running(folder, rules=(), model=packed, judge=Judge) as line:
        assert line.stations["press"].model.sha256 == judge.sha256
        promotion.take_back(line, "press", who="eva", why="")
        assert line.stations["press"].model.name == "cloth"
