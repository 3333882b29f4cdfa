"""`andon camera`: which cameras there are, one image of one, its settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from andon.cli.options import Json, print_json

if TYPE_CHECKING:
    from andon.line.cameras.camera import Camera

app = typer.Typer(no_args_is_help=True, help="Look at the cameras of a line.")
Kind = Annotated[str, typer.Argument(help="usb, rtsp, genicam, pylon, video or folder.")]
Source = Annotated[
    str, typer.Argument(help="Number, address, serial number (default: the first), file or folder.")
]
LoginFile = Annotated[Path | None, typer.Option(help="File with USER:PASSWORD of an rtsp camera.")]
SECONDS = 10.0


@app.command("list")
def list_cameras(as_json: Json = False) -> None:
    """Print the cameras that this computer sees: USB cameras, those of GenICam and pylon where they are installed."""
    from andon.line.cameras.opening import visible

    cameras = visible()
    if as_json:
        print_json(cameras)
        return
    for each in cameras:
        print(f"{each['kind']:7} {each['source']:16} {each['model']}")
    if not cameras:
        print("No camera is seen. Network streams (rtsp) are not listed.")


@app.command()
def grab(
    kind: Kind,
    source: Source = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Image file to write.")] = Path("image.png"),
    login_file: LoginFile = None,
) -> None:
    """Take one image."""
    from andon.core.errors import UsageError
    from andon.line.judge import suffix_of

    with _open(kind, source, login_file) as camera:
        content = camera.grab(SECONDS).encoded()
    try:
        out.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
    print(f"{out}: {suffix_of(content)[1:]}, {len(content)} bytes")


@app.command()
def settings(kind: Kind, source: Source = "", login_file: LoginFile = None, as_json: Json = False) -> None:
    """Print what is set now, as the line `expect` of the station's settings."""
    with _open(kind, source, login_file) as camera:
        found = dict(camera.settings())
    if as_json:
        print_json(found)
        return
    print("expect = { " + ", ".join(f"{name} = {_toml(value)}" for name, value in found.items()) + " }")


@contextlib.contextmanager
def _open(kind: str, source: str, login_file: Path | None) -> Iterator[Camera]:
    from andon.line.cameras.opening import make_camera
    from andon.line.cameras.settings import CameraSettings

    values: dict[str, Any] = {"kind": kind, "source": source}
    if login_file is not None:
        values["login_file"] = login_file
    camera = make_camera(CameraSettings.parse(values, where="the options"))
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


def _toml(value: object) -> str:
    from json import dumps

    return dumps(value)
