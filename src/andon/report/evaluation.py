"""One evaluation for every detector: test images in, a `Report` out. The labels change nothing in the detector."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from andon.core.errors import ConfigError, DataError
from andon.core.image_files import read_size
from andon.core.progress import NoProgress, Progress
from andon.core.records import Record
from andon.core.region import inspected_pixels
from andon.datasets.dataset import Dataset, records_of
from andon.datasets.masks import Saturation, has_pixel_truth, load_ground_truth
from andon.detectors._recipes import PIXEL_MEMORY
from andon.metrics import (
    Gate,
    Metric,
    PixelHistogram,
    PixelRanking,
    UndefinedMetricWarning,
    auroc,
    curve,
    image_metrics,
    record_tags,
)
from andon.metrics.bootstrap import DRAWS
from andon.metrics.parts import part_metrics
from andon.metrics.results import pixel_metrics as measure_pixels
from andon.report.notes import good_notes, image_notes, label_notes, pixel_notes, region_notes
from andon.report.report import Case, Report
from andon.runtime.predictor import RawPrediction, Unreadable

if TYPE_CHECKING:
    from andon.detectors._base import Detector
    from andon.nn.stage import Stage
    from andon.thresholds.calibration import Calibration

__all__ = ["Case", "Origin", "PixelMetrics", "Report", "evaluate", "pixel_scores"]

PixelMetrics: TypeAlias = Literal["auto", "exact", "histogram"]
PIXELS_KEPT = 500_000_000
"""Bytes of decoded images that an evaluation keeps for its report, so that their files are not decoded again."""


@dataclass(slots=True)
class Origin:
    """How a detector was trained, as recorded in its run folder."""

    recipe: str = ""
    dataset: str = ""
    category: str = ""
    seed: int = 0
    stages: dict[str, Stage] = field(default_factory=dict)
    labelled: int = 0
    """Number of labelled anomalous images that were moved from the test set to training."""
    excluded: tuple[str, ...] = ()
    """Ids of good images that were left out of learning."""
    sessions: dict[str, Any] | None = None
    """`Sessions.to_json` of the good images, None where nothing is known about sessions."""
    data_licence: str = ""
    """Origin and licence of the images; empty for data of the user."""
    good: tuple[Record, ...] = ()
    """Good images that were learned from or held out."""
    selected: str = ""
    """In words: what a variant of the detector was selected on; empty without a choice."""


def evaluate(
    detector: Detector,
    test: Sequence[Record] | Dataset,
    *,
    origin: Origin | None = None,
    saturation: Mapping[int, Saturation] | None = None,
    gate: bool = False,
    skip_unreadable: bool = False,
    latency: bool = True,
    pixel_metrics: PixelMetrics = "auto",
    pixel_memory: float = PIXEL_MEMORY,
    progress: Progress | None = None,
) -> Report:
    """Predicts all labelled images of `test` and returns a `Report`: metrics with subsets, curves, time and size.

    Definitions: docs/reference/metrics.md. Metrics use raw scores and raw maps at the images' own size. `pixel_metrics`
    are `exact`, or from bins with an error bound (`histogram`) in memory that does not grow with the number of pixels;
    `auto` uses bins where the scores of all pixels would take more than `pixel_memory` gigabytes. AU-sPRO is computed
    where the data annotates single defects: channels, or masks whose values `saturation` lists (by default that of a
    `Dataset`). With `gate` all metrics are also given behind SPADE's gate (`andon.metrics.gate`), which needs a second, exact
    ranking of all pixels.

    Raises `DataError` without labelled images, for what is no record, and for an unreadable image unless `skip_unreadable`,
    which leaves it out and names it in the report. Images with the verdict `ERROR` are counted apart and are in no metric.
    """
    from andon.exporting.latency import describe_machine, predict_latency
    from andon.nn.backbones import count_parameters, multiply_adds

    origin, calibration = origin or Origin(), detector.fitted()
    if saturation is None and isinstance(test, Dataset):
        saturation = test.saturation or None
    records = [record for record in _records(test) if record.label is not None]
    start = time.perf_counter()
    behind = Gate(calibration.image.value, calibration.pixel.value) if gate else None
    ranking = pixel_scores(records, pixel_metrics, pixel_memory, calibration.pixel.value)
    found = _score(detector, records, saturation, ranking, behind, skip_unreadable, progress or NoProgress())
    _check_any(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the report states the reasons
        metrics = _metrics(found, calibration, ranking, behind)
    pimo = ranking.aupimo()
    seconds = time.perf_counter() - start
    return Report(
        detector=detector.name,
        recipe=origin.recipe,
        dataset=origin.dataset,
        category=origin.category or found.cases[0].record.category,
        seed=origin.seed,
        selection=origin.selected or detector.config.selection,
        score_rule=detector.stated_rule,
        tiling=detector.tiling,
        calibration=calibration,
        metrics=metrics,
        alternatives=_alternatives(found),
        cases=found.cases,
        image_curve=curve(found.scores, found.labels) if len(set(found.labels)) == 2 else None,
        pixel_curve=ranking.curve() if metrics["pixel_auroc"].reason is None else None,
        stages=origin.stages,
        weights=detector.used_weights,
        data_licence=origin.data_licence,
        input_size=detector.input_size,
        evaluate_seconds=seconds,
        parameters=count_parameters(detector),
        multiply_adds=multiply_adds(detector, _zeros(detector)),
        machine=describe_machine(detector.device()),
        latency=predict_latency(detector, _images(found.cases)) if latency else None,
        skipped=found.skipped,
        errors=found.errors,
        notes=(*_notes(detector, origin, found), *pixel_notes(ranking, metrics, pimo)),
        gate=gate,
        labelled=origin.labelled,
        label_use=detector.label_use if origin.labelled else "",
        excluded=origin.excluded,
        good_images=origin.good or _good(test),
        pixel_metrics="exact" if isinstance(ranking, PixelRanking) else "histogram",
        aupimo={} if np.isnan(pimo.mean) else dict(pimo.scores),
    )


def pixel_scores(
    records: Sequence[Record], mode: PixelMetrics, memory: float, threshold: float
) -> PixelRanking | PixelHistogram:
    """An empty collector of maps: exact, or bins if `mode` says so or all pixels need more than `memory` gigabytes."""
    if mode not in get_args(PixelMetrics):
        raise ConfigError(f"unknown pixel_metrics {mode!r}: choose {', '.join(get_args(PixelMetrics))}")
    if mode == "exact":
        return PixelRanking()
    if mode == "auto":
        pixels = 0
        for record in records:
            with contextlib.suppress(DataError):  # reported when the image is decoded
                height, width = read_size(record.image)
                pixels += height * width
        if 4 * pixels <= memory * 1e9:
            return PixelRanking()
    return PixelHistogram(thresholds=[threshold])


@dataclass(slots=True)
class _Scored:
    """Predictions of all test images."""

    cases: list[Case] = field(default_factory=list)
    extras: dict[str, list[float]] = field(default_factory=dict)
    """Further image scores of the cases, by name."""
    tags: list[tuple[str, ...]] = field(default_factory=list)
    """Subsets of each case: those of its record and, where `saturation` names the defects of its masks, their names."""
    skipped: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """(n,) raw image scores."""
        return np.asarray([case.raw_score for case in self.cases], np.float32)

    @property
    def labels(self) -> list[int]:
        """(n,) 0 = good, 1 = anomalous."""
        return [int(case.record.label or 0) for case in self.cases]


def _score(
    detector: Detector,
    records: Sequence[Record],
    saturation: Mapping[int, Saturation] | None,
    ranking: PixelRanking | PixelHistogram,
    gate: Gate | None,
    skip_unreadable: bool,
    progress: Progress,
) -> _Scored:
    """Predicts all images and adds each full-size map to `ranking` and `gate`, so that none is kept."""
    calibration, scored, room = detector.fitted(), _Scored(), PIXELS_KEPT
    with progress.task("evaluating", len(records)) as task:
        for found in detector.outcomes(records, keep_images=not detector.needs_points):
            task.advance()
            assert found.record is not None
            record = found.record
            if isinstance(found, Unreadable):
                if not skip_unreadable:
                    raise found.error
                scored.skipped[record.id] = str(found.error)
                continue
            if found.error:
                scored.errors[record.id] = found.error
                continue
            room -= 0 if found.image is None else found.image.nbytes
            for name, value in found.extras.items():
                scored.extras.setdefault(name, []).append(value)
            truth = load_ground_truth(record, found.size, saturation)
            channels = truth.defects if saturation or record.mask_kind == "channels" else ()
            named = [defect.defect_name for defect in channels] if saturation else []
            scored.tags.append(tuple(dict.fromkeys([*record_tags(record), *named])))
            common: dict[str, Any] = {
                "label": record.label or 0,
                "tags": scored.tags[-1],
                "name": record.id,
                "inspected": inspected_pixels(record, found.size),
            }
            ranking.add(found.raw_map, truth.union, channels=channels, **common)
            if gate is not None:
                gate.add(found.raw_map, truth.union, score=found.raw_score, **common)
            gated = gate.verdicts[-1] if gate is not None else None
            case = _case(record, found, calibration, has_pixel_truth(record, truth), gated, keep=room >= 0)
            scored.cases.append(case)
    return scored


def _case(
    record: Record,
    found: RawPrediction,
    calibration: Calibration,
    has_mask: bool,
    gated: bool | None,
    *,
    keep: bool,
) -> Case:
    raw = found.raw_score
    return Case(
        record=record,
        raw_score=raw,
        score=float(calibration.score_display(raw)),
        is_anomalous=not raw < calibration.image.value,
        raw_map=found.cells,
        size=found.size,
        has_mask=has_mask,
        gated=gated,
        pixels=found.image if keep else None,
    )


def _check_any(found: _Scored) -> None:
    """Raise `DataError` where no image was scored."""
    if found.cases:
        return
    if found.errors:
        raise DataError(
            f"no test picture has a finite score ({next(iter(found.errors.values()))}): fit again"
        )
    raise DataError(
        "there are no labelled test pictures to evaluate: add a test folder, or use `andon predict` for single pictures"
    )


def _notes(detector: Detector, origin: Origin, found: _Scored) -> Iterator[str]:
    """What a reader of the report has to know about the detector and the images."""
    calibration, records = detector.fitted(), [case.record for case in found.cases]
    if origin.selected:
        yield origin.selected
    yield from label_notes(detector, origin.labelled)
    yield from good_notes(origin.excluded, origin.sessions, calibration)
    yield from region_notes(calibration, found.cases)
    yield from image_notes(records, found.cases, found.skipped, found.errors)


def _metrics(
    found: _Scored, calibration: Calibration, ranking: PixelRanking | PixelHistogram, gate: Gate | None
) -> dict[str, Metric]:
    """Image metrics, those of parts taken in several images, pixel metrics and, with `gate`, those behind it."""
    objects = [case.record.object_id for case in found.cases]
    metrics = image_metrics(
        found.scores,
        found.labels,
        calibration.image.value,
        tags=found.tags,
        object_ids=objects,
        draws=DRAWS,
    )
    metrics |= part_metrics(found.scores, found.labels, objects)
    metrics |= measure_pixels(ranking, calibration.pixel.value)
    return metrics | (gate.metrics() if gate is not None else {})


def _alternatives(found: _Scored) -> dict[str, Metric]:
    """Image AUROC of each further image score."""
    labels = found.labels
    n_pos, n_neg = labels.count(1), labels.count(0)
    reason = None if n_pos and n_neg else ("no_negatives" if n_pos else "no_positives")
    return {
        name: Metric(auroc(values, labels), n_pos, n_neg, reason) for name, values in found.extras.items()
    }


def _records(test: Sequence[Record] | Dataset) -> Sequence[Record]:
    return test.test if isinstance(test, Dataset) else records_of(test, "test")


def _good(test: Sequence[Record] | Dataset) -> tuple[Record, ...]:
    return (*test.train, *test.validation) if isinstance(test, Dataset) else ()


def _images(cases: Sequence[Case]) -> list[Record | npt.NDArray[np.uint8]]:
    """The images of the cases: pixels where they are kept, else records."""
    return [case.record if case.pixels is None else case.pixels for case in cases]


def _zeros(detector: Detector) -> Any:
    """A batch (1, C, H, W) of the network's input size."""
    import torch

    return torch.zeros(1, detector.input_channels, *detector.input_size, device=detector.device())
