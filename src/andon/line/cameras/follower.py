"""The cameras of a line: made from its settings, with their alarms."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from andon.core.errors import UsageError
from andon.line.cameras.camera import Camera, CameraFailed
from andon.line.cameras.opening import make_camera
from andon.line.cameras.settings import CameraSettings
from andon.line.cameras.shooting import StationCamera
from andon.line.follower import Follower
from andon.line.plc.handshake import Trigger
from andon.line.plc.unit import Shoot
from andon.line.station import Answer, Part
from andon.line.store import Request
from andon.line.verdicts import Cause

if TYPE_CHECKING:
    from andon.line.line import Line

LOG = logging.getLogger(__name__)
OpenCamera = Callable[[CameraSettings], Camera]
SETTINGS_ALARM, LOST_ALARM = "camera_settings", "camera_frames"
LOST_SECONDS = 60.0
"""For which the alarm about lost images stays after the last one."""


class Cameras(Follower):
    """All cameras, by station."""

    def __init__(self, line: Line, make: OpenCamera = make_camera) -> None:
        """Raises `ConfigError` where a library is not installed or a file is missing."""
        self._alarms, self._store = line.alarms, line.store
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

    def trigger(self, station: str, part: Part) -> Future[Answer]:
        """Take an image for a part and judge it; a request that was answered before gets its row. Waits for the image.

        Without an image the part is a row with verdict ERROR. Raises as `Station.submit`; `RequestConflict` where the id belongs
        to another station or to an image that was sent; `UsageError` where no camera waits
        for triggers.
        """
        camera = self.of.get(station)
        if camera is None or camera.each_is_part:
            why = "no camera" if camera is None else "a camera that hardware alone triggers"
            raise UsageError(f"station {station} has {why}: triggers need one that waits for them")
        given: Future[Answer] = Future()
        part = replace(part, triggered=True)
        if (known := self._store.answered(Request(station, part.request_id, None))) is not None:
            given.set_result(Answer(known))
            return given
        try:
            image = camera.shoot().encoded()
        except CameraFailed as error:
            LOG.warning("%s", error)
            row = camera.station.record_missing(part, Cause.CAMERA_FAILED).result()
            given.set_result(Answer(row, str(error)))
            return given
        return camera.station.submit(camera.station.triggered(replace(part, image=image)))

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
