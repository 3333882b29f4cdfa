"""Reproduction of published results: one YAML file per row of a published table, and the table of measured and published values.

A file in `andon/assets/reproduce` names the data set, the recipe (with its weights), the settings in which the publication
differs from the recipe, and the published values.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from andon.core.config import Config, Count, from_yaml
from andon.core.errors import ConfigError, DataError, nearest
from andon.datasets import list_categories, open_dataset
from andon.experiments.comparison import PER_CATEGORY, measured
from andon.experiments.sweep import Job, Result, check_extent, plan
from andon.experiments.tables import Table

AVERAGE = "average"
"""Key of the published means over all categories."""
TITLES = PER_CATEGORY | {
    "pixel_f1_max": "px F1-max",
    "aupro_0.30": "AUPRO 0.30",
    "image_auroc@mean": "im AUROC, mean of kinds",
    "image_auroc@logical": "im AUROC, logical",
    "image_auroc@structural": "im AUROC, structural",
}
"""Column titles by metric name."""


class Reproduction(Config):
    """A row of a published table."""

    title: str
    """Model and data set, as named in the publication."""
    source: str
    """Where the values are printed, and which of them were corrected."""
    dataset: str
    """Required layout of the data."""
    recipe: str
    """Full name of the recipe, `detector/variant`."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings in which the publication differs from the recipe, dotted names."""
    categories: Count
    """Number of categories in the averages."""
    published: dict[str, dict[str, float]]
    """{category or `average`: {metric: percent}}."""
    estimate: str
    """Estimated time and memory."""
    note: str = ""
    """Remark for the comparison."""


def reproduction_names() -> list[str]:
    """Names of the rows, sorted."""
    folder = resources.files("andon").joinpath("assets/reproduce")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_reproduction(name: str) -> Reproduction:
    """Read a row by name. Raises `ConfigError` when it is unknown."""
    if name not in reproduction_names():
        raise ConfigError(f"unknown published row {name!r}; {nearest(name, reproduction_names())}")
    text = resources.files("andon").joinpath(f"assets/reproduce/{name}.yaml").read_text(encoding="utf-8")
    return Reproduction.parse(from_yaml(text, where=f"published row {name}"), where=f"published row {name}")


def plan_reproduction(
    row: Reproduction,
    data: str,
    *,
    categories: Sequence[str] = (),
    seeds: int = 1,
    layout: str = "auto",
    budget: float = 1.0,
    settings: Mapping[str, Any] | None = None,
) -> list[Job]:
    """One job per category and seed; `settings` override those of the row.

    Raises `DataError` when the data has another layout, or lacks a category with published values, and what `plan` raises.
    """
    check_extent(seeds, budget)
    known = list_categories(data, layout)
    found = open_dataset(data, known[0], layout).layout
    missing = sorted(row.published.keys() - {AVERAGE, *known})
    if found != row.dataset or missing:
        lacks = f"lacks {', '.join(missing)}" if missing else f"is laid out as {found}"
        raise DataError(
            f"{row.title} needs {row.dataset}, and {data} {lacks}: give the folder of that data set"
        )
    return plan(
        data,
        [row.recipe],
        categories=categories,
        seeds=seeds,
        layout=layout,
        budget=budget,
        settings={**row.set, **(settings or {})},
    )


def reproduction_table(row: Reproduction, results: Sequence[Result]) -> Table:
    """One row per category and one for the average: measured value, published value and difference, in percent.

    The average is measured only with all categories; each value is the mean over the seeds.
    """
    metrics = list(dict.fromkeys(metric for values in row.published.values() for metric in values))
    done = list(dict.fromkeys(result.job.category for result in results))
    titles = [TITLES.get(metric, metric) for metric in metrics]
    columns = [
        "category",
        *(f"{title}{part}" for title in titles for part in ("", ", published", ", difference")),
    ]
    lines = [
        (category, *_cells(row, category, metrics, [r for r in results if r.job.category == category]))
        for category in done
    ]
    whole = results if len(done) == row.categories else []
    lines.append((AVERAGE, *_cells(row, AVERAGE, metrics, whole)))
    seeds = len({result.job.seed for result in results})
    notes = [
        f"Published: {row.source}.",
        f"Recipe {row.recipe}"
        + "".join(
            f", {key}={value}" for key, value in (results[0].job.settings if results else row.set).items()
        )
        + f". Weights: {results[0].weights if results else 'none'}. Seeds: {seeds}.",
    ]
    if any(result.on_test for result in results):
        notes.append("The epoch was selected on test labels, as published; such numbers are optimistic.")
    if not whole:
        notes.append(f"{len(done)} of {row.categories} categories: no average is measured.")
    return Table(
        f"{row.title} (%)", tuple(columns), tuple(lines), (*notes, *([row.note] if row.note else ()))
    )


def _cells(row: Reproduction, line: str, metrics: Sequence[str], results: Sequence[Result]) -> list[str]:
    cells = []
    for metric in metrics:
        here, there = _mean(results, metric), row.published.get(line, {}).get(metric, math.nan)
        cells += [_number(here), _number(there), _number(here - there, "+.1f")]
    return cells


def _mean(results: Sequence[Result], metric: str) -> float:
    """Mean over all runs in percent; NaN where one is undefined or there are none."""
    return 100 * statistics.fmean(measured(result, metric) for result in results) if results else math.nan


def _number(value: float, form: str = ".1f") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"
