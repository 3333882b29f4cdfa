"""Where the data of a run is, and opening it the way the run did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from andon.core.errors import DataError
from andon.datasets import Dataset, open_dataset
from andon.datasets.labelled_anomalies import Labelled, move_labelled
from andon.runs.folder import read_recipe


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data of a run is."""

    path: str
    category: str | None = None
    layout: str = "auto"

    def open(self, *, seed: int, hold_out: bool = True, labelled: Labelled = 0) -> Dataset:
        """Read the data set; without hold_out no good images are kept from training by rule.

        labelled anomalous images move from the test to those that are learned from.
        """
        found = open_dataset(self.path, self.category, self.layout, seed=seed, hold_out=hold_out)
        return move_labelled(found, labelled, seed)


def own_source(run: Path, recipe: Mapping[str, Any]) -> Source:
    """Where the data of a run was when it was fitted. Raises DataError when it is no longer there."""
    own = recipe["data"]
    if not own["path"].startswith("embedded:") and not Path(own["path"]).exists():
        raise DataError(f"the data of {run} is no longer in {own['path']}: say where it is with --data")
    return Source(own["path"], own["category"] or None, own["layout"])


def run_data(run: Path, data: str | None = None) -> Dataset:
    """The data set of a run, or another. Raises DataError where it is no longer there."""
    recipe = read_recipe(run)
    source = Source(data) if data is not None else own_source(run, recipe)
    return source.open(
        seed=recipe["seed"],
        hold_out=recipe["hold_out"],
        labelled=0 if data is not None else recipe.get("labelled", 0),
    )
