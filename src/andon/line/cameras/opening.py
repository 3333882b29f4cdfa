"""Makes the camera that the settings name. Libraries of cameras are imported only where they are needed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

from andon.core.errors import ConfigError
from andon.line.cameras.camera import Camera
from andon.line.cameras.folder import FolderCamera
from andon.line.cameras.settings import REPLAYS, CameraSettings
from andon.line.clock import Clock, now_us

LIBRARIES = {"video": "cv2", "usb": "cv2", "rtsp": "cv2", "genicam": "harvesters", "pylon": "pypylon"}
PACKAGES = {
    "cv2": ("opencv-python-headless", "camera"),
    "harvesters": ("harvesters", "camera"),
    "pypylon": ("pypylon", "pylon"),
}
"""Package and extra of each library."""
VIDEO = Path("/sys/class/video4linux")
"""Where Linux names its USB cameras."""


def make_camera(settings: CameraSettings, *, clock: Clock = now_us) -> Camera:
    """The adapter, not yet open. Raises `ConfigError` where its library is not installed or a file is missing."""
    need_library(settings.kind)
    if settings.kind in REPLAYS:
        return _replay(settings, clock)
    if settings.kind == "pylon":
        from andon.line.cameras.pylon import PylonCamera

        return PylonCamera(settings.source, trigger=settings.trigger, clock=clock)
    if settings.kind == "genicam":
        from andon.line.cameras.genicam import GenicamCamera

        return GenicamCamera(
            settings.source, producer=settings.producer, trigger=settings.trigger, clock=clock
        )
    from andon.line.cameras.opencv import OpenCvCamera

    source = int(settings.source) if settings.kind == "usb" else _with_login(settings)
    return OpenCvCamera(source, name=settings.source, delay_ms=settings.delay_ms, clock=clock)


def need_library(kind: str) -> None:
    """Raises `ConfigError` where the library of a kind of camera is not installed."""
    library = LIBRARIES.get(kind)
    if library is not None and find_spec(library) is None:
        package, extra = PACKAGES[library]
        raise ConfigError(
            f"a {kind} camera needs {package}, which is not installed: pip install 'andon[{extra}]'"
        )


def _replay(settings: CameraSettings, clock: Clock) -> Camera:
    path = Path(settings.source)
    if not path.exists():
        raise ConfigError(f"camera: there is no {settings.kind} {path}; give another source")
    if settings.kind == "folder":
        return FolderCamera(path, every_s=settings.every_s, clock=clock)
    from andon.line.cameras.opencv import VideoCamera

    return VideoCamera(str(path), every_s=settings.every_s, clock=clock)


def _with_login(settings: CameraSettings) -> str:
    """The address with user and password in it."""
    if settings.login_file is None:
        return settings.source
    try:
        user, colon, password = settings.login_file.read_text(encoding="utf-8").strip().partition(":")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"camera: login_file {settings.login_file} cannot be read ({error}): see path and rights"
        ) from None
    if not colon:
        raise ConfigError(f"camera: login_file {settings.login_file} has to hold USER:PASSWORD")
    address = urlsplit(settings.source)
    place = f"{quote(user, safe='')}:{quote(password, safe='')}@{address.netloc}"
    return address._replace(netloc=place).geturl()


def visible() -> list[dict[str, str]]:
    """`kind`, `source` and `model` of the cameras that this computer sees; streams are not among them."""
    names = sorted(VIDEO.glob("video*/name"), key=lambda path: int(path.parent.name.removeprefix("video")))
    found = [
        {
            "kind": "usb",
            "source": name.parent.name.removeprefix("video"),
            "model": name.read_text(errors="replace").strip(),
        }
        for name in names
    ]
    if find_spec("harvesters") is not None:
        from andon.line.cameras import genicam

        found += [{"kind": "genicam", **each} for each in genicam.found()]
    if find_spec("pypylon") is not None:
        from andon.line.cameras import pylon

        found += [{"kind": "pylon", **each} for each in pylon.found()]
    return found
