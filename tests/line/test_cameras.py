"""Cameras of stations: triggers, stale and lost images, failures, settings; replays; pylon's emulation."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from andon.core.errors import ConfigError
from andon.line.cameras import shooting
from andon.line.cameras.camera import CameraFailed, Frame, FrameLost, NoFrame, differences, lost_between
from andon.line.cameras.opening import make_camera
from andon.line.cameras.settings import CameraSettings
from andon.line.clock import now_us
from andon.line.judge import Judgement, Thresholds
from andon.line.line import Line
from andon.line.plc.settings import ModbusSettings, PlcSettings
from andon.line.settings import LineSettings, StationSettings
from andon.line.station import Part
from andon.line.store import Request, StoreUnavailable
from andon.line.verdicts import Cause, Verdict
from line.running import PICTURE, FakeJudge, part, settings, until


class FakeCamera:
    """Gives what a test puts into it: images and errors."""

    def __init__(self, *, on_demand: bool = False) -> None:
        self.on_demand = on_demand
        self.coming: queue.Queue[Frame | Exception] = queue.Queue()
        self.set: dict[str, Any] = {"exposure": 1000.0, "pixel_format": "Mono8"}
        self.opened = self.closed = 0
        self.fails = ""

    def open(self) -> None:
        self.opened += 1
        if self.fails:
            raise CameraFailed(self.fails)

    def grab(self, timeout: float) -> Frame:
        try:
            found = self.coming.get(timeout=min(timeout, 0.02))
        except queue.Empty:
            raise NoFrame("no image") from None
        if isinstance(found, Exception):
            raise found
        return replace(found, t_exposure=now_us()) if self.on_demand else found

    def settings(self) -> dict[str, Any]:
        return self.set

    def health(self) -> dict[str, Any]:
        return {"temperature": 40.0}

    def close(self) -> None:
        self.closed += 1

    def shows(self, number: int, word: str = "OK", *, age_s: float = 0.0) -> None:
        image = PICTURE + f"|{word}|{number}".encode()
        self.coming.put(Frame(image, now_us() - round(age_s * 1e6), number))


@contextmanager
def line_of(
    data: Path,
    camera: Any,
    *also: str,
    judge: Any = FakeJudge,
    plc: PlcSettings | None = None,
    **values: Any,
) -> Iterator[Line]:
    """A started line with one camera; `also`: stations without one."""
    chosen, ports = CameraSettings(kind="pylon", **values), {"modbus": ModbusSettings(port=0)}
    stations = [
        StationSettings(name=name, model=Path(f"{name}.andon"), cycle_s=30.0, rules=()) for name in also
    ]
    of_camera = settings(data, camera=chosen, plc=plc, rules=(), line=ports)
    line = Line(
        of_camera.model_copy(update={"stations": (*of_camera.stations, *stations)}),
        open_judge=judge,
        open_camera=lambda _: camera,
    )
    line.start()
    try:
        until(
            lambda: (
                all(s.is_verified for s in line.stations.values()) and line.cameras.of["press"].view.opened
            )
        )
        yield line
    finally:
        line.stop(2.0)


class AnyImage(FakeJudge):
    """Every image is OK."""

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        return super().judge(PICTURE, thresholds)


def rows(line: Line) -> list[Any]:
    """Oldest first."""
    return line.store.inspections(limit=1000)[::-1]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shooting, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(shooting, "LONGEST_PAUSE", 0.004)


def test_each_image_of_a_hardware_trigger_is_a_part_and_each_missing_one_is_error(folder):
    camera = FakeCamera()
    with line_of(folder, camera, trigger="hardware") as line:
        camera.shows(1)
        camera.shows(2, "NG")
        camera.shows(2, "OK")  # the same again is not another part
        camera.shows(5)
        camera.coming.put(FrameLost("half an image", 6))
        camera.shows(7, age_s=60.0)
        until(lambda: len(rows(line)) == 7)
        found = sorted((row.verdict.name, row.cause or "") for row in rows(line))
        failed, late = ("ERROR", Cause.CAMERA_FAILED), ("ERROR", Cause.TIMEOUT)
        assert found == [failed] * 3 + [late, ("NG", ""), ("OK", ""), ("OK", "")]
        view = line.cameras.of["press"].view
        assert (view.lost, view.stale, view.frames) == (3, 2, 4)
        line.cameras.tick()
        assert "camera_frames" in {alarm.rule for alarm in line.alarms.active()}


def test_a_trigger_gets_an_image_exposed_after_it_and_never_one_twice(folder, client_of):
    camera = FakeCamera()
    with line_of(folder, camera, timeout_s=0.05) as line:
        client, mine = client_of(line), line.cameras.of["press"]
        camera.shows(1)
        until(lambda: mine.view.frames == 1)
        failed = client.post("/api/v1/stations/press/trigger")  # image 1 is from before the trigger
        assert (failed.status_code, failed.json()["verdict"]) == (201, "ERROR")
        assert failed.json()["cause"] == "camera_failed" and mine.view.stale == 1
        mine.settings = mine.settings.model_copy(update={"timeout_s": 20.0})

        def show() -> None:
            until(lambda: mine._wanted)
            camera.shows(2, "NG")

        threading.Thread(target=show).start()
        body = {"part_id": "4711", "request_id": "r1"}
        found = client.post("/api/v1/stations/press/trigger", json=body)
        assert (found.status_code, found.json()["verdict"], found.json()["part_id"]) == (201, "NG", "4711")
        again = client.post("/api/v1/stations/press/trigger", json=body)
        assert (again.status_code, again.json()["id"]) == (200, found.json()["id"])
        state = client.get("/api/v1/stations/press/camera").json()
        assert (state["connected"], state["frames"], state["health"]) == (True, 2, {"temperature": 40.0})
        assert len(rows(line)) == 2


def test_newest_takes_an_image_of_this_cycle_once(folder):
    camera = FakeCamera()
    with line_of(folder, camera, trigger="newest", timeout_s=0.02) as line:
        mine = line.cameras.of["press"]
        camera.shows(1)
        camera.shows(2)
        until(lambda: mine.view.frames == 2)
        assert mine.shoot().frame_no == 2
        with pytest.raises(CameraFailed, match=r"no image within 0\.02 s"):
            mine.shoot()
        camera.shows(3, age_s=31.0)  # the cycle is 30 s
        until(lambda: mine.view.frames == 3)
        with pytest.raises(CameraFailed, match="no image within"):
            mine.shoot()
        assert mine.view.stale == 1


@pytest.mark.parametrize("times", [4, pytest.param(100, marks=pytest.mark.service)])
def test_unplugged_again_and_again_the_process_lives_and_each_trigger_has_its_row(folder, client_of, times):
    camera = FakeCamera(on_demand=True)
    with line_of(folder, camera, timeout_s=20.0) as line:
        client, mine = client_of(line), line.cameras.of["press"]
        for number in range(times):
            if number % 2:
                camera.fails = "no such device"
            camera.coming.put(OSError("cable") if number % 2 else FrameLost("half an image"))
            answer = client.post("/api/v1/stations/press/trigger")
            assert (answer.status_code, answer.json()["verdict"]) == (201, "ERROR"), answer.text
            camera.fails = ""
            until(lambda: mine.view.connected)
        camera.shows(1)
        assert client.post("/api/v1/stations/press/trigger").json()["verdict"] == "OK"
        found = rows(line)
        assert [row.verdict for row in found] == [Verdict.ERROR] * times + [Verdict.OK]
        assert {row.cause for row in found[:-1]} == {
            Cause.CAMERA_FAILED
        } and mine.view.opened == times // 2 + 1


def test_a_camera_that_fails_is_a_fault_until_it_is_back(folder):
    camera = FakeCamera()
    with line_of(folder, camera, trigger="hardware") as line:
        station = line.stations["press"]
        camera.fails = "no such device"
        camera.coming.put(CameraFailed("cable"))
        until(lambda: station.faults.get("camera") == "no such device")
        until(lambda: "fault: camera" in {alarm.rule for alarm in line.alarms.active()})
        camera.fails = ""
        until(lambda: "camera" not in station.faults)
        assert rows(line) == []  # nothing was triggered meanwhile
        assert camera.closed == camera.opened - 1
    assert camera.closed == camera.opened


def test_a_trigger_while_the_database_is_away_is_judged_and_recorded(folder, monkeypatch):
    def away(request_id: str) -> None:
        raise StoreUnavailable("the database cannot be reached")

    camera = FakeCamera(on_demand=True)
    with line_of(folder, camera, timeout_s=20.0) as line:
        monkeypatch.setattr(line.store, "by_request", away)
        camera.shows(1)
        answer = line.cameras.trigger("press", Part(b"", "r1")).result(20.0)
        assert answer.recorded.row.verdict is Verdict.OK
        asked = Request("press", "r1", None)
        assert line.store.answered(asked) is None
        camera.shows(2, "NG")
        again = line.cameras.trigger("press", Part(b"", "r1")).result(20.0)
        assert (again.recorded.replayed, again.recorded.id) == (True, answer.recorded.id)
        monkeypatch.undo()
        assert line.store.answered(asked).id == answer.recorded.id


def test_a_request_id_of_another_part_is_no_trigger(folder, client_of):
    camera = FakeCamera(on_demand=True)
    with line_of(folder, camera, "oven", timeout_s=20.0) as line:
        client = client_of(line)
        sent = {name: part(number, request_id=name) for number, name in enumerate(("here", "there"))}
        line.stations["press"].submit(sent["here"]).result(20.0)
        line.stations["oven"].submit(sent["there"]).result(20.0)
        camera.shows(1)
        for request_id in sent:
            refused = client.post("/api/v1/stations/press/trigger", json={"request_id": request_id})
            assert (refused.status_code, refused.json()["code"]) == (422, "request_conflict")
        assert line.cameras.of["press"].view.frames == 0  # no image was taken
        taken = client.post("/api/v1/stations/press/trigger", json={"request_id": "r1"})
        assert taken.status_code == 201
        address = "/api/v1/stations/{}/inspections?request_id=r1"
        for name in line.stations:
            refused = client.post(address.format(name), content=sent["here"].image)
            assert (refused.status_code, refused.json()["code"]) == (422, "request_conflict")
        assert len(rows(line)) == 3


@pytest.mark.parametrize("trigger", ["software", "hardware"])
def test_the_trigger_of_a_plc_takes_an_image_of_the_camera(folder, trigger):
    pytest.importorskip("pymodbus")
    from andon.line.plc.master import Master
    from andon.line.plc.server import PlcServer
    from andon.line.plc.simulate import Plc

    camera = FakeCamera(on_demand=True)  # a sensor would shoot at the trigger, too
    for number, word in enumerate(["OK", "NG", "OK"], start=1):
        camera.shows(number, word)
    with line_of(folder, camera, plc=PlcSettings(), trigger=trigger, timeout_s=20.0) as line:
        server = next(each for each in line.followers if isinstance(each, PlcServer))
        with Master("127.0.0.1", server.port) as master:
            assert Plc(master, poll_s=0.0).run(3).violations == []
        found = [(row.verdict.name, row.trigger_no) for row in rows(line)]
        assert [verdict for verdict, _ in found] == ["OK", "NG", "OK"] and None not in dict(found).values()


def test_other_settings_than_expected_raise_an_alarm_at_the_start_and_at_each_look(folder, monkeypatch):
    camera = FakeCamera()
    camera.set["exposure"] = 2000
    with line_of(folder, camera, trigger="hardware", expect={"exposure": 1000, "gain": 1.0}) as line:
        mine = line.cameras.of["press"]
        assert mine.view.differences == ("exposure is 2000, expected 1000", "gain is not told, expected 1.0")
        line.cameras.tick()
        assert "camera_settings" in {alarm.rule for alarm in line.alarms.active()}
        monkeypatch.setattr(shooting, "COMPARE_SECONDS", 0.0)
        camera.set = {"exposure": 1000.5, "gain": 1}
        until(lambda: mine.view.differences == ())
    assert differences({"pixel_format": "Mono8"}, {"pixel_format": "RGB8"}) == [
        "pixel_format is RGB8, expected Mono8"
    ]
    assert [lost_between(*pair) for pair in [(None, 5), (4, 5), (4, 8), (8, 1), (4, None)]] == [0, 0, 3, 0, 0]


def test_a_folder_is_played_over_and_over_and_by_itself(tmp_path, cli):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(PICTURE + name.encode())
    camera = make_camera(CameraSettings(kind="folder", source=str(tmp_path)))
    camera.open()
    found = [camera.grab(0.0) for _ in range(3)]
    assert [frame.meta["file"] for frame in found] == ["a.png", "b.png", "a.png"] and camera.on_demand
    paced = make_camera(CameraSettings(kind="folder", source=str(tmp_path), trigger="hardware", every_s=0.05))
    paced.open()
    paced.grab(1.0)
    with pytest.raises(NoFrame):
        paced.grab(0.0)
    assert paced.grab(1.0).frame_no == 2 and not paced.on_demand
    written = tmp_path / "out" / "x.png"
    refused = cli("camera", "grab", "folder", tmp_path, "-o", written)
    assert refused.code == 2 and "cannot be written" in refused.err
    assert cli("camera", "grab", "folder", tmp_path, "-o", tmp_path / "x").code == 0
    assert (tmp_path / "x").read_bytes() == PICTURE + b"a"
    pixels = Frame(np.zeros((3, 4), np.uint8), 0).encoded()
    assert pixels.startswith(b"\x89PNG")


def test_a_video_file_is_played_and_a_missing_stream_fails(tmp_path):
    cv2 = pytest.importorskip("cv2")
    file = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for red in (40, 200):
        writer.write(np.full((24, 32, 3), (0, 0, red), np.uint8))
    writer.release()
    camera = make_camera(CameraSettings(kind="video", source=str(file)))
    camera.open()
    reds = [np.asarray(camera.grab(0.0).image)[..., 0].mean() for _ in range(3)]
    assert abs(reds[0] - 40) < 6 and abs(reds[1] - 200) < 6 and reds[2] == reds[0]
    assert camera.settings()["width"] == 32 and camera.settings()["pixel_format"] == "MJPG"
    camera.close()
    with pytest.raises(CameraFailed, match="is not open"):
        camera.grab(0.0)
    file.write_bytes(b"no film")
    with pytest.raises(CameraFailed, match="does not open"):
        camera.open()


WRONG = [
    ("kind = 'firewire'", "kind"),
    ("kind = 'folder'", "needs source"),
    ("kind = 'folder'\nsource = 'nothing'", "there is no folder"),
    ("kind = 'folder'\nsource = '.'\ntrigger = 'newest'", "needs every_s"),
    ("kind = 'usb'\nsource = 'x'", "has to be its number"),
    ("kind = 'usb'\nsource = '0'\nevery_s = 1.0", "every_s is for folder and video"),
    ("kind = 'usb'\nsource = '0'\ntrigger = 'hardware'", "no hardware trigger"),
    ("kind = 'rtsp'\nsource = 'http://x'", "has to be an address"),
    ("kind = 'rtsp'\nsource = 'rtsp://me:secret@x/1'", "must not contain user and password"),
    ("kind = 'rtsp'\nsource = 'rtsp://x'\nlogin_file = 'no'", "cannot be read"),
    ("kind = 'pylon'\nlogin_file = 'no'", "login_file is for rtsp"),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_settings_that_cannot_work_are_one_line(tmp_path, text, says):
    (tmp_path / "s.andon").touch()
    file = tmp_path / "line.toml"
    file.write_text(f"[stations.s]\nmodel = 's.andon'\n[stations.s.camera]\n{text}\n")
    with pytest.raises(ConfigError, match=says) as error:
        make_camera(LineSettings.load(file).stations[0].camera)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.service
def test_an_emulated_camera_of_pylon_with_failed_images(folder, monkeypatch, client_of, cli):
    monkeypatch.setenv("PYLON_CAMEMU", "2")
    pytest.importorskip("pypylon")
    chosen = CameraSettings(kind="pylon", source="0815-0001", timeout_s=5.0)
    assert "exposure = 10000.0" in cli("camera", "settings", "pylon", "0815-0001").out
    assert "0815-0001" in cli("camera", "list").out
    mine = make_camera(chosen)
    with line_of(folder, mine, judge=AnyImage, source=chosen.source, timeout_s=5.0) as line:
        client = client_of(line)
        assert line.cameras.of["press"].view.settings["pixel_format"] == "Mono8"
        took = []
        for _ in range(10):
            begin = time.perf_counter()
            assert client.post("/api/v1/stations/press/trigger").json()["verdict"] == "OK"
            took.append(time.perf_counter() - begin)
        device = mine._camera
        for _ in range(100):
            device.ForceFailedBufferCount.Value = 1
            device.ForceFailedBuffer.Execute()
            assert client.post("/api/v1/stations/press/trigger").json()["cause"] == "camera_failed"
        assert client.post("/api/v1/stations/press/trigger").json()["verdict"] == "OK"
        verdicts = [row.verdict for row in rows(line)]
        assert verdicts.count(Verdict.ERROR) == 100 and verdicts.count(Verdict.OK) == 11
        print(f"trigger to answer, median of 10: {sorted(took)[5] * 1e3:.0f} ms")
