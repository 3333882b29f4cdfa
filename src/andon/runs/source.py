"""Where the data of a run is, and opening it the way the run did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from andon.core.errors import DataError
from andon.datasets import Dataset, Records, open_dataset
from andon.datasets.added import with_added
from andon.datasets.labelled_anomalies import Labelled, move_labelled
from andon.detectors._recipes import RecipeSettings
from andon.runs.folder import read_recipe


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data of a run is."""

    path: str
    category: str | None = None
    layout: str = "auto"
    good: tuple[str, ...] = ()
    """Names of folders of good images."""
    bad: tuple[str, ...] = ()
    """Names of folders of anomalous images."""

    def open(
        self,
        *,
        seed: int,
        hold_out: bool = True,
        labelled: Labelled = 0,
        sessions: str = "auto",
        exclude: Sequence[str] = (),
        lenient: bool = False,
    ) -> Dataset:
        """Read the data set; without hold_out no good images are kept from training by rule.

        labelled anomalous images move from the test to those that are learned from. The others are as in `open_dataset`.
        """
        found = open_dataset(
            self.path,
            self.category,
            self.layout,
            seed=seed,
            hold_out=hold_out,
            sessions=sessions,
            exclude=exclude,
            good=self.good,
            bad=self.bad,
            lenient=lenient,
        )
        return move_labelled(found, labelled, seed)

    def split_by(self, recipe: RecipeSettings) -> Dataset:
        """The data set as a fit with the recipe reads it."""
        return self.open(
            seed=recipe.seed,
            hold_out=recipe.hold_out,
            labelled=recipe.labelled,
            sessions=recipe.sessions,
            exclude=recipe.exclude,
        )


def own_source(run: Path, recipe: Mapping[str, Any]) -> Source:
    """Where the data of a run was when it was fitted. Raises DataError when it is no longer there."""
    own = recipe["data"]
    if not own["path"].startswith("embedded:") and not Path(own["path"]).exists():
        raise DataError(f"the data of {run} is no longer in {own['path']}: say where it is with --data")
    return Source(own["path"], own["category"] or None, own["layout"], *told_names(recipe))


def is_unchanged(dataset: Dataset, described: Mapping[str, Any]) -> bool:
    """Whether the images to learn from are those that a run learned from; `described` is `data` of its recipe.yaml."""
    skipped = described.get("skipped", {})
    learned = [record for record in (*dataset.train, *dataset.validation) if record.id not in skipped]
    return bool(Records([*learned, *dataset.labelled]).fingerprint() == described["fingerprint"])


def told_names(recipe: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of folders of good and of anomalous images, as the run was told."""
    return tuple(recipe.get("good", ())), tuple(recipe.get("bad", ()))


def run_data(run: Path, data: str | None = None) -> Dataset:
    """The data set of a run, or another. Raises DataError where it is no longer there."""
    recipe = read_recipe(run)
    return open_data(run, recipe, None if data is None else Source(data))


def open_data(run: Path, recipe: Mapping[str, Any], other: Source | None = None) -> Dataset:
    """The data set that the run of `recipe` was fitted on, read as then, or the `other` one.

    Images that were excluded or added may be gone since. Raises DataError where the data set is no longer there.
    """
    split = {"seed": recipe["seed"], "hold_out": recipe["hold_out"]}
    if other is not None:
        if not (other.good or other.bad):
            good, bad = told_names(recipe)
            return replace(other, good=good, bad=bad).open(**split, lenient=True)
        return other.open(**split)
    found = own_source(run, recipe).open(
        **split,
        labelled=recipe.get("labelled", 0),
        sessions=recipe.get("sessions", "auto"),
        exclude=recipe.get("exclude", ()),
        lenient=True,
    )
    if "folds" not in recipe["data"]:
        return found
    added = {name: Path(file) for name, file in recipe["data"].get("added", {}).items()}
    return with_added(found.pooled(), added, recipe.get("sessions", "auto"))
