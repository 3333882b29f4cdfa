"""The server: one-line errors, signals to systemd, an orderly end, slow and many clients, the simulated camera."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest

from andon.core.errors import UsageError
from andon.line.addresses import is_loopback
from andon.line.andon_states import NotAllowed
from andon.line.demo import STATION, Camera, images
from andon.line.judge import Judgement, Thresholds
from andon.line.line import Line
from andon.line.plc.settings import ModbusSettings, PlcSettings
from andon.line.rules import InARow
from andon.line.server import address, check_ports, listen, notify, serve, systemd_unit, watchdog
from andon.line.settings import LineSettings
from andon.line.verdicts import Verdict
from line.running import FakeJudge, part, running, settings, until
from line.serving import served

COOKIES = Path(__file__).parents[2] / "src" / "andon" / "assets" / "cookies"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which systemd listens."""
    name = f"\0andon-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name[1:])
        yield listening


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"modbus": {"port": 8000}}, r"--port and \[modbus\] port are both 8000"),
        ({"modbus": {"port": 8000, "host": "10.0.0.5"}}, ""),
        ({"modbus": {"port": 8000, "host": "0.0.0.0"}}, r"--port and \[modbus\] port are both 8000"),
        ({"opcua": {"port": 8000}}, r"--port and \[opcua\] port are both 8000"),
        ({"opcua": {"port": 5020}}, r"\[modbus\] port and \[opcua\] port are both 5020"),
    ],
)
def test_equal_ports_are_refused(changes, said):
    stations = ({"name": "press", "model": "part.andon", "plc": {"unit": 1}},)
    settings = LineSettings.model_validate({"stations": stations, **changes})
    with pytest.raises(UsageError, match=said) if said else nullcontext():
        check_ports(settings, "127.0.0.1", 8000)


@pytest.mark.skipif(not find_spec("pymodbus"), reason="needs the extra modbus")
def test_a_port_for_plcs_that_another_program_has_is_one_sentence(folder):
    others = set(threading.enumerate())
    with listen("127.0.0.1", 0) as taken:
        modbus = ModbusSettings(port=taken.getsockname()[1])
        line = Line(settings(folder, line={"modbus": modbus}, plc=PlcSettings(unit=1)), open_judge=FakeJudge)
        with pytest.raises(UsageError, match=r"^\[modbus\] 127.0.0.1 port \d+ cannot be used"):
            serve(line, "127.0.0.1", 0)
    assert not [thread.name for thread in set(threading.enumerate()) - others]


def test_systemd_is_told_when_the_line_is_ready_and_that_it_lives(folder, systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    with running(folder, rules=()) as line, watchdog(line):
        told = {systemd.recv(100) for _ in range(3)}
    assert told == {b"READY=1", b"WATCHDOG=1"}


def test_nothing_is_told_without_systemd(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/socket")
    notify("READY=1")


def test_unit_file():
    text = systemd_unit("/opt/andon serve --port 80%", Path("/var/lib/andon"), [Path("/data")])
    assert "ExecStart=/opt/andon serve --port 80%%\n" in text
    assert "Type=notify\n" in text
    assert "ReadWritePaths=/data\n" in text
    inside = systemd_unit("andon serve", Path("/var/lib/andon"), [Path("/var/lib/andon/line")])
    assert "ReadWritePaths" not in inside


def test_addresses():
    assert address("127.0.0.1", 80) == "http://localhost:80/"
    assert address("::", 80) == "http://[::]:80/"
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "line-pc")] == [
        True
    ] * 3 + [False] * 2


def test_port_in_use_is_one_sentence():
    with (
        listen("127.0.0.1", 0) as taken,  # it listens, so that a second server does not begin
        pytest.raises(UsageError, match=r"cannot be used .*choose another --port"),
    ):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UsageError, match="cannot be used"):
        listen("no.such.host.invalid", 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no station in the options"),
        (("--station", "press"), "not of the form NAME=FILE"),
        (("--station", "press=none.andon"), "there is no file none.andon"),
        (("--config", "none.toml"), "none.toml cannot be read"),
        (("--demo", "--station", "a=b"), "--demo brings its own station"),
        (("--station", "press={pack}", "--print-service", "windows"), "only systemd is known"),
        (("--station", "press={pack}", "--data", "{data}"), "no packed detector"),
        (("--port", "0"), "--port"),
    ],
)
def test_wrong_options_are_one_line(cli, tmp_path, options, said):
    pack = tmp_path / "empty.andon"
    pack.touch()
    outcome = cli("serve", *(option.format(pack=pack, data=tmp_path / "data") for option in options))
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_unit_file_has_the_options_of_the_command(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("part.andon").touch()
    Path("in").mkdir()
    Path("line.toml").write_text(
        'data = "kept"\n[stations.oven]\nmodel = "part.andon"\nfolder = {path = "in"}\n'
    )
    outcome = cli(
        "serve", "--station", "press=part.andon", "--config", "line.toml", "--print-service", "systemd"
    )
    command = re.search("^ExecStart=(.*)$", outcome.out, re.M)[1]
    assert f"--station press={tmp_path}/part.andon --config {tmp_path}/line.toml" in command
    assert f"--data {tmp_path}/kept" in command
    assert f"ReadWritePaths={tmp_path}/kept\nReadWritePaths={tmp_path}/in\n" in outcome.out


def test_demo_without_pytorch_says_where_its_model_comes_from(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("ANDON_HOME", str(tmp_path))
    monkeypatch.setattr(
        "andon.cli.serve.find_spec", lambda name: None if name == "torch" else find_spec(name)
    )
    outcome = cli("serve", "--demo")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert re.search(rf"made once with PyTorch.* copy {tmp_path}/demo/cookies-.*\.andon here", outcome.err)


def test_serve_without_its_extra_says_what_to_install(cli, monkeypatch):
    monkeypatch.setattr(
        "andon.cli.serve.find_spec", lambda name: None if name == "uvicorn" else find_spec(name)
    )
    outcome = cli("serve", "--demo")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "pip install 'andon[serve]'" in outcome.err


class CookieJudge(FakeJudge):
    """Knows the good cookies."""

    good = frozenset(path.read_bytes() for path in (COOKIES / "test" / "good").iterdir())

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        score = 0.5 if image in self.good else 2.0
        return Judgement(thresholds.verdict(score), score, score)


def released(line: Line) -> bool:
    """Whether a person could release the line; a part that was on its way may stop it again meanwhile."""
    try:
        line.alarms.give_cause(STATION, "product", "", "ann")
        line.alarms.resume(STATION, "ann")
    except NotAllowed:
        return False
    return True


class Watched(Camera):
    """Tells when it has seen that the line stands."""

    seen = threading.Event()

    def _stands(self) -> bool:
        stands = super()._stands()
        if stands:
            self.seen.set()
        return stands


def test_demo_stops_by_a_fault_and_begins_again_after_a_resume(folder):
    with running(folder, STATION, judge=CookieJudge, rules=(InARow(k=3),), queue=50) as line:
        camera = Watched(line, COOKIES, every=0.01, good_parts=4)
        camera.start()
        for _ in range(2):
            until(lambda: line.stations[STATION].view().wants_stop)
            camera.seen.clear()
            until(camera.seen.is_set)  # or a person would be faster than the camera
            until(lambda: released(line))
        until(lambda: line.stations[STATION].view().wants_stop)
        camera.stop()
        verdicts = [row.verdict for row in reversed(line.store.inspections(limit=1000))]
    assert verdicts[:7] == [Verdict.OK] * 4 + [Verdict.NG] * 3
    assert verdicts.count(Verdict.OK) >= 6


def test_demo_shows_what_was_not_learned_the_largest_crack_first():
    good, cracked = images(COOKIES)
    assert {path.parent.name for path in good} == {"good"}
    assert {path.parent.parent.name for path in good + cracked} == {"test"}
    from PIL import Image

    areas = [
        np.count_nonzero(
            Image.open(COOKIES / "ground_truth" / "cracked" / f"{path.stem}_mask.png").convert("L")
        )
        for path in cracked
    ]
    assert areas == sorted(areas, reverse=True)


# Longer checks --------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from andon.line.line import Line
from andon.line.server import serve
from line.running import FakeJudge, settings
serve(Line(settings(Path(sys.argv[1]), rules=()), open_judge=FakeJudge), "127.0.0.1", int(sys.argv[2]))
"""


@pytest.mark.service
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_order_with_a_reader_of_events(folder, how):
    with listen("127.0.0.1", 0) as found:
        port = found.getsockname()[1]
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TESTS)])}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, folder, str(port)], env=place, stderr=subprocess.PIPE
    )
    base = f"http://127.0.0.1:{port}/api/v1"
    try:
        end = time.monotonic() + 30
        while not _answers(f"{base}/health/ready"):
            assert time.monotonic() < end
            time.sleep(0.05)
        with httpx.stream("GET", f"{base}/events", timeout=20) as events:
            assert (
                httpx.post(f"{base}/stations/press/inspections", content=part(1).image).json()["verdict"]
                == "OK"
            )
            process.send_signal(how)
            assert "inspection" in "".join(events.iter_text())
        assert process.wait(20) == 0
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.service
def test_a_thousand_posts_of_one_request_are_one_row(folder):
    content = part(1).image
    with running(folder, rules=()) as line, served(line) as port, ThreadPoolExecutor(32) as pool:
        url = f"http://127.0.0.1:{port}/api/v1/stations/press/inspections?request_id=one"
        kept = httpx.Limits(
            max_keepalive_connections=32
        )  # closing one too many can hit one just given to a thread
        with httpx.Client(timeout=60, limits=kept) as client:
            answers = [*pool.map(lambda _: client.post(url, content=content), range(1000))]
        assert {answer.status_code for answer in answers} <= {200, 201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert len(line.store.inspections()) == 1


@pytest.mark.service
def test_slow_clients_do_not_hold_up_a_station(folder):
    """200 connections that send a byte now and then, and 20 readers that read nothing."""
    with running(folder, rules=()) as line, served(line) as port:
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(220)]
        for each in slow[:200]:
            each.sendall(
                b"POST /api/v1/stations/press/inspections HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx"
            )
        for each in slow[200:]:
            each.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: line.events.listeners == 20)
        took = []
        with httpx.Client() as client:
            for number in range(50):
                begin = time.perf_counter()
                answer = client.post(
                    f"http://127.0.0.1:{port}/api/v1/stations/press/inspections", content=part(number).image
                )
                took.append(time.perf_counter() - begin)
                assert answer.json()["verdict"] == "OK"
                slow[number].sendall(b"y")
        for each in slow:
            each.close()
        assert np.median(took) < 1.0
