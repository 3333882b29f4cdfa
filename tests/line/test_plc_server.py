"""A station behind Modbus TCP: cycles with and without faults, images that follow, restarts, several masters and servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from andon.core.errors import ConfigError, UsageError
from andon.line.line import Line
from andon.line.settings import LineSettings, StationSettings
from andon.line.station import NoTrigger, Part
from andon.line.store import rows as stored
from andon.line.verdicts import Cause, Verdict
from line.running import PICTURE, FakeJudge, until

pytest.importorskip("pymodbus")

from pymodbus.client import ModbusTcpClient

from andon.line.plc.handshake import Error, Trigger
from andon.line.plc.master import Master, PlcError
from andon.line.plc.registers import Command, Commands, Results, Status, decode, is_good
from andon.line.plc.server import PlcServer
from andon.line.plc.settings import ModbusSettings, PlcSettings
from andon.line.plc.simulate import Plc

E, T, A = Command.ENABLE, Command.TRIGGER, Command.RESULTS_ACK


def image(trigger: Trigger) -> bytes:
    """Every third part is NG."""
    return PICTURE + f"|{'OK' if trigger.number % 3 else 'NG'}|{trigger.serial}".encode()


@contextmanager
def behind(
    data: Path,
    *units: int,
    shoot: Callable[..., Any] | None = image,
    port: int = 0,
    recipes: dict[str, Path] | None = None,
    **plc: Any,
) -> Iterator[tuple[Line, int]]:
    """A started line with a station for each unit, and the port of its server."""
    stations = tuple(
        StationSettings(
            name=f"s{unit}",
            model=Path(f"s{unit}.andon"),
            cycle_s=5.0,
            rules=(),
            recipes=recipes or {},
            plc=PlcSettings(unit=unit, **plc),
        )
        for unit in units or (1,)
    )
    settings = LineSettings(data=data, stations=stations, modbus=ModbusSettings(port=port))
    shoots = {} if shoot is None else {station.name: shoot for station in stations}
    line = Line(settings, open_judge=FakeJudge, shoot=shoots)
    try:
        line.start()
        until(lambda: all(station.is_verified for station in line.stations.values()))
        yield line, server(line).port
    finally:
        line.stop(2.0)


def server(line: Line) -> PlcServer:
    """The Modbus server of a line."""
    return next(each for each in line.followers if isinstance(each, PlcServer))


class Hand:
    """A master whose steps a test takes one by one."""

    def __init__(self, master: Master) -> None:
        self.master, self._beat = master, 0

    def says(self, bits: Command, number: int = 0, **changes: Any) -> None:
        self._beat += 1
        self.master.write(Commands(bits, number, heartbeat=self._beat, **changes))

    def sees(self) -> Results:
        return decode(self.master.read())

    def waits(self, bit: Status, level: bool = True) -> Results:
        until(lambda: (bit in self.sees().status) is level)
        return self.sees()


@pytest.fixture
def connect() -> Iterator[Callable[..., Hand]]:
    """Makes masters, and closes their connections."""
    with ExitStack() as stack:
        yield lambda port, **options: Hand(stack.enter_context(Master("127.0.0.1", port, **options)))


def test_cycles_with_faults_have_one_row_each(folder):
    with behind(folder) as (line, port), Master("127.0.0.1", port) as master:
        plc = Plc(master, poll_s=0.0, seed=3)
        found = plc.run(12, faults=0.5)
        assert found.violations == [] and sum(found.faults.values()) > 2
        rows = line.store.inspections(limit=100)
        numbers = sorted(row.trigger_no for row in rows)
        assert len(rows) == 12 + len(found.refused) and len(set(numbers)) == len(numbers)
        own = [row for row in rows if row.trigger_no not in found.refused]
        assert all(row.verdict is (Verdict.OK if row.trigger_no % 3 else Verdict.NG) for row in own)
        assert all(row.cause == Cause.OVERRUN for row in rows if row.trigger_no in found.refused)
        assert {(row.part_id, row.lot) for row in own} == {(f"part {n.trigger_no}", "simulated") for n in own}
        assert found.to_json()["verdicts"].get("OK", 0) <= sum(row.verdict is Verdict.OK for row in own)


def test_an_image_follows_its_trigger_and_without_one_the_part_is_bad(folder, client_of, connect):
    with behind(folder, shoot=None, base=32) as (line, port):
        hand, station, client = connect(port, base=32), line.stations["s1"], client_of(line)
        hand.says(E)
        hand.waits(Status.TRIGGER_READY)
        with pytest.raises(NoTrigger, match="no trigger 7 of station s1 waits"):
            station.triggered(Part(image(Trigger(7, 7, "", "", 0.0)), "early", trigger_no=7))
        hand.says(E | T, 7, part_id="4711", lot="L2")
        hand.waits(Status.TRIGGER_ACK)
        path, content = "/api/v1/stations/s1/inspections", image(Trigger(7, 7, "", "", 0.0))
        assert client.post(f"{path}?trigger_no=8", content=content).json()["code"] == "no_trigger"
        posted = client.post(f"{path}?trigger_no=7", content=content)
        assert posted.status_code == 201 and posted.json()["part_id"] == "4711"
        hand.says(E, 7)
        assert is_good(hand.master.read(), 7) or hand.waits(Status.RESULTS_VALID).verdict is Verdict.OK
        assert hand.sees().inspection == posted.json()["id"] and hand.sees().total == 1
        hand.says(E | A)
        hand.says(E)
        server(line)._units["s1"]._image_s = 0.05
        hand.says(E | T, 8)
        found = hand.waits(Status.RESULTS_VALID)
        assert (found.verdict, found.trigger_no, found.error) == (Verdict.ERROR, 8, Error.NO_IMAGE)
        row = line.store.inspection(found.inspection)
        assert (row.cause, row.image_sha256, row.trigger_no) == (Cause.TIMEOUT, None, 8)


def test_coils_and_discrete_inputs_mirror_the_bits(folder, connect):
    with behind(folder) as (_, port):
        hand, plain = connect(port), ModbusTcpClient("127.0.0.1", port=port)
        plain.connect()
        hand.says(E)
        hand.waits(Status.TRIGGER_READY)
        assert plain.read_discrete_inputs(0, count=16).bits[:3] == [True, True, False]
        plain.write_register(1, 9)
        plain.write_coil(1, True)
        found = hand.waits(Status.RESULTS_VALID)
        assert found.trigger_no == 9 and plain.read_coils(0, count=8).bits[:3] == [True, True, False]
        plain.write_coils(0, [True, False, True])
        assert plain.read_holding_registers(0, count=2).registers == [E | A, 9]
        hand.waits(Status.RESULTS_VALID, False)
        assert plain.read_input_registers(40, count=1).isError()
        plain.close()


def test_a_line_that_restarts_gives_no_old_result_and_a_part_in_between_has_its_row(folder, connect):
    with behind(folder, shoot=None) as (line, port):
        hand = connect(port)
        hand.says(E)
        hand.waits(Status.TRIGGER_READY)
        hand.says(E | T, 5)
        hand.waits(Status.TRIGGER_ACK)
    with pytest.raises(PlcError, match=r"see host and port|does not answer"):
        hand.sees()
    with behind(folder, port=port) as (line, _):
        (row,) = line.store.inspections(limit=10)
        assert (row.trigger_no, row.verdict, row.cause) == (5, Verdict.ERROR, Cause.RESULTS_LOST)
        assert hand.sees().verdict is Verdict.NONE
        hand.says(E | T, 5)  # the PLC repeats its level, and the station had not been ready
        found = hand.sees()
        assert (found.error, found.missed, found.verdict) == (Error.MISSED, 1, Verdict.NONE)
        hand.says(E, 5)
        hand.waits(Status.TRIGGER_READY)
        hand.says(E | T, 6)
        assert hand.waits(Status.RESULTS_VALID).trigger_no == 6


@pytest.mark.parametrize("state", ["triggered", "acknowledged", "valid", "result acknowledged"])
def test_a_plc_that_restarts_in_any_state_goes_on_with_the_next_part(folder, connect, state):
    with behind(folder) as (line, port):
        hand = connect(port)
        hand.says(E)
        hand.waits(Status.TRIGGER_READY)
        hand.says(E | T, 1)
        if state != "triggered":
            hand.waits(Status.TRIGGER_ACK)
            hand.says(E, 1)
        if "valid" in state or "result" in state:
            hand.waits(Status.RESULTS_VALID)
        if state == "result acknowledged":
            hand.says(E | A, 1)
        hand.master.drop()
        again = connect(port)
        again.says(Command(0))
        again.says(E)
        again.waits(Status.TRIGGER_READY)
        again.says(E | T, 2)
        found = again.waits(Status.RESULTS_VALID)
        assert (found.trigger_no, found.verdict) == (2, Verdict.OK)
        rows = line.store.inspections(limit=9)
        assert sorted(row.trigger_no for row in rows) == [1, 2]


def test_two_plcs_that_write_to_one_station_get_no_result_of_a_part_that_was_not_triggered(folder, connect):
    with behind(folder) as (line, port):
        one, two = connect(port), connect(port)
        one.says(E)
        one.waits(Status.TRIGGER_READY)
        one.says(E | T, 1)
        two.says(E, 2)  # takes the trigger of the first back
        two.says(E | T, 2)  # and announces its part while that of the first is judged, or its result waits
        found = one.waits(Status.RESULTS_VALID)
        assert (found.trigger_no, found.missed) == (1, 1) and not is_good(two.master.read(), 2)
        until(lambda: len(line.store.inspections(limit=9)) == 2)
        verdicts = {row.trigger_no: (row.verdict, row.cause) for row in line.store.inspections(limit=9)}
        assert verdicts == {1: (Verdict.OK, ""), 2: (Verdict.ERROR, Cause.OVERRUN)}


def test_two_stations_of_one_server_and_a_second_server_do_not_disturb_each_other(folder, tmp_path, connect):
    with behind(folder, 1, 2) as (_, port), behind(tmp_path / "b") as (other, other_port):
        hands = [connect(port, unit=1), connect(port, unit=2), connect(other_port)]
        for hand in hands:
            hand.says(E)
        for number, hand in enumerate(hands, start=1):
            hand.waits(Status.TRIGGER_READY)
            hand.says(E | T, number)
        assert [hand.waits(Status.RESULTS_VALID).trigger_no for hand in hands] == [1, 2, 3]
        assert [row.trigger_no for row in other.store.inspections(limit=9)] == [3]
        with pytest.raises(PlcError, match="see unit and base"):
            connect(port, unit=9).sees()
        settings = LineSettings(
            data=tmp_path / "c", stations=other.settings.stations, modbus=ModbusSettings(port=port)
        )
        third = Line(settings, open_judge=FakeJudge)
        with pytest.raises(UsageError, match=f"port {port} cannot be used"):
            third.start()
        third.stop(0.1)


def test_a_silent_plc_is_a_fault_and_a_stop_is_a_request(folder, connect):
    with behind(folder) as (line, port):
        (unit,) = server(line)._units.values()
        hand = connect(port)
        hand.says(E)
        later = unit._steady() + 4.0
        unit._steady = lambda: later
        until(lambda: "plc" in line.stations["s1"].faults)
        assert hand.sees().error == Error.NO_HEARTBEAT
        until(lambda: any(alarm.rule == "fault: plc" for alarm in line.alarms.active("s1")))
        hand.says(E)
        until(lambda: "plc" not in line.stations["s1"].faults)
        line.alarms.stop("s1", "Ann", "look at this")
        server(line).tick()
        assert Status.STOP_REQUEST in hand.sees().status and hand.sees().alarms >= 1
        hand.says(E | Command.STOP_ACK)
        until(lambda: line.store.ask(lambda c: stored.find(c, "audit", action="stands")))


def test_a_plc_changes_the_recipe_and_takes_no_part_before_it_is_in_use(folder, connect):
    for code in ("3", "4"):
        (folder / f"{code}.andon").touch()
    recipes = {code: folder / f"{code}.andon" for code in ("3", "4")}
    with behind(folder, recipes=recipes) as (line, port):
        hand = connect(port)
        hand.says(E)
        hand.waits(Status.TRIGGER_READY)
        hand.says(E | Command.SET_RECIPE, recipe=4)
        assert Status.TRIGGER_READY not in hand.sees().status or line.stations["s1"].recipe == "4"
        hand.waits(Status.RECIPE_ACK)
        hand.says(E)
        hand.waits(Status.TRIGGER_READY)
        hand.says(E | T, 1)
        found = hand.waits(Status.RESULTS_VALID)
        assert line.store.inspection(found.inspection).recipe == "4" and hand.sees().recipe == 4
        hand.says(E | Command.SET_RECIPE, recipe=5)
        found = hand.waits(Status.RECIPE_FAILED)
        assert found.error == Error.NO_RECIPE and line.stations["s1"].recipe == "4"


def test_settings_that_cannot_work(tmp_path):
    (tmp_path / "a.andon").touch()
    file = tmp_path / "line.toml"
    two = "\n".join(f'[stations.s{n}]\nmodel = "a.andon"\nplc = {{ unit = 4 }}' for n in (1, 2))
    for text, message in ((two, "Modbus unit 4"), (two.replace("unit = 4", "base = 7", 1), "base")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=message):
            LineSettings.load(file)


@pytest.mark.service
def test_a_block_never_mixes_two_parts_with_two_masters(folder):
    """A second master reads a thousand times a second while parts are judged; each of its blocks belongs to one part."""
    with behind(folder) as (line, port), Master("127.0.0.1", port) as master:
        ended, blocks = threading.Event(), []

        def read() -> None:
            with Master("127.0.0.1", port) as reader:
                while not ended.wait(0.001):
                    blocks.append(reader.read())

        thread = threading.Thread(target=read)
        thread.start()
        found = Plc(master, poll_s=0.0).run(100)
        ended.set()
        thread.join()
        rows = {row.id: row for row in line.store.inspections(limit=1000)}
        assert found.violations == [] and len(rows) == 100 and len(blocks) > 300
        seen = [decode(words) for words in blocks]
        assert all(words[1] + words[2] == 0xFFFF for words in blocks)
        for block in seen:
            if block.verdict is not Verdict.NONE:
                row = rows[block.inspection]
                assert (block.verdict, block.trigger_no) == (row.verdict, row.trigger_no)
                assert block.score == row.score
