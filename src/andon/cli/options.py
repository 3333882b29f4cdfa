"""Arguments and options that several commands share, and how their answers are printed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from andon.core.text import printable
from andon.detectors._registry import DEFAULT

if TYPE_CHECKING:
    from andon.detectors._recipes import Recipe, RecipeFile
    from andon.experiments.cluster import Cluster
    from andon.experiments.trackers import Tracker
    from andon.report.evaluation import Report

STOPPED = 130
"""Exit code of a stream that ends by Ctrl-C; newer versions of Typer return it for every command."""
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="Folder in any supported layout, folder of good images, or embedded:NAME."
    ),
]
DataSetsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...", help="One or several: folders in any supported layout, or embedded:NAME."
    ),
]
Category = Annotated[
    str | None, typer.Option("--category", "-c", help="Category (product), if DATA has several.")
]
Layout = Annotated[str, typer.Option(help="Layout of DATA; auto recognises it.")]
DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector", "-d", help=f"Detector (`andon detectors`); default: the recipe's, or {DEFAULT}."
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        help="Recipe (`andon recipes`) or YAML file; default: the detector's lite0, where it has one.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; `andon recipes NAME` lists them."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the earlier output of andon in the folder.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Skip damaged images and count them.")
]
Labelled = Annotated[
    str | None,
    typer.Option(
        metavar="N|half",
        help="Number of anomalous test images per category to train with instead; the seed chooses them. half: one half of "
        "them, complementary for seeds 0 and 1.",
    ),
]
LabelledOrFolder = Annotated[
    str | None,
    typer.Option(
        metavar="N|half|FOLDER",
        help="N or half: take so many anomalous images out of the test and train with them; the seed chooses. FOLDER: at least "
        "8 labelled images of defects that are not in the test; they choose a variant of east.",
    ),
]
Sessions = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="Sessions of good images: a pattern for file names whose one group is the session, e.g. '^(\\d{8})_'; exif (day), "
        "none, or auto (manifest, folders, EXIF day).",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="IMAGE", help="Leave a good image out, by id, file name or path. May be repeated."),
]
Good = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Folder of good images, where its name does not say so. May be repeated."
    ),
]
Bad = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Folder of defective images, where its name does not say so. May be repeated."
    ),
]
Region = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Inspected region: a mask (white = inspected, black = ignored) or JSON with polygons.",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Analyse large images in overlapping tiles of this side, at their own resolution (same as --set tile.size).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder made by `andon fit`.")]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="Run folder, exported network (.onnx, .xml) or packed detector (.andon)."
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        metavar="RUNTIME",
        help="torch, onnx, openvino or auto; default: auto, the fastest that is installed and answers as torch does.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Track = Annotated[
    str | None,
    typer.Option(
        metavar="TRACKER", help="Log the run to a tracker: tensorboard (in the run folder) or mlflow[:URI]."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Ray cluster to run on: auto, HOST:PORT, ray://HOST:PORT or local."),
]
Cores = Annotated[int, typer.Option(min=1, help="With --ray: CPU cores per run or worker.")]
Maps = Annotated[
    bool, typer.Option("--maps", help="Also write float32 anomaly maps (TIFF) at the size of the images.")
]


def unwrap_help(app: typer.Typer) -> None:
    """Take the help of every command from its docstring, with one line per paragraph: Typer keeps all other line breaks."""
    for command in app.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            unwrap_help(group.typer_instance)


def cluster(address: str | None, cores: int) -> Cluster | None:
    """The cluster named on the command line."""
    if address is None:
        return None
    from andon.experiments.cluster import Cluster

    return Cluster(address, cores)


def tracker(name: str | None) -> Tracker:
    """The tracker named on the command line, or one that shows nothing."""
    if name is None:
        return lambda run: None
    from andon.experiments.trackers import open_tracker

    return open_tracker(name)


def with_labelled(settings: list[str] | None, labelled: str | None) -> list[str]:
    """`--labelled 5` as the setting it is. Raises `UsageError` for what is neither a number of pictures nor `half`."""
    from andon.core.errors import UsageError

    if labelled is not None and labelled != "half" and not labelled.isdecimal():
        raise UsageError(
            f"--labelled takes a number of pictures, half, or for `andon fit` a folder of pictures of defects; not {labelled!r}"
        )
    return [*(settings or []), *([] if labelled is None else [f"labelled={labelled}"])]


def is_folder(labelled: str) -> bool:
    """Whether `--labelled` names a folder of anomalous images."""
    return labelled != "half" and not labelled.isdecimal() and Path(labelled).is_dir()


def with_tile(settings: list[str], tile: int | None) -> list[str]:
    """`--tile 256` as the setting it is."""
    return [*settings, *([] if tile is None else [f"tile.size={tile}"])]


def resolved(recipe: RecipeFile, settings: list[str] | None) -> Recipe:
    """The recipe with the `--set` options applied, parsed."""
    from andon.core.config import parse_assignments
    from andon.detectors._recipes import resolve

    return resolve(recipe, parse_assignments(settings or []))


def say(text: str) -> None:
    print(printable(text), file=sys.stderr)


def print_json(values: Any) -> None:
    from andon.core.files import to_json

    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    print(to_json(values, ascii_only=not encoding.startswith("utf")))


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table for people; every cell is printed literally."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=printable(title) or None, title_justify="left")
    for row in rows:
        table.add_row(*map(printable, row))
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def print_origins(weights: Sequence[Mapping[str, str]], data_licence: str) -> None:
    """Origin and licence of the weights, and of the images where they are known."""
    for line in weights:
        print(f"weights: {line['name']}: {line['origin']}; licence: {line['licence']}")
    if data_licence:
        print(f"pictures: {data_licence}")


def show_report(report: Report, run: Path, as_json: bool) -> None:
    """The metrics of a run as a table or one JSON document, its notes, and where its page is."""
    if as_json:
        print_json(report.to_json())
        return
    from andon.report.tables import summary_rows

    rows = [list(row) for row in summary_rows(report)]
    print_table(
        f"{report.detector} ({report.recipe}) on {report.category}",
        ["measure", "value", "what it means"],
        rows,
    )
    for note in report.notes:
        print(f"note: {note}")
    print_origins(report.weights, report.data_licence)
    print(f"report: {run / 'report.html'}")
