"""`andon demo`: the default detector on photographs in the package, or every detector on every embedded set without depth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import (
    DetectorName,
    Json,
    RecipeName,
    Settings,
    resolved,
    say,
    show_report,
)
from andon.core.errors import UsageError

app = typer.Typer()
DATA = "embedded:cookies"
"""Data set of the demo: photographs."""
FLASH = "train/good/normal-31.jpg"
"""The only training image of that set that was taken with a flash; the demo does not learn from it."""
DRAWN = "embedded:"
"""All drawn sets."""


@app.command()
def demo(
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help=f"Data set; default: {DATA}, photographs.")
    ] = None,
    detector: DetectorName = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Every detector on the photographs and on every drawn set without depth, with tables that compare them; takes "
            "hours on two cores; the same command continues.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/demo, with --all runs/demo-all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit and evaluate on photographs in the package, without a network; prints a table, writes runs/demo."""
    if not everything:
        _one(data or DATA, detector, recipe, settings, out or Path("runs/demo"), as_json)
        return
    if data or detector or recipe or settings:
        raise UsageError(
            "--all takes every embedded set without depth and every detector as it is: leave DATA, --detector, --recipe and "
            "--set out, or choose with `andon benchmark`"
        )
    _all(out or Path("runs/demo-all"), as_json)


def _one(
    data: str, detector: str | None, recipe: str | None, settings: list[str] | None, out: Path, as_json: bool
) -> None:
    from andon.core.progress import default_progress
    from andon.detectors._recipes import choose_recipe
    from andon.runs.evaluate import evaluate_run
    from andon.runs.fit import fit_run
    from andon.runs.source import Source

    named = choose_recipe(detector, recipe)
    if data == DATA and not named.exclude:
        named = named.updated({"exclude": [FLASH]})
    chosen, progress = resolved(named, settings), default_progress()
    say(f"learning {data} with {chosen.name}")
    if FLASH in chosen.exclude:
        say(f"left out: {FLASH}, the only picture taken with a flash; with it: --set exclude=[]")
    fitted = fit_run(out, Source(data), chosen, overwrite=True, progress=progress)
    show_report(evaluate_run(out, progress=progress, fitted=fitted), out, as_json)


def _all(out: Path, as_json: bool) -> None:
    from andon.cli.benchmark import compare, run_sweep
    from andon.detectors._registry import usable_detectors
    from andon.experiments.sweep import plan

    jobs = plan([DATA, DRAWN], usable_detectors())
    say(f"{len(jobs)} runs in {out}; the same command continues after an interruption")
    compare(run_sweep(jobs, out), out, as_json)
