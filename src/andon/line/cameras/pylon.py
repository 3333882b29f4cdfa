"""Basler cameras by pylon. pypylon is imported here.

Its camera emulation (`PYLON_CAMEMU=2`) gives cameras without hardware.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from andon.line.cameras.camera import CameraFailed, Frame, FrameLost, NoFrame, Value
from andon.line.cameras.features import HEALTH, SETTINGS, Trigger, first_line, values
from andon.line.clock import Clock, now_us

with warnings.catch_warnings():  # a warning that is an error ends the process inside this import
    warnings.simplefilter("ignore")
    from pypylon import genicam, pylon


class PylonCamera:
    """Adapter. `exposure` is in microseconds."""

    def __init__(self, serial: str = "", *, trigger: Trigger = "software", clock: Clock = now_us) -> None:
        """`serial`: empty for the first camera that is found."""
        self.on_demand = trigger == "software"
        self._serial, self._trigger, self._clock = serial, trigger, clock
        self._camera: Any = None

    def open(self) -> None:
        """Connect and wait for triggers. Raises `CameraFailed`."""
        factory = pylon.TlFactory.GetInstance()
        wanted = [each for each in factory.EnumerateDevices() if self._serial in ("", each.GetSerialNumber())]
        if not wanted:
            name = f"camera {self._serial}" if self._serial else "any camera"
            raise CameraFailed(f"pylon does not find {name}: see cable, power and `andon camera list`")
        try:
            self._camera = pylon.InstantCamera(factory.CreateDevice(wanted[0]))
            self._camera.Open()
            _set(self._camera, "TriggerSelector", "FrameStart")
            _set(self._camera, "TriggerMode", "Off" if self._trigger == "newest" else "On")
            if self._trigger != "newest":
                _set(self._camera, "TriggerSource", "Software" if self.on_demand else "Line1")
            self._camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
        except genicam.GenericException as error:
            self.close()
            raise CameraFailed(
                f"camera {self._serial or 'of pylon'} does not open: {first_line(error)}"
            ) from None

    def grab(self, timeout: float) -> Frame:
        """The next image; triggers it first where that is by software."""
        try:
            if self.on_demand:
                self._trigger_now(timeout)
            result = self._camera.RetrieveResult(round(timeout * 1000), pylon.TimeoutHandling_Return)
        except genicam.GenericException as error:
            raise CameraFailed(f"the camera gives no images: {first_line(error)}") from None
        if result is None or not result.IsValid():
            if self._camera.IsCameraDeviceRemoved():
                raise CameraFailed("the camera is gone: see cable and power")
            raise NoFrame(f"no image within {timeout:g} s")
        with contextlib.closing(_Released(result)):
            number = int(result.BlockID)
            if not result.GrabSucceeded():
                raise FrameLost(f"an image is not whole: {result.ErrorDescription}", number)
            return Frame(_eight_bits(result), self._clock(), number, {"ticks": int(result.TimeStamp)})

    def _trigger_now(self, timeout: float) -> None:
        """Once the camera is ready: it drops a trigger that comes before."""
        limit = round(timeout * 1000)
        if self._camera.CanWaitForFrameTriggerReady() and not self._camera.WaitForFrameTriggerReady(
            limit, pylon.TimeoutHandling_Return
        ):
            raise NoFrame(f"no readiness for a trigger within {timeout:g} s")
        self._camera.ExecuteSoftwareTrigger()

    def settings(self) -> Mapping[str, Value]:
        """As far as the camera has them."""
        return _values(self._camera, SETTINGS)

    def health(self) -> Mapping[str, Value]:
        """Model, serial number, temperature where it is measured."""
        info = self._camera.GetDeviceInfo()
        found: dict[str, Value] = {"model": info.GetModelName(), "serial": info.GetSerialNumber()}
        return {**found, **_values(self._camera, HEALTH)}

    def close(self) -> None:
        """Disconnect."""
        camera, self._camera = self._camera, None
        if camera is not None:
            with contextlib.suppress(genicam.GenericException):
                camera.StopGrabbing()
            with contextlib.suppress(genicam.GenericException):
                camera.Close()


class _Released:
    """Gives the buffer of a result back."""

    def __init__(self, result: Any) -> None:
        self.close = result.Release


def found() -> list[dict[str, str]]:
    """Serial number and model of each camera that pylon sees."""
    devices = pylon.TlFactory.GetInstance().EnumerateDevices()
    return [{"source": each.GetSerialNumber(), "model": each.GetModelName()} for each in devices]


def _eight_bits(result: Any) -> np.ndarray:
    """(H, W) of a monochrome camera, otherwise (H, W, 3) RGB."""
    if result.PixelType == pylon.PixelType_Mono8:
        return np.array(result.Array)
    converter = pylon.ImageFormatConverter()
    is_mono = pylon.IsMono(result.PixelType)
    converter.OutputPixelFormat = pylon.PixelType_Mono8 if is_mono else pylon.PixelType_RGB8packed
    return np.array(converter.Convert(result).GetArray())


def _values(camera: Any, names: Mapping[str, tuple[str, ...]]) -> dict[str, Value]:
    return values(names, lambda name: getattr(camera, name).Value, genicam.GenericException)


def _set(camera: Any, name: str, value: str) -> None:
    getattr(camera, name).Value = value
