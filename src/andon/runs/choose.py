"""Choosing among a few variants of a detector by labelled anomalous images, cross-validated.

Each variant learns from the same good images. Its AUROC ranks its scores of the labelled images against those that the good
images have by what the others teach. In each of `FOLDS` folds the variant that is best on
the other labelled images is compared with the default on those of the fold; the default is kept unless the mean of these
differences is `MARGIN` or more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core.errors import ConfigError, DataError
from andon.core.listing import images_below
from andon.core.progress import Progress
from andon.core.records import Record
from andon.core.region import read_region, with_region
from andon.core.text import plural, utf8
from andon.datasets import Dataset
from andon.datasets.dataset import file_digest
from andon.detectors._recipes import Recipe, RecipeFile, create, resolve
from andon.detectors._registry import detector_class
from andon.metrics import auroc

FEWEST = 8
"""Labelled anomalous images that a choice needs."""
FOLDS = 4
MARGIN = 0.02
"""Gain in cross-validated AUROC below which the default is kept."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant that labelled anomalous images chose."""

    chosen: str
    """Its name."""
    settings: Mapping[str, Any]
    """What it changes; empty for the default."""
    auroc: Mapping[str, float]
    """AUROC of each variant on all labelled images, the default first."""
    gain: float
    """Cross-validated difference in AUROC between the best variant and the default."""
    images: Mapping[str, str]
    """sha256 of the labelled images, by path."""

    def describe(self) -> str:
        """The choice in a sentence."""
        ranked = ", ".join(f"{name} {value:.3f}" for name, value in self.auroc.items())
        return (
            f"{selected_on(len(self.images))}: variant {self.chosen} (AUROC against good pictures: {ranked}; the best one gains "
            f"{100 * self.gain:+.1f} points, cross-validated, and {100 * MARGIN:.0f} are needed)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for recipe.yaml."""
        return {
            "chosen": self.chosen,
            "settings": dict(self.settings),
            "auroc": dict(self.auroc),
            "gain": self.gain,
            "images": dict(self.images),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Choice:
        """Inverse of `to_json`."""
        return cls(data["chosen"], data["settings"], data["auroc"], data["gain"], data["images"])


def selected_on(count: int) -> str:
    """What every report says about a choice by `count` labelled images."""
    return f"selected on {count} labelled pictures"


def choose(
    recipe: Recipe, dataset: Dataset, folder: Path, *, device: str = "auto", progress: Progress | None = None
) -> tuple[Recipe, Choice]:
    """The recipe with the settings of the chosen variant; `folder` and those in it hold labelled anomalous images.

    Raises `DataError` for fewer than `FEWEST`, for images that the data set learns from or tests on, and `ConfigError` for a
    detector without variants or with held-out scores.
    """
    from andon.nn.training import Trainer

    variants = _variants(recipe)
    records = _labelled(folder, dataset)
    region = read_region(recipe.region) if recipe.region is not None else None
    bad, good = {}, {}
    for name, variant in variants.items():
        detector = create(variant)
        trainer = Trainer(seed=recipe.seed, device=device, precision=recipe.precision, progress=progress)
        detector.fit(dataset.train, trainer=trainer, region=region)
        found = detector.scan(with_region(records, region))
        bad[name] = np.array([one.raw_score for one in found])
        good[name] = np.array(detector.fitted().scores)
    order = sorted(range(len(records)), key=lambda k: hashlib.sha256(utf8(records[k].image.name)).digest())
    chosen, gain = decide(good, bad, [order[k::FOLDS] for k in range(FOLDS)])
    images = {str(record.image.resolve()): file_digest(record.image) for record in records}
    settings = detector_class(recipe.detector).variants[chosen]
    ranked = {name: _auroc(good[name], bad[name]) for name in variants}
    return variants[chosen], Choice(chosen, settings, ranked, gain, images)


def decide(
    good: Mapping[str, Scores], bad: Mapping[str, Scores], folds: Sequence[Sequence[int]]
) -> tuple[str, float]:
    """Name of the chosen variant, the first where no other is better by `MARGIN`, and the cross-validated gain of the best.

    `good` and `bad` are scores by variant; `folds` are positions in `bad`.
    """
    default = next(iter(bad))

    def best(chosen: Sequence[int]) -> str:
        return max(bad, key=lambda name: _auroc(good[name], bad[name][chosen]))

    everything = [k for fold in folds for k in fold]
    gains = []
    for fold in folds:
        name = best([k for k in everything if k not in fold])
        gains.append(_auroc(good[name], bad[name][fold]) - _auroc(good[default], bad[default][fold]))
    gain = float(np.mean(gains))
    return (best(everything) if gain >= MARGIN else default), gain


def _auroc(good: Scores, bad: Scores) -> float:
    return auroc(np.concatenate([good, bad]), [0] * len(good) + [1] * len(bad))


def _variants(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe and its variants by name, without those that change nothing."""
    changes = detector_class(recipe.detector).variants
    if not changes:
        raise ConfigError(
            f"--labelled FOLDER chooses among variants, {recipe.detector} has none: leave it out, or use east"
        )
    if recipe.config.threshold_scores != "cross_fitted":
        raise ConfigError(
            "--labelled FOLDER compares with scores of all good pictures: use threshold_scores=cross_fitted"
        )
    file = RecipeFile.parse(recipe.model_dump(mode="json"), where=f"recipe {recipe.name}")
    found = {name: resolve(file, settings) for name, settings in changes.items()}
    default = next(iter(found))
    return {
        name: one for name, one in found.items() if name == default or one.config != found[default].config
    }


def _labelled(folder: Path, dataset: Dataset) -> list[Record]:
    """Records of the labelled images, each content once. Raises `DataError` where they cannot choose."""
    known = {
        file_digest(record.image): record for record in (*dataset.train, *dataset.test, *dataset.labelled)
    }
    files: dict[str, Path] = {}
    for image in images_below(folder):
        files.setdefault(file_digest(image), image)
    taken = [(image, known[digest]) for digest, image in files.items() if digest in known]
    if taken:
        image, record = taken[0]
        use = "learned from" if record.split == "train" else "a test picture, and these choose nothing"
        raise DataError(
            f"{plural(len(taken), 'picture')} in {folder} cannot choose, such as {image.name}, which is {use} ({record.id}): "
            "give pictures of defects that are not in the data set"
        )
    if len(files) < FEWEST:
        raise DataError(
            f"{folder} has {plural(len(files), 'picture')} of defects, choosing among variants takes {FEWEST}: add some, or "
            "leave --labelled out"
        )
    return [
        Record(image, f"labelled/{k}", dataset.category, "train", 1, "labelled", "anomalous")
        for k, image in enumerate(files.values())
    ]
