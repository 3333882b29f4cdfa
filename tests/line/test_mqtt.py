"""MQTT with a real broker: order over an outage, last will, retained states, access."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from andon.line.cameras.settings import CameraSettings
from andon.line.drift.view import DriftView, NumberView
from andon.line.line import Line
from andon.line.outbox import courier
from andon.line.outbox.mqtt import drift_of, level
from andon.line.outbox.settings import MqttSettings, SecretSettings
from andon.line.prometheus import drift_averages
from line.broker import MOSQUITTO, broker, reading, send
from line.running import FakeJudge, answer, running, settings, until
from line.test_cameras import FakeCamera

BASE = "andon/v1/site/hall-2/press"
MOSQUITTO_PASSWD = Path(MOSQUITTO or "").parents[1] / "bin" / "mosquitto_passwd" if MOSQUITTO else None


OPENSSL = shutil.which("openssl")


def authority(folder: Path) -> Path:
    """A folder with an authority and certificates of a broker and a line that it has signed."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run([str(OPENSSL), *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=plant", "-days", "2")
    for name in ("broker", "line"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
        (folder / f"{name}.key").chmod(0o644)
    return folder


def line_to(port: int, **changes) -> dict:
    """Settings of a line that tells this broker."""
    return {"name": "hall 2", "mqtt": MqttSettings(host="127.0.0.1", port=port, **changes)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hall 2", "hall-2"),
        ("3 NG in a row", "3-NG-in-a-row"),
        ("a/b+c#", "a-b-c"),
        ("ä.1", "ä.1"),
        ("/", "-"),
    ],
)
def test_names_as_levels_of_topics(name, expected):
    assert level(name) == expected


def test_what_drift_says():
    number = NumberView("brightness", 90.0, 92.0, 4.5, 4.0, 0.1)
    view = DriftView("darker", None, "", None, None, 7, (number,), (), (), None, {})
    said = {"text": "darker", "parts": 7, "numbers": {"brightness": {"average": 4.5, "limit": 4.0}}}
    assert drift_of(view) == said
    samples = drift_averages({"press": view, "oven": None}).samples
    assert [(each.labels, each.value) for each in samples] == [
        ({"station": "press", "name": "brightness"}, 4.5)
    ]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A broker for tests that do not stop it."""
    with broker(tmp_path_factory.mktemp("broker")) as running_broker:
        yield running_broker


@contextmanager
def told(folder: Path, port: int, keepalive_s: int = 30) -> Iterator[subprocess.Popen[str]]:
    """A process with a line that tells the broker; killed at the end."""
    command = [sys.executable, "-m", "line.told", str(folder), str(port), str(keepalive_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.service
@pytest.mark.skipif(
    MOSQUITTO is None, reason="mosquitto is not installed (Debian: apt-get install mosquitto)"
)
class TestBroker:
    def test_results_states_and_alarms(self, kept, tmp_path):
        with reading(kept.port) as reader, running(tmp_path, line=line_to(kept.port)) as line:
            press = line.stations["press"]
            rows = [answer(press, i, word) for i, word in enumerate(("OK", "NG", "NG", "NG"), start=1)]
            until(lambda: len(reader.payloads("/result")) == 4)
            results = reader.payloads(f"{BASE}/result")
            assert [(r["seq"], r["id"], r["verdict"]) for r in results] == [
                (i, row.id, row.verdict.name) for i, row in enumerate(rows, start=1)
            ]
            assert results[1]["regions"] == [{"x": 1, "y": 2, "w": 3, "h": 4, "peak": 2.0}]
            assert "links" not in results[0]
            until(lambda: reader.payloads(f"{BASE}/alarm/3-NG-in-a-row"))
            assert reader.payloads("/alarm/3-NG-in-a-row")[-1]["rule"] == "3 NG in a row"
            until(lambda: reader.payloads("/state")[-1]["wants_stop"])
            assert reader.payloads("/state")[-1]["reason"] == "3 parts in a row were rejected (NG)"
            until(lambda: reader.payloads("/counts")[-1]["parts"] == {"OK": 1, "NG": 3})
            with reading(kept.port) as late:  # what is retained
                until(lambda: len(late.messages) >= 4)
                assert {topic for topic, retained, _ in late.messages if retained} == {
                    f"{BASE}/state",
                    f"{BASE}/counts",
                    f"{BASE}/drift",
                    f"{BASE}/alarm/3-NG-in-a-row",
                }
            line.alarms.give_cause("press", "product", "", "eva")
            until(lambda: reader.payloads("/alarm/3-NG-in-a-row")[-1] is None)
        with reading(kept.port, f"{BASE}/state") as late:
            until(lambda: late.payloads("/state"))
            assert late.payloads("/state") == [{"online": False}]

    def test_a_broker_that_is_away_changes_nothing_for_judging(self, tmp_path, monkeypatch):
        monkeypatch.setattr(courier, "LONGEST_PAUSE", 1.0)
        with broker(tmp_path) as own, running(tmp_path / "data", line=line_to(own.port), queue=50) as line:
            press = line.stations["press"]
            with reading(own.port) as reader:
                ids = [answer(press, i).id for i in range(1, 11)]
                until(lambda: len(reader.payloads("/result")) == 10)
                own.stop()
                took = [self._timed(press, i, ids) for i in range(11, 111)]
                assert max(took) < 5.0
                until(lambda: line.outbox.figures()[0].waiting > 0)
                assert line.health().ready
                own.start()
                until(lambda: len({each["id"] for each in reader.payloads("/result")}) == 110)
            results = reader.payloads("/result")
            assert list(dict.fromkeys(each["id"] for each in results)) == ids
            assert list(dict.fromkeys(each["seq"] for each in results)) == [*range(1, 111)]
            until(lambda: line.outbox.figures()[0].waiting == 0)
            assert line.outbox.figures()[0].lost == 0

    @staticmethod
    def _timed(press, number: int, ids: list[int]) -> float:
        begin = time.monotonic()
        ids.append(answer(press, number).id)
        return time.monotonic() - begin

    @pytest.mark.parametrize(
        ("how", "keepalive_s", "within"), [(signal.SIGKILL, 30, 2.0), (signal.SIGSTOP, 2, 10.0)]
    )
    def test_the_last_will(self, kept, tmp_path, how, keepalive_s, within):
        """At once where the process is gone, after 1.5 x keepalive where it is silent; mosquitto looks every 5 to 6 s."""
        with told(tmp_path, kept.port, keepalive_s) as child, reading(kept.port) as reader:
            assert child.stdout.readline()
            until(lambda: reader.payloads("/state") and reader.payloads("/state")[-1]["online"])
            child.send_signal(how)
            begin = time.monotonic()
            until(lambda: reader.payloads("/state")[-1] == {"online": False})
            assert time.monotonic() - begin < within
            if how is signal.SIGSTOP:  # a machine that comes back
                child.send_signal(signal.SIGCONT)
                until(lambda: reader.payloads("/state")[-1]["online"])

    def test_nothing_is_lost_when_the_line_is_killed(self, kept, tmp_path):
        answered: list[int] = []
        with reading(kept.port, f"{BASE}/result") as reader:
            for parts in (7, 19):
                with told(tmp_path, kept.port) as child:
                    answered += [int(child.stdout.readline()) for _ in range(parts)]
                    child.kill()
            with running(tmp_path, line=line_to(kept.port)):
                until(lambda: {*answered} <= {each["id"] for each in reader.payloads("/result")})
            results = reader.payloads("/result")
        first = list(dict.fromkeys((each["id"], each["seq"]) for each in results))
        assert first == sorted(first)  # in order, and the same numbers when told again
        assert [seq for _, seq in first] == [*range(1, len(first) + 1)]

    def test_the_retained_state_is_right_after_a_storm_of_reconnections(self, tmp_path, monkeypatch):
        monkeypatch.setattr(courier, "LONGEST_PAUSE", 0.2)
        monkeypatch.setattr(courier, "FIRST_PAUSE", 0.1)
        with broker(tmp_path) as own, running(tmp_path / "data", line=line_to(own.port)) as line:
            press = line.stations["press"]
            for storm in range(5):
                rows = [answer(press, 10 * storm + i, "NG") for i in range(3)]
                until(lambda: line.alarms.station("press").wants_stop)
                own.stop(signal.SIGKILL)
                own.start()
                if storm < 4:
                    line.alarms.give_cause("press", "product", "", "eva")
                    line.alarms.resume("press", "eva")
            with reading(own.port) as late:
                until(lambda: late.payloads("/state") and late.payloads("/alarm/3-NG-in-a-row"))
                until(lambda: late.payloads("/state")[-1].get("wants_stop"))
                assert late.payloads("/alarm/3-NG-in-a-row")[-1]["inspection_to"] == rows[-1].id

    def test_commands(self, kept, tmp_path):
        """A trigger that comes twice takes one image and has its answer; old and retained ones are refused."""
        camera, pack = FakeCamera(on_demand=True), tmp_path / "3.andon"
        camera.shows(1)
        pack.touch()
        chosen = settings(
            tmp_path / "data",
            rules=(),
            camera=CameraSettings(kind="pylon", trigger="software", timeout_s=10.0),
            recipes={"3": pack},
            line=line_to(kept.port, commands=True),
        )

        def command(name: str, payload: object, **options: Any) -> Any:
            before = len(reader.messages)
            asked = {"ResponseTopic": "plant/answers", "CorrelationData": b"7", **options}
            send(kept.port, f"{BASE}/cmd/{name}", json.dumps(payload), **asked)
            until(lambda: len(reader.messages) > before)
            return reader.messages[-1][2]

        def line_now() -> Line:
            return Line(chosen, open_judge=FakeJudge, open_camera=lambda _: camera)

        soon = {"MessageExpiryInterval": 30}
        with reading(kept.port, "plant/#") as reader, line_now() as line:
            press = line.stations["press"]
            until(lambda: press.is_verified and line.cameras.of["press"].view.opened)
            until(lambda: line.outbox.figures()[0].told)
            for _ in range(2):
                found = command("trigger", {"request_id": "t1", "part_id": "4711"}, **soon)
                assert found["accepted"] and found["verdict"] == "OK"
                assert found["result"]["part_id"] == "4711"
            assert command("recipe", {"request_id": "c1", "recipe": "3"}, **soon)["recipe"] == "3"
            until(lambda: press.is_verified and press.recipe == "3")
            assert "no message expiry" in command("trigger", {"request_id": "t2"})["why"]
            assert "no object of JSON" in command("trigger", "go", **soon)["why"]
            assert "retained" in command("trigger", {"request_id": "t3"}, retain=True, **soon)["why"]
            assert [row.request_id for row in line.store.inspections()] == ["t1"]
        for request, seconds in (("late", 1), ("in time", 60)):  # sent while the line is away
            asked = {"ResponseTopic": "plant/answers", "MessageExpiryInterval": seconds}
            send(kept.port, f"{BASE}/cmd/recipe", json.dumps({"request_id": request, "recipe": "3"}), **asked)
        time.sleep(1.2)
        with reading(kept.port, "plant/#") as reader, line_now():
            until(lambda: any(payload["request_id"] == "in time" for _, _, payload in reader.messages))
            # What is too old is dropped by the broker, or comes without its interval and is refused.
            assert [found["request_id"] for _, _, found in reader.messages if found["accepted"]] == [
                "in time"
            ]

    def test_user_and_password(self, tmp_path, caplog):
        passwords, secret = tmp_path / "passwords", tmp_path / "secret"
        subprocess.run([MOSQUITTO_PASSWD, "-b", "-c", passwords, "press", "hunter2"], check=True)
        passwords.chmod(0o644)
        secret.write_text("wrong")
        settings = f"allow_anonymous false\npassword_file {passwords}"
        access = {"user": "press", "password": SecretSettings(file=secret)}
        with broker(tmp_path, settings) as own:
            with running(tmp_path / "data", line=line_to(own.port, **access)) as line:
                until(lambda: line.outbox.figures()[0].error)
                assert "refuses the connection (Not authorized)" in line.outbox.figures()[0].error
            secret.write_text("hunter2\n")
            with running(tmp_path / "data", line=line_to(own.port, **access)) as line:
                answer(line.stations["press"], 1)
                until(lambda: line.outbox.figures()[0].told == 3)  # two starts and the part
        assert "hunter2" not in caplog.text and "without encryption" in caplog.text

    @pytest.mark.skipif(
        OPENSSL is None, reason="openssl makes the certificates of this test, and is not installed"
    )
    @pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning"
    )  # paho leaves a refused socket to the collector
    def test_certificates_of_both_sides(self, tmp_path):
        made, strangers = authority(tmp_path / "plant"), authority(tmp_path / "strangers")
        settings = f"cafile {made / 'ca.pem'}\ncertfile {made / 'broker.pem'}\nkeyfile {made / 'broker.key'}"
        own = {"certificate_file": made / "line.pem", "key_file": made / "line.key"}
        with broker(tmp_path, f"allow_anonymous true\n{settings}\nrequire_certificate true") as kept:

            def error_with(name: str, **access) -> str:
                with running(tmp_path / name, line=line_to(kept.port, tls=True, **access)) as line:
                    answer(line.stations["press"], 1)
                    until(lambda: line.outbox.figures()[0].error or line.outbox.figures()[0].told)
                    return line.outbox.figures()[0].error

            assert error_with("both", ca_file=made / "ca.pem", **own) == ""
            assert "certificate verify failed" in error_with("stranger", ca_file=strangers / "ca.pem", **own)
            assert error_with("nameless", ca_file=made / "ca.pem")
