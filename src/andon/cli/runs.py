"""Commands that create, evaluate and use a run: fit, evaluate, predict."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli.learned import add_images, check_with_add, show_learned
from andon.cli.options import (
    STOPPED,
    Bad,
    Category,
    Cores,
    DataArgument,
    DetectorName,
    Device,
    Exclude,
    Good,
    Json,
    LabelledOrFolder,
    Layout,
    Maps,
    Model,
    Overwrite,
    Ray,
    RecipeName,
    Region,
    Resume,
    Run,
    Runtime,
    Sessions,
    Settings,
    SkipUnreadable,
    Tile,
    Track,
    cluster,
    is_folder,
    print_json,
    print_table,
    say,
    show_report,
    tracker,
    with_labelled,
    with_tile,
)
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.experiments.cluster import Cluster
    from andon.runs.loading import Answering
    from andon.runs.predict import FilePrediction

app = typer.Typer()


@app.command()
def fit(
    context: typer.Context,
    data: DataArgument,
    detector: DetectorName = None,
    category: Category = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    labelled: LabelledOrFolder = None,
    sessions: Sessions = None,
    exclude: Exclude = None,
    good: Good = None,
    bad: Bad = None,
    region: Region = None,
    tile: Tile = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/DETECTOR/CATEGORY.")] = None,
    add: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Add the good images of FOLDER to a finished run, given in the place of DATA; the result is that of one fit "
            "on all images.",
        ),
    ] = None,
    layout: Layout = "auto",
    overwrite: Overwrite = False,
    resume: Resume = False,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Learn from good images and set the thresholds."""
    if add is not None:
        check_with_add(context)
        add_images(
            Path(data), add, good=good or (), skip_unreadable=skip_unreadable, device=device, as_json=as_json
        )
        return
    from andon.core.config import parse_assignments
    from andon.core.progress import default_progress
    from andon.detectors._recipes import choose_recipe, resolve, with_own_changes
    from andon.runs.fit import fit_run
    from andon.runs.folder import changing, check_output
    from andon.runs.source import Source

    choose_by = Path(labelled) if labelled is not None and is_folder(labelled) else None
    settings = with_tile(with_labelled(settings, None if choose_by else labelled), tile)
    given = {
        "region": None if region is None else str(region),
        "sessions": sessions,
        "exclude": exclude,
        "good": good,
        "bad": bad,
    }
    changes = parse_assignments(settings) | {name: value for name, value in given.items() if value}
    named, changes = with_own_changes(choose_recipe(detector, recipe), changes)
    source = Source(data, category, layout, named.good, named.bad)
    found = source.split_by(named)  # what is wrong is said before torch is imported
    findings = found.findings
    for finding in findings.errors + findings.warnings:
        say(f"andon: warning: {finding}")
    for guess in findings.guesses:
        say(f"andon: {guess}")
    out = out or Path("runs") / named.detector / found.category
    with changing(out):
        check_output(out, overwrite=overwrite, resume=resume)
    show = tracker(track)
    chosen = resolve(named, changes)
    fitted, dataset = fit_run(
        out,
        source,
        chosen,
        overwrite=overwrite,
        resume=resume,
        skip_unreadable=skip_unreadable,
        device=device,
        progress=default_progress(),
        dataset=found,
        keep_features=True,
        choose_by=choose_by,
    )
    show(out)
    show_learned(out, fitted, dataset, chosen.name, as_json=as_json)


@app.command()
def evaluate(
    run: Run,
    data: Annotated[
        str | None, typer.Option(help="Data to evaluate on; default: the data of the run.")
    ] = None,
    category: Category = None,
    layout: Layout = "auto",
    good: Good = None,
    bad: Bad = None,
    gate: Annotated[
        bool | None,
        typer.Option(
            "--gate/--no-gate",
            help="Also evaluate with SPADE's gate: pixels count only in images judged anomalous; default: as in the recipe.",
        ),
    ] = None,
    maps: Maps = False,
    pixel_metrics: Annotated[
        str | None,
        typer.Option(help="exact, histogram (bounded memory) or auto; default: the recipe's."),
    ] = None,
    skip_unreadable: SkipUnreadable = False,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Evaluate a run on its test images: metrics, curves, heat maps, masks, report.html."""
    from andon.core.errors import ConfigError
    from andon.core.progress import default_progress
    from andon.runs.evaluate import evaluate_run
    from andon.runs.source import Source

    if pixel_metrics not in (None, "auto", "exact", "histogram"):
        raise ConfigError(f"--pixel-metrics {pixel_metrics!r} is unknown: choose auto, exact or histogram")
    told = (tuple(good or ()), tuple(bad or ()))
    if any(told) and data is None:
        raise ConfigError("--good and --bad belong to --data; a run repeats those it was fitted with")
    source = Source(data, category, layout, *told) if data is not None else None
    show = tracker(track)
    report = evaluate_run(
        run,
        data=source,
        gate=gate,
        skip_unreadable=skip_unreadable,
        maps=maps,
        pixel_metrics=pixel_metrics,  # type: ignore[arg-type]
        progress=default_progress(),
    )
    show(run)
    show_report(report, run, as_json)


@app.command()
def predict(
    run: Model,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES...",
            help="Images or folders of images; - reads paths from standard input, one a line, and answers each at once.",
        ),
    ],
    save: Annotated[
        Path | None, typer.Option(help="Folder for heat maps, masks and predictions.csv.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV table with a line for each image; the same command continues it."),
    ] = None,
    maps: Maps = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse images unlike the training images (verdict ERROR).")
    ] = False,
    skip_unreadable: SkipUnreadable = False,
    runtime: Runtime = None,
    ray: Ray = None,
    cores: Cores = 2,
    as_json: Json = False,
) -> None:
    """Judge each image: OK, NG, or look where a person decides; a score of 1 is the threshold. Only OK is a good part.

    Use --out for archives of any size: each result is appended to the table, and after an interruption the same command
    continues it. --save then writes heat maps and masks, but no predictions.csv. With - for IMAGES each path read from standard
    input is answered by one line of JSON.
    """
    from andon.runs.inputs import check_order

    check_order(run, images)
    if out is not None:
        _predict_archive(
            run, images, out, save, maps, strict, skip_unreadable, runtime, cluster(ray, cores), as_json
        )
        return
    if ray is not None:
        raise UsageError("--ray answers for archives: say with --out which table the lines go to")
    if Path("-") in images:
        _predict_stream(run, images, save, maps, strict, runtime)
        return
    from andon.core.listing import PassedBy
    from andon.core.own_output import check_save
    from andon.core.progress import default_progress
    from andon.runs.inputs import list_inputs
    from andon.runs.predict import check_errors, check_unreadable, predict_files
    from andon.runs.unlike import UnlikeCounts

    check_save(images, save)
    passed = PassedBy()
    records = list_inputs(images, passed)
    found, unlike = _open(run, runtime), UnlikeCounts()
    answers = predict_files(
        found.predictor, records, save=save, maps=maps, strict=strict, progress=default_progress()
    )
    for one in answers:
        unlike.add(one.path, one.notes)
    for line in unlike.warnings():
        _warn(line)
    verdicts = Counter(one.verdict for one in answers)
    if as_json:
        print_json(
            {
                "run": str(run),
                "runtime": found.runtime,
                "threshold": found.predictor.fitted().image.value,
                "predictions": [one.to_json() for one in answers],
                "passed_by": passed.to_json(),
            }
        )
    else:
        _show_predictions(answers, verdicts)
    say(found.describe())
    check_errors(
        verdicts, next((f"{one.path}: {one.reason}" for one in answers if one.verdict == "ERROR"), "")
    )
    if not skip_unreadable:
        check_unreadable(verdicts, next((one.reason for one in answers if one.verdict == "unreadable"), ""))


def _open(run: Path, runtime: str | None) -> Answering:
    """What answers for a run, network or packed file; a run is checked to be finished."""
    from andon.core.progress import default_progress
    from andon.runs.folder import read_recipe
    from andon.runs.loading import open_predictor

    if (run / "recipe.yaml").is_file():
        read_recipe(run)
    return open_predictor(run, runtime, progress=default_progress())


def _predict_stream(
    run: Path, images: list[Path], save: Path | None, maps: bool, strict: bool, runtime: str | None
) -> None:
    from andon.core.own_output import check_save
    from andon.runs.stream import answer_lines

    if len(images) > 1:
        raise UsageError("- reads the paths from standard input: leave other pictures out")
    check_save([], save)

    def write(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    try:
        found = _open(run, runtime)
        say(found.describe())
        answer_lines(
            found.predictor, sys.stdin.buffer, write, save=save, maps=maps, strict=strict, warn=_warn
        )
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def _warn(line: str) -> None:
    say(f"andon: warning: {line}")


def _show_predictions(found: list[FilePrediction], verdicts: Counter[str]) -> None:
    rows = [[one.verdict, "" if one.score is None else f"{one.score:.3f}", one.path] for one in found]
    print_table("", ["verdict", "score", "picture"], rows)
    print(_counts(verdicts))


def _predict_archive(
    run: Path,
    images: list[Path],
    out: Path,
    save: Path | None,
    maps: bool,
    strict: bool,
    skip_unreadable: bool,
    runtime: str | None,
    where: Cluster | None,
    as_json: bool,
) -> None:
    from andon.core.listing import PassedBy
    from andon.core.progress import default_progress
    from andon.runs.archive import check_places, predict_archive
    from andon.runs.predict import check_errors, check_unreadable
    from andon.runs.unlike import UnlikeCounts

    if not run.is_dir():
        raise UsageError("--out continues tables of run folders: give the folder made by `andon fit`")
    if where is not None and runtime not in (None, "torch"):
        raise UsageError("--ray answers by torch: leave --runtime out")
    check_places(images, save)
    passed, unlike = PassedBy(), UnlikeCounts()
    found = _open(run, runtime if where is None else "torch")
    new, verdicts = predict_archive(
        run,
        images,
        out,
        save=save,
        maps=maps,
        strict=strict,
        unlike=unlike,
        predictor=found.predictor,
        cluster=where,
        progress=default_progress(),
        passed=passed,
    )
    for line in unlike.warnings():
        _warn(line)
    if as_json:
        print_json(
            {
                "run": str(run),
                "out": str(out),
                "runtime": found.runtime,
                "new": new,
                "verdicts": verdicts,
                "passed_by": passed.to_json(),
            }
        )
    else:
        print(f"{_counts(verdicts)}; {new} of them new, in {out}")
    say(found.describe())
    check_errors(verdicts, f"{out} says why")
    if not skip_unreadable:
        check_unreadable(
            verdicts, f"{out} says why: remove their lines to read them again, or pass --skip-unreadable"
        )


def _counts(verdicts: Counter[str]) -> str:
    from andon.core.text import plural

    rare = (f"{verdicts[name]} {name}" for name in ("look", "ERROR", "unreadable") if verdicts[name])
    counts = ", ".join((f"{verdicts['OK']} OK", f"{verdicts['NG']} NG", *rare))
    return f"{plural(verdicts.total(), 'picture')}: {counts}"
