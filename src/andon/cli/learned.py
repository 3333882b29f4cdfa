"""`andon fit --add`, and what `andon fit` prints about what was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from andon.cli.options import print_json, print_origins, say
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.datasets import Dataset
    from andon.datasets.sessions import Sessions
    from andon.detectors._base import Detector
    from andon.runs.choose import Choice
    from andon.thresholds.oddest import Oddest
    from andon.thresholds.session_rates import SessionRates

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
    found = _Learned.of(out, fitted, dataset, added)
    if as_json:
        print_json(found.to_json(recipe))
    else:
        found.print()


@dataclass(frozen=True, slots=True)
class _Learned:
    """What was learned, with what follows from it."""

    run: Path
    detector: Detector
    dataset: Dataset
    added: Sequence[str]
    described: Mapping[str, Any]
    """`data` of recipe.yaml."""
    choice: Choice | None
    sessions: Sessions
    rates: SessionRates | None
    odd: Oddest | None
    kept: int
    """Bytes of features that are kept for images that are added later."""

    @classmethod
    def of(cls, run: Path, detector: Detector, dataset: Dataset, added: Sequence[str]) -> _Learned:
        """Read the rest from the run and from the calibration."""
        from andon.datasets.sessions import sessions_of
        from andon.runs.choose import Choice
        from andon.runs.folder import FEATURES, read_recipe
        from andon.thresholds.oddest import oddest
        from andon.thresholds.session_rates import session_rates

        calibration, described = detector.fitted(), read_recipe(run)["data"]
        return cls(
            run,
            detector,
            dataset,
            added,
            described,
            choice=Choice.from_json(described["choice"]) if "choice" in described else None,
            sessions=sessions_of(dataset, cross_fitted=detector.cross_fitted),
            rates=session_rates(calibration),
            odd=oddest(calibration),
            kept=(run / FEATURES).stat().st_size if (run / FEATURES).is_file() else 0,
        )

    def to_json(self, recipe: str) -> dict[str, Any]:
        """The JSON document; `recipe` is the recipe's name."""
        dataset, calibration = self.dataset, self.detector.fitted()
        seen = calibration.seen
        deep = seen is not None and seen.largest is not None
        return {
            "run": str(self.run),
            "detector": self.detector.name,
            "recipe": recipe,
            "category": dataset.category,
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "labelled": len(dataset.labelled),
            "label_use": self.detector.label_use if dataset.labelled else "",
            "excluded": list(dataset.excluded),
            "added": list(self.added),
            "kept_features_bytes": self.kept,
            "choice": None if self.choice is None else self.choice.to_json(),
            "sessions": self.sessions.to_json() | {"rates": self.rates.to_json() if self.rates else None},
            "region": self.described.get("region"),
            "skipped": self.described.get("skipped", {}),
            "warnings": [
                *dataset.findings.errors,
                *dataset.findings.warnings,
                *(seen.warnings() if seen else []),
            ],
            "bit_depth": calibration.bit_depth if deep else None,
            "guesses": list(dataset.findings.guesses),
            "weights": [dict(line) for line in self.detector.used_weights],
            "data_licence": dataset.licence,
            "oddest_good_images": None if self.odd is None else self.odd.to_json(),
            "thresholds": {
                "image": calibration.image.to_json(),
                "pixel": calibration.pixel.to_json(),
                "source": calibration.source,
                "folds": calibration.folds,
            },
        }

    def print(self) -> None:
        """The same for people, and the next command."""
        self._print_images()
        print_origins(self.detector.used_weights, self.dataset.licence)
        self._print_thresholds()
        if self.odd is not None:
            print(f"{self.odd.describe()}; --exclude NAME leaves a picture out")
        if self.kept:
            print(
                f"features kept for pictures that are added later (`andon fit --add`): {self.kept / 1e6:.3g} MB"
            )
        following = (
            f"andon evaluate {self.run}" if len(self.dataset.test) else f"andon predict {self.run} IMAGES"
        )
        print(f"learned, saved in {self.run}; next: {following}")

    def _print_images(self) -> None:
        from andon.core.deep_images import describe_bit_depth
        from andon.core.text import plural
        from andon.datasets.findings import first_few
        from andon.report.notes import label_notes

        dataset, calibration = self.dataset, self.detector.fitted()
        seen, skipped = calibration.seen, self.described.get("skipped", {})
        print(dataset.summary(all_learned=self.detector.cross_fitted))
        if self.choice is not None:
            print(self.choice.describe())
        if self.added:
            print(f"added: {plural(len(self.added), 'picture')} ({first_few(self.added)})")
        for note in label_notes(self.detector, len(dataset.labelled)):
            print(f"note: {note}")
        if skipped:
            print(f"unreadable and skipped: {len(skipped)} ({', '.join(skipped)})")
        if calibration.region is not None:
            print(f"inspected: {100 * calibration.region.share:.3g} % of each picture")
        if seen is not None and seen.largest is not None:
            print(describe_bit_depth(seen.bit_depth, seen.largest))
        if dataset.excluded:
            print(f"left out on request: {len(dataset.excluded)} ({', '.join(dataset.excluded)})")

    def _print_thresholds(self) -> None:
        calibration = self.detector.fitted()
        if calibration.folds:
            print(f"{len(calibration.scores)} good pictures; thresholds {calibration.source}")
        print(f"image threshold: {calibration.image.describe()}")
        if calibration.source != "train":
            print(f"sessions: {self.sessions.describe()}")
        if self.rates is not None:
            print(self.rates.describe())
        if calibration.source == "train":
            print(
                "no good pictures were held out: the thresholds come from the training pictures and guarantee nothing"
            )
