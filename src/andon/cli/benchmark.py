"""`andon benchmark`, `andon ablate` and `andon reproduce`: many runs, and the tables over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli.options import (
    Category,
    Cores,
    DataArgument,
    DataSetsArgument,
    Device,
    Json,
    Labelled,
    Layout,
    Ray,
    Settings,
    Track,
    cluster,
    print_json,
    print_table,
    say,
    tracker,
    with_labelled,
)
from andon.core.errors import AndonError, ConfigError, UsageError

if TYPE_CHECKING:
    from andon.experiments.sweep import Job, Outcome

app = typer.Typer()


@app.command()
def benchmark(
    data: DataSetsArgument,
    detectors: Annotated[
        str, typer.Option(help="Detectors or recipes (detector/variant), comma-separated, or all.")
    ] = "all",
    categories: Annotated[str, typer.Option(help="Comma-separated, or all categories of each DATA.")] = "all",
    seeds: Annotated[int, typer.Option(help="Runs with seeds 0, 1, ...")] = 1,
    budget: Annotated[float, typer.Option(help="Fraction of the epochs and steps of each recipe.")] = 1.0,
    settings: Settings = None,
    labelled: Labelled = None,
    out: Annotated[Path, typer.Option(help="Folder for runs and tables; finished runs are kept.")] = Path(
        "runs/benchmark"
    ),
    layout: Layout = "auto",
    device: Device = "auto",
    ray: Ray = None,
    cores: Cores = 2,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Fit and evaluate detectors on data sets with several seeds; writes CSV, Markdown and LaTeX tables. Resumes."""
    from andon.core.config import parse_assignments
    from andon.detectors._registry import usable_detectors
    from andon.experiments.sweep import plan

    jobs = plan(
        data,
        usable_detectors() if detectors == "all" else _listed("--detectors", detectors),
        categories=() if categories == "all" else _listed("--categories", categories),
        seeds=seeds,
        layout=layout,
        budget=budget,
        settings=parse_assignments(with_labelled(settings, labelled)),
    )
    compare(run_sweep(jobs, out, device, ray, cores, track), out, as_json)


def compare(outcome: Outcome, out: Path, as_json: bool) -> None:
    """Write and print the comparison tables of a sweep. Raises `AndonError` where runs failed."""
    from andon.experiments.comparison import comparison, write_tables

    _check_any(outcome)
    write_tables(outcome.results, out)
    if as_json:
        print_json({"out": str(out), "runs": len(outcome.results), "failures": outcome.failures})
    else:
        print("\n".join(table.markdown() for table in comparison(outcome.results)))
        print(
            f"tables: {out / 'tables.md'}, {out / 'tables.tex'}, {out / 'tables.csv'}, {out / 'results.csv'}"
        )
    if outcome.failures:
        raise AndonError(outcome.summary)


@app.command()
def ablate(
    data: DataArgument,
    category: Category = None,
    sequence: Annotated[
        str,
        typer.Option(
            help="thesis: its steps in order; defects: each defect repaired alone; variants: research directions; east: "
            "the parts of EAST, added one by one."
        ),
    ] = "thesis",
    seeds: Annotated[int, typer.Option(help="Runs with seeds 0, 1, ...")] = 1,
    budget: Annotated[float, typer.Option(help="Fraction of the epochs of each row.")] = 1.0,
    settings: Settings = None,
    out: Annotated[Path, typer.Option(help="Folder for runs and tables; finished runs are kept.")] = Path(
        "runs/ablation"
    ),
    layout: Layout = "auto",
    device: Device = "auto",
    ray: Ray = None,
    cores: Cores = 2,
    track: Track = None,
) -> None:
    """Change one setting at a time on one category; writes tables. Resumes. --set applies to every row."""
    from andon.core.config import parse_assignments
    from andon.core.files import write_text
    from andon.experiments.ablation import ablation_table, load_sequence, plan_ablation
    from andon.runs.source import Source

    chosen = load_sequence(sequence)
    found = Source(data, category, layout).open(seed=0)
    jobs = plan_ablation(
        chosen,
        data,
        found.category,
        seeds=seeds,
        layout=layout,
        budget=budget,
        settings=parse_assignments(settings or []),
    )
    outcome = run_sweep(jobs, out, device, ray, cores, track)
    _check_any(outcome)
    table = ablation_table(chosen, outcome.results, f"Ablation `{sequence}` on {found.category} (%)", out)
    write_text(out / "ablation.md", table.markdown())
    write_text(out / "ablation.tex", table.latex())
    print(table.markdown())
    if outcome.failures:
        raise AndonError(outcome.summary)


@app.command()
def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Row of a published table; without it, all rows are listed."),
    ] = None,
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Folder of the row's data set.")
    ] = None,
    categories: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    seeds: Annotated[int, typer.Option(help="Runs with seeds 0, 1, ...")] = 1,
    budget: Annotated[
        float, typer.Option(help="Fraction of the epochs and steps of the recipe, for trials.")
    ] = 1.0,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for runs and tables; default runs/reproduce/NAME.")
    ] = None,
    layout: Layout = "auto",
    device: Device = "auto",
    ray: Ray = None,
    cores: Cores = 2,
    track: Track = None,
) -> None:
    """Reproduce a row of a published table: all categories, measured and published values. Resumes."""
    from andon.core.config import parse_assignments
    from andon.core.files import write_text
    from andon.experiments.comparison import write_tables
    from andon.experiments.reproduction import (
        load_reproduction,
        plan_reproduction,
        reproduction_names,
        reproduction_table,
    )

    if name is None:
        rows = [(each, load_reproduction(each)) for each in reproduction_names()]
        print_table(
            "",
            ["name", "row", "recipe", "to expect (estimate)"],
            [[each, row.title, row.recipe, row.estimate] for each, row in rows],
        )
        return
    row = load_reproduction(name)
    if data is None:
        raise UsageError(f"{row.title} needs its data: `andon reproduce {name} DATA`")
    jobs = plan_reproduction(
        row,
        data,
        categories=() if categories == "all" else _listed("--categories", categories),
        seeds=seeds,
        layout=layout,
        budget=budget,
        settings=parse_assignments(settings or []),
    )
    out = out or Path("runs/reproduce") / name
    outcome = run_sweep(jobs, out, device, ray, cores, track)
    _check_any(outcome)
    write_tables(outcome.results, out)
    table = reproduction_table(row, outcome.results)
    write_text(out / "published.md", table.markdown())
    write_text(out / "published.tex", table.latex())
    print(table.markdown())
    print(
        f"tables: {out / 'published.md'}, {out / 'published.tex'}, {out / 'tables.md'}, {out / 'results.csv'}"
    )
    if outcome.failures:
        raise AndonError(outcome.summary)


def run_sweep(
    jobs: Sequence[Job],
    out: Path,
    device: str = "auto",
    ray: str | None = None,
    cores: int = 2,
    track: str | None = None,
) -> Outcome:
    """Make the runs where they were asked for, and say which failed."""
    from andon.core.progress import default_progress
    from andon.experiments.sweep import sweep

    where, show = cluster(ray, cores), tracker(track)
    runner = where.runs if where is not None else None
    outcome = sweep(jobs, out, device=device, runner=runner, after=show, progress=default_progress())
    for folder, failure in outcome.failures.items():
        say(f"andon: warning: {folder}: {failure}")
    return outcome


def _check_any(outcome: Outcome) -> None:
    """Raise `AndonError` where no run succeeded; tables of an earlier call stay then."""
    if not outcome.results:
        raise AndonError("no run succeeded, so there is nothing to compare: see the messages above")


def _listed(option: str, text: str) -> list[str]:
    """The names of a comma-separated option. Raises `ConfigError` for none: no name is not all of them."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise ConfigError(f"{option} {text!r} names none: give names separated by commas, or all")
    return names
