"""Changing the thresholds of a run: what `andon threshold` does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from andon.core.config import SMALLEST_RATE
from andon.core.errors import ConfigError, DataError
from andon.core.progress import NoProgress, Progress, track
from andon.core.records import Record
from andon.core.text import plural
from andon.datasets.dataset import Records, file_digest
from andon.datasets.labelled_anomalies import without_copies
from andon.detectors._saving import detector_folder, read_description
from andon.metrics import Metric, UndefinedMetricWarning, image_metrics
from andon.runs.folder import last_scores, read_recipe, read_scores
from andon.runs.inputs import list_inputs
from andon.runs.source import Source, run_data, told_names
from andon.thresholds.calibration import Calibration, good_threshold
from andon.thresholds.costs import CostThreshold, cheapest
from andon.thresholds.evidence import Evidence, line_thresholds
from andon.thresholds.figures import Figures, figures
from andon.thresholds.history import Change, change
from andon.thresholds.rules import Threshold, smallest_n

if TYPE_CHECKING:
    from andon.detectors._base import Detector


class LeftOutWarning(UserWarning):
    """Images do not count as further ones."""


MEASURED = ("image_recall", "image_fpr")
"""Metrics that `measured` gives."""


def supported_rate(n: int, folds: int = 0) -> str:
    """The false-reject rate that `n` held-out good images (or parts) support, or cross-fitted ones, in words."""
    wanted = next(rate for rate in (0.05, 0.01, 0.001, 0.0001) if smallest_n(rate) > n)
    return (
        f"{n} good pictures{' (cross-fitted)' if folds else ''} support {'about' if folds else 'at most'} "
        f"{100 / (n + 1):.2g} % false rejects on average; "
        f"for {100 * wanted:g} % bring {smallest_n(wanted):,}"
    )


def scored(calibration: Calibration) -> int:
    """Number of good images behind the thresholds that the detector has not learned from."""
    return 0 if calibration.source.startswith("train") else len(calibration.scores)


def describe_basis(calibration: Calibration) -> str:
    """The false-reject rate that the images behind the fitted thresholds support, in words."""
    if scored(calibration) == 0:
        return (
            f"nothing was held out, and the scores of the {len(calibration.scores)} training pictures say nothing about new "
            "ones: bring others with --good"
        )
    return supported_rate(len(set(calibration.parts)) or len(calibration.scores), calibration.folds)


def by_rate(
    run: Path,
    rate: float,
    *,
    look: float | None = None,
    good: Sequence[Path] = (),
    reason: str,
    progress: Progress | None = None,
) -> tuple[Change, int]:
    """Set the thresholds of the conformal rule for a false-reject rate; returns the change and the number of good images.

    `rate` is the largest share of good images to reject. `look` sets a second, lower threshold, which at most this share
    of good images reaches: between the two a person decides. `good` are further good images, or folders of them; they are
    the only basis where the run held nothing out. Raises `ConfigError` for impossible rates, `DataError` for too few images.
    """
    if not SMALLEST_RATE <= rate < 1 or (look is not None and not rate < look < 1):
        raise ConfigError(
            f"rates are shares from {SMALLEST_RATE:g} to 1, and that of --look is the larger one: e.g. "
            "--false-reject-rate 0.01 --look 0.05"
        )
    detector = _load(run)
    found = detector.fitted()
    kept = scored(found)  # training images score lower than new ones
    scores, maxima, parts = list(found.scores[:kept]), list(found.maxima[:kept]), list(found.parts[:kept])
    if good:
        new = _not_learned(run, list_inputs(good))
        for raw in track(
            progress or NoProgress(), detector.scan(new, batch_size=1), "scoring good pictures", len(new)
        ):
            scores.append(raw.raw_score)
            maxima.append(float(raw.raw_map.max()))
            parts += [f"--good {len(scores)}"] if found.parts else []
    n = len(set(parts)) or len(scores)
    if smallest_n(rate) > n:
        known = supported_rate(n) if scores else describe_basis(found)
        raise DataError(
            f"{known}; {100 * rate:g} % was asked for, that takes {smallest_n(rate):,}: add some with --good"
        )

    def at(values: Sequence[float], share: float, least: float) -> Threshold:
        return good_threshold(values, share, parts=parts, folds=found.folds, least=least)

    unit, pixel_unit = found.score_display.floor, found.pixel_display.floor

    changed = found.with_thresholds(
        at(scores, rate, unit),
        at(maxima, rate, pixel_unit),
        None if look is None else at(scores, look, unit),
    )
    rule = f"at most {100 * rate:g} % of good pictures rejected, from {len(scores)} good pictures"
    rule += "" if look is None else f"; at most {100 * look:g} % looked at or rejected"
    return change(detector_folder(run), changed, reason=reason, rule=rule), len(scores)


def by_cost(
    run: Path,
    data: str,
    *,
    escape: float,
    reject: float,
    defect_rate: float,
    reason: str,
    progress: Progress | None = None,
) -> tuple[Change, CostThreshold]:
    """Set the image threshold with the lowest expected cost on labelled images of `data`; the pixel threshold stays.

    Raises `ConfigError` for impossible prices, `DataError` where there are too few labelled images that were not learned from.
    """
    if not (escape > 0 and reject > 0 and 0 < defect_rate < 1):
        raise ConfigError("prices must be above 0, and --defect-rate a share between 0 and 1, e.g. 0.01")
    detector = _load(run)
    good, bad = told_names(read_recipe(run)) if (run / "recipe.yaml").is_file() else ((), ())
    dataset = Source(data, good=good, bad=bad).open(seed=0, hold_out=False, lenient=True)
    labelled = [record for record in dataset.test if record.label is not None]
    if not labelled:
        raise DataError(
            f"{data} has no labelled test pictures: give a data set with a folder of good and one of bad parts "
            "that were not learned from"
        )
    records = _not_learned(run, labelled)
    scores: tuple[list[float], list[float]] = ([], [])
    for raw in track(
        progress or NoProgress(),
        detector.scan(records, batch_size=1),
        "scoring labelled pictures",
        len(records),
    ):
        assert raw.record is not None
        scores[raw.record.label or 0].append(raw.raw_score)
    best = cheapest(*scores, escape=escape, reject=reject, defect_rate=defect_rate)
    image = Threshold(
        float(np.float32(best.value)), "cost", n=len(records), n_scores=len(records), oracle=True
    )
    rule = f"escape {escape:g}, false reject {reject:g}, {100 * defect_rate:g} % defective: {best.describe()}"
    found = detector.fitted()
    changed = found.with_thresholds(image, found.pixel, None)
    return change(detector_folder(run), changed, reason=reason, rule=rule), best


def measured(run: Path, threshold: float) -> dict[str, Metric]:
    """Recall (`image_recall`) and false-reject rate (`image_fpr`) at an image threshold, from the last evaluation's scores.

    With exact 95 % intervals. Empty before the first evaluation; a rate without images is left out.
    """
    if not (run / "predictions.csv").is_file():
        return {}
    scores = read_scores(run).values()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        found = image_metrics(
            np.asarray([score for _, score in scores], np.float32), [int(bad) for bad, _ in scores], threshold
        )
    return {name: found[name] for name in MEASURED if found[name].reason is None}


def figures_now(run: Path, calibration: Calibration) -> Figures:
    """What the thresholds of `calibration` do with the images whose truth is known, on the displayed scale of a line."""
    return figures(Evidence.of(calibration, last_scores(run)), *line_thresholds(calibration))


def fitted(run: Path) -> Calibration:
    """The calibration as fitted, without later changes. Raises `DataError` for no detector, or a changed one."""
    return Calibration.from_json(read_description(detector_folder(run))["calibration"])


def _load(run: Path) -> Detector:
    from andon.detectors._saving import load_detector

    return load_detector(run)


def _not_learned(run: Path, records: Sequence[Record]) -> list[Record]:
    """Records whose images the run did not learn from, as far as its data can still be found, each content once.

    What is left out is told as a `LeftOutWarning`.
    """
    try:
        own = run_data(run)
        used = {file_digest(record.image) for record in (*own.train, *own.validation, *own.labelled)}
    except DataError:
        used = set()
    new = list(without_copies(Records(records), used))
    if not new:
        raise DataError(
            "the run has learned from all of these pictures, so they say nothing about new ones: give others"
        )
    first: dict[tuple[str, int | None], Record] = {}
    for record in new:
        first.setdefault((file_digest(record.image), record.label), record)
    left = list(first.values())
    counts = {
        "that the run knows": len(records) - len(new),
        "that are copies of others": len(new) - len(left),
    }
    said = [f"{count} {which}" for which, count in counts.items() if count]
    if said:
        warnings.warn(
            f"of {plural(len(records), 'picture')} {' and '.join(said)} are left out: they say nothing more about new ones",
            LeftOutWarning,
            stacklevel=3,
        )
    return left
