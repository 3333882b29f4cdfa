"""A station as a vision system of OPC 40100-1: states and transitions against the published model, results, recipes, clients."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from hashlib import sha256
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

import andon
from andon.line.opcua.states import STEPS, State, target
from andon.line.opcua.vision.states import (
    ALLOWED,
    CAUSED,
    MODE_STEPS,
    Call,
    Mode,
    Query,
    SystemState,
    is_allowed,
    mode_of,
    mode_steps,
    system_state,
    transition,
)
from andon.line.opcua.vision.values import (
    NO_JOB,
    Job,
    Recipe,
    ResultState,
    Wanted,
    matching,
    page,
    recipes,
    result,
)
from andon.line.station import NotReady
from andon.line.store import rows as stored
from andon.line.verdicts import Cause, Verdict
from line.running import PICTURE, answer, part, running, until

MODEL = Path(andon.__file__).parent / "assets" / "opcua" / "Opc.Ua.MachineVision.NodeSet2.xml.gz"
XML = "{http://opcfoundation.org/UA/2011/03/UANodeSet.xsd}"
CAUSE = (1, "shift ends")
HEX = sha256(b"press").hexdigest()
FAKE = f"{'press':0<64}"
"""Hashes of the models of the station."""


def published() -> dict[str, tuple[str, str, set[str]]]:
    """Transitions of the published model by name: from, to, and the methods that cause it."""
    root = ElementTree.fromstring(gzip.decompress(MODEL.read_bytes()))
    nodes = {node.get("NodeId"): node for node in root if node.get("NodeId")}
    found = {}
    for node in nodes.values():
        ends: dict[str, list[str]] = {"FromState": [], "ToState": [], "HasCause": []}
        for reference in node.iter(f"{XML}Reference"):
            kind = reference.get("ReferenceType", "")
            if kind in ends and reference.get("IsForward") != "false":
                ends[kind].append(nodes[reference.text].get("BrowseName", "").removeprefix("1:"))
        if ends["FromState"] and ends["ToState"]:
            name = node.get("BrowseName", "").removeprefix("1:")
            found[name] = (ends["FromState"][0], ends["ToState"][0], set(ends["HasCause"]))
    return found


# Without a server ------------------------------------------------------------------------------------------------------


def test_the_model_is_the_published_file_with_its_notice():
    text = gzip.decompress(MODEL.read_bytes())
    page = MODEL.with_name("LICENSE.md").read_text(encoding="utf-8")
    assert f"`{sha256(text).hexdigest()}`" in page
    for notice in ("Copyright (c) 2005-2020 The OPC Foundation", "OPC Foundation MIT License 1.00"):
        assert notice in page and notice.encode() in text[:500]


def test_all_transitions_are_those_of_the_published_model():
    model = published()
    main = [(before, after) for before, ends in STEPS.items() for after in ends]
    automatic = [(before, after) for before, ends in MODE_STEPS.items() for after in ends]
    for before, after in main + automatic:
        calls = {call for end, call in CAUSED if end == after}
        for call in [None, *calls]:
            name = transition(before, after, call)
            if name.endswith("Recipe") and {before, after} != {Mode.INITIALIZED, Mode.READY}:
                continue  # recipes are prepared while no job runs
            if call in (Call.STOP, Call.ABORT) and before is Mode.INITIALIZED:
                continue  # no job runs
            assert model[name][:2] == (before, after)
            assert call is None or call in model[name][2], name
        assert model[transition(before, after, None)][2] == set()
    assert transition(State.ERROR, State.PREOPERATIONAL, Call.HALT) == "ErrorToPreoperationalAuto"


@given(st.lists(st.one_of(st.none(), st.sampled_from(Mode))))
def test_the_automatic_mode_never_skips_and_begins_as_initialized(ends):
    start = None
    for end in ends:
        way = [start, *mode_steps(start, end)]
        assert way[-1] is end
        for before, after in pairwise(way):
            expected = (Mode.INITIALIZED,) if before is None else (None, *MODE_STEPS[before])
            assert after in expected
        start = end


def test_methods_are_allowed_where_a_transition_or_recipe_needs_them():
    model = published()
    for call, mode, state in product(Call, [None, *Mode], State):
        if (mode is None) == (state is State.OPERATIONAL):
            continue
        starts = {before for before, _, causes in model.values() if call in causes}
        may = bool(starts & {state, mode})
        may = may or (call is Call.PREPARE and mode is Mode.READY)  # another recipe
        assert is_allowed(call, state, mode) == may, (call, state, mode)
    assert set(ALLOWED) == set(Call)


def test_a_suspended_station_is_operational_and_takes_one_part_at_most(folder):
    with running(folder) as line:
        station = line.stations["press"]
        assert mode_of(station.view(), State.OPERATIONAL, Mode.READY) is Mode.CONTINUOUS
        judge: Any = station.model
        waiting = [station.submit(part(0, "hang")), station.submit(part(1))]
        station.suspend("stopped", let_in="request-7")
        view = station.view()
        assert (view.suspended, view.is_ready, view.reason) == ("stopped", False, "stopped")
        assert mode_of(view, State.OPERATIONAL, Mode.SINGLE) is Mode.SINGLE
        assert mode_of(view, State.ERROR, Mode.SINGLE) is None
        judge.go.set()
        assert [each.result(20).recorded.row.verdict for each in waiting] == [Verdict.OK] * 2
        for number, cause in ((2, Cause.NOT_READY), (7, "")):
            if cause:
                with pytest.raises(Exception, match=r"not ready \(stopped\)"):
                    answer(station, number)
            else:
                assert answer(station, number).verdict is Verdict.OK
        assert line.store.inspections(limit=2)[1].cause == Cause.NOT_READY
        judge.go.clear()
        station.suspend(None)
        late = station.submit(part(8, "hang"))
        station.suspend("aborted", drop=True)
        assert late.result(20).recorded.row.cause == Cause.NOT_READY
        judge.go.set()
        station.halt("halted")
        assert not station.view().suspended and target(station.view()) is State.HALTED
        station.halt(None)
        assert station.view().suspended == "aborted" and target(station.view()) is State.OPERATIONAL
        station.release()
        assert station.view().is_ready and not station.view().suspended


def test_results_and_recipes_are_found_by_what_clients_look_for(folder):
    packs = {"12": Path("a.andon"), "13": Path("b.andon")}
    with running(folder, recipes=packs) as line:
        station = line.stations["press"]
        job = Job("J1", "M1")
        rows = [answer(station, n, word, lot="L") for n, word in enumerate(["OK", "NG", "REVIEW", "ERROR"])]
        found = [result(row, job if n else NO_JOB) for n, row in enumerate(rows)]
        assert [each.state for each in found] == [ResultState.COMPLETED] * 3 + [ResultState.FAILED]
        assert json.loads(found[1].content)["verdict"] == "NG" and found[1].recipe == Recipe("", FAKE)
        for wanted, expected in (
            (Wanted(), [0, 1, 2, 3]),
            (Wanted(state=ResultState.FAILED), [3]),
            (Wanted(measurement="M1", job="J1"), [1, 2, 3]),
            (Wanted(part="part-2"), [2]),
            (Wanted(part="part-2", job="J2"), []),
            (Wanted(recipe=FAKE, configuration="0"), [0, 1, 2, 3]),
            (Wanted(product="any"), []),
        ):
            assert matching(found, wanted) == [found[n] for n in expected]
        assert page(found, 1, 2) == (found[1:3], False)
        assert page(found, 1, 0) == page(found, 1, 3) == (found[1:], True)
        view = station.view()
        assert recipes(view, is_prepared=True) == [
            (Recipe("", FAKE), True),
            (Recipe("12", ""), False),
            (Recipe("13", ""), False),
        ]
        line.set_recipe("press", "12", who="anna")
        until(lambda: station.recipe == "12" and station.is_verified)
        assert [ready for _, ready in recipes(station.view(), is_prepared=True)] == [True, False]
        row = answer(station, 9)
        assert result(row, job).recipe.code == "12" and matching([result(row, job)], Wanted(code="12"))


def test_states_of_semi_e10():
    table = [(state, None) for state in State if state is not State.OPERATIONAL]
    table += [(State.OPERATIONAL, mode) for mode in Mode]
    assert [system_state(*each) for each in table] == [
        SystemState.SCHEDULED_DOWNTIME,
        SystemState.UNSCHEDULED_DOWNTIME,
        SystemState.NONSCHEDULED,
        *[SystemState.STANDBY] * 2,
        *[SystemState.PRODUCTION] * 2,
    ]


def test_the_page_has_all_methods_and_states_with_what_they_are():
    page = (ROOT / "docs" / "opcua.md").read_text(encoding="utf-8").split("### Its states")[1]
    for call, allowed in ALLOWED.items():
        assert f"| `{call}` | {', '.join(f'`{each}`' for each in allowed)} |" in page
    for state, mode in [
        (State.ERROR, None),
        (State.OPERATIONAL, Mode.READY),
        (State.OPERATIONAL, Mode.SINGLE),
    ]:
        assert re.search(
            rf"^\| `{mode or state}` \| .* \| {int(system_state(state, mode))}, ", page, re.MULTILINE
        )


# With a client ---------------------------------------------------------------------------------------------------------


@pytest.mark.service
def test_a_client_drives_a_vision_system(folder):
    pytest.importorskip("asyncua")
    from asyncua import ua

    from line.opcua_client import Vision, aside, becomes, client, served

    shots = iter([PICTURE + b"|OK|1", PICTURE + b"|NG|2", None])
    station_settings = {
        "recipes": {"12": Path("a.andon"), "13": Path("b.andon")},
        "shoot": {"press": lambda _: next(shots)},
    }
    with served(folder, station=station_settings) as (line, _, url):
        station = line.stations["press"]

        async def results(seen, vision):
            """One result for each part, kept and found."""
            rows = [await aside(answer, station, n, word) for n, word in enumerate(["OK", "NG", "ERROR"])]
            ids = [str(row.id) for row in rows]
            await becomes(lambda: len(heard(seen, vision, "ResultReady")) == 3)
            told = heard(seen, vision, "ResultReady")
            assert [each.ResultId.Id for each in told] == ids
            assert [each.ResultState for each in told] == [1, 1, 4]
            assert json.loads(told[1].ResultContent[0])["verdict"] == "NG"
            assert told[0].PartId.Id == "part-0" and told[0].InternalRecipeId.Hash == bytes.fromhex(HEX)
            assert told[0].JobId.Id and len({each.JobId.Id for each in told}) == 1
            place = await vision.results.get_child(f"{vision.index}:Results")
            kept = [await each.read_value() for each in await place.get_children()]
            assert [each.ResultId.Id for each in kept] == ids
            second = ua.ResultIdDataType(Id=ids[1])
            assert await vision.call(vision.results, Query.RESULT, second, 0) == [0, kept[1], 0]
            values = await vision.call(vision.results, Query.COMPONENTS, second, 0)
            assert len(values) == 17 and (values[13], values[16]) == (kept[1].CreationTime, 0)
            found = await vision.call(vision.results, Query.RESULTS, 0, *[None] * 8, 2, 0, 0)
            assert found[:2] == [False, 2] and [each.ResultId.Id for each in found[3]] == ids[:0:-1]
            unknown = ua.ResultIdDataType(Id="77")
            assert await vision.call(vision.results, Query.RESULT, unknown, 0) == "BadNotFound"
            with pytest.raises(ua.UaStatusCodeError):  # nobody changes values
                await (await place.get_children())[0].write_value(ua.Variant(kept[0]))

        async def jobs(seen, vision):
            """Stop, a recipe, single parts, a job."""
            assert await vision.call(vision.automatic, Call.STOP, *CAUSE) == 0
            assert await vision.states() == ("Operational", "Ready")
            assert station.view().suspended.endswith("(shift ends)")
            used, code = ua.RecipeIdInternalDataType(Id=HEX), ua.RecipeIdExternalDataType(Id="12")
            other = ua.RecipeIdExternalDataType(Id="99")
            assert (await vision.call(vision.recipes, Call.UNPREPARE, None, used))[1] == 0
            assert await vision.states() == ("Operational", "Initialized")
            found = await vision.call(vision.recipes, Query.RECIPES, code, None, 2, 0, 0, 0)
            assert found[1] == 1 and found[3][0].Id == "12"
            assert await vision.call(vision.recipes, Call.PREPARE, other, None) == "BadInvalidArgument"
            assert (await vision.call(vision.recipes, Call.PREPARE, code, None))[2] == 0
            await vision.until("Operational", "Ready")
            await becomes(lambda: len(heard(seen, vision, "RecipePrepared")) == 1)
            assert station.recipe == heard(seen, vision, "RecipePrepared")[0].ExternalId.Id == "12"
            for verdict in (Verdict.OK, Verdict.NG, Verdict.ERROR):
                ids = (ua.MeasIdDataType(Id="M"), ua.PartIdDataType(Id="P"))
                job, error = await vision.call(vision.automatic, Call.START_SINGLE, *ids, code, None, None)
                await becomes(lambda job=job: heard(seen, vision, "ResultReady")[-1].JobId == job)
                await vision.until("Operational", "Ready")
                (row,), told = line.store.inspections(limit=1), heard(seen, vision, "ResultReady")[-1]
                assert (row.verdict, row.part_id, told.MeasId.Id, error) == (verdict, "P", "M", 0)
            assert row.cause == Cause.CAMERA_FAILED
            with pytest.raises(NotReady):
                await aside(answer, station, 19)
            job, _ = await vision.call(vision.automatic, Call.START, *[None] * 5)
            assert await vision.states() == ("Operational", "ContinuousExecution")
            await aside(answer, station, 20)
            await becomes(lambda: heard(seen, vision, "ResultReady")[-1].JobId == job)

        async def halts(seen, vision):
            """Halt and reset, by way of `Preoperational`."""
            assert await vision.call(vision.machine, Call.HALT, *CAUSE) == 0
            assert await vision.states() == ("Halted", "") and "halted" in station.faults
            assert await vision.call(vision.automatic, Call.ABORT, *CAUSE) == "BadInvalidState"
            for _ in range(2):
                assert await vision.call(vision.machine, Call.RESET, *CAUSE) == 0
            assert await vision.states() == ("Operational", "ContinuousExecution")
            assert await vision.call(vision.automatic, Call.ABORT, *CAUSE) == 0
            await becomes(lambda: heard(seen, vision, "StateChanged")[-1].Transition.Text.endswith("Abort"))

        async def use(seen):
            vision = await Vision.of(seen)
            assert await vision.states() == ("Operational", "ContinuousExecution")
            for node, name, arguments in (
                (vision.automatic, Call.START, [None] * 5),
                (vision.machine, Call.SELECT, []),
                (vision.recipes, Call.PREPARE, [ua.RecipeIdExternalDataType(Id="12"), None]),
                (vision.recipes, Call.UNPREPARE, [None, ua.RecipeIdInternalDataType(Id=HEX)]),
            ):
                assert await vision.call(node, name, *arguments) == "BadInvalidState"
            assert await vision.call(vision.automatic, Call.STOP) == "BadArgumentsMissing"
            for step in (results, jobs, halts):
                await step(seen, vision)
            model, told = published(), heard(seen, vision, "StateChanged")
            for each in told:
                assert model[each.Transition.Text][:2] == (each.FromState.Text, each.ToState.Text)
            steps = [
                (each.FromState.Text, each.ToState.Text) for each in told if each.FromState.Text in [*State]
            ]
            assert all(before[1] == after[0] for before, after in pairwise(steps))
            names = [each.Transition.Text for each in told]
            assert {"ContinuousExecutionToReadyStop", "OperationalToHalted", "ReadyToSingleExecution"} <= {
                *names
            }
            assert names.count("OperationalToPreoperational") == names.count("HaltedToPreoperational") == 1
            assert [len(heard(seen, vision, kind)) for kind in ("JobStarted", "Ready")] == [6, 5]

        client(url, use)
    for action in ("halts", "resets", "stops the job", "aborts the job", "prepares a recipe"):
        assert line.store.ask(lambda connection, a=action: stored.find(connection, "audit", action=a))


def heard(seen: Any, vision: Any, kind: str) -> list[Any]:
    """Events of one type that a client got."""
    return [each for each in seen.heard if each.EventType == vision.types[kind]]


def node_opcua() -> None:
    """Skips the test where the client of another stack cannot be run."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    script = "require.resolve('node-opcua-client')"
    if subprocess.run([node, "-e", script], capture_output=True).returncode:
        pytest.skip(
            "node-opcua-client is not installed: npm install node-opcua-client, NODE_PATH=.../node_modules"
        )


@pytest.mark.service
def test_a_client_of_another_stack_sees_states_results_and_methods(folder):
    pytest.importorskip("asyncua")
    node_opcua()
    from line.opcua_client import served

    with served(folder) as (line, _, url):
        station, parts = line.stations["press"], 20
        script = Path(__file__).with_name("opcua_node.js")
        command = ["node", str(script), url, str(parts)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            try:
                assert client.stdout is not None
                assert "listening\n" in client.stdout, client.communicate(timeout=20)[1]
                words = ["OK", "NG", "ERROR", "REVIEW"] * (parts // 4)
                rows = [answer(station, number, word) for number, word in enumerate(words)]
                out, errors = client.communicate(timeout=60)
            finally:
                client.kill()
        assert client.returncode == 0, errors
        seen = json.loads(
            next(each for each in out.splitlines() if each.startswith("{"))
        )  # the library logs too
        assert seen["type"] == "VisionSystemType" and seen["states"] == ["Operational", "ContinuousExecution"]
        assert {"VisionStateMachine", "ResultManagement", "RecipeManagement"} <= set(seen["children"])
        assert seen["e10"] == SystemState.PRODUCTION
        assert [event["result"] for event in seen["events"]] == [str(row.id) for row in rows]
        assert [event["verdict"] for event in seen["events"]] == words
        assert {(event["hash"], event["part"][:5]) for event in seen["events"]} == {(HEX, "part-")}
        assert seen["found"] == {"id": str(rows[0].id), "error": 0}
        assert seen["calls"][:2] == [["Good", "Halted"], ["BadInvalidState", "Halted"]]
        assert seen["calls"][2][0] == "Good" and "halted" not in station.faults
