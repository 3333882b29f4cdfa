"""Ablations: a sequence of changes to one model, one run per change and seed, one table.

A sequence is a YAML file in `andon/assets/ablations`: the start recipe, settings of all rows, and rows with a name, the
settings they change and the values published for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from andon.core.config import Config, Count, from_yaml
from andon.core.errors import ConfigError, nearest
from andon.detectors._recipes import load_recipe, resolve
from andon.experiments.comparison import spread
from andon.experiments.sweep import Job, Result, budgeted, check_extent, checked
from andon.experiments.tables import Table
from andon.metrics.bootstrap import paired_auroc
from andon.runs.folder import read_scores


class Row(Config):
    """One step of a sequence."""

    change: str
    """Description of the change."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Changed settings, dotted names."""
    epochs: Count | None = None
    """Epochs of student and autoencoder; None: those of the recipe."""
    recipe: str | None = None
    """Another recipe, run with the settings of this row alone, as a comparison; later rows do not build on it."""
    kept: bool = True
    """Whether later rows of a cumulative sequence include the change."""
    published: dict[str, float] = Field(default_factory=dict)
    """Published values in percent, by metric name."""
    note: str = ""
    """Remark on the published value."""


class Ablation(Config):
    """An ablation sequence."""

    detector: str
    start: str
    """Recipe the first row starts from."""
    cumulative: bool
    """Whether a row includes the kept rows before it; otherwise it changes the start recipe alone."""
    base: dict[str, Any] = Field(default_factory=dict)
    """Settings of all rows."""
    rows: tuple[Row, ...]


def sequence_names() -> list[str]:
    """Names of the sequences, sorted."""
    folder = resources.files("andon").joinpath("assets/ablations")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_sequence(name: str) -> Ablation:
    """Read a sequence by name. Raises `ConfigError` when it is unknown."""
    if name not in sequence_names():
        raise ConfigError(f"unknown ablation {name!r}; {nearest(name, sequence_names())}")
    text = resources.files("andon").joinpath(f"assets/ablations/{name}.yaml").read_text(encoding="utf-8")
    return Ablation.parse(from_yaml(text, where=f"ablation {name}"), where=f"ablation {name}")


def plan_ablation(
    sequence: Ablation,
    data: str,
    category: str,
    *,
    seeds: int = 1,
    layout: str = "auto",
    budget: float = 1.0,
    settings: Mapping[str, Any] | None = None,
) -> list[Job]:
    """One job per row and seed. `budget` scales the epochs of every row; `settings` apply to all rows.

    Raises `ConfigError` for what `checked` and `check_extent` refuse.
    """
    check_extent(seeds, budget)
    recipe = f"{sequence.detector}/{sequence.start}"
    default_epochs = resolve(load_recipe(recipe), {}).config.model_dump().get("epochs")
    jobs = []
    for seed in range(seeds):
        state: dict[str, Any] = dict(sequence.base)
        for k, row in enumerate(sequence.rows, 1):
            label = f"{k:02d} {row.change}"
            if row.recipe is not None:
                own = budgeted(row.recipe, budget, {**row.set, **(settings or {})})
                jobs.append(Job(row.recipe, data, category, layout, seed, own, label=label))
                continue
            changed = {**state, **row.set}
            epochs = row.epochs or default_epochs
            scaled = {"epochs": max(1, round(budget * epochs))} if epochs else {}
            values = {**changed, **scaled, **(settings or {})}
            checked(recipe, values)
            jobs.append(Job(recipe, data, category, layout, seed, values, label=label))
            if sequence.cumulative and row.kept:
                state = changed
    return jobs


def ablation_table(
    sequence: Ablation, results: Sequence[Result], title: str, out: Path | None = None
) -> Table:
    """One row per step: measured image AUROC, pixel AUROC and AUPRO, and published values where there are any.

    With `out`, the folder of the runs, also the change of the image AUROC against the previous kept row, with its interval.
    """
    has_published = any(row.published for row in sequence.rows)
    metrics = ("image_auroc", "pixel_auroc", "aupro_0.30")
    rows, previous = [], None
    for k, row in enumerate(sequence.rows, 1):
        mine = [result for result in results if result.job.name.startswith(f"{k:02d} ")]
        measured = [spread([r.value(m) for r in mine if r.value(m) == r.value(m)], m) for m in metrics]
        epochs = str(mine[0].job.settings.get("epochs", "–")) if mine else "–"
        printed = [f"{row.published[m]:.1f}" if m in row.published else "–" for m in metrics[:2]]
        selected = "test labels" if any(result.on_test for result in mine) else "–"
        cells = [str(k), row.change + ("" if row.kept else " (not kept)"), epochs, *measured]
        if out is not None:
            cells.append(_change(previous, mine, out) if previous else "–")
        rows.append((*cells, *(printed if has_published else ()), selected))
        if previous is None or (sequence.cumulative and row.kept and row.recipe is None):
            previous = mine
    columns = ["#", "change", "epochs", "image AUROC", "pixel AUROC", "AUPRO 0.30"]
    notes = [f"{k}: {row.note}." for k, row in enumerate(sequence.rows, 1) if row.note]
    if out is not None:
        columns.append("change of image AUROC (95 %)")
        against = "the last row before it that was kept" if sequence.cumulative else "row 1"
        notes.append(
            f"Change: mean over the seeds both rows have, against {against}; paired bootstrap over the test pictures."
        )
    columns += (["image, published", "pixel, published"] if has_published else []) + ["selected on"]
    seeds = len({result.job.seed for result in results})
    weights = ", ".join(sorted({result.weights for result in results})) or "none"
    return Table(title, tuple(columns), tuple(rows), (f"Weights: {weights}. Seeds: {seeds}.", *notes))


def _change(first: Sequence[Result], second: Sequence[Result], out: Path) -> str:
    """Difference of the image AUROC in percent points with its interval, over the seeds of both rows."""
    runs = [
        {result.job.seed: read_scores(result.job.folder(out)) for result in row} for row in (first, second)
    ]
    seeds = sorted(set(runs[0]) & set(runs[1]))
    if not seeds:
        return "–"
    truth = dict(sorted((name, bad) for seed in seeds for name, (bad, _) in runs[0][seed].items()))
    before, after = (
        [[row[seed].get(name, (False, np.nan))[1] for name in truth] for seed in seeds] for row in runs
    )  # the seed chooses the test images of some layouts
    difference, found = paired_auroc(before, after, np.array([*truth.values()]))
    return f"{100 * difference:+.1f}" + (
        f" ({100 * found[0]:+.1f} to {100 * found[1]:+.1f})" if found is not None else ""
    )
