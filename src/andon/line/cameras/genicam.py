"""Cameras of any vendor by GenICam: a GenTL producer (`.cti` file) of theirs finds and reads them. harvesters is imported here.

The package genicam brings the producer `viky.cti`, whose cameras need no hardware. A producer can be open once in a process:
all cameras of a file share it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from andon.core.errors import ConfigError
from andon.line.cameras.camera import CameraFailed, Frame, FrameLost, NoFrame, Value
from andon.line.cameras.features import HEALTH, SETTINGS, Trigger, first_line, values
from andon.line.clock import Clock, now_us

with warnings.catch_warnings():  # classes of SWIG warn while they are made
    warnings.simplefilter("ignore")
    from genicam import genapi, gentl
    from harvesters.core import Buffer, Component2DImage, DeviceInfo, Harvester

PATHS = "GENICAM_GENTL64_PATH"
"""Environment variable of the GenTL standard: folders with producers."""
SEARCH_MS = 500
"""For which a producer looks for cameras on one network or bus."""
POLL_SECONDS = 0.002
"""Between two looks for an image. Waiting inside the library would stop all threads of the process."""
ERRORS = (gentl.GenericException, genapi.GenericException)
DEPTHS = {"Mono8": 8, "Mono10": 10, "Mono12": 12, "Mono14": 14, "Mono16": 16}
"""Bits of a monochrome pixel."""
COLOURS = {
    "RGB8": None,
    "BGR8": cv2.COLOR_BGR2RGB,
    "RGBa8": cv2.COLOR_RGBA2RGB,
    "BGRa8": cv2.COLOR_BGRA2RGB,
    "BayerRG8": cv2.COLOR_BayerRGGB2RGB,
    "BayerGR8": cv2.COLOR_BayerGRBG2RGB,
    "BayerGB8": cv2.COLOR_BayerGBRG2RGB,
    "BayerBG8": cv2.COLOR_BayerBGGR2RGB,
}
"""How a colour format becomes RGB."""
CHANNELS = {"RGB8": 3, "BGR8": 3, "RGBa8": 4, "BGRa8": 4}

_LOCK = threading.Lock()
_OPEN: dict[str, Harvester] = {}
"""Open producers, by file."""


class GenicamCamera:
    """Adapter. `exposure` is in microseconds."""

    def __init__(
        self,
        source: str = "",
        *,
        producer: Path | None = None,
        trigger: Trigger = "software",
        clock: Clock = now_us,
    ) -> None:
        """`source`: serial number or id, empty for the first camera; `producer`: None for those of the environment.

        Raises `ConfigError` where there is no producer.
        """
        self.on_demand = trigger == "software"
        self._source, self._trigger, self._clock = source, trigger, clock
        self._files = producers(producer)
        self._acquirer: Any = None
        self._images: Any = None
        self._about: dict[str, Value] = {}

    def open(self) -> None:
        """Connect and wait for triggers. Raises `CameraFailed`."""
        try:
            with _LOCK:
                self._acquirer, self._about = self._found()
            arm(self._acquirer.remote_device.node_map, self._trigger)
            self._acquirer.start()
            # harvesters' own `fetch` waits inside the library, and drops images that are not whole
            self._images = next(iter(self._acquirer._new_buffer_event_monitor_dict.values()))
        except CameraFailed:
            self.close()
            raise
        except ERRORS as error:
            self.close()
            name = self._source or "of GenICam"
            raise CameraFailed(f"camera {name} does not open: {first_line(error)}") from None

    def _found(self) -> tuple[Any, dict[str, Value]]:
        for file in self._files:
            with _producer(file) as harvester:
                for info in harvester.device_info_list:
                    told = info.property_dict
                    if self._source in ("", told["serial_number"], told["id_"]):
                        about = {"model": told["model"], "serial": told["serial_number"]}
                        with _handlers_kept():
                            camera = harvester.create(info)
                        return camera, {name: each for name, each in about.items() if each}
        name = f"camera {self._source}" if self._source else "any camera"
        raise CameraFailed(f"GenICam does not find {name}: see cable, power and `andon camera list`")

    def grab(self, timeout: float) -> Frame:
        """The next image; triggers it first where that is by software."""
        if self._acquirer is None:
            raise CameraFailed(f"camera {self._source or 'of GenICam'} is not open")
        nodes = self._acquirer.remote_device.node_map
        try:
            if self.on_demand:
                while (older := next_buffer(self._images, 0.0)) is not None:  # exposed before this trigger
                    older.parent.queue_buffer(older)
                nodes.TriggerSoftware.execute()
            buffer = next_buffer(self._images, timeout)
            if buffer is None:
                nodes.Width.get_value(False, True)  # asks the camera: one that is gone does not answer
                raise NoFrame(f"no image within {timeout:g} s")
            try:
                return Frame(pixels_of(buffer, nodes), self._clock(), number_of(buffer))
            finally:
                buffer.parent.queue_buffer(buffer)
        except ERRORS as error:
            raise CameraFailed(f"the camera gives no images: {first_line(error)}") from None

    def settings(self) -> Mapping[str, Value]:
        """As far as the camera has them."""
        return _values(self._acquirer.remote_device.node_map, SETTINGS)

    def health(self) -> Mapping[str, Value]:
        """Model, serial number, temperature where it is measured."""
        return {**self._about, **_values(self._acquirer.remote_device.node_map, HEALTH)}

    def close(self) -> None:
        """Disconnect."""
        acquirer, self._acquirer, self._images = self._acquirer, None, None
        if acquirer is None:
            return
        with _LOCK:
            with contextlib.suppress(Exception):  # a camera that is gone fails here too
                acquirer.destroy()
            acquirer._finalizer.detach()  # would keep it, and destroy it again at the end of the process
            for file in self._files:
                if file in _OPEN and acquirer in _OPEN[file].image_acquirers:
                    _OPEN[file].image_acquirers.remove(acquirer)
                _release(file)


def producers(producer: Path | None = None) -> list[str]:
    """The file, or those of the environment. Raises `ConfigError` where there is none."""
    if producer is not None:
        if not producer.is_file():
            raise ConfigError(f"camera: there is no producer {producer}; give the .cti file of the vendor")
        return [str(producer.resolve())]
    folders = [Path(each) for each in os.environ.get(PATHS, "").split(os.pathsep) if each]
    if not (found := [str(file.resolve()) for folder in folders for file in sorted(folder.glob("*.cti"))]):
        raise ConfigError(
            f"a genicam camera needs producer, the .cti file of its vendor, or {PATHS} with its folder"
        )
    return found


def found() -> list[dict[str, str]]:
    """Serial number (or id) and model of each camera that the producers of the environment see."""
    cameras = []
    for file in producers() if os.environ.get(PATHS) else []:
        with contextlib.suppress(CameraFailed, *ERRORS), _LOCK, _producer(file) as harvester:
            for told in (info.property_dict for info in harvester.device_info_list):
                cameras.append({"source": told["serial_number"] or told["id_"], "model": told["model"] or ""})
    return cameras


def arm(nodes: Any, trigger: Trigger) -> None:
    """Make a camera wait for its trigger, or shoot by itself. Raises `CameraFailed` where it cannot."""
    for name, value in {"AcquisitionMode": "Continuous", "TriggerSelector": "FrameStart"}.items():
        if hasattr(nodes, name):
            _set(nodes, name, value)
    if not hasattr(nodes, "TriggerMode"):
        if trigger == "newest":
            return
        raise CameraFailed(f"the camera has no {trigger} trigger: use trigger = 'newest'")
    _set(nodes, "TriggerMode", "Off" if trigger == "newest" else "On")
    if trigger != "newest":
        _set(nodes, "TriggerSource", "Software" if trigger == "software" else "Line1")


def _set(nodes: Any, name: str, value: str) -> None:
    if (node := getattr(nodes, name, None)) is None:
        raise CameraFailed(f"the camera has no {name}: use trigger = 'newest'")
    try:
        if node.value != value:  # one with a single choice is not writable
            node.value = value
    except genapi.GenericException as error:
        raise CameraFailed(f"the camera does not take {name} = {value}: {first_line(error)}") from None


def next_buffer(images: Any, timeout: float) -> Any:
    """The next filled buffer, whole or not; None after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        try:
            images.update_event_data(0)
            return images.buffer
        except gentl.TimeoutException:
            if time.monotonic() >= end:
                return None
            time.sleep(POLL_SECONDS)


def number_of(buffer: Any) -> int | None:
    """Its number, where the producer tells it."""
    try:
        return int(buffer.frame_id)
    except gentl.GenericException:
        return None


def pixels_of(buffer: Any, nodes: Any) -> np.ndarray:
    """As `eight_bits`. Raises `FrameLost` where the image is not whole, or the producer does not tell."""
    try:
        is_whole = buffer.is_complete()
    except gentl.GenericException:
        is_whole = False
    if not is_whole:
        raise FrameLost("an image is not whole", number_of(buffer))
    parts = getattr(Buffer(module=buffer, node_map=nodes).payload, "components", ())
    image = next((each for each in parts if isinstance(each, Component2DImage)), None)
    if image is None:
        raise CameraFailed("the camera sends something else than images: see its settings")
    try:
        return eight_bits(image.data, image.width, image.height, image.data_format)
    except ValueError:
        raise FrameLost("an image has not the size that it tells", number_of(buffer)) from None


def eight_bits(data: np.ndarray, width: int, height: int, pixel_format: str) -> np.ndarray:
    """A copy: (H, W) of a monochrome format, otherwise (H, W, 3) RGB. `data`: the values one after another, as sent.

    Raises `ValueError` where values are missing, `CameraFailed` for another format.
    """
    if pixel_format not in DEPTHS and pixel_format not in COLOURS:
        names = ", ".join([*DEPTHS, *COLOURS])
        raise CameraFailed(f"pixel format {pixel_format} is not read: set one of {names} in the camera")
    channels = CHANNELS.get(pixel_format, 1)
    rows = data.reshape(height, -1)[:, : width * channels]  # what fills up a row is left out
    pixels = rows.reshape((height, width, channels) if channels > 1 else (height, width))
    if pixel_format in DEPTHS:
        return (pixels >> (DEPTHS[pixel_format] - 8)).astype(np.uint8)
    code = COLOURS[pixel_format]
    return np.array(pixels) if code is None else cv2.cvtColor(np.ascontiguousarray(pixels), code)


@contextlib.contextmanager
def _producer(file: str) -> Iterator[Harvester]:
    """A producer that has just looked for cameras; closed at the end unless a camera of it is open. Needs `_LOCK`."""
    try:
        if file in _OPEN:
            _look_again(_OPEN[file])
        else:
            _open_producer(file)
        yield _OPEN[file]
    finally:
        _release(file)


def _open_producer(file: str) -> None:
    harvester = Harvester()
    harvester.timeout_for_update = SEARCH_MS
    try:
        harvester.add_file(file, check_existence=True, check_validity=True)
    except OSError:
        raise CameraFailed(f"{file} is no GenTL producer for this computer: see the vendor's") from None
    _OPEN[file] = harvester
    harvester.update()


def _look_again(harvester: Harvester) -> None:
    """Find cameras without `update`, which would close those that are open."""
    harvester.device_info_list.clear()
    for interface in harvester._ifaces:
        interface.update_device_info_list(SEARCH_MS)
        harvester.device_info_list.extend(
            DeviceInfo(module=each, parent=interface) for each in interface.device_info_list
        )


def _release(file: str) -> None:
    """Close a producer without open cameras. Needs `_LOCK`."""
    harvester = _OPEN.get(file)
    if harvester is not None and not harvester.image_acquirers:
        del _OPEN[file]
        harvester.reset()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """harvesters handles SIGINT where it opens a camera in the main thread."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _values(nodes: Any, names: Mapping[str, tuple[str, ...]]) -> dict[str, Value]:
    return values(names, lambda name: getattr(nodes, name).value, genapi.GenericException)
