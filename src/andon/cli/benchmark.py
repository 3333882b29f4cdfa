"""`andon benchmark` and `andon ablate`: many runs, and the tables over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import (
    Category,
    Cores,
    DataArgument,
    Device,
    Json,
    Layout,
    Ray,
    Settings,
    cluster,
    print_json,
    say,
)

app = typer.Typer()


@app.command()
def benchmark(
    data: DataArgument,
    detectors: Annotated[
        str, typer.Option(help="Detectors or recipes (detector/variant), comma-separated, or all.")
    ] = "all",
    categories: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    seeds: Annotated[int, typer.Option(help="Runs with seeds 0, 1, ...")] = 1,
    budget: Annotated[float, typer.Option(help="Share of each recipe's epochs and steps.")] = 1.0,
    settings: Settings = None,
    out: Annotated[
        Path, typer.Option(help="Folder for runs and tables; what is finished there is kept.")
    ] = Path("runs/benchmark"),
    layout: Layout = "auto",
    device: Device = "auto",
    ray: Ray = None,
    cores: Cores = 2,
    as_json: Json = False,
) -> None:
    """Fit and evaluate detectors on categories with several seeds; writes CSV, Markdown and LaTeX tables. Resumes."""
    from andon.config import parse_assignments
    from andon.errors import AndonError
    from andon.progress import default_progress
    from andon.registry import detector_names
    from andon.report.comparison import comparison, write_tables
    from andon.sweep import plan, sweep

    jobs = plan(
        data,
        detector_names() if detectors == "all" else _listed(detectors),
        categories=() if categories == "all" else _listed(categories),
        seeds=seeds,
        layout=layout,
        budget=budget,
        settings=parse_assignments(settings or []),
    )
    where = cluster(ray, cores)
    outcome = sweep(
        jobs, out, device=device, runner=where.runs if where else None, progress=default_progress()
    )
    for folder, failure in outcome.failures.items():
        say(f"andon: warning: {folder}: {failure}")
    if not outcome.results:
        raise AndonError("no run succeeded, so there is nothing to compare: see the messages above")
    write_tables(outcome.results, out)
    if as_json:
        print_json({"out": str(out), "runs": len(outcome.results), "failures": outcome.failures})
    else:
        print("\n".join(table.markdown() for table in comparison(outcome.results)))
        print(f"tables: {out / 'tables.md'}, {out / 'tables.tex'}, {out / 'results.csv'}")
    if outcome.failures:
        raise AndonError(
            f"{len(outcome.failures)} of {len(jobs)} runs failed; the same command tries them again"
        )


@app.command()
def ablate(
    data: DataArgument,
    category: Category = None,
    sequence: Annotated[
        str, typer.Option(help="thesis: its steps in its order; defects: each defect repaired alone.")
    ] = "thesis",
    seeds: Annotated[int, typer.Option(help="Runs with seeds 0, 1, ...")] = 1,
    budget: Annotated[float, typer.Option(help="Share of each row's epochs.")] = 1.0,
    settings: Settings = None,
    out: Annotated[
        Path, typer.Option(help="Folder for runs and tables; what is finished there is kept.")
    ] = Path("runs/ablation"),
    layout: Layout = "auto",
    device: Device = "auto",
    ray: Ray = None,
    cores: Cores = 2,
) -> None:
    """Measure one change at a time on one category; writes tables. Resumes. --set holds for every row."""
    from andon.ablation import ablation_table, load_sequence, plan_ablation
    from andon.config import parse_assignments
    from andon.errors import AndonError
    from andon.files import write_text
    from andon.progress import default_progress
    from andon.runs import Source
    from andon.sweep import sweep

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
    where = cluster(ray, cores)
    outcome = sweep(
        jobs, out, device=device, runner=where.runs if where else None, progress=default_progress()
    )
    for folder, failure in outcome.failures.items():
        say(f"andon: warning: {folder}: {failure}")
    table = ablation_table(chosen, outcome.results, f"Ablation `{sequence}` on {found.category} (%)")
    write_text(out / "ablation.md", table.markdown())
    write_text(out / "ablation.tex", table.latex())
    print(table.markdown())
    if outcome.failures:
        raise AndonError(
            f"{len(outcome.failures)} of {len(jobs)} runs failed; the same command tries them again"
        )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
