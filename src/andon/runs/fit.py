"""A run: from data and recipe to a fitted detector in a folder, and from the folder to a report.

What lies in the folder is described in `andon.runs.folder`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.core.config import to_yaml
from andon.core.errors import ConfigError, DataError, InterruptedRun, OutputError, UsageError
from andon.core.files import write_json, write_text
from andon.core.image_files import decode
from andon.core.progress import NoProgress, Progress
from andon.core.records import Record
from andon.core.region import InspectionRegion, read_region
from andon.datasets import Dataset
from andon.datasets.dataset import file_digest
from andon.datasets.sessions import sessions_of
from andon.detectors._recipes import Recipe, create
from andon.runs.choose import choose
from andon.runs.folder import (
    FEATURES,
    MARK,
    bring_back,
    changing,
    check_output,
    drop_replaced,
    make_folder,
    put_aside,
    read_settings,
)
from andon.runs.source import Source

if TYPE_CHECKING:
    from andon.detectors._base import Detector
    from andon.nn.stored_features import StoredFeatures
    from andon.nn.training import Trainer

FIXED = (
    "detector", "config", "seed", "hold_out", "precision", "sessions", "exclude", "good", "bad", "gate",
    "pixel_metrics", "pixel_memory",
)  # fmt: skip
"""Keys of recipe.yaml that a run is continued with."""
PACKAGES = ("andon", "torch", "torchvision", "timm", "numpy")


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
    dataset: Dataset | None = None,
    keep_features: bool = False,
    earlier: Path | None = None,
    choose_by: Path | None = None,
) -> tuple[Detector, Dataset]:
    """Fit the recipe on the data and write the run folder; `dataset` is what `source` opens, where it is open already.

    With `keep_features`, features of the good images are written into the folder for `add_to_run`, unless they take more than
    `STORED_ROOM`; those in the file `earlier` are not extracted again. Labelled anomalous images in the folder `choose_by`
    choose among the variants of the detector.

    Returns the detector and the data set it learned from: without images that were skipped, and with cross-fitting all good
    images under `train`. Raises `InterruptedRun` after Ctrl-C, with everything learned so far kept for `resume`. After any
    other error a folder that this call made is removed again (but for checkpoints that are of use), and a run that was to be
    replaced is there again if nothing was learned or the fault was in what the user gave.
    """
    from andon.nn.training import Trainer, check_device

    with changing(run, make=True):
        check_output(run, overwrite=overwrite, resume=resume)
        check_device(device)
        if dataset is None:
            dataset = source.split_by(recipe)
        skipped: dict[str, str] = {}
        if skip_unreadable:
            dataset, skipped = _without_unreadable(dataset)
        if recipe.config.threshold_scores == "cross_fitted":
            dataset = dataset.pooled()
        used = [*dataset.train, *dataset.validation, *dataset.labelled]
        region = read_region(recipe.region) if recipe.region is not None else None
        if region is not None:
            region.check(used)
        choice = None
        if choose_by is not None:
            recipe, choice = choose(recipe, dataset, choose_by, device=device, progress=progress)
        detector = create(recipe)
        description = describe(recipe, source, dataset, used, detector, skipped, region)
        if choice is not None:
            description["data"]["choice"] = choice.to_json()
        if resume and _check_resume(run, description):  # it is finished
            from andon.detectors._saving import load_detector

            shutil.rmtree(run / "checkpoints", ignore_errors=True)
            return load_detector(run / "detector"), dataset
        kept = _kept_features(detector, description, earlier) if keep_features else None
        trainer = Trainer(
            seed=recipe.seed,
            device=device,
            precision=recipe.precision,
            checkpoints=run / "checkpoints",
            resume=resume,
            progress=progress or NoProgress(),
            features=kept,
        )
        if (run / MARK).is_file() and not resume:
            put_aside(run)
        with _unlearned_removed(run, fresh=not (resume and (run / MARK).exists())):
            make_folder(run / "checkpoints")
            write_text(run / MARK, to_yaml(description))
            _learn(detector, dataset, trainer, region)
            write_json(run / "training.json", {name: _plain(stage) for name, stage in trainer.stages.items()})
            detector.save(run / "detector")
            if kept is not None:
                kept.write(run / FEATURES)
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        return detector, dataset


def _learn(detector: Detector, dataset: Dataset, trainer: Trainer, region: InspectionRegion | None) -> None:
    """Fit the detector; test images take part only where its settings say that they choose the epoch."""
    detector.fit(
        dataset.train,
        dataset.validation,
        test=dataset.test if detector.config.selection == "test" else (),
        labelled=dataset.labelled,
        trainer=trainer,
        region=region,
    )


def _kept_features(
    detector: Detector, description: Mapping[str, Any], earlier: Path | None
) -> StoredFeatures | None:
    """Where features of the good images are kept, with those of the file `earlier`; None where they are of no use."""
    from andon.nn.stored_features import StoredFeatures

    if not (detector.closed_form and detector.cross_fitted):
        return None
    key = _features_key(description)
    return StoredFeatures(key) if earlier is None else StoredFeatures.read(earlier, key)


@contextmanager
def _unlearned_removed(run: Path, *, fresh: bool) -> Iterator[None]:
    """After an error inside, remove a `fresh` run unless something was learned, and bring back the one that it replaced.

    Ctrl-C keeps all of the new run.
    """
    try:
        yield
    except (InterruptedRun, KeyboardInterrupt) as error:
        raise InterruptedRun(
            f"{str(error) or 'stopped'}; run the same command with --resume to continue"
        ) from None
    except Exception as error:
        nothing_learned = not any((run / "checkpoints").glob("*.safetensors"))
        if isinstance(error, OutputError) and not nothing_learned:  # a full disk, say, which can be mended
            raise OutputError(f"{error}; then the same command with --resume continues") from error
        if fresh and (nothing_learned or isinstance(error, UsageError)):
            bring_back(run)
        raise
    finally:
        drop_replaced(run)


def _without_unreadable(dataset: Dataset) -> tuple[Dataset, dict[str, str]]:
    """The data set without training and validation images that cannot be decoded, and those with the reason."""
    from andon.datasets import Records

    skipped: dict[str, str] = {}

    def readable(records: Sequence[Record]) -> Records:
        good = []
        for record in records:
            try:
                decode(record.image)
            except DataError as error:
                skipped[record.id] = str(error)
            else:
                good.append(record)
        return Records(good)

    return replace(dataset, train=readable(dataset.train), validation=readable(dataset.validation)), skipped


def describe(
    recipe: Recipe,
    source: Source,
    dataset: Dataset,
    used: Sequence[Record],
    detector: Detector,
    skipped: Mapping[str, str],
    region: InspectionRegion | None = None,
) -> dict[str, Any]:
    """The content of recipe.yaml: everything needed to repeat the run."""
    from andon.datasets import Records
    from andon.datasets.splits import folds

    data: dict[str, Any] = {
        "path": source.path if source.path.startswith("embedded:") else str(Path(source.path).resolve()),
        "category": dataset.category,
        "layout": dataset.layout,
        "dataset": dataset.name,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "fingerprint": Records(used).fingerprint(),
    }
    if detector.config.selection == "test":
        data["chosen_on"] = Records(dataset.test).fingerprint()
    if dataset.licence:
        data["licence"] = dataset.licence
    if detector.cross_fitted:
        data["folds"] = max(folds(dataset.train, recipe.seed), default=-1) + 1
    if skipped:
        data["skipped"] = dict(skipped)
    if dataset.labelled:
        data["labelled"] = {record.id: file_digest(record.image) for record in dataset.labelled}
    sessions = sessions_of(dataset, cross_fitted=detector.cross_fitted)
    if sessions.images:
        data["sessions"] = sessions.to_json()
    settings = recipe.model_dump(mode="json") | {"exclude": list(dataset.excluded)}
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


def _features_key(description: Mapping[str, Any]) -> str:
    """sha256 (hex) of what features depend on beside the image."""
    parts = {name: description[name] for name in ("detector", "config", "seed", "weights")}
    text = json.dumps(parts | {"region": description["data"].get("region")}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_resume(run: Path, description: Mapping[str, Any]) -> bool:
    """Whether the run is finished. Raises `ConfigError` when it was started with other settings or data."""
    file = run / MARK
    if not file.is_file():
        if run.exists() and any(run.iterdir()):
            raise OutputError(
                f"{run} holds no run to continue: leave --resume out, or give the folder of the interrupted run"
            )
        return False
    before = {"sessions": "auto", "exclude": [], "good": [], "bad": []} | read_settings(file)
    for key in FIXED:
        if before.get(key) != description[key]:
            raise ConfigError(
                f"{run} was started with another {key}: repeat the original command, or --overwrite to start anew"
            )
    for what, old, new in (
        ("weights", before.get("weights"), description["weights"]),
        ("pictures", before["data"]["fingerprint"], description["data"]["fingerprint"]),
        ("test pictures", before["data"].get("chosen_on"), description["data"].get("chosen_on")),
    ):
        if old != new:
            raise DataError(
                f"the {what} changed since {run} was started: bring them back, or --overwrite to start anew"
            )
    if before["data"].get("region") != description["data"].get("region"):
        raise ConfigError(
            f"{run} was started with another region: bring back the file, or --overwrite to start anew"
        )
    return (run / "detector" / "detector.json").is_file()


def _plain(stage: Any) -> dict[str, Any]:
    return {name: getattr(stage, name) for name in stage.__slots__}
