"""`andon data`: draw the embedded sets, check any data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import Category, DataArgument, Json, Layout, print_json
from andon.errors import UsageError

app = typer.Typer(help="Generate the embedded data sets; check any data set.", no_args_is_help=True)


@app.command("generate")
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


@app.command("check")
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
        print_json(
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
        counted = "1 error" if errors == 1 else f"{errors} errors"
        raise UsageError(f"{data} has {counted} (listed above): correct before fitting")
