"""`andon fit --add`, and what `andon fit` prints about what was learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from andon.cli.options import print_json, print_origins, say
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.datasets import Dataset
    from andon.detectors._base import Detector

WITH_ADD = ("data", "add", "good", "skip_unreadable", "device", "as_json")
"""Parameters of `fit` that go together with `--add`."""


def check_with_add(context: typer.Context) -> None:
    """Raise `UsageError` for options on the command line that do not go together with `--add`."""
    refused = [
        option.opts[0]
        for option in context.command.params
        if option.name not in WITH_ADD
        and getattr(context.get_parameter_source(str(option.name)), "name", "") == "COMMANDLINE"
    ]
    if refused:
        raise UsageError(
            f"--add keeps the settings and the folder of the run: leave out {', '.join(refused)}"
        )


def add_images(
    run: Path, folder: Path, *, good: Sequence[str], skip_unreadable: bool, device: str, as_json: bool
) -> None:
    """`andon fit --add FOLDER RUN`."""
    from andon.core.progress import default_progress
    from andon.runs.add import add_to_run
    from andon.runs.folder import read_recipe

    found = add_to_run(
        run, folder, good=good, skip_unreadable=skip_unreadable, device=device, progress=default_progress()
    )
    for image, reason in found.left_out.items():
        say(f"andon: warning: {image} {reason} and is not added")
    if found.read_again:
        say(f"andon: warning: {run} kept no features, so the pictures it had learned from were read again")
    if found.thresholds_dropped:
        say(
            "andon: warning: thresholds that were changed since the fit no longer apply: set them again with `andon threshold`"
        )
    show_learned(run, found.detector, found.dataset, read_recipe(run)["name"], found.added, as_json=as_json)


def show_learned(
    out: Path, fitted: Detector, dataset: Dataset, recipe: str, added: Sequence[str] = (), *, as_json: bool
) -> None:
    """Images, thresholds and the oddest good images of the run in `out`, as text or one JSON document.

    `added` are the ids of images that were added to an earlier run.
    """
    from andon.core.deep_images import describe_bit_depth
    from andon.core.text import plural
    from andon.datasets.findings import first_few
    from andon.datasets.sessions import sessions_of
    from andon.report.evaluation import label_notes
    from andon.runs.choose import Choice
    from andon.runs.folder import FEATURES, read_recipe
    from andon.thresholds.oddest import oddest
    from andon.thresholds.session_rates import session_rates

    calibration = fitted.fitted()
    odd, seen = oddest(calibration), calibration.seen
    deep = seen is not None and seen.largest is not None
    sessions_found = sessions_of(dataset, cross_fitted=fitted.cross_fitted)
    rates = session_rates(calibration)
    data = read_recipe(out)["data"]
    skipped = data.get("skipped", {})
    kept = (out / FEATURES).stat().st_size if (out / FEATURES).is_file() else 0
    choice = Choice.from_json(data["choice"]) if "choice" in data else None
    if as_json:
        print_json(
            {
                "run": str(out),
                "detector": fitted.name,
                "recipe": recipe,
                "category": dataset.category,
                "train": len(dataset.train),
                "validation": len(dataset.validation),
                "labelled": len(dataset.labelled),
                "label_use": fitted.label_use if dataset.labelled else "",
                "excluded": list(dataset.excluded),
                "added": list(added),
                "kept_features_bytes": kept,
                "choice": None if choice is None else choice.to_json(),
                "sessions": sessions_found.to_json() | {"rates": rates.to_json() if rates else None},
                "region": data.get("region"),
                "skipped": skipped,
                "warnings": [
                    *dataset.findings.errors,
                    *dataset.findings.warnings,
                    *(seen.warnings() if seen else []),
                ],
                "bit_depth": calibration.bit_depth if deep else None,
                "guesses": list(dataset.findings.guesses),
                "weights": [dict(line) for line in fitted.used_weights],
                "data_licence": dataset.licence,
                "oddest_good_images": None if odd is None else odd.to_json(),
                "thresholds": {
                    "image": calibration.image.to_json(),
                    "pixel": calibration.pixel.to_json(),
                    "source": calibration.source,
                    "folds": calibration.folds,
                },
            }
        )
        return
    print(dataset.summary(all_learned=fitted.cross_fitted))
    if choice is not None:
        print(choice.describe())
    if added:
        print(f"added: {plural(len(added), 'picture')} ({first_few(added)})")
    for note in label_notes(fitted, len(dataset.labelled)):
        print(f"note: {note}")
    if skipped:
        print(f"unreadable and skipped: {len(skipped)} ({', '.join(skipped)})")
    if calibration.region is not None:
        print(f"inspected: {100 * calibration.region.share:.3g} % of each picture")
    if seen is not None and seen.largest is not None:
        print(describe_bit_depth(seen.bit_depth, seen.largest))
    if dataset.excluded:
        print(f"left out on request: {len(dataset.excluded)} ({', '.join(dataset.excluded)})")
    print_origins(fitted.used_weights, dataset.licence)
    if calibration.folds:
        print(f"{len(calibration.scores)} good pictures; thresholds {calibration.source}")
    print(f"image threshold: {calibration.image.describe()}")
    if calibration.source != "train":
        print(f"sessions: {sessions_found.describe()}")
    if rates is not None:
        print(rates.describe())
    if calibration.source == "train":
        print(
            "no good pictures were held out: the thresholds come from the training pictures and guarantee nothing"
        )
    if odd is not None:
        print(f"{odd.describe()}; --exclude NAME leaves a picture out")
    if kept:
        print(f"features kept for pictures that are added later (`andon fit --add`): {kept / 1e6:.3g} MB")
    following = f"andon evaluate {out}" if len(dataset.test) else f"andon predict {out} IMAGES"
    print(f"learned, saved in {out}; next: {following}")
