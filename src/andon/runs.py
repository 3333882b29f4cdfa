"""A run: from data and recipe to a fitted detector in a folder, and from the folder to a report.

What lies in the folder is described in `andon.run_folder`.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.config import to_yaml
from andon.datasets import Dataset, open_dataset
from andon.datasets.dataset import file_digest
from andon.datasets.labelled import Labelled, move_labelled, without_copies
from andon.errors import ConfigError, DataError, InterruptedRun, OutputError, UsageError
from andon.files import write_json, write_text
from andon.images import decode
from andon.inspected import InspectedArea, read_region
from andon.progress import NoProgress, Progress
from andon.registry import Recipe, detector_class
from andon.run_folder import (
    check_output,
    clear,
    make_folder,
    read_recipe,
    read_settings,
    read_stages,
    remove_empty,
)
from andon.structures import Record

if TYPE_CHECKING:
    from andon.detector import Detector
    from andon.evaluation import PixelMetrics, Report

OWN_SETTINGS = tuple(
    name for name in Recipe.model_fields if name not in {"detector", "name", "summary", "config"}
)
"""Settings of the recipe itself; all others are the detector's."""
PACKAGES = ("andon", "torch", "torchvision", "timm", "numpy")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data of a run is."""

    path: str
    category: str | None = None
    layout: str = "auto"

    def open(self, *, seed: int, hold_out: bool = True, labelled: Labelled = 0) -> Dataset:
        """Read the data set; without `hold_out` no good pictures are kept from training by rule.

        `labelled` anomalous pictures move from the test to those that are learned from.
        """
        found = open_dataset(self.path, self.category, self.layout, seed=seed, hold_out=hold_out)
        return move_labelled(found, labelled, seed)


def resolve_own(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Apply those of the `--set` changes that name the recipe's own fields (seed, ...); needs no torch."""
    return recipe.updated({k: v for k, v in changes.items() if k in OWN_SETTINGS}, where="--set")


def resolve(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Apply `--set` changes: to the recipe's own fields by their name, to the detector's settings otherwise."""
    recipe = resolve_own(recipe, changes)
    config_class = detector_class(recipe.detector).Config
    where = f"recipe {recipe.name}" if recipe.name else ""
    config = config_class.parse(_merged(config_class().model_dump(mode="python"), recipe.config), where=where)
    changes = {k: v for k, v in changes.items() if k not in OWN_SETTINGS}
    config = config.updated(changes, where="--set", also=OWN_SETTINGS)
    return recipe.model_copy(update={"config": config.model_dump(mode="json")})


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, group by group: a recipe names only what differs from the defaults."""
    out = dict(base)
    for key, value in changes.items():
        inside = out.get(key)
        out[key] = (
            _merged(inside, value) if isinstance(inside, Mapping) and isinstance(value, Mapping) else value
        )
    return out


def create(recipe: Recipe, changes: Mapping[str, Any] | None = None) -> Detector:
    """Build the detector of a recipe, untrained."""
    cls = detector_class(recipe.detector)
    return cls(cls.Config.parse(resolve(recipe, changes or {}).config, where=recipe.name))


def fit_run(
    run: Path,
    source: Source,
    recipe: Recipe,
    *,
    overwrite: bool = False,
    resume: bool = False,
    skip_unreadable: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Detector, Dataset]:
    """Fit the (resolved) recipe on the data and write the run folder.

    Returns the detector and the data set it learned from, without pictures that were skipped. Raises `InterruptedRun`
    after Ctrl-C, with everything learned so far kept for `resume`. After any other error a folder that this call made is
    removed again (but for checkpoints that are of use), and a run that was to be replaced is still there if the fault was
    found before learning.
    """
    from andon.training import Trainer

    check_output(run, overwrite=overwrite, resume=resume)
    check_device(device)
    dataset = source.open(seed=recipe.seed, hold_out=recipe.hold_out, labelled=recipe.labelled)
    skipped: dict[str, str] = {}
    if skip_unreadable:
        dataset, skipped = _without_unreadable(dataset)
    train, validation, test = dataset.train, dataset.validation, dataset.test
    region = read_region(recipe.region) if recipe.region is not None else None
    if region is not None:
        region.check([*train, *validation, *dataset.labelled])
    cls = detector_class(recipe.detector)
    detector = cls(cls.Config.parse(recipe.config, where=f"recipe {recipe.name}"))
    used = [*train, *validation, *dataset.labelled]
    description = describe(recipe, source, dataset, used, detector, skipped, region)
    finished = resume and _check_resume(run, description)
    if finished:
        from andon.saving import load_detector

        return load_detector(run / "detector"), dataset
    if overwrite and not resume and run.exists():
        for record in used:
            decode(record.image)  # an old run is not given up for pictures that cannot be learned from
    trainer = Trainer(
        seed=recipe.seed,
        device=device,
        precision=recipe.precision,
        checkpoints=run / "checkpoints",
        resume=resume,
        progress=progress or NoProgress(),
    )
    if overwrite and not resume:
        clear(run)
    fresh = not (run / "recipe.yaml").exists()
    made = list(takewhile(lambda folder: not folder.exists(), (run, *run.parents)))
    try:
        make_folder(run / "checkpoints")
        write_text(run / "recipe.yaml", to_yaml(description))
        detector.fit(
            train,
            validation,
            test=test if detector.config.selection == "test" else (),
            labelled=dataset.labelled,
            trainer=trainer,
            region=region,
        )
        write_json(run / "training.json", {name: _plain(stage) for name, stage in trainer.stages.items()})
        detector.save(run / "detector")
    except (InterruptedRun, KeyboardInterrupt) as error:
        raise InterruptedRun(
            f"{error or 'stopped'}; run the same command with --resume to continue"
        ) from None
    except Exception as error:
        nothing_learned = not any((run / "checkpoints").glob("*.safetensors"))
        if fresh and (nothing_learned or isinstance(error, UsageError | OSError)):
            clear(run)
            remove_empty(made)
        raise
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return detector, dataset


def check_device(device: str) -> None:
    """Raise `ConfigError` when this machine has no such device."""
    import torch

    here = {
        "auto": True,
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here.get(device, False):
        usable = [name for name, is_here in here.items() if is_here]
        raise ConfigError(
            f"device {device!r} cannot be used on this machine: choose one of {', '.join(usable)}"
        )


def _without_unreadable(dataset: Dataset) -> tuple[Dataset, dict[str, str]]:
    """The data set without training and validation pictures that cannot be decoded, and those with the reason."""
    from andon.datasets import Records
    from andon.evaluation import readable

    (train, a), (validation, b) = readable(dataset.train, skip=True), readable(dataset.validation, skip=True)
    return replace(dataset, train=Records(train), validation=Records(validation)), a | b


def describe(
    recipe: Recipe,
    source: Source,
    dataset: Dataset,
    used: Sequence[Record],
    detector: Detector,
    skipped: Mapping[str, str],
    region: InspectedArea | None = None,
) -> dict[str, Any]:
    """The content of recipe.yaml: everything needed to repeat the run."""
    from andon.datasets import Records

    data: dict[str, Any] = {
        "path": source.path if source.path.startswith("embedded:") else str(Path(source.path).resolve()),
        "category": dataset.category,
        "layout": dataset.layout,
        "dataset": dataset.name,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "fingerprint": Records(used).fingerprint(),
    }
    if skipped:
        data["skipped"] = dict(skipped)
    if dataset.labelled:
        data["labelled"] = {record.id: file_digest(record.image) for record in dataset.labelled}
    settings = recipe.model_dump(mode="json")
    if region is not None and recipe.region is not None:
        settings["region"] = str(Path(recipe.region).resolve())
        data["region"] = {"sha256": region.sha256, "inspected": region.share}
    return {
        **settings,
        "data": data,
        "weights": [dict(line) for line in detector.used_weights],
        "versions": {name: metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
    }


def _check_resume(run: Path, description: Mapping[str, Any]) -> bool:
    """Whether the run is finished. Raises `ConfigError` when it was started with other settings or data."""
    file = run / "recipe.yaml"
    if not file.is_file():
        if run.exists() and any(run.iterdir()):
            raise OutputError(
                f"{run} holds no run to continue: leave --resume out, or give the folder of the interrupted run"
            )
        return False
    before = read_settings(file)
    for key in ("detector", "config", "seed", "hold_out", "precision"):
        if before.get(key) != description[key]:
            raise ConfigError(
                f"{run} was started with another {key}: repeat the original command, or --overwrite to start anew"
            )
    if before["data"]["fingerprint"] != description["data"]["fingerprint"]:
        raise DataError(
            f"the pictures changed since {run} was started: bring them back, or --overwrite to start anew"
        )
    if before["data"].get("region") != description["data"].get("region"):
        raise ConfigError(
            f"{run} was started with another region: bring back the file, or --overwrite to start anew"
        )
    return (run / "detector" / "detector.json").is_file()


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
) -> Report:
    """Evaluate a run on its own data set's test pictures (or those of `data`) and write the report into it.

    `gate` adds what SPADE's gate makes of it, `pixel_metrics` replaces the recipe's setting of that name; None = as the
    recipe says.
    """
    recipe = read_recipe(run)
    source = data or own_source(run, recipe)
    labelled = recipe.get("labelled", 0)
    dataset = source.open(
        seed=recipe["seed"], hold_out=recipe["hold_out"], labelled=0 if data is not None else labelled
    )
    learned = recipe["data"].get("labelled", {})
    if learned:  # wherever they lie by now, and whatever they are called
        dataset = replace(dataset, test=without_copies(dataset.test, set(learned.values())))
    if not dataset.test:
        raise DataError(
            f"{source.path} has no test pictures, so nothing can be measured: the thresholds stand, "
            f"use `andon predict {run} IMAGES`"
        )
    from andon.evaluation import PIXEL_MEMORY, Origin, evaluate
    from andon.saving import load_detector  # torch takes seconds to import

    report = evaluate(
        load_detector(run / "detector"),
        dataset.test,
        origin=Origin(
            recipe["name"], dataset.name, dataset.category, recipe["seed"], read_stages(run), len(learned)
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


def own_source(run: Path, recipe: Mapping[str, Any]) -> Source:
    """Where the data of a run was when it was fitted. Raises `DataError` when it is no longer there."""
    own = recipe["data"]
    if not own["path"].startswith("embedded:") and not Path(own["path"]).exists():
        raise DataError(f"the data of {run} is no longer in {own['path']}: say where it is with --data")
    return Source(own["path"], own["category"] or None, own["layout"])


def _plain(stage: Any) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in stage.__slots__}
