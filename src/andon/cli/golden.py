"""`andon golden`: known parts that a station judges again."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from andon.cli.options import Json, print_json, say
from andon.cli.simulate import TokenFile, token_of
from andon.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from andon.client import Client
    from andon.line.golden.folder import Found, Known

app = typer.Typer(
    help="Known parts that show whether a station still sees what it has to see.", no_args_is_help=True
)

Address = Annotated[str, typer.Option("--url", help="Address of the running line.")]
Station = Annotated[str, typer.Argument(help="Name of the station.")]
ADDRESS = "http://localhost:8000"
PATIENT = 600.0
"""Seconds for an answer that needs work: images or a packed file are sent, verified, judged."""
REFUSED = range(400, 500)
"""Statuses of requests that cannot be done as they are."""
DEFAULT_WHY = "added with andon golden add"


@app.command()
def add(
    station: Station,
    folder: Annotated[Path, typer.Argument(help="Images in good/, borderline/, bad/ or bad/TYPE/.")],
    data: Annotated[Path, typer.Option("--data", help="Data folder of a line that does not run.")] = Path(
        "andon-data"
    ),
    url: Annotated[
        str, typer.Option("--url", help="Address of a running line, instead of its data folder.")
    ] = "",
    parts: Annotated[
        bool, typer.Option("--parts", help="The parts themselves are kept and can be shown to the camera.")
    ] = False,
    why: Annotated[str, typer.Option(help="Reason, at least 10 characters.")] = DEFAULT_WHY,
    token_file: TokenFile = None,
) -> None:
    """Add known good, bad and borderline parts to a station. It judges them by itself, at once or after its next start."""
    from andon.line.golden.folder import add_to, parts_of

    found, who = parts_of(folder), getpass.getuser()
    if not url:
        golden = add_to(data, station, found, has_part=parts, who=who, why=why)
        say(f"station {station}: {len(golden.items)} golden parts; they are judged after the next start")
        return
    with asking(url, token_file, timeout=PATIENT) as client:
        _send(client, station, found, has_part=parts, who=who, why=why)
        state = client.golden(station)
    say(f"station {station}: {len(state['items'])} golden parts")


@app.command("list")
def list_parts(
    station: Station, url: Address = ADDRESS, token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Golden parts of a station and what is due."""
    with asking(url, token_file) as client:
        golden = client.golden(station)
    if as_json:
        print_json(golden)
        return
    say(golden["text"] or f"{len(golden['items'])} golden parts, nothing is due")
    for item in golden["items"]:
        score = "" if item["score"] is None else f", score {item['score']:.3f}"
        say(f"{item['name']}: {item['kind']}, expected {item['expected'] or 'by its first check'}{score}")


@app.command()
def run(
    station: Station, url: Address = ADDRESS, token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Judge the stored images of all golden parts of a station; exit code 2 where one comes out wrong."""
    with asking(url, token_file, timeout=PATIENT) as client:
        done = client.run_golden(station, getpass.getuser())
    if as_json:
        print_json(done)
    wrong = [f"{each['name']}: {each['why']}" for each in done["results"] if each["why"]]
    if wrong:
        raise DataError(
            f"golden parts of station {station} failed, no part is OK ({'; '.join(wrong)}): find the cause"
        )
    if not as_json:
        say(f"station {station}: {len(done['results'])} golden parts judged right, run {done['id']}")


@contextlib.contextmanager
def asking(url: str, token_file: Path | None, timeout: float = 10.0) -> Iterator[Client]:
    """A client of the line; what it refuses is a wrong use. `timeout`: seconds in which an answer has to come."""
    from andon.client import Client, ClientError

    with Client(url, token=token_of(token_file), timeout=timeout) as client:
        try:
            yield client
        except ClientError as error:
            if error.status in REFUSED:
                raise UsageError(str(error)) from None
            raise


def _send(
    client: Client, station: str, found: Iterable[Found], *, has_part: bool, who: str, why: str
) -> None:
    """Add the parts that the station has not yet; the same again goes on after an error."""
    from andon.client import ClientError
    from andon.line.golden.folder import still_missing
    from andon.line.golden.items import check_reason

    check_reason(why)
    missing = still_missing(found, _known(client.golden(station)), has_part=has_part)
    for count, each in enumerate(missing):
        values = {"name": each.name, "kind": each.kind.value, "defect_type": each.defect_type}
        try:
            client.add_golden(station, each.path, **values, has_part=has_part, who=who, why=why)
        except ClientError as error:
            done = f"{count} of {len(missing)} golden parts were added"
            raise ClientError(f"{each.path}: {error}; {done}", error.status, error.code) from None


def _known(golden: dict[str, Any]) -> dict[str, Known]:
    """What a station has, by name."""
    from andon.line.golden.folder import Known

    return {
        item["name"]: Known(item["kind"], item["defect_type"], item["has_part"], item.get("image_sha256"))
        for item in golden["items"]
    }
