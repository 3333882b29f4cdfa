"""Golden parts: what agrees, what is due, what holds a station back, and that nothing skips it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from andon.cli.golden import PATIENT
from andon.client import Client, ClientError
from andon.core.errors import DataError, UsageError
from andon.line.andon_states import NotAllowed
from andon.line.clock import MINUTE
from andon.line.golden.folder import add_to, parts_of
from andon.line.golden.gate import Clearance, Gate, Reason
from andon.line.golden.items import EXPECTED, Item, Kind, Mode, Seen, of_image, of_part, together
from andon.line.golden.keeping import DUE, HELD
from andon.line.golden.settings import GoldenSettings
from andon.line.judge import Judgement
from andon.line.line import Line
from andon.line.store import backup, retention, rows
from andon.line.store.audit import verify
from andon.line.verdicts import Cause, Verdict
from andon.line.views import Shown
from line.running import PICTURE, FakeJudge, answer, part, running, settings, until
from line.serving import served
from line.test_alarms import Clock

V = Verdict
QUIET = GoldenSettings(at_shift=False, automatic=False)
WHY = "the sample shelf is locked"


def item(name: str = "crack", kind: Kind = Kind.BAD, **values: Any) -> Item:
    return Item(
        **{"name": name, "kind": kind, "image_key": "k", "image_sha256": "s", "expected": V.NG, **values}
    )


# Values -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("golden", "seen", "wrong"),
    [
        (item(score=1.5), Seen(V.NG, 1.5009), ""),
        (item(score=1.5), Seen(V.NG, 1.5011), "score 1.5 is recorded, came out 1.5011"),
        (item(score=1.5), Seen(V.NG, None), "score 1.5 is recorded, came out missing"),
        (item(), Seen(V.NG, 1.5), ""),
        (item(), Seen(V.OK, 0.5), "NG is expected, came out OK"),
        (item(), Seen(V.ERROR, None, "judge_failed"), "came out ERROR (judge_failed)"),
        (item(expected=None), Seen(V.NONE, None), "came out ERROR (no verdict)"),
    ],
)
def test_stored_images_keep_verdict_and_score(golden, seen, wrong):
    assert of_image(golden, seen) == wrong


def test_shown_parts_keep_their_window():
    window = item(score=1.5, low=1.2, high=1.8)
    assert of_part(window, Seen(V.NG, 1.7)) == ""
    assert of_part(window, Seen(V.NG, 1.1)) == "score 1.2 at least is expected, came out 1.1"
    assert of_part(window, Seen(V.NG, 1.9)) == "score 1.8 at most is expected, came out 1.9"
    assert of_part(window, Seen(V.NG, float("nan"))).startswith("score 1.2 at least")
    border = item(kind=Kind.BORDERLINE, low=0.9, high=1.1)
    assert of_part(border, Seen(V.OK, 0.99)) == ""
    assert of_part(border, Seen(V.ERROR, None, "timeout")) == "came out ERROR (timeout)"


def test_names_of_a_set_are_unique():
    there = together((), [item("a"), item("b")])
    assert [each.name for each in together(there, [item("c")], ["a"])] == ["b", "c"]
    for added, removed in (
        ([item("a")], []),
        ([], ["x"]),
        ([item(" ")], []),
        ([item("c", low=2.0, high=1.0)], []),
    ):
        with pytest.raises(DataError):
            together(there, added, removed)


steps = st.one_of(
    st.tuples(st.just("due"), st.sampled_from(Reason)),
    st.tuples(st.just("failed"), st.sampled_from(Mode)),
    st.tuples(st.just("override"), st.integers(1, 30)),
    st.tuples(st.just("wait"), st.integers(1, 30)),
    st.tuples(st.just("restart"), st.none()),
)


@given_settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=20), st.booleans())
def test_nothing_but_a_passed_check_or_an_override_lets_parts_pass(course, has_parts):
    """Once held back, further reasons, failures, waiting and restarts never release; only an override does, for its time."""
    gate, now, released = Gate(), 0, 0
    for step, value in course:
        held = not gate.clearance(now, guarded=True).may_pass
        if step == "due":
            gate = gate.made_due(value, now, 15 * MINUTE)
        elif step == "failed":
            gate = gate.after("wrong", value, now, has_parts=has_parts)
            released = 0
        elif step == "override" and (gate.failed or gate.due is not None):
            gate, released = gate.overridden(now, now + value * MINUTE, "ada", WHY), now + value * MINUTE
        elif step == "wait":
            now += value * MINUTE
        elif step == "restart":
            gate = Gate.from_json(gate.to_json())
        if held and now >= released:
            assert not gate.clearance(now, guarded=True).may_pass
        assert gate.clearance(now, guarded=True) is not Clearance.OVERRIDDEN or now < released
    passed = gate.after("", Mode.PARTS, now, has_parts=has_parts)
    assert passed == Gate(passed_at=now)


def test_images_alone_do_not_clear_what_needs_parts():
    due = Gate().made_due(Reason.CAUSE, 0, MINUTE).made_due(Reason.RESTART, 1, MINUTE)
    assert (due.needed(has_parts=True), due.needed(has_parts=False)) == (Mode.PARTS, Mode.FILES)
    after = due.after("", Mode.FILES, 2, has_parts=True)
    assert (after.reasons, after.due, after.passed_at) == ((Reason.CAUSE,), 0, None)
    dark = Gate().after("dark", Mode.PARTS, 0, has_parts=True)
    assert dark.after("", Mode.FILES, 1, has_parts=True).failed == "dark"
    assert dark.after("", Mode.PARTS, 1, has_parts=True).failed == ""
    wrong = due.after("wrong", Mode.FILES, 2, has_parts=True)
    assert wrong.after("", Mode.FILES, 3, has_parts=True).failed == ""
    assert wrong.after("", Mode.FILES, 3, has_parts=True).needed(has_parts=True) is Mode.PARTS


# A line -----------------------------------------------------------------------------------------------------------------


@contextmanager
def guarded(
    folder: Path, *, golden: GoldenSettings = QUIET, parts: bool = False, **changes: Any
) -> Iterator[Line]:
    """A line whose station press has a bad, a good and a borderline part, judged right once."""
    with running(folder, golden=golden, rules=(), **changes) as line:
        if line.golden.current("press") is None:
            new = [
                known(line, "crack", "NG", Kind.BAD, has_part=parts, low=1.5 if parts else None),
                known(line, "fine", "OK", Kind.GOOD, has_part=parts),
                known(line, "scratch", "REVIEW", Kind.BORDERLINE),
            ]
            line.golden.change("press", add=new, who="eva", why="known parts")
            assert line.golden.run("press", "eva").passed
        yield line


def known(line: Line, name: str, word: str, kind: Kind, **values: Any) -> Item:
    """A golden part whose image `FakeJudge` judges as `word`."""
    key, digest = line.golden.keep_image(PICTURE + f"|{word}|golden".encode(), ".png")
    return Item(name, kind, key, digest, expected=EXPECTED.get(kind), **values)


def fails(line: Line) -> None:
    """Make the known bad part come out as OK."""
    judge = line.stations["press"].model
    judge.judge = lambda image, thresholds: Judgement(V.OK, 0.5, 0.5)  # type: ignore[method-assign]


def audited(line: Line) -> list[str]:
    found = line.store.ask(lambda c: [row["action"] for row in rows.find(c, "audit")])
    assert line.store.ask(verify).problem == ""
    return found[::-1]


def test_a_check_is_stored_and_records_scores(folder):
    with guarded(folder) as line:
        golden, (run, *_) = line.golden.current("press"), line.golden.runs("press")
        assert {each.name: (each.score, each.expected) for each in golden.items} == {
            "crack": (2.0, V.NG),
            "fine": (0.5, V.OK),
            "scratch": (1.0, V.REVIEW),
        }
        assert (golden.model_sha256, run.passed, run.who, len(run.results)) == (
            line.stations["press"].model.sha256,
            True,
            "eva",
            3,
        )
        assert line.stations["press"].view().golden.state == "clear"
        assert audited(line).count("golden run") == 1
        assert answer(line.stations["press"], 1).verdict is V.OK


def test_a_failed_check_stops_and_no_part_is_ok(folder):
    with guarded(folder) as line:
        press = line.stations["press"]
        good = press.model.judge
        fails(line)
        run = line.golden.run("press", "eva")
        assert [each.name for each in run.results if each.why] == ["crack", "scratch"]
        assert press.view().state is Shown.STOPPED
        assert [alarm.rule for alarm in line.alarms.active("press") if alarm.stops] == [HELD]
        row = answer(press, 1)
        assert (row.verdict, row.cause, row.score) == (V.ERROR, Cause.GOLDEN_FAILED, None)
        press.model.judge = good
        assert answer(press, 2, "NG").verdict is V.NG
        assert answer(press, 3, "REVIEW").verdict is V.ERROR
        line.alarms.give_cause("press", "product", "", "eva")
        with pytest.raises(NotAllowed, match="known parts"):
            line.alarms.resume("press", "eva")
        with pytest.raises(NotAllowed, match="failed or are overdue"):
            line.golden.change("press", remove=["crack", "fine", "scratch"], who="eva", why="away with them")
        assert line.golden.run("press", "eva").passed
        line.alarms.resume("press", "eva")
        assert not press.view().wants_stop
        assert answer(press, 4).verdict is V.OK


def test_a_failed_check_outlives_a_restart_and_an_administrator_overrides_it(folder):
    clock = Clock()
    with guarded(folder) as line:
        fails(line)
        line.golden.run("press", "eva")
    with started(folder, clock) as line:
        press = line.stations["press"]
        assert press.view().golden.state == "failed"
        assert answer(press, 1).cause == Cause.GOLDEN_FAILED
        for minutes, why in ((481, WHY), (0, WHY), (30, "short")):
            with pytest.raises(UsageError):
                line.golden.override("press", minutes, "ada", why)
        line.golden.override("press", 30, "ada", WHY)
        assert "by ada: the sample shelf is locked" in press.view().golden.text
        line.alarms.give_cause("press", "light", "", "eva")
        line.golden.tick()
        line.alarms.resume("press", "eva")
        assert answer(press, 2).verdict is V.OK
        clock.later(30 * 60)
        assert answer(press, 3).cause == Cause.GOLDEN_FAILED
        line.golden.tick()
        assert press.view().state is Shown.STOPPED
        assert "golden override" in audited(line)


@pytest.mark.parametrize("restarts", [False, True])
def test_an_override_ends_when_the_clock_is_set_back(folder, restarts):
    clock = Clock()
    with guarded(folder):
        pass
    with started(folder, clock) as line:
        fails(line)
        line.golden.run("press", "eva")
        line.golden.override("press", 480, "ada", WHY)
        clock.later(-4)  # as time servers do
        line.golden.tick()
        assert line.golden.view("press").state == "overridden"
        if not restarts:
            for _ in range(3):
                clock.later(-4)
                line.golden.tick()
            assert line.golden.view("press").state == "failed"
            assert answer(line.stations["press"], 1).cause == Cause.GOLDEN_FAILED
            assert "golden override ended" in audited(line)
    clock.later(-3600)
    with started(folder, clock) as line:
        assert line.golden.view("press").state == "failed"


def test_a_clock_that_is_set_back_leaves_no_more_time_for_a_check(folder):
    clock = Clock()
    with guarded(folder):
        pass
    with started(folder, clock) as line:
        clock.later(14 * 60)
        line.golden.tick()
        assert line.golden.view("press").state == "due"
        clock.later(-3600)
        line.golden.tick()
        assert line.golden.view("press").state == "due"
        clock.later(61)
        assert line.golden.view("press").state == "overdue"


@contextmanager
def started(folder: Path, clock: Clock, golden: GoldenSettings = QUIET) -> Iterator[Line]:
    """A line with a clock of its own."""
    line = Line(settings(folder, golden=golden, rules=()), open_judge=FakeJudge, clock=clock)
    with line:
        until(lambda: line.stations["press"].is_verified)
        yield line


def test_due_calls_then_stops_and_a_restart_gives_no_more_time(folder):
    clock = Clock()
    with guarded(folder):
        pass
    with started(folder, clock) as line:
        press = line.stations["press"]
        line.golden.tick()
        assert (press.view().golden.state, press.view().state) == ("due", Shown.REVIEW)
        assert DUE in [alarm.rule for alarm in line.alarms.active("press")]
        assert answer(press, 1).verdict is V.OK
        clock.later(14 * 60)
    with started(folder, clock) as line:
        press = line.stations["press"]
        clock.later(61)
        assert answer(press, 2).cause == Cause.GOLDEN_FAILED
        line.golden.tick()
        assert (press.view().golden.state, press.view().state) == ("overdue", Shown.STOPPED)
        assert line.golden.run("press", "eva").passed
        assert press.view().golden.state == "clear"
        assert answer(press, 3).verdict is V.OK


@pytest.mark.parametrize(
    ("rules", "seconds", "reason"),
    [
        ({"at_shift": True}, 24 * 3600, Reason.SHIFT),
        ({"every_hours": 2.0}, 2 * 3600, Reason.HOURS),
        ({}, -3600, Reason.CLOCK),
    ],
)
def test_time_makes_a_check_due(folder, rules, seconds, reason):
    clock = Clock()
    golden = QUIET.updated(rules)
    with guarded(folder):
        pass
    with started(folder, clock, golden) as line:
        line.golden.run("press", "eva")
        clock.later(1)
        line.golden.tick()
        assert line.golden.view("press").state == "clear"
        clock.later(seconds)
        line.golden.tick()
        assert reason.value in line.golden.view("press").text


def test_a_stop_because_of_light_needs_a_check(folder):
    with guarded(folder) as line:
        line.alarms.stop("press", "eva")
        line.alarms.give_cause("press", "light", "", "eva")
        with pytest.raises(NotAllowed, match="known parts"):
            line.alarms.resume("press", "eva")
        assert line.golden.run("press", "eva").passed
        line.alarms.resume("press", "eva")


def test_the_station_checks_itself_after_a_restart(folder):
    with guarded(folder):
        pass
    with guarded(folder, golden=GoldenSettings(at_shift=False)) as line:
        until(lambda: line.golden.view("press").state == "clear")
        assert line.golden.runs("press")[0].who == "system"
        assert not [alarm for alarm in line.alarms.active("press") if alarm.state.startswith("active")]


def test_thresholds_that_flip_an_item_by_a_millionth_are_not_used(folder):
    with guarded(folder) as line:
        press = line.stations["press"]
        line.activate_thresholds("press", 1.0, 1.000001, who="eva", why="a band to look at")
        with pytest.raises(
            NotAllowed, match=r"the thresholds stay .*scratch: REVIEW is expected, came out NG"
        ):
            line.activate_thresholds("press", 1.0, 1.0, who="eva", why="as it was packed")
        assert press.thresholds.reject == 1.000001
        assert len(line.threshold_versions("press")) == 1
        with pytest.raises(NotAllowed, match="scratch: REVIEW is expected, came out OK"):
            line.activate_thresholds("press", 1.0000005, 1.000001, who="eva", why="a millionth")
        assert line.golden.view("press").state == "clear"
        assert [run.is_trial for run in line.golden.runs("press")] == [True, True, False, False]
        assert line.golden.current("press").threshold_version == press.thresholds.version
        assert audited(line).count("golden trial") == 2


def test_a_model_that_misses_a_golden_part_is_not_used(folder, monkeypatch):
    with guarded(folder) as line:
        press, before = line.stations["press"], line.stations["press"].model
        with monkeypatch.context() as patch:
            patch.setattr(FakeJudge, "judge", lambda self, image, thresholds: Judgement(V.OK, 0.5, 0.5))
            said = r"the model stays as before \(crack: NG is expected, came out OK"
            with pytest.raises(NotAllowed, match=said):
                line.set_model("press", Path("blind.andon"), who="eva", why="newer")
        assert press.model is before
        line.set_model("press", Path("newer.andon"), who="eva", why="newer")
        assert line.golden.current("press").model_sha256 == press.model.sha256 != before.sha256
        assert line.golden.view("press").state == "clear"


def test_a_recipe_has_golden_parts_of_its_own(folder):
    with guarded(folder, recipes={"A": Path("press.andon"), "B": Path("other.andon")}) as line:
        press = line.stations["press"]
        line.set_recipe("press", "B", who="eva")
        until(lambda: line.golden.current("press") is None)
        assert line.golden.view("press").state == "clear"
        line.set_recipe("press", "A", who="eva")
        until(lambda: Reason.CHANGEOVER.value in line.golden.view("press").text)
        fails(line)
        line.golden.run("press", "eva")
        line.set_recipe("press", "B", who="eva")
        until(lambda: line.golden.current("press") is None)
        assert answer(press, 1).cause == Cause.GOLDEN_FAILED  # another recipe does not skip it


def test_shown_parts_are_marked_and_not_counted(folder):
    with guarded(folder, parts=True) as line:
        press = line.stations["press"]
        answer(press, 1)
        until(lambda: press.view().counts.get(V.OK) == 1)
        assert line.golden.begin_showing("press", "eva") is None
        with pytest.raises(NotAllowed, match="being shown"):
            line.golden.run("press", "eva")
        rows_of = []
        for number, (name, word) in enumerate({"crack": "NG", "fine": "OK"}.items(), start=2):
            line.golden.show("press", name)
            rows_of.append(answer(press, number, word))
            until(lambda name=name: name not in line.golden.view("press").left)
        assert [(row.verdict, row.cause) for row in rows_of] == [(V.ERROR, Cause.GOLDEN_PART)] * 2
        until(lambda: line.golden.runs("press")[0].mode is Mode.PARTS)
        run = line.golden.runs("press")[0]
        assert [(r.name, r.mode) for r in run.results[-2:]] == [("crack", Mode.PARTS), ("fine", Mode.PARTS)]
        assert (run.passed, run.results[-1].inspection_id, run.results[-2].seen.score) == (
            True,
            rows_of[1].id,
            2.0,
        )
        until(lambda: line.golden.view("press").state == "clear")
        assert press.view().counts == {V.OK: 1}
        assert line.store.counts("press", since=0) == {V.OK: 1}
        assert [past.id for past in line.store.last_verdicts("press", 10)] == [rows_of[0].id - 1]
        assert answer(press, 9).verdict is V.OK


def test_a_dark_part_fails_the_check_and_what_is_not_shown_ends(folder):
    with guarded(folder, parts=True) as line:
        press = line.stations["press"]
        line.golden.begin_showing("press", "eva")
        line.golden.show("press", "crack")
        line.golden.show("press", "fine")  # another one first
        press.take_next().cancel()
        until(lambda: line.golden.view("press").waits_for is None)
        assert "show it again" in line.golden.view("press").message
        line.golden.cancel("press", "eva")
        line.golden.begin_showing("press", "eva")
        for number, name in enumerate(("crack", "fine")):
            line.golden.show("press", name)
            answer(press, number, "OK")
            until(lambda name=name: name not in line.golden.view("press").left)
        until(lambda: line.golden.view("press").state == "failed")
        assert line.golden.view("press").needs == "parts"
        assert line.golden.run("press", "eva").passed  # the stored images are judged right
        assert answer(press, 5).cause == Cause.GOLDEN_FAILED


def test_parts_go_before_golden_images(folder):
    with guarded(folder) as line:
        press = line.stations["press"]
        hanging = press.submit(part(1, "hang"))
        order: list[str] = []
        errand = press.between_parts(lambda judge, thresholds: order.append("golden"))
        waiting = press.submit(part(2))
        waiting.add_done_callback(lambda done: order.append("part"))
        press.model.go.set()
        hanging.result(20.0)
        errand.result(20.0)
        waiting.result(20.0)
        assert len(press.model.judged) == 5  # three golden ones before
        assert press.model.judged[-1][0].endswith(b"|OK|2")


def test_one_check_at_a_time_and_none_while_the_station_ends(folder):
    with guarded(folder) as line:
        press = line.stations["press"]
        press.submit(part(1, "hang"))
        failed: list[BaseException] = []

        def check() -> None:
            try:
                line.golden.run("press", "eva")
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=check)
        thread.start()
        until(lambda: press._errands)
        with pytest.raises(NotAllowed, match="being judged"):
            line.golden.run("press", "leo")
        threading.Timer(0.05, press.model.go.set).start()
        press.stop(5.0)
        thread.join()
        assert len(failed) <= 1


def test_images_stay_and_are_in_the_backup(folder, tmp_path):
    with guarded(folder) as line:
        rule = line.settings.retention.updated({"ok_days": 0.0, "bad_days": 0.0, "row_days": 0.0})
        retention.run(line.store, rule, threading.Event(), share=1.0)
        assert line.golden.run("press", "eva").passed
        kept = folder / line.golden.current("press").items[0].image_key
        kept.write_bytes(b"another")
        run = line.golden.run("press", "eva")
        assert "missing or changed" in run.results[0].why
        assert line.golden.view("press").state == "failed"
        kept.write_bytes(PICTURE + b"|NG|golden")
        line.golden.run("press", "eva")
        line.golden.change(
            "press", add=[known(line, "odd", "raise", Kind.GOOD)], who="eva", why="a judge that fails"
        )
        assert line.golden.run("press", "eva").results[-1].why == "came out ERROR (judge_failed)"
        line.golden.change("press", remove=["odd"], who="eva", why="away with it")
        line.golden.run("press", "eva")
    backup.backup(folder, tmp_path / "copy")
    backup.restore(tmp_path / "copy", tmp_path / "new")
    with guarded(tmp_path / "new") as line:
        assert Reason.RESTORE.value in line.golden.view("press").text
        assert line.golden.run("press", "eva").passed


# Interfaces -------------------------------------------------------------------------------------------------------------


def test_routes_and_page(folder, client_of):
    with guarded(folder, parts=True) as line:
        client = client_of(line)
        base = "/api/v1/golden/press"
        row = answer(line.stations["press"], 1)
        until(lambda: line.store.image(line.store.inspection(row.id)))
        new = {"name": "another", "kind": "good", "who": "eva", "why": "a second good part"}
        assert client.post(f"{base}/items", json={**new, "inspection": row.id}).status_code == 201
        assert (
            client.post(f"{base}/items", json={**new, "inspection": row.id}).status_code == 422
        )  # there already
        assert client.post(f"{base}/items", json={**new, "inspection": 999}).status_code == 404
        for content, code in ((b"", "no_image"), (b"text", "not_a_picture")):
            refused = client.post(f"{base}/images", params={**new, "name": "x"}, content=content)
            assert (refused.status_code, refused.json()["code"]) == (422, code)
        bent = {**new, "name": "<b>bent</b>", "kind": "bad", "defect_type": "bend", "low": 1.1}
        shape = client.post(f"{base}/images", params=bent, content=PICTURE + b"|NG|bent").json()
        assert [i["name"] for i in shape["items"]] == ["crack", "fine", "scratch", "another", "<b>bent</b>"]
        assert client.get(shape["items"][-1]["image"]).content == PICTURE + b"|NG|bent"
        run = client.post(f"{base}/runs", json={"who": "eva"}).json()
        assert (run["passed"], [each["verdict"] for each in run["results"]]) == (
            True,
            ["NG", "OK", "REVIEW", "OK", "NG"],
        )
        assert client.post(f"{base}/runs", json={"who": "eva", "mode": "parts"}).status_code == 202
        assert (
            client.post(f"{base}/show", json={"who": "eva", "item": "crack"}).json()["waits_for"] == "crack"
        )
        assert "Show crack now" in client.get("/golden").text
        assert client.post(f"{base}/cancel", json={"who": "eva"}).json()["left"] == []
        why = {"who": "eva", "why": "it was lost on the way"}
        assert client.post(f"{base}/items/remove", json={**why, "names": ["another"]}).status_code == 200
        page = client.get(f"/golden?inspection={row.id}").text
        assert "&lt;b&gt;bent" in page
        assert "<b>bent" not in page
        assert page.count('<svg class="trend"') == 4
        assert len(client.get(f"{base}/runs").json()) == 2
        fails(line)
        client.post(f"{base}/runs", json={"who": "eva"})
        thresholds = {"accept": 0.4, "reject": 0.4, "who": "eva", "why": "to see whether it is refused"}
        assert (
            client.post("/api/v1/stations/press/thresholds", json=thresholds).json()["code"] == "not_allowed"
        )
        over = client.post(f"{base}/override", json={"minutes": 30, "who": "ada", "why": WHY}).json()
        assert over["state"] == "overridden"
        assert "by ada" in client.get("/stations/press").text
        assert client.get("/api/v1/golden").json()[0]["state"] == "overridden"


def test_a_folder_becomes_golden_parts(folder, tmp_path):
    with running(folder):
        pass
    for place, word in (("good", "OK"), ("borderline", "REVIEW"), ("bad", "NG"), ("bad/crack", "NG")):
        (tmp_path / "set" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / place / "1.png").write_bytes(PICTURE + f"|{word}|{place}".encode())
    found = parts_of(tmp_path / "set")
    assert [(each.name, each.defect_type) for each in found] == [
        ("bad/1", ""),
        ("borderline/1", ""),
        ("crack/1", "crack"),
        ("good/1", ""),
    ]
    add_to(folder, "press", found, has_part=False, who="eva", why="from the shelf")
    with pytest.raises(UsageError, match="no station 'saw'"):
        add_to(folder, "saw", found, has_part=False, who="eva", why="from the shelf")
    with pytest.raises(DataError, match="no images"):
        parts_of(tmp_path)
    with running(folder, golden=GoldenSettings(at_shift=False)) as line:
        with pytest.raises(DataError):
            add_to(folder, "press", found, has_part=False, who="eva", why="while it runs")
        until(lambda: line.golden.view("press").state == "clear")
        assert [each.score for each in line.golden.current("press").items] == [2.0, 1.0, 2.0, 0.5]


# Commands ---------------------------------------------------------------------------------------------------------------


def shelf(folder: Path, **pictures: bytes) -> Path:
    """A folder of known good parts, by the names of their files (`_` for the dot)."""
    (folder / "good").mkdir(parents=True)
    for name, content in pictures.items():
        (folder / "good" / name.replace("_", ".")).write_bytes(content)
    return folder


def fine(name: str) -> bytes:
    """A picture that `FakeJudge` judges as OK."""
    return PICTURE + f"|OK|{name}".encode()


def test_commands_that_judge_wait_for_a_slow_station(tmp_path, monkeypatch, cli):
    seconds: list[float] = []

    class Slow(Client):
        def __init__(self, url: str, *, timeout: float, **values: Any) -> None:
            seconds.append(timeout)
            raise UsageError("that is all: the test needs no more")

    monkeypatch.setattr("andon.client.Client", Slow)
    place = str(shelf(tmp_path, a_png=fine("a")))
    assert cli("golden", "add", "press", place, "--url", "http://127.0.0.1:1").code == 2
    assert cli("golden", "run", "press").code == 2
    assert seconds == [PATIENT, PATIENT]


def test_two_pictures_of_one_name_are_refused_before_anything_is_sent(tmp_path, cli):
    place = shelf(tmp_path / "set", a_jpg=fine("a"), a_png=fine("b"), c_png=fine("c"))
    said = cli("golden", "add", "press", place, "--url", "http://127.0.0.1:1").complaint()
    assert f"{place / 'good' / 'a.jpg'} and {place / 'good' / 'a.png'} would both be" in said
    assert "'good/a': rename one" in said


@pytest.mark.service
def test_adding_golden_parts_goes_on_after_an_error(folder, tmp_path, cli, monkeypatch):
    place = shelf(tmp_path / "set", a_png=fine("a"), b_png=fine("b"), c_png=fine("c"))
    send, sent = Client.add_golden, []

    def breaks(self: Client, station: str, image: Path, **values: Any) -> dict[str, Any]:
        sent.append(values["name"])
        if len(sent) == 2:
            raise ClientError("http://line does not answer (timed out): start `andon serve`")
        return send(self, station, image, **values)

    monkeypatch.setattr(Client, "add_golden", breaks)
    with running(folder, golden=QUIET, rules=()) as line, served(line) as port:

        def add(*more: str) -> Any:
            return cli("golden", "add", "press", place, "--url", f"http://127.0.0.1:{port}", *more)

        broken = add()
        assert (broken.code, line.golden.current("press").items[0].name) == (1, "good/a")
        assert broken.err.startswith(f"andon: {place / 'good' / 'b.png'}: http://line does not answer")
        assert broken.err.endswith("; 1 of 3 golden parts were added\n")
        for _ in range(2):
            done = add()
            assert (done.code, done.out + done.err) == (0, "station press: 3 golden parts\n")
        assert sent == ["good/a", "good/b", "good/b", "good/c"]
        assert "'good/a' is there already with another image or other values" in add("--parts").complaint()
        (place / "good" / "b.png").write_bytes(fine("other"))
        assert "'good/b' is there already" in add().complaint()


@pytest.mark.service
def test_a_file_that_is_no_picture_is_named_before_anything_is_sent(folder, tmp_path, cli):
    place = shelf(tmp_path / "set", a_png=fine("a"), b_png=b"")
    with running(folder, golden=QUIET, rules=()) as line, served(line) as port:
        said = cli("golden", "add", "press", place, "--url", f"http://127.0.0.1:{port}").complaint()
        assert f"{place / 'good' / 'b.png'} is empty (0 bytes): replace or remove it" in said
        assert line.golden.current("press") is None


def test_a_folder_is_checked_as_the_running_line_does(folder, tmp_path, cli):
    with running(folder, rules=()):
        pass
    place = shelf(tmp_path / "set", a_png=fine("a"), b_png=b"no picture at all")
    said = cli("golden", "add", "press", place, "--data", folder).complaint()
    assert f"{place / 'good' / 'b.png'} cannot be read as a picture" in said
    (place / "good" / "b.png").unlink()
    for more in (("--data", folder), ("--url", "http://127.0.0.1:1")):
        said = cli("golden", "add", "press", place, "--why", "short", *more)
        assert "a reason of at least 10 characters" in said.complaint()
    assert not (folder / "golden").exists()
    assert cli("golden", "add", "press", place, "--data", folder).code == 0
