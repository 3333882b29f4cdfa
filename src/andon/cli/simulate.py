"""`andon simulate`: parts for load tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli.options import Json, print_json
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.client import Client
    from andon.line.simulate import Result

app = typer.Typer()


@app.command()
def simulate(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files or folders.")],
    url: Annotated[str, typer.Option(help="Address of a running `andon serve`.")] = "http://localhost:8000",
    station: Annotated[str, typer.Option(help="Station; not needed where there is one.")] = "",
    folder: Annotated[Path | None, typer.Option(help="Write into this drop folder instead.")] = None,
    rate: Annotated[float, typer.Option(min=0.01, max=1000.0, help="Parts a second.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long.")] = 60.0,
    faults: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of parts: half an image, no image, sent twice.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Send images to a running line at a rate, with faults; prints verdicts and times from request to answer."""
    from andon.client import Client
    from andon.line import simulate as line

    files = line.images(images)
    if folder is not None:
        result = line.run(line.to_folder(folder), files, rate=rate, seconds=seconds, faults=faults)
    else:
        with Client(url) as client:
            send = line.to_server(client, station or _only_station(client))
            result = line.run(send, files, rate=rate, seconds=seconds, faults=faults)
    if as_json:
        print_json(result.to_json())
        return
    _print(result)


def _only_station(client: Client) -> str:
    names = [station["name"] for station in client.stations()]
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
