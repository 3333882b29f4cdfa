"""`andon simulate`: parts for load tests, and a PLC that triggers them."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli.options import Json, print_json
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.client import Client
    from andon.line.plc.simulate import Result as PlcResult
    from andon.line.simulate import Result


app = typer.Typer()
simulate = typer.Typer(
    no_args_is_help=True, help="Send images to a running line, or play a PLC that triggers its parts."
)
app.add_typer(simulate, name="simulate")


TokenFile = Annotated[
    Path | None,
    typer.Option(help="File with a token, where the line has accounts; default: the variable ANDON_TOKEN."),
]


@simulate.command("images")
def send_images(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files or folders.")],
    url: Annotated[str, typer.Option(help="Address of a running `andon serve`.")] = "http://localhost:8000",
    station: Annotated[str, typer.Option(help="Station; not needed where there is one.")] = "",
    folder: Annotated[Path | None, typer.Option(help="Write into this drop folder instead.")] = None,
    rate: Annotated[float, typer.Option(min=0.01, max=1000.0, help="Parts a second.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long.")] = 60.0,
    faults: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of parts: half an image, no image, sent twice.")
    ] = 0.0,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Send images to a running line at a rate, with faults; prints verdicts and times from request to answer."""
    from andon.client import Client
    from andon.line import simulate as line

    files = line.images(images)
    if folder is not None:
        result = line.run(line.to_folder(folder), files, rate=rate, seconds=seconds, faults=faults)
    else:
        with Client(url, token=token_of(token_file)) as client:
            send = line.to_server(client, _station(client, station))
            result = line.run(send, files, rate=rate, seconds=seconds, faults=faults)
    if as_json:
        print_json(result.to_json())
        return
    _print(result)


@simulate.command("plc")
def play_plc(
    host: Annotated[
        str,
        typer.Argument(help="Where `andon serve` listens for PLCs; with --listen, where this PLC listens."),
    ] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5020,
    unit: Annotated[int, typer.Option(min=1, max=247, help="Modbus unit of the station.")] = 1,
    base: Annotated[int, typer.Option(min=0, max=65472, help="Address of its first register.")] = 0,
    listen: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Be the Modbus server on this port, for a station with `connect`: the command block begins at --base, the "
            "result block 32 registers later.",
        ),
    ] = None,
    cycles: Annotated[int, typer.Option(min=1, help="Parts to trigger.")] = 100,
    rate: Annotated[float, typer.Option(min=0.01, max=1000.0, help="Parts a second.")] = 1.0,
    faults: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of cycles with a pause, a dropped connection, a wrong level."
        ),
    ] = 0.0,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Images that follow the triggers; not needed where a camera takes them."),
    ] = None,
    url: Annotated[str, typer.Option(help="Address for the images.")] = "http://localhost:8000",
    station: Annotated[str, typer.Option(help="Station for the images; not needed where there is one.")] = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Play a PLC: trigger parts over Modbus TCP, check every block, print verdicts and times from trigger to result."""
    from andon.client import Client
    from andon.line import simulate as line
    from andon.line.plc.master import Master
    from andon.line.plc.memory import Memory
    from andon.line.plc.simulate import Plc

    photos = cycle([file.read_bytes() for file in line.images(images)]) if images else None
    with (
        Client(url, token=token_of(token_file)) as client,
        ThreadPoolExecutor() as pool,
        Master(host, port, unit=unit, base=base)
        if listen is None
        else Memory(listen, host=host, unit=unit, command=base, result=base + 32) as wire,
    ):
        name = _station(client, station) if photos else ""

        def follow(number: int) -> None:
            if photos is not None:
                pool.submit(client.inspect, name, next(photos), trigger_no=number)

        wire.ready()
        found = Plc(wire, image=follow).run(cycles, rate=rate, faults=faults, first=random.randrange(1 << 16))
    if as_json:
        print_json(found.to_json())
    else:
        _print_plc(found)
    if found.violations:
        raise typer.Exit(1)


def _print_plc(result: PlcResult) -> None:
    found = result.to_json()
    print(f"{found['cycles']} parts, {found['per_minute']} a minute")
    for title, count in {**found["verdicts"], **found["faults"]}.items():
        print(f"  {title}: {count}")
    if times := found["ms"]:
        print(
            f"from trigger to result: p50 {times['p50']} ms, p99 {times['p99']} ms, largest {times['largest']} ms"
        )
    for violation in found["violations"]:
        print(f"wrong: {violation}")


def token_of(file: Path | None) -> str:
    """The token in a file, by default that of `ANDON_TOKEN`; empty where there is none."""
    if file is None:
        return os.environ.get("ANDON_TOKEN", "").strip()
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{file} cannot be read: give a file that holds a token alone") from None


def _station(client: Client, asked: str) -> str:
    """The station that was asked for, or the only one. Says before the first part where there is none, or no server."""
    names = [station["name"] for station in client.stations()]
    if not names:
        raise UsageError("this server has no stations: give the address of a line by --url")
    if asked and asked not in names:
        raise UsageError(f"there is no station {asked}: give one by --station ({', '.join(names)})")
    if asked:
        return asked
    if len(names) != 1:
        raise UsageError(f"there are several stations: give one by --station ({', '.join(names)})")
    return str(names[0])


def _print(result: Result) -> None:
    found = result.to_json()
    print(f"{found['sent']} parts, {found['per_second']} a second")
    for verdict, count in found["answers"].items():
        print(f"  {verdict}: {count}")
    for name, title in (("ms", "from request to answer"), ("judge_ms", "of which judging")):
        if times := found[name]:
            print(f"{title}: p50 {times['p50']} ms, p99 {times['p99']} ms, largest {times['largest']} ms")
    if result.contradictions:
        print(f"{result.contradictions} parts that were sent twice got two inspections")
