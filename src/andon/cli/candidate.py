"""`andon candidate`: packed files that may replace the model of a station of a running line."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from andon.cli.golden import ADDRESS, PATIENT, Address, Station, asking
from andon.cli.options import Json, print_json, say
from andon.cli.simulate import TokenFile
from andon.core.errors import DataError, UsageError
from andon.core.text import plural

if TYPE_CHECKING:
    from andon.client import Client

app = typer.Typer(
    help="Models that may replace the one in use: evidence, use, way back.", no_args_is_help=True
)

Number = Annotated[int, typer.Argument(help="Number of the candidate, as `andon candidate list` prints it.")]
Why = Annotated[str, typer.Option("--why", help="Reason, at least 10 characters.")]
LOOK_SECONDS = 1.0


@app.command()
def add(
    station: Station,
    pack: Annotated[Path, typer.Argument(help="Packed file (`andon pack`).")],
    why: Why,
    url: Address = ADDRESS,
    token_file: TokenFile = None,
) -> None:
    """Send a packed file to a running line, which verifies and keeps it. Nothing is judged by it yet."""
    if not pack.is_file():
        raise UsageError(f"there is no file {pack}: make one with `andon pack`")
    with asking(url, token_file, timeout=PATIENT) as client:
        made = client.add_candidate(station, pack, who=getpass.getuser(), why=why)
    say(f"station {station}: candidate {made['id']} is {made['name']} ({made['sha256'][:16]})")


@app.command("list")
def list_candidates(
    station: Station, url: Address = ADDRESS, token_file: TokenFile = None, as_json: Json = False
) -> None:
    """Candidates of a station, newest first."""
    with asking(url, token_file) as client:
        found = client.candidates(station)
    if as_json:
        print_json(found)
        return
    for each in found:
        say(f"{each['id']}: {each['name']}, {state(each)}, by {each['who']}: {each['why']}")
    if not found:
        say(f"station {station} has no candidates")


@app.command()
def compare(
    station: Station,
    number: Number,
    sample: Annotated[
        int, typer.Option(help="Random sample of the newest parts, beside the reviewed ones.")
    ] = 500,
    url: Address = ADDRESS,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Judge stored parts by a candidate and the model in use, wait for the end, print both."""
    with asking(url, token_file, timeout=PATIENT) as client:
        client.compare_candidate(station, number, getpass.getuser(), sample=sample)
        found = _finished(client, station, number)
    if as_json:
        print_json(found)
    if found["comparison"]["error"]:
        raise DataError(f"candidate {number} could not be compared: {found['comparison']['error']}")
    if not as_json:
        for line in told(found["comparison"]):
            say(line)


@app.command()
def shadow(
    station: Station,
    number: Number,
    off: Annotated[bool, typer.Option("--off", help="End it.")] = False,
    url: Address = ADDRESS,
    token_file: TokenFile = None,
) -> None:
    """Let a candidate score the parts of a station after their answers have left; its verdicts reach nobody."""
    with asking(url, token_file, timeout=PATIENT) as client:
        found = client.shadow_candidate(station, number, getpass.getuser(), on=not off)
        found = client.candidate(station, number) if off else found
    run = found["shadow"]
    say(f"candidate {number}: shadow mode {'is on' if run and run['is_running'] else 'is off'}")
    for line in told(run) if off and run else ():
        say(line)


@app.command()
def promote(
    station: Station,
    number: Number,
    why: Why,
    url: Address = ADDRESS,
    token_file: TokenFile = None,
) -> None:
    """Judge by a candidate from the next part on, after a comparison. Golden parts have to come out right."""
    with asking(url, token_file, timeout=PATIENT) as client:
        comparison = client.candidate(station, number)["comparison"]
        found = client.promote_candidate(station, number, getpass.getuser(), why)
    waits = "waits for a second person (approve it on the page)"
    say(f"candidate {number} {'judges' if found['is_used'] else waits} at station {station}")
    remedy = (
        f"`andon candidate return {station}` takes it back"
        if found["is_used"]
        else "the second person should weigh it"
    )
    for line in more_escapes(comparison):
        say(f"{line}; {remedy}")


@app.command("return")
def take_back(
    station: Station,
    why: Annotated[str, typer.Option("--why", help="Reason.")] = "",
    url: Address = ADDRESS,
    token_file: TokenFile = None,
) -> None:
    """Judge by the model before the candidate in use from the next part on."""
    with asking(url, token_file, timeout=PATIENT) as client:
        client.return_model(station, getpass.getuser(), why)
        model = client.station(station)["model_name"]
    say(f"station {station} is judged by {model} again")


def state(found: dict[str, Any]) -> str:
    """Where a candidate stands, in words."""
    comparison, run = found["comparison"], found["shadow"]
    if found["is_used"]:
        return "in use"
    if found["proposed_by"]:
        return f"proposed by {found['proposed_by']}"
    if run and run["is_running"]:
        return f"in shadow mode, {run['done']} parts"
    if comparison and comparison["is_running"]:
        return f"is being compared, {comparison['done']} of {comparison['total']} parts"
    return "compared" if comparison else "not compared"


def more_escapes(comparison: dict[str, Any]) -> list[str]:
    """A note where a candidate lets more bad parts pass than the model before."""
    escapes = comparison["figures"]["escapes"]
    before, now = escapes["base"]["count"], escapes["candidate"]["count"]
    bad = plural(escapes["candidate"]["n"], "part")
    return (
        [f"note: of {bad} that people called bad it lets {now} pass, the model before {before}"]
        if now > before
        else []
    )


def told(run: dict[str, Any]) -> list[str]:
    """Lines for people about a comparison or shadow run."""
    found = run["figures"]
    lines = [
        f"{found['parts']} parts, {found['agreement']['count']} with the same verdict, beside {run['base_name']}"
    ]
    lines += [f"{cell['base']} -> {cell['candidate']}: {cell['n']}" for cell in found["table"]]
    for title, key in (("bad parts that pass", "escapes"), ("good parts that are stopped", "false_rejects")):
        base, other = found[key]["base"], found[key]["candidate"]
        lines.append(f"reviewed {title}: {base['count']} -> {other['count']} of {base['n']}")
    if (auroc := found["auroc"]) is not None:
        interval = "" if auroc["low"] is None else f" ({auroc['low']:+.4f} to {auroc['high']:+.4f})"
        lines.append(
            f"AUROC: {auroc['base']:.4f} -> {auroc['candidate']:.4f}, difference {auroc['difference']:+.4f}{interval}"
        )
    if run["total"] is not None and found["base_ms"] and found["candidate_ms"]:
        lines.append(
            f"median of a judgement: {found['base_ms']['median']:.1f} -> {found['candidate_ms']['median']:.1f} ms"
        )
    lines += [f"left out, {cause}: {n}" for cause, n in found["left_out"].items()]
    return [*lines, f"golden parts: {run['golden']}"] if run["golden"] else lines


def _finished(client: Client, station: str, number: int) -> dict[str, Any]:
    """The candidate once its comparison is complete."""
    from andon.core.progress import default_progress

    found = client.candidate(station, number)
    done = found["comparison"]["done"]
    with default_progress().task("parts", found["comparison"]["total"], done=done) as task:
        while found["comparison"]["is_running"]:
            time.sleep(LOOK_SECONDS)
            found = client.candidate(station, number)
            task.advance(found["comparison"]["done"] - done)
            done = found["comparison"]["done"]
    return found
