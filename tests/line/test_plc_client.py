"""A station whose PLC is the Modbus server: cycles, lost connections, restarts of either side, settings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from andon.core.errors import ConfigError
from andon.line.faults import Fault
from andon.line.line import Line
from andon.line.settings import LineSettings, StationSettings
from andon.line.verdicts import Cause, Verdict
from line.running import PATIENCE, PICTURE, FakeJudge, until

pytest.importorskip("pymodbus")

from andon.line.plc import client
from andon.line.plc.handshake import Trigger
from andon.line.plc.master import PlcError
from andon.line.plc.memory import Memory
from andon.line.plc.registers import Command, Commands, Results, Status, decode
from andon.line.plc.settings import PlcSettings, shared
from andon.line.plc.simulate import Plc

E, T = Command.ENABLE, Command.TRIGGER


def image(trigger: Trigger) -> bytes:
    """Every third part is NG."""
    return PICTURE + f"|{'OK' if trigger.number % 3 else 'NG'}|{trigger.serial}".encode()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that looks often."""
    monkeypatch.setattr(client, "POLL_SECONDS", 0.002)
    monkeypatch.setattr(client, "AGAIN_SECONDS", 0.02)


@contextmanager
def behind(data: Path, port: int, shoot: Any = image, **plc: Any) -> Iterator[Line]:
    """A started line with a station whose PLC listens on a port."""
    settings = PlcSettings(connect=f"127.0.0.1:{port}", **plc)
    station = StationSettings(name="s1", model=Path("s1.andon"), cycle_s=5.0, rules=(), plc=settings)
    line = Line(LineSettings(data=data, stations=(station,)), open_judge=FakeJudge, shoot={"s1": shoot})
    try:
        line.start()
        yield line
    finally:
        line.stop(2.0)


def block(memory: Memory) -> Results:
    """What the PLC sees: nothing where the block is old."""
    try:
        return decode(memory.read())
    except PlcError:
        return Results()


def check(line: Line, plc: Plc, cycles: int) -> None:
    """Every trigger has one row, no rule was broken, and OK was read of parts that are stored as OK alone."""
    found = plc.result
    until(lambda: len(line.store.inspections(limit=1000)) >= cycles + len(found.refused))
    rows = line.store.inspections(limit=1000)
    numbers = [row.trigger_no for row in rows]
    assert found.violations == [] and len(set(numbers)) == len(numbers)
    assert len(rows) == cycles + len(found.refused)
    own = [row for row in rows if row.trigger_no not in found.refused]
    passed = sum(row.verdict is Verdict.OK for row in own)
    assert 0 < found.verdicts["OK"] <= passed
    held = {row.cause for row in rows if row.verdict is Verdict.ERROR}
    assert held <= {Cause.NOT_READY, Cause.OVERRUN, Cause.CAMERA_FAILED}


def test_cycles_with_faults_have_one_row_each_and_the_end_leaves_no_result(folder):
    with Memory(0, command=100, result=200) as memory:
        with behind(folder, memory.port, command=100, result=200) as line:
            plc = Plc(memory, poll_s=0.001, seed=3)
            plc.run(5, faults=0.5)
            check(line, plc, 5)
            assert sum(plc.result.faults.values()) > 1
        assert decode(memory._block).status == 0


def test_no_part_is_ok_while_the_plc_is_not_there(folder):
    shot = threading.Event()

    def slowly(trigger: Trigger) -> bytes:
        shot.wait(PATIENCE)
        return image(trigger)

    with Memory(0) as memory, behind(folder, memory.port, slowly) as line:
        station, port = line.stations["s1"], memory.port
        memory.write(Commands(E, heartbeat=1))
        until(lambda: Status.TRIGGER_READY in block(memory).status)
        memory.write(Commands(E | T, 1, heartbeat=2))
        until(lambda: Status.TRIGGER_ACK in block(memory).status)
        memory.drop()
        memory.close()
        until(lambda: Fault.PLC in station.faults)
        assert "cannot be reached" in station.faults[Fault.PLC] and not line.health().ready
        shot.set()
        until(lambda: line.store.inspections())
        (row,) = line.store.inspections()
        assert (row.trigger_no, row.verdict, row.cause) == (1, Verdict.ERROR, Cause.NOT_READY)
        with Memory(port) as again:  # the PLC has restarted
            again.ready()
            assert block(again).verdict is Verdict.NONE
            again.write(Commands(heartbeat=7))
            again.write(Commands(E, heartbeat=8))
            until(lambda: Status.TRIGGER_READY in block(again).status)
            assert not station.faults
            again.write(Commands(E | T, 2, heartbeat=9))
            until(lambda: block(again).trigger_no == 2)
            assert block(again).verdict is Verdict.OK


def test_registers_that_are_not_there_are_a_fault_that_says_so(folder):
    with Memory(0) as memory, behind(folder, memory.port, command=4, result=300) as line:
        until(lambda: Fault.PLC in line.stations["s1"].faults)
        assert "see unit, command and result" in line.stations["s1"].faults[Fault.PLC]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('connect = "plc:x"', "is no HOST or HOST:PORT"),
        ('connect = "modbus://plc"', "is no HOST or HOST:PORT"),
        ('connect = "plc"\nbase = 16', "use command and result"),
        ("result = 40", "result needs connect"),
        ('connect = "plc"\nresult = 20', "overlap"),
    ],
)
def test_settings_that_cannot_work(text, message, tmp_path):
    (tmp_path / "a.andon").touch()
    file = tmp_path / "line.toml"
    file.write_text(f'[stations.s]\nmodel = "a.andon"\n[stations.s.plc]\n{text}')
    with pytest.raises(ConfigError, match=message):
        LineSettings.load(file)


def test_stations_share_a_plc_where_their_registers_do_not_meet():
    one = PlcSettings(connect="10.0.0.2")
    assert one.address == ("10.0.0.2", 502)
    assert PlcSettings(connect="[fe80::1]:1502").address == ("fe80::1", 1502)
    assert "10.0.0.2" in shared([one, PlcSettings(connect="10.0.0.2:502", command=100, result=60)])
    assert shared([one, PlcSettings(connect="10.0.0.2", command=30, result=200)])
    assert not shared([one, PlcSettings(connect="10.0.0.2", command=64, result=92)])
    assert not shared([one, PlcSettings(connect="10.0.0.3"), PlcSettings(), PlcSettings(unit=2)])
    assert shared([PlcSettings(), PlcSettings()]) == "the Modbus unit 1"


@pytest.mark.service
def test_300_cycles_with_faults_and_restarts_of_both_sides(folder):
    """Connections are dropped, and before each part of the test the line, the PLC or both have restarted."""
    plc = Plc(Memory(0), poll_s=0.001, seed=1)
    port = 0
    for part, restarts in enumerate(["both", "line", "both"]):
        if restarts == "both":
            plc._wire.close()
            plc._wire = Memory(port)
            plc._wire.open()
            port = plc._wire.port
        with behind(folder, port) as line:
            plc.run(100, faults=0.3, first=1 + 1000 * part)
            check(line, plc, 100 * (part + 1))
    plc._wire.close()
    assert plc.result.faults["connection dropped"] > 5
