"""What `Detector.fit` refuses, before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from andon.core.errors import ConfigError, DataError
from andon.core.records import Record
from andon.datasets.findings import plural

if TYPE_CHECKING:
    from andon.detectors._base import Detector


def check_fit(
    detector: Detector,
    train: Sequence[Record],
    validation: Sequence[Record],
    test: Sequence[Record],
    labelled: Sequence[Record],
) -> None:
    """Raise `DataError` or `ConfigError` unless the detector can be fitted on these images."""
    selection = detector.config.selection
    if not train:
        raise DataError("there are no training pictures: give at least one good picture")
    if any(record.label == 1 for record in [*train, *validation]):
        raise DataError("training and validation pictures must be good ones: remove the anomalous records")
    if (selection == "test") != bool(test):
        raise ConfigError(
            "selection=test chooses the epoch on test labels and needs fit(..., test=...)"
            if selection == "test"
            else "fit was given test pictures, but nothing may look at them: selection=test reproduces published results"
        )
    if selection in {"validation", "synthetic"} and not validation:
        raise DataError(
            f"selection={selection} needs held-out good pictures, and there are none: add pictures or use selection=budget"
        )
    _check_labelled(detector, validation, labelled)


def _check_labelled(detector: Detector, validation: Sequence[Record], labelled: Sequence[Record]) -> None:
    if any(record.label != 1 for record in labelled):
        raise DataError("labelled pictures must be anomalous ones: remove the others")
    if detector.label_use and not labelled:
        raise ConfigError(
            f"this {detector.name} is set to use labelled anomalous pictures for {detector.label_use}, and there are none: "
            "add --labelled 5, or change that setting"
        )
    needed = [detector.config.selection] + [detector.config.threshold] * (not detector.cross_fitted)
    if "labels" in needed and not validation:
        raise DataError(
            "labelled pictures can be told from held-out good ones only, and there are none: add good pictures, or use "
            "threshold=good and selection=budget"
        )


def check_folds(detector: Detector, good: Sequence[Record], fold_of: Sequence[int]) -> None:
    """Raise `DataError` unless what is left without any fold is enough to learn from."""
    left = min((len(good) - fold_of.count(fold) for fold in set(fold_of)), default=0)
    if left < detector.fewest_images:
        parts = len({record.object_id or record.id for record in good})
        raise DataError(
            f"{plural(len(good), 'good picture')} of {plural(parts, 'part')} cannot give cross-fitted thresholds, since "
            f"{detector.name} needs {detector.fewest_images} to learn from and a fold leaves {left}: add good pictures, or use "
            "threshold_scores=held_out"
        )
