"""GenICam cameras: the producer that the package genicam brings, triggers, images that are not whole, pixel formats."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from andon.core.errors import ConfigError
from andon.line.cameras.camera import CameraFailed, Frame, FrameLost, NoFrame
from andon.line.cameras.opening import make_camera
from andon.line.cameras.settings import CameraSettings

pytest.importorskip("harvesters")
import genicam as package
from genicam import genapi, gentl

from andon.line.cameras import genicam

VIKY = Path(package.__file__).with_name("viky.cti")


def camera_of(source: str = "0", trigger: str = "newest", producer: Path = VIKY) -> Any:
    return make_camera(CameraSettings(kind="genicam", source=source, trigger=trigger, producer=producer))


def test_images_come_with_numbers_and_two_cameras_share_a_producer(monkeypatch, cli):
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(VIKY.parent))
    assert "genicam 2                Viky" in cli("camera", "list").out
    handler = signal.getsignal(signal.SIGINT)
    one, other = (
        camera_of(),
        make_camera(CameraSettings(kind="genicam", source="VikyTL_DEV_blue", trigger="newest")),
    )
    with pytest.raises(CameraFailed, match="is not open"):
        one.grab(1.0)
    one.open()
    assert one.grab(1.0).frame_no == 1
    other.open()
    try:
        assert signal.getsignal(signal.SIGINT) is handler
        frames = [one.grab(1.0) for _ in range(2)]
        assert [frame.frame_no for frame in frames] == sorted({frame.frame_no for frame in frames})
        assert {frame.image.shape for frame in frames} == {(400, 400, 3)}
        assert not np.array_equal(frames[0].image, frames[1].image)  # a copy, not the buffer of the producer
        assert one.settings() == {"pixel_format": "RGBa8", "width": 400, "height": 400}
        assert (one.health()["serial"], other.health()) == ("0", {"model": "Viky", "serial": "2"})
        other.close()
        assert one.grab(1.0).frame_no > frames[-1].frame_no
    finally:
        one.close()
        other.close()
    assert genicam._OPEN == {}


@pytest.mark.service
def test_it_is_opened_again_ten_times():
    camera = camera_of()
    for time in range(10):
        camera.open()
        assert camera.grab(2.0).frame_no == 1
        if time == 4:  # one that is gone fails while it is closed

            def fail() -> None:
                raise gentl.GenericException("gone")

            camera._acquirer.destroy = fail
        camera.close()
    camera.close()
    assert genicam._OPEN == {}


def test_what_cannot_be_opened_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("GENICAM_GENTL64_PATH", raising=False)
    (tmp_path / "x.cti").write_bytes(b"no library")
    for camera, says in (
        (camera_of("4711"), "GenICam does not find camera 4711"),
        (camera_of(trigger="software"), "has no software trigger"),
        (camera_of(producer=tmp_path / "x.cti"), "is no GenTL producer"),
    ):
        with pytest.raises(CameraFailed, match=says) as error:
            camera.open()
        assert "\n" not in str(error.value) and genicam._OPEN == {}
    for producer, says in ((tmp_path / "y.cti", "there is no producer"), (None, "needs producer")):
        with pytest.raises(ConfigError, match=says):
            make_camera(CameraSettings(kind="genicam", producer=producer))
    with pytest.raises(ValueError, match="producer is for genicam"):
        CameraSettings(kind="pylon", producer=VIKY)


class Node:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def get_value(self, verify: bool, ignore_cache: bool) -> Any:
        return self.value


class Images:
    """A producer's images, one for each trigger: numbers, and whether each is whole."""

    def __init__(self, *coming: tuple[int, bool]) -> None:
        self.coming, self.filled, self.buffer = list(coming), [], None
        self.given_back: list[int] = []

    def execute(self) -> None:
        self.filled += self.coming[:1]
        del self.coming[:1]

    def update_event_data(self, timeout: int) -> None:
        if not self.filled:
            raise gentl.TimeoutException("none")
        number, whole = self.filled.pop(0)
        self.buffer = SimpleNamespace(frame_id=number, is_complete=lambda: whole, parent=self)

    def queue_buffer(self, buffer: Any) -> None:
        self.given_back.append(buffer.frame_id)


def test_a_trigger_is_sent_and_an_image_that_is_not_whole_is_lost(monkeypatch):
    images = Images((2, False), (3, True))
    names = ("TriggerSelector", "TriggerMode", "TriggerSource", "Width")
    nodes = SimpleNamespace(TriggerSoftware=images, **{name: Node() for name in names})
    genicam.arm(nodes, "hardware")
    assert [nodes.TriggerSelector.value, nodes.TriggerMode.value, nodes.TriggerSource.value] == [
        "FrameStart",
        "On",
        "Line1",
    ]
    genicam.arm(nodes, "software")
    assert (nodes.TriggerMode.value, nodes.TriggerSource.value) == ("On", "Software")
    camera = camera_of(trigger="software")
    images.filled.append((1, True))  # from before the trigger
    camera._acquirer, camera._images = SimpleNamespace(remote_device=SimpleNamespace(node_map=nodes)), images
    with pytest.raises(FrameLost, match="not whole") as lost:
        camera.grab(0.0)
    assert lost.value.frame_no == 2
    part = SimpleNamespace(data=np.arange(6, dtype=np.uint8), width=3, height=2, data_format="Mono8")
    monkeypatch.setattr(genicam, "Component2DImage", SimpleNamespace)
    monkeypatch.setattr(
        genicam, "Buffer", lambda **_: SimpleNamespace(payload=SimpleNamespace(components=[part]))
    )
    found: Frame = camera.grab(0.0)
    assert (found.frame_no, found.image.tolist()) == (3, [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(NoFrame):
        camera.grab(0.0)
    assert images.given_back == [1, 2, 3]

    def gone(*_: bool) -> None:
        raise genapi.GenericException("no answer : in a file")

    nodes.Width.get_value = gone
    with pytest.raises(CameraFailed, match="gives no images"):
        camera.grab(0.0)


def test_formats_become_eight_bits_without_what_fills_up_rows():
    twelve = np.array([16, 4095, 7, 0, 2048, 7], np.uint16)  # one value fills up each row of two
    assert genicam.eight_bits(twelve, 2, 2, "Mono12").tolist() == [[1, 255], [0, 128]]
    blue = np.array([1, 2, 3, 9], np.uint8)
    assert genicam.eight_bits(blue, 1, 1, "BGRa8").tolist() == [[[3, 2, 1]]]
    for name, row, column in (("BayerRG8", 0, 0), ("BayerGR8", 0, 1), ("BayerGB8", 1, 0), ("BayerBG8", 1, 1)):
        mosaic = np.zeros((8, 8), np.uint8)
        mosaic[row::2, column::2] = 200  # the red pixels
        assert genicam.eight_bits(mosaic.ravel(), 8, 8, name)[4, 4].tolist() == [200, 0, 0]
    with pytest.raises(ValueError):
        genicam.eight_bits(blue, 3, 2, "Mono8")
    with pytest.raises(CameraFailed, match="YUV422_8 is not read: set one of Mono8"):
        genicam.eight_bits(blue, 2, 1, "YUV422_8")
