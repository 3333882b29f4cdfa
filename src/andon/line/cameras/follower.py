"""The cameras of a line: made from its settings, with their alarms."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from andon.line.cameras.camera import Camera
from andon.line.cameras.opening import make_camera
from andon.line.cameras.settings import CameraSettings
from andon.line.cameras.shooting import StationCamera
from andon.line.follower import Follower
from andon.line.plc.handshake import Trigger
from andon.line.plc.unit import Shoot

if TYPE_CHECKING:
    from andon.line.line import Line

OpenCamera = Callable[[CameraSettings], Camera]
SETTINGS_ALARM, LOST_ALARM = "camera_settings", "camera_frames"
LOST_SECONDS = 60.0
"""For which the alarm about lost images stays after the last one."""


class Cameras(Follower):
    """All cameras, by station."""

    def __init__(self, line: Line, make: OpenCamera = make_camera) -> None:
        """Raises `ConfigError` where a library is not installed or a file is missing."""
        self._alarms = line.alarms
        self.of: Mapping[str, StationCamera] = {
            each.name: StationCamera(
                line.stations[each.name], each.camera, make(each.camera), clock=line.clock
            )
            for each in line.settings.stations
            if each.camera is not None
        }

    @property
    def shoots(self) -> dict[str, Shoot]:
        """What takes an image on request, by station; none where every image is a part."""
        return {name: partial(_image, camera) for name, camera in self.of.items() if not camera.each_is_part}

    def open(self) -> None:
        """Parts may be taken from now on."""
        for camera in self.of.values():
            camera.start()

    def close(self, timeout: float) -> None:
        """Take no part any more; all threads end within `timeout` seconds."""
        end = time.monotonic() + timeout
        for camera in self.of.values():
            camera.stop(max(0.0, end - time.monotonic()))

    def tick(self) -> None:
        """Begin and end alarms."""
        for name, camera in self.of.items():
            view = camera.view
            differ = "; ".join(view.differences)
            self._alarms.condition(name, SETTINGS_ALARM, bool(differ), differ)
            is_recent = view.last_lost is not None and camera.steady - view.last_lost < LOST_SECONDS
            why = (
                f"{view.lost} images were lost since the start: see cable, power and load"
                if is_recent
                else ""
            )
            self._alarms.condition(name, LOST_ALARM, is_recent, why)


def _image(camera: StationCamera, _: Trigger) -> bytes:
    return camera.shoot().encoded()
