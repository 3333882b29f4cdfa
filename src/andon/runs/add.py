"""Adding good images to a finished run: what was learned is brought up to date, as if all images had been there at first.

Means, covariances, coreset and cross-fitted scores follow from the features of all images together; features of the images
learned from before are taken from the run (`features.safetensors`), so the network sees the new images alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.core.config import to_yaml
from andon.core.errors import ConfigError, DataError, InterruptedRun
from andon.core.files import all_or_nothing, write_text, writing_errors
from andon.core.image_files import decode
from andon.core.progress import Progress
from andon.core.text import plural
from andon.datasets import Dataset, Records, open_dataset
from andon.datasets.added import new_ids, passed_by, with_added
from andon.detectors._recipes import Recipe, RecipeFile, resolve
from andon.detectors._registry import detector_class
from andon.detectors._saving import ADDING, BEFORE, detector_folder
from andon.runs.fit import fit_run
from andon.runs.folder import (
    DESCRIPTION,
    FEATURES,
    FITTED,
    FOLLOWING,
    changing,
    clear,
    own_files,
    read_recipe,
    read_settings,
)
from andon.runs.source import is_unchanged, open_data, own_source
from andon.thresholds.history import FILE as CHANGES

if TYPE_CHECKING:
    from andon.detectors._base import Detector


@dataclass(frozen=True, slots=True)
class Addition:
    """What became of the images that were to be added."""

    detector: Detector
    dataset: Dataset
    """With the added images among the training images."""
    added: tuple[str, ...]
    """Ids of the images that were added."""
    left_out: Mapping[Path, str]
    """Images that were not, with the reason."""
    read_again: bool
    """Whether the run kept no features, so that all images passed through the network."""
    thresholds_dropped: bool
    """Whether thresholds had been changed since the fit, which no longer apply."""


def add_to_run(
    run: Path,
    folder: Path,
    *,
    good: Sequence[str] = (),
    skip_unreadable: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> Addition:
    """Learn from the good images in `folder` too, and from all those the run has learned from; equals one fit on all of them.

    Images whose content is known already are left out. What was made from the old state (report, exported networks, changed
    thresholds) is removed; until everything is learned the run stays as it was. `good` confirms folders that are named like
    those of bad parts. Raises `ConfigError` for a detector or setting for which images cannot be added, `DataError` for images
    that are missing or changed, or none to add.
    """
    with changing(run):
        return _add(run, folder, good, skip_unreadable=skip_unreadable, device=device, progress=progress)


def _add(
    run: Path,
    folder: Path,
    good: Sequence[str],
    *,
    skip_unreadable: bool,
    device: str,
    progress: Progress | None,
) -> Addition:
    put_back(run)
    settings = read_recipe(run)
    recipe = _recipe(run, settings)
    dataset = _learned_from(run, settings)
    files, left_out = _to_add(folder, dataset, good, skip_unreadable=skip_unreadable)
    earlier = {name: Path(file) for name, file in settings["data"].get("added", {}).items()}
    whole = with_added(dataset, files, recipe.sessions)
    read_again = not (run / FEATURES).is_file()
    thresholds_dropped = (detector_folder(run) / CHANGES).is_file()
    staged = run / ADDING
    shutil.rmtree(staged, ignore_errors=True)
    try:
        detector, _ = fit_run(
            staged,
            own_source(run, settings),
            recipe,
            device=device,
            progress=progress,
            dataset=whole,
            keep_features=True,
            earlier=run / FEATURES,
        )
        described = read_settings(staged / "recipe.yaml")
        described["data"]["added"] = {name: str(file) for name, file in (earlier | files).items()}
        described["data"] |= {
            key: settings["data"][key] for key in ("skipped", "choice") if key in settings["data"]
        }
        write_text(staged / "recipe.yaml", to_yaml(described))
        _put_in_place(staged, run)
    except (InterruptedRun, KeyboardInterrupt):
        raise InterruptedRun(f"stopped; {run} is as it was, run the same command to begin again") from None
    finally:
        if (run / DESCRIPTION).is_file():  # otherwise the old state is in there: see `put_back`
            shutil.rmtree(staged, ignore_errors=True)
    return Addition(detector, whole, tuple(files), left_out, read_again, thresholds_dropped)


def _recipe(run: Path, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of the run. Raises `ConfigError` where images cannot be added to what it made."""
    values = {name: value for name, value in settings.items() if name in RecipeFile.model_fields}
    recipe = resolve(RecipeFile.parse(values, where=str(run / "recipe.yaml")), {})
    if not detector_class(recipe.detector).closed_form:
        raise ConfigError(
            f"{recipe.detector} is trained by gradient descent, so pictures cannot be added to {run}: fit again on all pictures"
        )
    if recipe.config.threshold_scores != "cross_fitted":
        raise ConfigError(
            f"{run} keeps good pictures out of learning for its thresholds (threshold_scores=held_out), so none can be added: "
            "fit again on all pictures, or with threshold_scores=cross_fitted"
        )
    return recipe


def _learned_from(run: Path, settings: Mapping[str, Any]) -> Dataset:
    """The data set as the run learned from it. Raises `DataError` where it is not the same any more."""
    dataset = open_data(run, settings)
    skipped = settings["data"].get("skipped", {})
    dataset = replace(dataset, train=Records(record for record in dataset.train if record.id not in skipped))
    count, now = settings["data"]["train"], len(dataset.train)
    where = settings["data"]["path"]
    if now != count:
        todo = (
            "bring back those that are gone"
            if now < count
            else "put the new ones into a folder of their own and give that to --add"
        )
        raise DataError(
            f"{run} learned from {plural(count, 'picture')}, now there are {now} in {where}: {todo}"
        )
    if not is_unchanged(dataset, settings["data"]):
        raise DataError(
            f"pictures in {where} changed since {run} learned from them: bring them back, or fit again with --overwrite"
        )
    return dataset


def _to_add(
    folder: Path, dataset: Dataset, good: Sequence[str], *, skip_unreadable: bool
) -> tuple[dict[str, Path], dict[Path, str]]:
    """Images of the folder by their new id, and those that are left out with the reason. Raises `DataError` for none to add."""
    found = open_dataset(folder, hold_out=False, sessions="none", good=good)
    if found.layout != "flat":
        raise DataError(
            f"--add takes a folder of good pictures, {folder} is a data set ({found.layout}): give the folder in which its "
            "good pictures lie"
        )
    images = [record.image for record in found.train]
    left_out = passed_by(dataset, images)
    for image in images:
        if image not in left_out:
            try:
                decode(image)
            except DataError as error:
                if not skip_unreadable:
                    raise
                left_out[image] = f"cannot be read ({error})"
    new = [image.resolve() for image in images if image not in left_out]
    if not new:
        first = next(iter(left_out))
        raise DataError(
            f"{folder} has no new picture: each of {plural(len(images), 'picture')} is known or cannot be read, such as "
            f"{first.name}, which {left_out[first]}"
        )
    return new_ids(dataset, new), left_out


def _put_in_place(staged: Path, run: Path) -> None:
    """Replace what the run has learned by what was learned in `staged`, all or nothing, and remove what followed from it.

    `detector.json` goes first and the new one comes last. Without it the run is refused, so thresholds, networks and state of
    different detectors never answer together, whenever the process is killed.
    """
    before = staged / BEFORE
    others = [name for name in FITTED if name != DESCRIPTION]
    with all_or_nothing() as move, writing_errors(run):
        for path in (run / DESCRIPTION, *list(own_files(run, FOLLOWING))):
            move(path, before / path.relative_to(run))
        for name in others:
            for source, target in ((run, before), (staged, run)):
                if (source / name).exists():
                    move(source / name, target / name)
        move(staged / DESCRIPTION, run / DESCRIPTION)
    clear(run, FOLLOWING)


def put_back(run: Path) -> None:
    """Bring back the state of a run in which the process was killed between the old state and the new one."""
    before = run / ADDING / BEFORE
    if (run / DESCRIPTION).is_file() or not (before / DESCRIPTION).is_file():
        return
    files = sorted(path for path in before.rglob("*") if path.is_file() and path != before / DESCRIPTION)
    with writing_errors(run):
        for path in (*files, before / DESCRIPTION):
            target = run / path.relative_to(before)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
