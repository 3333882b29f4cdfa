"""The camera of a station at work: one thread opens it, reads it, compares its settings and opens it again when it fails.

A part is bad until cleared: a trigger without a fresh image is ERROR, an image that is missing between two others is ERROR
where each image is a part, and no image is judged twice or later than a cycle after its exposure.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from andon.core.errors import AndonError
from andon.line.cameras.camera import (
    Camera,
    CameraFailed,
    Frame,
    FrameLost,
    NoFrame,
    Value,
    differences,
    lost_between,
)
from andon.line.cameras.settings import CameraSettings
from andon.line.clock import Clock, now_us
from andon.line.faults import Fault
from andon.line.station import Part, Station
from andon.line.verdicts import Cause

LOG = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a camera that failed is opened again; doubled each time up to the longest."""
READ_SECONDS = 1.0
"""Longest wait for an image that comes by itself, before the thread looks at its other work."""
SILENT_SECONDS = 5.0
"""Without an image of a camera that shoots by itself, after which it counts as failed."""
COMPARE_SECONDS = 3600.0
"""Between two looks at the settings of a camera."""
MOST_LOST = 100
"""Rows that one gap gives at most."""


@dataclass(frozen=True, slots=True)
class CameraView:
    """A camera now, for people."""

    connected: bool = False
    fault: str = ""
    """What fails; empty where nothing does."""
    frames: int = 0
    """Images since the start."""
    lost: int = 0
    """Images that did not arrive, or not whole."""
    stale: int = 0
    """Images that were too old to be judged."""
    opened: int = 0
    """How often it was opened."""
    last_lost: float | None = None
    """`steady` of the last loss."""
    settings: dict[str, Value] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    """Settings that are not as expected."""
    health: dict[str, Value] = field(default_factory=dict)


class StationCamera:
    """Takes the images of one station."""

    def __init__(
        self,
        station: Station,
        settings: CameraSettings,
        camera: Camera,
        *,
        clock: Clock = now_us,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.station, self.settings = station, settings
        self.each_is_part = settings.trigger == "hardware" and station.settings.plc is None
        """Every image is a part; otherwise triggers take images by `shoot`."""
        self._camera, self._clock, self._steady = camera, clock, steady
        self._session, self._numbers = uuid.uuid4().hex[:12], count(1)
        self._view = CameraView()
        self._news, self._one = threading.Condition(), threading.Lock()
        self._wanted, self._ending = False, False
        self._newest: tuple[Frame, float] | None = None
        """The newest image that no part has, and when it was exposed (`steady`)."""
        self._why = ""
        """Why the image that is waited for does not come."""
        self._last_no: int | None = None
        self._last_frame = self._compared = 0.0
        self._thread = threading.Thread(target=self._run, name=f"andon-{station.name}-camera", daemon=True)

    # Any thread ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the camera, and again whenever it fails."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Close the camera."""
        with self._news:
            self._ending = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def view(self) -> CameraView:
        """The camera now."""
        return self._view

    @property
    def steady(self) -> float:
        """Seconds of the clock of `CameraView.last_lost`."""
        return self._steady()

    def shoot(self) -> Frame:
        """An image for a trigger that came now, which no other part gets. One trigger at a time.

        Raises `CameraFailed` where none comes in time.
        """
        end = self._steady() + self.settings.timeout_s
        with self._one, self._news:
            now = self._steady()
            oldest = now if self.settings.trigger == "software" else now - self.station.settings.cycle_s
            self._wanted, self._why = True, self._view.fault
            self._news.notify_all()
            try:
                self._news.wait_for(
                    lambda: self._fresh(oldest) or self._why or self._ending, max(0.0, end - now)
                )
                return self._take(oldest)
            finally:
                self._wanted = False

    def _fresh(self, oldest: float) -> bool:
        """Whether there is an image exposed since then; an older one is dropped."""
        if self._newest is not None and self._newest[1] < oldest:
            self._newest = None
            self._note(stale=self._view.stale + 1)
        return self._newest is not None

    def _take(self, oldest: float) -> Frame:
        if not self._fresh(oldest) or self._newest is None:
            why = self._why or f"no image within {self.settings.timeout_s:g} s"
            raise CameraFailed(f"station {self.station.name}, camera: {why}")
        frame, self._newest = self._newest[0], None
        return frame

    # The thread of the camera --------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._ending:
            frames = self._view.frames
            try:
                self._open()
                while not self._ending:
                    self._step()
            except Exception as error:  # libraries of vendors raise what they like
                if not isinstance(error, AndonError):
                    LOG.exception("station %s: the library of the camera failed", self.station.name)
                self._failed(str(error) or type(error).__name__)
            finally:
                with contextlib.suppress(Exception):
                    self._camera.close()
            pause = FIRST_PAUSE if self._view.frames > frames else min(2 * pause, LONGEST_PAUSE)
            with self._news:
                self._news.wait_for(lambda: self._ending, pause)

    def _open(self) -> None:
        self._camera.open()
        self._last_no, self._last_frame = None, self._steady()
        self._compare()
        self._note(connected=True, fault="", opened=self._view.opened + 1)
        self.station.set_fault(Fault.CAMERA, None)

    def _failed(self, why: str) -> None:
        LOG.error("station %s, camera: %s", self.station.name, why)
        with self._news:
            self._note(connected=False, fault=why)
            self._newest, self._why = None, why
            self._news.notify_all()
        self.station.set_fault(Fault.CAMERA, why)

    def _compare(self) -> None:
        found = dict(self._camera.settings())
        self._compared = self._steady()
        differ = tuple(differences(self.settings.expect, found))
        self._note(settings=found, differences=differ, health=dict(self._camera.health()))

    def _step(self) -> None:
        """One image, where there is one."""
        if self._steady() - self._compared >= COMPARE_SECONDS:
            self._compare()
        if self._camera.on_demand and not self._is_wanted():
            return
        try:
            frame = self._camera.grab(self.settings.timeout_s if self._camera.on_demand else READ_SECONDS)
        except NoFrame as error:
            self._nothing(str(error))
        except FrameLost as error:
            lost_before = lost_between(self._last_no, error.frame_no)
            self._last_no = self._last_no if error.frame_no is None else error.frame_no
            self._lost(lost_before + 1, str(error))
        else:
            self._arrived(frame)

    def _is_wanted(self) -> bool:
        """Whether a trigger waits for an image; waits for one."""
        with self._news:
            return (
                self._news.wait_for(
                    lambda: self._ending or (self._wanted and self._newest is None and not self._why),
                    READ_SECONDS,
                )
                and not self._ending
            )

    def _nothing(self, why: str) -> None:
        if self._camera.on_demand:
            raise CameraFailed(f"it was triggered and gave {why}")
        if self.settings.trigger != "hardware" and self._steady() - self._last_frame > SILENT_SECONDS:
            raise CameraFailed(f"no image for {SILENT_SECONDS:g} s: see cable and power")

    def _arrived(self, frame: Frame) -> None:
        now = self._steady()
        exposed = now - max(0, self._clock() - frame.t_exposure) / 1e6
        self._last_frame = now
        if frame.frame_no is not None and frame.frame_no == self._last_no:
            self._note(stale=self._view.stale + 1)  # the same image again
            return
        if lost := lost_between(self._last_no, frame.frame_no):
            self._lost(lost, f"{lost} missing before number {frame.frame_no}")
        self._last_no = frame.frame_no
        self._note(frames=self._view.frames + 1)
        if self.each_is_part:
            self._part(frame, now - exposed)
            return
        with self._news:
            self._newest = (frame, exposed)
            self._news.notify_all()

    def _part(self, frame: Frame, age: float) -> None:
        """Judge an image that is a part."""
        if age > self.station.settings.cycle_s:
            self._note(stale=self._view.stale + 1)
            self._missing(Cause.TIMEOUT)
            return
        part = Part(frame.encoded(), self._request_id(), t_trigger=frame.t_exposure, source="camera")
        try:
            self.station.submit(part)
        except AndonError as error:  # the part is a row with verdict ERROR
            LOG.warning("%s", error)

    def _lost(self, images: int, why: str) -> None:
        LOG.warning("station %s, camera: images are lost: %s", self.station.name, why)
        self._note(lost=self._view.lost + images, last_lost=self._steady())
        if self.each_is_part:
            for _ in range(min(images, MOST_LOST)):
                self._missing(Cause.CAMERA_FAILED)
        elif self._camera.on_demand:
            with self._news:
                self._why = why
                self._news.notify_all()

    def _missing(self, cause: Cause) -> None:
        """Store a part without a usable image as ERROR."""
        self.station.record_missing(Part(b"", self._request_id(), source="camera"), cause)

    def _request_id(self) -> str:
        return f"camera-{self.station.name}-{self._session}-{next(self._numbers)}"

    def _note(self, **changes: object) -> None:
        with self._news:
            self._view = replace(self._view, **changes)  # type: ignore[arg-type]
