"""Recipes and models of stations: changed between two parts, never OK by the one before, kept over restarts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from andon.core.errors import DataError, UsageError
from andon.line.line import Line
from andon.line.models import Key, Shelf, UnknownRecipe
from andon.line.settings import ThresholdSettings
from andon.line.station import NotReady
from andon.line.store import StoreUnavailable, rows
from andon.line.verdicts import Cause, Verdict
from andon.line.views import Shown
from line.running import PATIENCE, FakeJudge, answer, part, running, until

RECIPES = {code: Path(f"{code}.andon") for code in ("nut", "bolt", "bad")}


class Bench:
    """Opens fake judges; packs in `slow` open only after `go`, `bad` fails its self-check."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.slow: set[str] = set()
        self.go = threading.Event()

    def __call__(self, pack: Path, *, threads: int) -> FakeJudge:
        self.opened.append(pack.stem)
        if pack.stem in self.slow:
            assert self.go.wait(PATIENCE)
        judge = FakeJudge(pack)
        if pack.stem == "bad":
            judge.check = self._fail
        return judge

    def _fail(self) -> None:
        raise DataError("it does not answer here as where it was made")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def line_of(folder: Path, bench: Bench, *names: str, **changes: Any) -> Any:
    return running(folder, *names, judge=bench, **{"recipes": RECIPES, "rules": (), **changes})


def ready(line: Line, code: str) -> None:
    until(lambda: line.stations["press"].is_verified and line.stations["press"].recipe == code)


def test_recipes_change_and_outlive_restarts(folder, bench):
    with line_of(folder, bench, "press", "saw", thresholds=ThresholdSettings(accept=0.4)) as line:
        press = line.stations["press"]
        assert answer(press, 1).recipe is None
        line.activate_thresholds("press", 0.3, 1.0, who="eva", why="of the first model")
        for number, code in enumerate(("nut", "bolt", "nut", "nut"), start=2):
            line.set_recipe("press", code, who="plc", why="order 7")
            ready(line, code)
            row = answer(press, number)
            assert (row.recipe, row.model_sha256.startswith(code), row.verdict) == (code, True, Verdict.OK)
        assert press.thresholds.accept == 1.0  # of its model, not of the settings
        line.activate_thresholds("press", 0.9, 1.0, who="eva", why="of the nut")
        assert bench.opened == ["press", "saw", "nut", "bolt"]  # the second change to nut is warm
        assert line.stations["saw"].recipe is None
        assert answer(line.stations["saw"], 10).recipe is None
        assert (press.view().recipe, press.view().recipes) == ("nut", ("nut", "bolt", "bad"))
        audited = line.store.ask(lambda c: rows.find(c, "audit", action="recipe"))
        assert [row["new_json"].count("nut") > 0 for row in audited] == [True, False, True]
        assert {row["who"] for row in audited} == {"plc"}
        with pytest.raises(UnknownRecipe, match="nut, bolt, bad"):
            line.set_recipe("press", "screw", who="plc")
        with pytest.raises(UsageError, match="needs a person"):
            line.set_recipe("press", "nut", who=" ")
    with line_of(folder, bench) as line:
        row = answer(line.stations["press"], 20)
        assert (row.recipe, line.stations["press"].thresholds.accept) == ("nut", 0.9)
    with line_of(folder, bench, recipes={"bolt": RECIPES["bolt"]}) as line:  # the recipe is gone
        assert line.stations["press"].model.name == "press"


def test_never_ok_by_the_recipe_before(folder, bench):
    bench.slow = {"nut"}
    with line_of(folder, bench) as line:
        press = line.stations["press"]
        assert isinstance(press.model, FakeJudge)
        judged, waiting = press.submit(part(1, "hang")), press.submit(part(2))
        until(lambda: press.judging_seconds > 0)
        old = press.model
        line.set_recipe("press", "nut", who="plc")
        for future in (judged, waiting):
            row = future.result(PATIENCE).recorded.row
            assert (row.verdict, row.cause, row.recipe) == (Verdict.ERROR, Cause.NOT_READY.value, None)
        view = press.view()
        assert (view.is_ready, view.state, view.reason) == (
            False,
            Shown.SETUP,
            "recipe nut is being prepared",
        )
        with pytest.raises(NotReady, match="recipe nut is being prepared"):
            press.submit(part(3))
        assert press.offer(part(4)) is None
        line.set_recipe("press", "bolt", who="plc")  # another one meanwhile: the newest counts
        old.go.set()
        ready(line, "bolt")
        bench.go.set()
        assert answer(press, 5).recipe == "bolt"
        assert [image for image, _ in old.judged if b"|3" in image or b"|5" in image] == []
        until(lambda: all("recipe" not in thread.name for thread in threading.enumerate()))
        assert press.recipe == "bolt"


def test_a_recipe_that_fails_is_a_fault_until_another_is_chosen(folder, bench, monkeypatch):
    with line_of(folder, bench) as line:
        press = line.stations["press"]
        line.set_recipe("press", "bad", who="plc")
        until(lambda: press.faults)
        assert "recipe bad cannot be used: it does not answer" in press.faults["model"]
        with pytest.raises(NotReady):
            press.submit(part(1))
        line.set_recipe("press", "nut", who="plc")
        ready(line, "nut")
        assert answer(press, 2).verdict is Verdict.OK
        with monkeypatch.context() as patch:
            patch.setattr(line.store, "write", lambda work: (_ for _ in ()).throw(StoreUnavailable("gone")))
            with pytest.raises(StoreUnavailable):
                line.set_recipe("press", "bolt", who="plc")
        assert "ask for it again" in press.faults["model"]
        assert not press.is_verified
        line.set_recipe("press", "nut", who="plc")  # open already
        assert answer(press, 3).recipe == "nut"
        line.set_recipe("press", "bad", who="plc")
    with line_of(folder, bench) as line:  # a restart stays with what was asked for
        assert (line.stations["press"].recipe, line.stations["press"].is_verified) == ("bad", False)


def test_another_model_stays_until_the_settings_change(folder, bench, tmp_path):
    with line_of(folder, bench) as line:
        line.set_model("press", tmp_path / "new.andon", who="eva", why="trained again")
        with pytest.raises(DataError):
            line.set_model("press", tmp_path / "bad.andon", who="eva", why="trained again")
    for model, used in ((None, "new"), ("press", "new"), ("third", "third"), ("third", "third")):
        changes = {} if model is None else {"model": Path(f"{model}.andon")}
        with line_of(folder, bench, **changes) as line:
            assert line.stations["press"].model.name == used
    audited = ["trained again", "the settings file names this model"]
    with line_of(folder, bench, model=Path("third.andon")) as line:
        found = line.store.ask(lambda c: rows.find(c, "audit", action="model"))
        assert [row["reason"] for row in found][::-1][-2:] == audited


def test_a_shelf_keeps_what_was_used_last(tmp_path):
    shelf, keys = Shelf(25), []
    for name in "abc":
        (tmp_path / name).write_bytes(b"x" * 10)
        keys.append(Key.of("press", tmp_path / name))
        shelf.put(keys[-1], FakeJudge())
    assert [key in shelf for key in keys] == [False, True, True]
    judge = shelf.take(keys[1])
    assert judge is not None
    shelf.put(keys[1], judge)
    shelf.put(keys[0], FakeJudge())
    assert [key in shelf for key in keys] == [True, True, False]
    (tmp_path / "b").write_bytes(b"y" * 11)  # replaced: another model
    assert shelf.take(Key.of("press", tmp_path / "b")) is None
    shelf.put(Key.of("press", tmp_path / "gone"), judge)
    (tmp_path / "d").write_bytes(b"x" * 30)
    shelf.put(Key.of("press", tmp_path / "d"), judge)
    assert shelf.take(Key.of("press", tmp_path / "d")) is None
