"""`andon data`: generate the embedded sets, fetch published ones, check any data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli.options import (
    Bad,
    Category,
    DataArgument,
    Exclude,
    Good,
    Json,
    Layout,
    Sessions,
    print_json,
    print_table,
    say,
)
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.datasets import Dataset
    from andon.datasets.findings import Findings

app = typer.Typer(
    help="Generate embedded data sets, list and fetch published ones, check any data set.",
    no_args_is_help=True,
)


@app.command("generate")
def data_generate(
    folder: Annotated[
        Path, typer.Argument(help="Folder in which embedded_ad/ and embedded_loco/ are created.")
    ],
    profile: Annotated[str, typer.Option(help="tiny, small or standard.")] = "small",
    size: Annotated[int, typer.Option(help="Height of the images, 128 to 512 pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the images.")] = 0,
    categories: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.")] = None,
) -> None:
    """Generate the embedded data sets: procedural images with exact masks."""
    from andon.core.progress import default_progress
    from andon.datasets.embedded import generate

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
    data: DataArgument,
    category: Category = None,
    layout: Layout = "auto",
    sessions: Sessions = None,
    exclude: Exclude = None,
    good: Good = None,
    bad: Bad = None,
    as_json: Json = False,
) -> None:
    """Check every file of a data set and list its sessions; exit code 2 if there are errors."""
    from andon.datasets import check_dataset, list_categories, open_dataset
    from andon.datasets.open import unread_categories
    from andon.datasets.sessions import sessions_of

    names = (
        [category] if category is not None else list_categories(data, layout, good=good or (), bad=bad or ())
    )
    results: dict[str, tuple[Dataset, Findings]] = {}
    for name in names:
        dataset = open_dataset(
            data,
            name,
            layout,
            sessions=sessions or "auto",
            exclude=exclude or (),
            good=good or (),
            bad=bad or (),
        )
        findings = check_dataset(dataset)
        if category is None and not results:
            findings += unread_categories(data, layout, good=good or (), bad=bad or ())
        results[dataset.category] = (dataset, findings)
    if as_json:
        print_json(
            {
                key: {
                    "summary": d.summary(),
                    "errors": f.errors,
                    "warnings": f.warnings,
                    "guesses": f.guesses,
                    "notes": f.notes,
                    "sessions": sessions_of(d).to_json(),
                }
                for key, (d, f) in results.items()
            }
        )
    else:
        for dataset, findings in results.values():
            print(dataset.summary())
            if not sessions_of(dataset).images:
                print("  sessions: nothing is known about them (see --sessions)")
            for line in findings.lines():
                print(f"  {line}")
    errors = sum(len(findings.errors) for _, findings in results.values())
    if errors:
        counted = "1 error" if errors == 1 else f"{errors} errors"
        raise UsageError(f"{data} has {counted} (listed above): correct before fitting")


@app.command("list")
def data_list(as_json: Json = False) -> None:
    """List embedded data sets with licences, and published ones with pages, licences and sizes."""
    from andon.datasets.embedded_cache import embedded_sets
    from andon.datasets.published.sources import published_sets

    rows, embedded = list(published_sets().values()), embedded_sets()
    if as_json:
        print_json(
            [
                *({"name": name, "licence": licence} for name, licence in embedded.items()),
                *(
                    {
                        "name": known.name,
                        "title": known.title,
                        "page": known.page,
                        "licence": known.licence,
                        "cite": known.cite,
                        "archive": known.archive or None,
                        "bytes": known.size or None,
                        "sha256": known.sha256 or None,
                        "links": list(known.links),
                        "categories": list(known.counts),
                        "pictures": known.images or None,
                    }
                    for known in rows
                ),
            ]
        )
        return
    table = [
        [
            known.name,
            f"{known.images}" if known.images else "?",
            f"{known.size / 1e9:.1f} GB" if known.size else "?",
            "direct" if known.links else "by hand",
            known.licence,
            known.page,
        ]
        for known in rows
    ]
    print_table("", ["embedded data set", "origin and licence"], [list(row) for row in embedded.items()])
    print_table("", ["data set", "pictures", "archive", "link", "licence", "page"], table)


@app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="Name from `andon data list`.")],
    folder: Annotated[
        Path | None, typer.Argument(help="New folder for the data; default data/NAME.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licence without asking.")] = False,
    from_archive: Annotated[
        Path | None, typer.Option(help="Archive on this machine; nothing is downloaded.")
    ] = None,
    url: Annotated[str, typer.Option(help="Link to the archive, if the known ones no longer work.")] = "",
    sha256: Annotated[str, typer.Option(help="Hash of the archive, if its publisher changed the file.")] = "",
    keep_archive: Annotated[
        bool, typer.Option("--keep-archive", help="Keep the downloaded archive.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch a published data set: show page and licence, then download, verify and unpack into a new folder."""
    from andon.core.progress import default_progress
    from andon.datasets.published.fetch import announce, check_fetch, fetch
    from andon.datasets.published.sources import published_set

    known = published_set(name)
    target = folder or Path("data") / name
    for line in announce(known, target):
        say(line)
    check_fetch(known, target, url=url, archive=from_archive, sha256=sha256)
    if not yes:
        _ask_for_agreement(known.page)
    with default_progress().task(f"{name} (MB)", 0) as task:
        told = [0]

        def show(what: str, done: int, total: int) -> None:
            task.advance((done >> 20) - told[0], f"{what}, of {total >> 20}" if total else what)
            told[0] = done >> 20

        fetched = fetch(
            known, target, url=url, archive=from_archive, sha256=sha256, keep_archive=keep_archive, show=show
        )
    for line in fetched.warnings:
        say(f"andon: warning: {line}")
    if as_json:
        print_json(
            {
                "folder": fetched.folder,
                "categories": fetched.categories,
                "warnings": fetched.warnings,
                "sha256": fetched.sha256,
            }
        )
        return
    count = len(fetched.categories)
    print(f"{known.title} is in {fetched.folder}: {count} {'category' if count == 1 else 'categories'}")


def _ask_for_agreement(page: str) -> None:
    """Raises `UsageError` where nobody can be asked, or the answer is no."""
    if not sys.stdin.isatty():
        raise UsageError(f"nobody is here to agree to the licence: read {page}, then pass --yes")
    if not typer.confirm("Do you agree to the licence and fetch it?", err=True):
        raise UsageError("the licence was not agreed to, nothing was fetched")


@app.command("submission")
def data_submission(
    data: DataArgument,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs fitted on categories of DATA, one per category."),
    ],
    out: Annotated[Path, typer.Option(help="Archive to write.")] = Path("submission.tar.gz"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the archive.")] = False,
    as_json: Json = False,
) -> None:
    """Predict the private test images of MVTec AD 2 and write the archive for its benchmark server."""
    from andon.core.errors import OutputError
    from andon.core.progress import default_progress
    from andon.datasets import list_categories, open_dataset
    from andon.runs.folder import read_recipe

    if out.exists() and not overwrite:
        raise OutputError(f"{out} is there already: --overwrite replaces it, --out chooses another name")
    names = list_categories(data, "mvtec_ad_2")
    by_category: dict[str, Path] = {}
    for run in runs:
        category = read_recipe(run)["data"]["category"]
        if category in by_category:
            raise UsageError(f"{run} and {by_category[category]} are both for {category}: give one of them")
        if category not in names:
            raise UsageError(f"{run} is for {category!r}, {data} has {', '.join(names)}: leave it out")
        by_category[category] = run
    datasets = [open_dataset(data, name, "mvtec_ad_2") for name in names if name in by_category]

    from andon.detectors._saving import load_detector
    from andon.report.submission import write_submission

    detectors = {category: load_detector(run) for category, run in by_category.items()}
    done = write_submission(detectors, datasets, out, progress=default_progress())
    absent = [name for name in names if name not in by_category]
    if absent:
        say(f"andon: warning: no run for {', '.join(absent)}: the server wants all categories")
    if as_json:
        print_json(
            {
                "archive": done.archive,
                "pictures": done.images,
                "pixel_thresholds": done.thresholds,
                "absent": absent,
            }
        )
        return
    print(f"{sum(done.images.values())} pictures ({', '.join(done.images)}) are in {done.archive}")
