"""Evaluating a run: from its folder to a report in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.core.errors import DataError
from andon.core.progress import Progress
from andon.datasets.labelled_anomalies import without_copies
from andon.detectors._recipes import PIXEL_MEMORY
from andon.runs.choose import Choice, selected_on
from andon.runs.folder import changing, read_recipe, read_stages
from andon.runs.source import Source, is_unchanged, open_data

if TYPE_CHECKING:
    from andon.datasets import Dataset
    from andon.detectors._base import Detector
    from andon.report.evaluation import PixelMetrics, Report


def evaluate_run(
    run: Path,
    *,
    data: Source | None = None,
    gate: bool | None = None,
    skip_unreadable: bool = False,
    maps: bool = False,
    latency: bool = True,
    pixel_metrics: PixelMetrics | None = None,
    progress: Progress | None = None,
    fitted: tuple[Detector, Dataset] | None = None,
) -> Report:
    """Evaluate a run on its own data set's test images (or those of data) and write the report into it.

    gate adds what SPADE's gate makes of it, pixel_metrics replaces the recipe's setting of that name; None = as the
    recipe says. fitted is what `fit_run` has just returned for this run, so that nothing is loaded again.
    """
    with changing(run):
        recipe = read_recipe(run)
        own = fitted is not None and data is None
        dataset = fitted[1] if fitted is not None and own else open_data(run, recipe, data)
        if data is None and not own:
            _check_not_learned_from(run, recipe["data"], dataset)
        learned = recipe["data"].get("labelled", {})
        choice = Choice.from_json(recipe["data"]["choice"]) if "choice" in recipe["data"] else None
        used = {*learned.values(), *(choice.images.values() if choice is not None else ())}
        if used:  # wherever they lie by now, and whatever they are called
            dataset = replace(dataset, test=without_copies(dataset.test, used))
        if not dataset.test:
            path = recipe["data"]["path"] if data is None else data.path
            raise DataError(
                f"{path} has no test pictures, so nothing can be measured: the thresholds stand, "
                f"use `andon predict {run} IMAGES`, or give good and bad pictures: `andon evaluate {run} --data FOLDER`"
            )
        from andon.detectors._saving import load_detector  # torch takes seconds to import
        from andon.report.evaluation import Origin, evaluate

        report = evaluate(
            load_detector(run / "detector") if fitted is None else fitted[0].to("cpu"),
            dataset.test,
            origin=Origin(
                recipe["name"],
                dataset.name,
                dataset.category,
                recipe["seed"],
                read_stages(run),
                len(learned),
                tuple(recipe.get("exclude", ())),
                recipe["data"].get("sessions"),
                dataset.licence,
                (*dataset.train, *dataset.validation) if data is None else (),
                "" if choice is None else selected_on(len(choice.images)),
            ),
            saturation=dict(dataset.saturation) if dataset.saturation else None,
            gate=bool(recipe.get("gate", False)) if gate is None else gate,
            skip_unreadable=skip_unreadable,
            latency=latency,
            pixel_metrics=pixel_metrics or recipe.get("pixel_metrics", "auto"),
            pixel_memory=float(recipe.get("pixel_memory", PIXEL_MEMORY)),
            progress=progress,
        )
        report.save(run, maps=maps, progress=progress)
        return report


def _check_not_learned_from(run: Path, described: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise `DataError` where good test images are drawn from those of one folder and these changed since the fit."""
    folders = {record.image.parent for record in (*dataset.train, *dataset.validation)}
    shared = any(record.label == 0 and record.image.parent in folders for record in dataset.test)
    if shared and not is_unchanged(dataset, described):
        raise DataError(
            f"the good pictures in {described['path']} changed since {run} learned from them, so some of those that test now may "
            "be among them: bring them back, fit again, or give test pictures of their own with --data"
        )
