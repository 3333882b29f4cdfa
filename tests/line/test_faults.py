"""Faults of a station and sources of parts: which part may be OK while something fails."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from andon.line.faults import STOPS_ALL, Fault
from andon.line.line import Line
from andon.line.plc.handshake import SILENT_SECONDS
from andon.line.plc.registers import Command, Commands, encode_commands
from andon.line.plc.settings import PlcSettings
from andon.line.plc.unit import Unit
from andon.line.station import NotReady
from andon.line.verdicts import Cause, Verdict
from line.running import PATIENCE, answer, part, running, until

NUMBERS = count(1)
DOCUMENTED = Path(__file__).parents[2] / "docs" / "reference" / "line.md"


@pytest.fixture(scope="module")
def line(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A running line without rules; tests take their faults back."""
    folder = shutil.copytree(empty_store, tmp_path_factory.mktemp("line") / "store")
    with running(folder, rules=()) as started:
        started.store_watch.tick = lambda: None  # store and disk are fine, whatever a test says
        yield started


@pytest.mark.parametrize("fault", Fault)
def test_no_source_gets_an_ok_while_the_station_is_not_ready(line, client_of, fault):
    station, number = line.stations["press"], next(NUMBERS)
    stops = fault in STOPS_ALL
    url = f"/api/v1/stations/press/inspections?request_id=rest-{number}"
    station.set_fault(fault, "this is broken")
    try:
        sent = client_of(line).post(url, content=part(number).image)
        offered = station.offer(part(next(NUMBERS), source="folder"))
        shot = part(next(NUMBERS), source="camera")
        if stops:
            assert (sent.status_code, sent.json()["code"]) == (503, "not_ready")
            assert "this is broken" in sent.json()["detail"]
            row = line.store.by_request(f"rest-{number}")
            assert (row.verdict, row.cause) == (Verdict.ERROR, Cause.NOT_READY)
            assert offered is None  # the file waits in its folder
            with pytest.raises(NotReady):
                station.submit(shot)
            assert line.store.by_request(shot.request_id).verdict is Verdict.ERROR
        else:
            assert sent.json()["verdict"] == "OK"
            rows = [future.result(PATIENCE).recorded.row for future in (offered, station.submit(shot))]
            assert [row.verdict for row in rows] == [Verdict.OK] * 2
        assert not station.view().is_ready and not line.health().ready
    finally:
        station.set_fault(fault, None)
    assert answer(station, next(NUMBERS)).verdict is Verdict.OK


@pytest.mark.parametrize("fault", Fault)
def test_a_plc_gets_no_trigger_ready_from_what_would_be_an_error(line, fault):
    now = 0.0
    station = line.stations["press"]
    unit = Unit(station, PlcSettings(), line, steady=lambda: now)
    with pytest.raises(NotReady, match="not heard"):  # also by REST
        station.submit(part(next(NUMBERS)))

    def ready(beat: int) -> bool:
        unit.write(0, encode_commands(Commands(Command.ENABLE, heartbeat=beat)))
        unit.tick()
        unit.tick()
        return unit.handshake.ready

    assert ready(1)
    if fault is Fault.PLC:
        now = SILENT_SECONDS
        unit.tick()
        assert fault in station.faults and not unit.handshake.ready
    else:
        station.set_fault(fault, "this is broken")
        assert ready(2) is (fault in (Fault.FOLDER, Fault.DISK, Fault.FOLLOWER))
        station.set_fault(fault, None)
    assert ready(3) and not station.faults


@pytest.mark.parametrize("fault", sorted(STOPS_ALL - {Fault.JUDGE, Fault.HALTED}))
def test_a_part_on_its_way_is_held_back(line, fault):
    station = line.stations["press"]
    station.model.go.clear()
    future = station.submit(part(next(NUMBERS), "hang"))
    until(lambda: station.judging_seconds)
    station.set_fault(fault, "broke meanwhile")
    station.model.go.set()
    answered = future.result(PATIENCE)
    row = answered.recorded.row
    assert (row.verdict, row.cause, answered.why) == (Verdict.ERROR, Cause.NOT_READY, "broke meanwhile")
    station.set_fault(fault, None)


def test_the_documented_table_has_every_fault():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (all|[^|]*) \|$", DOCUMENTED.read_text("utf-8"), re.MULTILINE)
    documented = {name: stops.strip() for name, stops in rows if name in set(Fault)}
    assert set(documented) == set(Fault)
    assert {name for name, stops in documented.items() if stops == "all"} == STOPS_ALL
