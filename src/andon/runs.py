"""A run: one folder that holds everything needed to repeat a fit, its detector, and what was measured.

    RUN/recipe.yaml      resolved settings, seed, versions, data fingerprint, weights
    RUN/detector/        detector.json and state.safetensors
    RUN/training.json    loss curves, time and steps of each stage
    RUN/checkpoints/     only while a fit is unfinished
    RUN/report.json ...  written by `evaluate`
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.config import from_yaml, to_yaml
from andon.datasets import Dataset, open_dataset
from andon.errors import ConfigError, DataError, InterruptedRun, OutputError, UsageError
from andon.files import write_json, write_text
from andon.progress import NoProgress, Progress
from andon.registry import Recipe, detector_class
from andon.structures import Record

if TYPE_CHECKING:
    from andon.detector import Detector
    from andon.evaluation import Report

OWN = (
    "recipe.yaml",
    "training.json",
    "detector",
    "checkpoints",
    "report.json",
    "report.html",
    "predictions.csv",
    "figures",
    "heatmaps",
    "masks",
    "maps",
)
"""What andon writes into a run folder; `--overwrite` removes these and nothing else."""
PACKAGES = ("andon", "torch", "torchvision", "timm", "numpy")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data of a run is."""

    path: str
    category: str | None = None
    layout: str = "auto"

    def open(self, *, seed: int, hold_out: bool = True) -> Dataset:
        """Read the data set; without `hold_out` no good pictures are kept from training by rule."""
        return open_dataset(self.path, self.category, self.layout, seed=seed, hold_out=hold_out)


def resolve(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Apply `--set` changes: to the recipe's own fields by their name, to the detector's settings otherwise."""
    own = {k: v for k, v in changes.items() if k in Recipe.model_fields and k not in {"config", "name", "detector"}}
    recipe = recipe.updated(own, where="--set")
    config_class = detector_class(recipe.detector).Config
    where = f"recipe {recipe.name}" if recipe.name else ""
    config = config_class.parse(_merged(config_class().model_dump(mode="python"), recipe.config), where=where)
    config = config.updated({k: v for k, v in changes.items() if k not in own}, where="--set")
    return recipe.model_copy(update={"config": config.model_dump(mode="json")})


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, group by group: a recipe names only what differs from the defaults."""
    out = dict(base)
    for key, value in changes.items():
        inside = out.get(key)
        out[key] = _merged(inside, value) if isinstance(inside, Mapping) and isinstance(value, Mapping) else value
    return out


def create(recipe: Recipe, changes: Mapping[str, Any] | None = None) -> Detector:
    """Build the detector of a recipe, untrained."""
    cls = detector_class(recipe.detector)
    return cls(cls.Config.parse(resolve(recipe, changes or {}).config, where=recipe.name))


def prepare(run: Path, *, overwrite: bool, resume: bool, dry: bool = False) -> None:
    """Make a run folder ready to be written; `dry` only checks. Raises `OutputError` when it is in use."""
    if run.exists() and not run.is_dir():
        raise OutputError(f"{run} is a file, a folder is needed: choose another --out")
    if not run.exists() or not any(run.iterdir()) or resume:
        return
    if not overwrite:
        unfinished = (run / "checkpoints").is_dir()
        hint = "--resume continues it, " if unfinished else ""
        state = "holds an unfinished run" if unfinished else "is not empty"
        raise OutputError(f"{run} {state}: {hint}--overwrite replaces what andon wrote there, --out chooses another folder")
    if not dry:
        clear(run)


def clear(run: Path) -> None:
    """Remove what andon wrote into a run folder, and the folder if nothing else is in it."""
    for name in OWN:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if run.is_dir() and not any(run.iterdir()):
        run.rmdir()


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

    Raises `InterruptedRun` after Ctrl-C, with everything learned so far kept for `resume`. After any `UsageError` a
    folder that this call made is removed again.
    """
    from andon.evaluation import readable
    from andon.training import Trainer

    prepare(run, overwrite=overwrite, resume=resume)
    dataset = source.open(seed=recipe.seed, hold_out=recipe.hold_out)
    train, validation, test = dataset.train, dataset.validation, dataset.test
    skipped: dict[str, str] = {}
    if skip_unreadable:
        (train_ok, a), (validation_ok, b) = readable(train, skip=True), readable(validation, skip=True)
        train, validation, skipped = type(train)(train_ok), type(validation)(validation_ok), a | b
    cls = detector_class(recipe.detector)
    detector = cls(cls.Config.parse(recipe.config, where=f"recipe {recipe.name}"))
    description = describe(recipe, source, dataset, [*train, *validation], detector, skipped)
    finished = resume and _check_resume(run, description)
    if finished:
        from andon.detector import load_detector

        return load_detector(run / "detector"), dataset
    fresh = not (run / "recipe.yaml").exists()
    trainer = Trainer(
        seed=recipe.seed,
        device=device,
        precision=recipe.precision,
        checkpoints=run / "checkpoints",
        resume=resume,
        progress=progress or NoProgress(),
    )
    try:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_text(run / "recipe.yaml", to_yaml(description))
        detector.fit(train, validation, test=test if detector.config.selection == "test" else (), trainer=trainer)
        write_json(run / "training.json", {name: _plain(stage) for name, stage in trainer.stages.items()})
        detector.save(run / "detector")
    except InterruptedRun as error:
        raise InterruptedRun(f"{error}; run the same command with --resume to continue") from None
    except (UsageError, OSError):
        if fresh:
            clear(run)
        raise
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return detector, dataset


def describe(
    recipe: Recipe, source: Source, dataset: Dataset, used: Sequence[Record], detector: Detector, skipped: Mapping[str, str]
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
    return {
        **recipe.model_dump(mode="json"),
        "data": data,
        "weights": [dict(line) for line in detector.used_weights],
        "versions": {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def _check_resume(run: Path, description: Mapping[str, Any]) -> bool:
    """Whether the run is finished. Raises `ConfigError` when it was started with other settings or data."""
    file = run / "recipe.yaml"
    if not file.is_file():
        if run.exists() and any(run.iterdir()):
            raise OutputError(f"{run} holds no run to continue: leave --resume out, or give the folder of the interrupted run")
        return False
    before = from_yaml(file.read_text(encoding="utf-8"), where=str(file))
    for key in ("detector", "config", "seed", "hold_out", "precision"):
        if before.get(key) != description[key]:
            raise ConfigError(f"{run} was started with another {key}: repeat the original command, or --overwrite to start anew")
    if before["data"]["fingerprint"] != description["data"]["fingerprint"]:
        raise DataError(f"the pictures changed since {run} was started: bring them back, or --overwrite to start anew")
    return (run / "detector" / "detector.json").is_file()


def evaluate_run(
    run: Path,
    *,
    data: Source | None = None,
    skip_unreadable: bool = False,
    maps: bool = False,
    latency: bool = True,
    progress: Progress | None = None,
) -> Report:
    """Evaluate a run on its own data set's test pictures (or those of `data`) and write the report into it."""
    from andon.detector import load_detector
    from andon.evaluation import Origin, evaluate
    from andon.training import Stage

    recipe = read_recipe(run)
    detector = load_detector(run / "detector")
    own = recipe["data"]
    source = data or Source(own["path"], own["category"] or None, own["layout"])
    dataset = source.open(seed=recipe["seed"])
    if not dataset.test:
        raise DataError(
            f"{source.path} has no test pictures, so nothing can be measured: the thresholds stand, use `andon predict {run} IMAGES`"
        )
    training = from_yaml((run / "training.json").read_text(encoding="utf-8"), where="training.json")
    report = evaluate(
        detector,
        dataset.test,
        origin=Origin(
            recipe["name"], dataset.name, dataset.category, recipe["seed"], {k: Stage(**v) for k, v in training.items()}
        ),
        saturation=dict(dataset.saturation) if dataset.saturation else None,
        skip_unreadable=skip_unreadable,
        latency=latency,
        progress=progress,
    )
    report.save(run, maps=maps)
    return report


def read_recipe(run: Path) -> dict[str, Any]:
    """recipe.yaml of a finished run. Raises `DataError` when the folder holds none."""
    file = run / "recipe.yaml"
    if not file.is_file():
        raise DataError(f"{run} is not a run folder (no recipe.yaml): give one made by `andon fit`")
    if (run / "checkpoints").is_dir() and not (run / "detector").is_dir():
        raise DataError(f"{run} holds an unfinished run: continue it with `andon fit ... --out {run} --resume`")
    return from_yaml(file.read_text(encoding="utf-8"), where=str(file))


def _plain(stage: Any) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in stage.__slots__}
