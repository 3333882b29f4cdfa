"""The command line: a few lines over the public functions; every import that costs time is inside its command.

Results go to stdout (one JSON document with `--json`), progress and log to stderr. Exit codes: 0 done, 2 wrong use or
unusable input, 1 anything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from andon.errors import AndonError, UsageError

if TYPE_CHECKING:
    from andon.evaluation import Report
    from andon.registry import Recipe

CommandLineError: type[Exception] = typer.BadParameter.__bases__[0]
"""Click's UsageError: an unknown command or option, a missing argument. Where Click is differs between versions of Typer."""
HELP = "Learn what a good part looks like, say where a new one is not, and whether the line should stop."
DETECTOR = "efficientad_ast"
app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
data_app = typer.Typer(help="Generate the embedded data sets; check any data set.", no_args_is_help=True)
weights_app = typer.Typer(help="List, add and fetch backbone weights.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA", help="Folder in any supported layout, folder of good pictures, or embedded:NAME."
    ),
]
Category = Annotated[str | None, typer.Option("--category", "-c", help="Product, where DATA holds several.")]
Layout = Annotated[str, typer.Option(help="How DATA is laid out; auto recognises it.")]
DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector", "-d", help=f"Detector (`andon detectors`); default: the recipe's, or {DETECTOR}."
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe", "-r", help="Recipe (`andon recipes`) or YAML file; default: the detector's starter."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; `andon recipes NAME` lists them."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what andon wrote into the folder before.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave damaged pictures out, and count them.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder made by `andon fit`.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
STOPPED = 130
"""What newer versions of Typer return after Ctrl-C."""
Maps = Annotated[
    bool, typer.Option("--maps", help="Also write float32 anomaly maps (TIFF) at original size.")
]


def main() -> None:
    """Entry point: runs the command and turns errors into one line and an exit code."""
    warnings.showwarning = _show_warning
    try:
        stopped = app(prog_name="andon", standalone_mode=False) == STOPPED
        sys.stdout.flush()  # a full disk shows here
        if stopped:
            _fail("stopped", 1)
    except CommandLineError as error:
        _explain_usage(error)
    except UsageError as error:
        _fail(str(error), 2)
    except AndonError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", 1)
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            _discard_output()
            _fail(
                f"no space left on the device ({error.filename or 'while writing'}): free some or choose another folder",
                2,
            )
        if isinstance(error, PermissionError):
            _fail(
                f"{error.filename} may not be read or written: change its permissions or choose another place",
                2,
            )
        raise


def _explain_usage(error: Any) -> None:
    """One line for what Click found wrong with the command line, or the help where nothing was given."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(2)
    command = error.ctx.command_path if error.ctx is not None else "andon"
    _fail(f"{error.format_message().rstrip('.')}: see `{command} --help`", 2)


def _discard_output() -> None:
    """Let what is still buffered for stdout go nowhere, so that it does not fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
    print(f"andon: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if category.__module__.startswith("andon"):
        print(f"andon: warning: {message}", file=sys.stderr)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _print_json(values: Any) -> None:
    from andon.files import to_json

    print(to_json(values))


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def _recipe(detector: str | None, recipe: str | None) -> Recipe:
    """The recipe named on the command line; nothing heavy is imported to find that a name is wrong."""
    from andon.registry import default_recipe, known_detector, load_recipe

    if detector is None and recipe is not None and ("/" in recipe or recipe.endswith((".yaml", ".yml"))):
        return load_recipe(recipe)
    known_detector(detector or DETECTOR)
    return load_recipe(recipe or default_recipe(detector or DETECTOR), detector or DETECTOR)


def _resolved(recipe: Recipe, settings: list[str] | None) -> Recipe:
    from andon.config import parse_assignments
    from andon.runs import resolve

    return resolve(recipe, parse_assignments(settings or []))


@app.callback(invoke_without_command=False)
def _options(
    offline: Annotated[
        bool, typer.Option("--offline", help="Forbid every download (also ANDON_OFFLINE=1).")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda v: _version(v)),
    ] = False,
) -> None:
    if offline:
        os.environ["ANDON_OFFLINE"] = "1"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"andon {version('andon')}")
        raise typer.Exit


@app.command()
def demo(
    data: Annotated[
        str, typer.Argument(metavar="[DATA]", help="Data set, by default an embedded one.")
    ] = "embedded:fabric",
    detector: DetectorName = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    as_json: Json = False,
) -> None:
    """Fit and evaluate on embedded data with embedded weights, offline; prints a table, writes runs/demo."""
    from andon.progress import default_progress
    from andon.runs import Source, evaluate_run, fit_run

    named = _recipe(detector, recipe)
    progress = default_progress()
    _say(f"learning {data} with {named.name}")
    chosen = _resolved(named, settings)
    fit_run(out, Source(data), chosen, overwrite=True, progress=progress)
    _show_report(evaluate_run(out, progress=progress), out, as_json)


@app.command()
def fit(
    data: DataArgument,
    detector: DetectorName = None,
    category: Category = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/DETECTOR/CATEGORY.")] = None,
    layout: Layout = "auto",
    overwrite: Overwrite = False,
    resume: Resume = False,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Learn from good pictures and set the thresholds."""
    from andon.config import parse_assignments
    from andon.progress import default_progress
    from andon.run_folder import check_output, read_recipe
    from andon.runs import Source, fit_run, resolve_own

    named = resolve_own(_recipe(detector, recipe), parse_assignments(settings or []))
    source = Source(data, category, layout)
    found = source.open(
        seed=named.seed, hold_out=named.hold_out
    )  # what is wrong is said before torch is imported
    for finding in found.findings.errors + found.findings.warnings:
        _say(f"andon: warning: {finding}")
    out = out or Path("runs") / named.detector / found.category
    check_output(out, overwrite=overwrite, resume=resume)
    chosen = _resolved(named, settings)
    fitted, dataset = fit_run(
        out,
        source,
        chosen,
        overwrite=overwrite,
        resume=resume,
        skip_unreadable=skip_unreadable,
        device=device,
        progress=default_progress(),
    )
    limits = fitted.fitted()
    skipped = read_recipe(out)["data"].get("skipped", {})
    if as_json:
        _print_json(
            {
                "run": str(out),
                "detector": fitted.name,
                "recipe": chosen.name,
                "category": dataset.category,
                "train": len(dataset.train),
                "validation": len(dataset.validation),
                "skipped": skipped,
                "thresholds": {
                    "image": limits.image.to_json(),
                    "pixel": limits.pixel.to_json(),
                    "source": limits.source,
                },
            }
        )
        return
    print(dataset.summary())
    if skipped:
        print(f"unreadable and skipped: {len(skipped)} ({', '.join(skipped)})")
    print(f"image threshold: {limits.image.describe()}")
    if limits.source == "train":
        print(
            "no good pictures were held out: the thresholds come from the training pictures and promise nothing"
        )
    following = f"andon evaluate {out}" if len(dataset.test) else f"andon predict {out} IMAGES"
    print(f"learned, saved in {out}; next: {following}")


@app.command()
def evaluate(
    run: Run,
    data: Annotated[str | None, typer.Option(help="Other data than the run's own.")] = None,
    category: Category = None,
    layout: Layout = "auto",
    maps: Maps = False,
    skip_unreadable: SkipUnreadable = False,
    as_json: Json = False,
) -> None:
    """Measure a run on its test pictures: metrics, curves, heat maps, masks, report.html."""
    from andon.progress import default_progress
    from andon.runs import Source, evaluate_run

    source = Source(data, category, layout) if data is not None else None
    report = evaluate_run(
        run, data=source, skip_unreadable=skip_unreadable, maps=maps, progress=default_progress()
    )
    _show_report(report, run, as_json)


def _show_report(report: Report, run: Path, as_json: bool) -> None:
    if as_json:
        _print_json(report.to_json())
        return
    from andon.report.tables import summary_rows

    rows = [list(row) for row in summary_rows(report)]
    _table(
        f"{report.detector} ({report.recipe}) on {report.category}",
        ["measure", "value", "what it means"],
        rows,
    )
    for note in report.notes:
        print(f"note: {note}")
    print(f"report: {run / 'report.html'}")


@app.command()
def predict(
    run: Run,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="Pictures or folders of pictures.")
    ],
    save: Annotated[
        Path | None, typer.Option(help="Write heat maps, masks and predictions.csv there.")
    ] = None,
    maps: Maps = False,
    skip_unreadable: SkipUnreadable = False,
    as_json: Json = False,
) -> None:
    """Say for each picture whether the part is good (OK) or not (NG); a score of 1 is the threshold."""
    from andon.prediction import list_inputs, predict_files
    from andon.progress import default_progress
    from andon.run_folder import read_recipe

    records = list_inputs(images)
    if (run / "recipe.yaml").is_file():
        read_recipe(run)
    from andon.detector import load_detector

    detector = load_detector(run)
    answers = predict_files(
        detector, records, save=save, maps=maps, skip_unreadable=skip_unreadable, progress=default_progress()
    )
    if as_json:
        _print_json(
            {
                "run": str(run),
                "threshold": detector.fitted().image.value,
                "predictions": [answer.to_json() for answer in answers],
            }
        )
        return
    rows = [
        [answer.verdict, "" if answer.score is None else f"{answer.score:.3f}", answer.path]
        for answer in answers
    ]
    _table("", ["verdict", "score", "picture"], rows)
    bad = sum(answer.verdict == "NG" for answer in answers)
    unread = sum(answer.verdict == "unreadable" for answer in answers)
    print(f"{len(answers)} pictures: {bad} NG" + (f", {unread} unreadable" if unread else ""))


@app.command()
def detectors(as_json: Json = False) -> None:
    """List the detectors."""
    from andon.registry import detectors as known

    infos = known()
    if as_json:
        _print_json([{"name": i.name, "summary": i.summary, "recipes": list(i.recipes)} for i in infos])
        return
    _table(
        "", ["detector", "what it is", "recipes"], [[i.name, i.summary, ", ".join(i.recipes)] for i in infos]
    )


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Show this recipe with every setting and its meaning.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or show one with all its settings."""
    from andon.registry import detector_class, load_recipe, recipe_names
    from andon.runs import resolve

    if name is None:
        known = [load_recipe(one) for one in recipe_names()]
        if as_json:
            _print_json([{"name": r.name, "detector": r.detector, "summary": r.summary} for r in known])
            return
        _table("", ["recipe", "what it is for"], [[r.name, r.summary] for r in known])
        return
    recipe = resolve(load_recipe(name), {})
    if as_json:
        _print_json(recipe.model_dump(mode="json"))
        return
    cls = detector_class(recipe.detector)
    print(f"{recipe.name}: {recipe.summary}")
    own = [
        [key, str(getattr(recipe, key)), (info.description or "")]
        for key, info in type(recipe).model_fields.items()
    ]
    settings = [
        [key, str(value), meaning] for key, value, meaning in cls.Config.parse(recipe.config).settings()
    ]
    shown = [row for row in own if row[0] not in {"config", "name", "summary", "detector"}]
    _table("", ["setting (--set key=value)", "value", "meaning"], shown + settings)


@data_app.command("generate")
def data_generate(
    folder: Annotated[Path, typer.Argument(help="Where embedded_ad/ and embedded_loco/ are made.")],
    profile: Annotated[str, typer.Option(help="tiny, small or standard.")] = "small",
    size: Annotated[int, typer.Option(help="Height of the pictures, 128 to 512 pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
    categories: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    workers: Annotated[int | None, typer.Option(help="Processes; default one per core.")] = None,
) -> None:
    """Draw the embedded data sets: pictures with exact masks, made by the package."""
    from andon.datasets.embedded import generate
    from andon.progress import default_progress

    chosen = None if categories == "all" else [name.strip() for name in categories.split(",")]
    with default_progress().task("drawing", 1) as task:
        told = [0, 1]

        def show(done: int, total: int) -> None:
            task.advance(done - told[0], f"{done} of {total} pictures")
            told[:] = [done, total]

        root = generate(folder, profile, size, seed, chosen, workers, show)
    print(f"written to {root}")


@data_app.command("check")
def data_check(
    data: DataArgument, category: Category = None, layout: Layout = "auto", as_json: Json = False
) -> None:
    """Look into every file of a data set; exits with 2 when there are errors."""
    from andon.datasets import check_dataset, list_categories, open_dataset

    names = [category] if category is not None else list_categories(data, layout)
    results = {}
    for name in names:
        dataset = open_dataset(data, name or None, layout)
        results[dataset.category] = (dataset, check_dataset(dataset))
    if as_json:
        _print_json(
            {
                key: {"summary": d.summary(), "errors": f.errors, "warnings": f.warnings, "notes": f.notes}
                for key, (d, f) in results.items()
            }
        )
    else:
        for dataset, findings in results.values():
            print(dataset.summary())
            for kind, lines in (
                ("error", findings.errors),
                ("warning", findings.warnings),
                ("note", findings.notes),
            ):
                for line in lines:
                    print(f"  {kind}: {line}")
    errors = sum(len(findings.errors) for _, findings in results.values())
    if errors:
        raise UsageError(f"{data} has {errors} errors (listed above): correct them before fitting")


@weights_app.command("list")
def weights_list(as_json: Json = False) -> None:
    """Known weights, where they come from, and whether they are here."""
    from andon.weights import entries

    rows = entries()
    if as_json:
        _print_json(
            [
                {
                    "name": e.name,
                    "network": e.network,
                    "here": e.path is not None,
                    "origin": e.origin,
                    "licence": e.licence,
                    "sha256": e.sha256,
                }
                for e in rows
            ]
        )
        return
    table = [[e.name, e.network, "yes" if e.path else "no", e.origin, e.licence, e.sha256[:12]] for e in rows]
    _table("", ["weights", "network", "here", "origin", "licence", "sha256"], table)


@weights_app.command("add")
def weights_add(
    file: Annotated[Path, typer.Argument(help="safetensors or PyTorch state dict.")],
    name: Annotated[str, typer.Option(help="Name to use in recipes.")],
    network: Annotated[str, typer.Option(help="timm network the weights belong to.")],
    origin: Annotated[str, typer.Option(help="Where they come from; shown in every report.")] = "",
    licence: Annotated[str, typer.Option(help="Their licence; shown in every report.")] = "",
    sha256: Annotated[str, typer.Option(help="Expected hash of the file, or its beginning.")] = "",
) -> None:
    """Copy weights from a file into the local store."""
    from andon.weights import add

    if file.is_file():
        from andon.backbones import known_network  # timm takes seconds to import

        known_network(network)
    entry = add(file, name=name, network=network, origin=origin, licence=licence, expected_sha256=sha256)
    print(f"added {entry.name} ({entry.network}), sha256 {entry.sha256}")


@weights_app.command("fetch")
def weights_fetch(name: Annotated[str, typer.Argument(help="Name from `andon weights list`.")]) -> None:
    """Download weights after saying what and from where, check their hash, and store them."""
    from andon.progress import default_progress
    from andon.weights import entries, fetch, is_offline

    entry = next((e for e in entries() if e.name == name), None)
    if entry is not None and entry.path is None and not is_offline():
        _say(f"fetching {name} from {entry.url} ({entry.licence}; {entry.origin})")
    with default_progress().task(f"fetching {name} (MB)", 0) as task:
        seen = [0]

        def show(done: int, total: int) -> None:
            task.advance((done >> 20) - seen[0], f"of {total >> 20}" if total else "")
            seen[0] = done >> 20

        fetched = fetch(name, progress=show)
    print(f"{fetched.name} is here: {fetched.path}")
