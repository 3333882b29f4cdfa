"""What `Detector.fit` refuses before anything is learned, what epochs are judged on, and the sanity checks afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from andon.core.errors import ConfigError, DataError
from andon.core.records import Record
from andon.core.text import plural
from andon.datasets.dataset import records_of
from andon.datasets.synthetic import synthetic_anomalies
from andon.nn.sanity_checks import FEWEST_HELD_OUT, SanityCheck, fingerprints
from andon.nn.training import Trainer

if TYPE_CHECKING:
    from andon.detectors._base import Detector


def check_fit(
    detector: Detector,
    train: Sequence[Record],
    validation: Sequence[Record],
    test: Sequence[Record],
    labelled: Sequence[Record],
) -> tuple[tuple[Record, ...], ...]:
    """The four arguments as tuples. Raises `DataError` or `ConfigError` unless the detector can be fitted on these images."""
    train, validation = records_of(train, "train"), records_of(validation, "validation")
    test, labelled = records_of(test, "test"), records_of(labelled, "labelled")
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
    return train, validation, test, labelled


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
            f"{detector.name} needs {detector.fewest_images} to learn from and a fold leaves {left}: add good pictures, or "
            "hold one out: `andon fit ... --set threshold_scores=held_out`"
        )


def judged_on(
    detector: Detector,
    validation: Sequence[Record],
    labelled: Sequence[Record],
    test: Sequence[Record],
    seed: int,
) -> tuple[Record, ...]:
    """Labelled images, or synthetic anomalies, that the choice of the epoch is made on."""
    if detector.config.selection == "labels":
        return (*validation, *labelled)
    if detector.config.selection == "synthetic":
        anomalies = synthetic_anomalies(validation, seed=seed)
        if validation and not anomalies:
            raise DataError(
                "no synthetic anomaly lies in the inspected region: use selection=validation or budget, or a larger region"
            )
        return (*validation, *anomalies)
    return tuple(test)


def sanity_checks(detector: Detector, before: Mapping[str, str], scored: int, trainer: Trainer) -> None:
    """The sanity checks of every detector; a subclass adds its own in `learn`."""
    after = fingerprints(detector.frozen)
    if before:
        moved = sum(after.get(name) != value for name, value in before.items())
        trainer.sanity_check(
            "calibration", SanityCheck("frozen tensors that learning changed", moved, most=0)
        )
    broken = sum(
        not bool(value.isfinite().all())
        for value in detector.state_dict().values()
        if value.is_floating_point()
    )
    trainer.sanity_check("calibration", SanityCheck("learned tensors that are not finite", broken, most=0))
    trainer.sanity_check(
        "calibration",
        SanityCheck(
            f"{'cross-fitted' if detector.cross_fitted else 'held-out'} good pictures for thresholds",
            scored,
            least=FEWEST_HELD_OUT,
        ),
    )
