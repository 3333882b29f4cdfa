"""One evaluation for every detector: images in, a `Report` out. The only place that looks at `test`."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.core.image_files import read_size
from andon.core.progress import NoProgress, Progress
from andon.core.records import Record
from andon.core.region import inspected_pixels
from andon.core.tiling import Tiling
from andon.datasets.findings import first_few, plural
from andon.datasets.masks import Saturation, has_pixel_truth, load_ground_truth
from andon.metrics import (
    Curve,
    Gate,
    Metric,
    Pimo,
    PixelHistogram,
    PixelRanking,
    UndefinedMetricWarning,
    auroc,
    curve,
    image_metrics,
    record_tags,
)
from andon.metrics.bootstrap import CONFIDENCE, DRAWS
from andon.metrics.parts import part_metrics
from andon.metrics.pimo import RELIABLE_VERTICES
from andon.metrics.results import pixel_metrics as measure_pixels
from andon.nn.sanity_checks import SanityCheck
from andon.runtime.predictor import Unreadable

if TYPE_CHECKING:
    from andon.datasets import Dataset
    from andon.detectors._base import Detector
    from andon.exporting.latency import Latency
    from andon.nn.stage import Stage
    from andon.thresholds.calibration import Calibration


PixelMetrics: TypeAlias = Literal["auto", "exact", "histogram"]
PIXELS_KEPT = 500_000_000
"""Bytes of decoded images that an evaluation keeps for its report, so that their files are not decoded again."""
PIXEL_MEMORY = 2.0
"""Gigabytes that the scores of all test pixels may take before they are counted in bins instead."""


@dataclass(frozen=True, slots=True)
class Case:
    """One evaluated image."""

    record: Record
    raw_score: float
    score: float
    """0 = typical good, 1 = threshold."""
    is_anomalous: bool
    raw_map: npt.NDArray[np.float32]
    """(h, w) at the detector's own grid; `detector.enlarge` brings it to `size`."""
    size: tuple[int, int]
    """(H, W) of the image."""
    has_mask: bool
    """Whether the image took part in the pixel metrics."""
    gated: bool | None = None
    """Verdict behind the gate; where it is False no pixel is marked. None: evaluated without a gate."""
    pixels: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    """(H, W, 3) as decoded, as long as `PIXELS_KEPT` allows; None: read again where it is drawn."""


@dataclass(slots=True)
class Report:
    """Everything an evaluation found. `save` writes it as files."""

    detector: str
    recipe: str
    dataset: str
    category: str
    seed: int
    selection: str
    """`budget`, `validation`, or `test`: then the epoch was chosen on test labels, and every table says so."""
    score_rule: str
    calibration: Calibration
    metrics: dict[str, Metric]
    alternatives: dict[str, Metric]
    """Image AUROC of further scores (mean, maximum, teacher likelihood); none was chosen by it."""
    cases: list[Case]
    image_curve: Curve | None
    pixel_curve: Curve | None
    stages: dict[str, Stage]
    weights: tuple[dict[str, str], ...]
    input_size: tuple[int, int]
    evaluate_seconds: float
    parameters: int
    multiply_adds: int
    machine: str
    latency: Latency | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that could not be read, with the reason."""
    notes: tuple[str, ...] = ()
    gate: bool = False
    """Whether the metrics are there a second time behind SPADE's gate, and the masks are those it lets through."""
    labelled: int = 0
    """Anomalous images that were taken out of the test to be learned from."""
    label_use: str = ""
    """What they were used for; empty where the detector does not use them."""
    pixel_metrics: str = "exact"
    """`exact` or `histogram`: then pixel metrics carry the largest error that bins can have made."""
    tiling: Tiling | None = None
    """How images were cut into tiles; None: they were looked at as a whole."""
    aupimo: dict[str, float] = field(default_factory=dict)
    """AUPIMO of each anomalous image with a mask, by its id; empty where it is undefined."""

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`."""
        area = self.calibration.region
        stages = {
            name: {"seconds": s.seconds, "epochs": s.epochs, "steps": s.steps, "kept_epoch": s.kept_epoch}
            for name, s in self.stages.items()
        }
        teacher = {
            name.replace("teacher_", "auroc_"): metric.to_json()["value"]
            for name, metric in self.alternatives.items()
            if name.startswith("teacher_")
        } | (self.stages["teacher"].measured if "teacher" in self.stages else {})
        return {
            "detector": self.detector,
            "recipe": self.recipe,
            "dataset": self.dataset,
            "category": self.category,
            "seed": self.seed,
            "protocol": {
                "selection": self.selection,
                "selected_on_test_labels": self.selection == "test",
                "threshold_source": self.calibration.source,
                "evaluation_size": "original",
                "map_interpolation": "bilinear, half-pixel centres",
                "score_rule": self.score_rule,
                "tiles": self.tiling.to_json() if self.tiling is not None else None,
                "gate": self.gate,
                "labelled_anomalous": self.labelled,
                "label_use": self.label_use,
                "pixel_metrics": self.pixel_metrics,
                "region": {"sha256": area.sha256, "inspected": area.share} if area is not None else None,
                "interval": {
                    "kind": "bootstrap, percentile, stratified",
                    "confidence": CONFIDENCE,
                    "draws": DRAWS,
                },
            },
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "alternative_scores": {name: metric.to_json() for name, metric in self.alternatives.items()},
            "aupimo_of_pictures": self.aupimo,
            "thresholds": {
                "image": self.calibration.image.to_json() | {"text": self.calibration.image.describe()},
                "pixel": self.calibration.pixel.to_json() | {"text": self.calibration.pixel.describe()},
            },
            "teacher": teacher,
            "sanity_checks": [
                {**values, "passed": SanityCheck.from_json(values).passed}
                for stage in self.stages.values()
                for values in stage.sanity_checks
            ],
            "time": {
                "stages": stages,
                "fit_seconds": sum(stage.seconds for stage in self.stages.values()),
                "evaluate_seconds": self.evaluate_seconds,
            },
            "latency_ms": self.latency.to_json() if self.latency is not None else None,
            "throughput_ips": self.latency.throughput if self.latency is not None else None,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "input_size": list(self.input_size),
            "machine": self.machine,
            "weights": list(self.weights),
            "images": {"evaluated": len(self.cases), "skipped": self.skipped},
            "notes": list(self.notes),
        }

    def save(
        self,
        folder: str | Path,
        *,
        maps: bool = False,
        heatmaps: bool = True,
        progress: Progress | None = None,
    ) -> None:
        """Write report.json, report.html, predictions.csv, figures, heat maps and masks (and float maps) into `folder`."""
        from andon.report import save_report

        save_report(self, Path(folder), maps=maps, heatmaps=heatmaps, progress=progress)


@dataclass(slots=True)
class Origin:
    """Where a detector comes from, as its run folder tells."""

    recipe: str = ""
    dataset: str = ""
    category: str = ""
    seed: int = 0
    stages: dict[str, Stage] = field(default_factory=dict)
    labelled: int = 0
    """Anomalous images that were taken out of the test to be learned from."""


def evaluate(
    detector: Detector,
    test: Sequence[Record] | Dataset,
    *,
    origin: Origin | None = None,
    saturation: dict[int, Saturation] | None = None,
    gate: bool = False,
    skip_unreadable: bool = False,
    latency: bool = True,
    pixel_metrics: PixelMetrics = "auto",
    pixel_memory: float = PIXEL_MEMORY,
    progress: Progress | None = None,
) -> Report:
    """Score every test image and measure (docs/reference/metrics.md): image and pixel metrics with subsets, time and cost.

    Metrics see raw scores and raw maps at the images' own size. `pixel_metrics` are exact or, in memory that does not
    grow with the pixels, from bins with a bound of the error; `auto` takes bins where the pixels' scores would need more
    than `pixel_memory` gigabytes. AU-sPRO is measured where the data tells single defects of an image apart. With
    `gate` all metrics are there a second time as they are behind SPADE's gate (`andon.metrics.gate`), at the cost of a
    second, exact ranking of all pixels.

    Raises `DataError` when there is nothing to evaluate or an image cannot be read (`skip_unreadable` leaves it out and
    reports it).
    """
    from andon.exporting.latency import describe_machine, predict_latency
    from andon.nn.backbones import count_parameters, multiply_adds

    records, origin = _records(test), origin or Origin()
    calibration = detector.fitted()
    records = [record for record in records if record.label is not None]
    start = time.perf_counter()
    behind = Gate(calibration.image.value, calibration.pixel.value) if gate else None
    ranking = pixel_scores(records, pixel_metrics, pixel_memory, calibration.pixel.value)
    found = _score(detector, records, saturation, ranking, behind, skip_unreadable, progress or NoProgress())
    cases, extras, tags, skipped = found.cases, found.extras, found.tags, found.skipped
    if not cases:
        raise DataError(
            "there are no labelled test pictures to evaluate: add a test folder, or use `andon predict` for single pictures"
        )
    records = [case.record for case in cases]
    scores = np.asarray([case.raw_score for case in cases], np.float32)
    labels = [int(record.label or 0) for record in records]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the report carries the reasons
        objects = [record.object_id for record in records]
        metrics = image_metrics(
            scores, labels, calibration.image.value, tags=tags, object_ids=objects, draws=DRAWS
        )
        metrics |= part_metrics(scores, labels, objects)
        metrics |= measure_pixels(ranking, calibration.pixel.value)
        metrics |= behind.metrics() if behind is not None else {}
        n_pos, n_neg = labels.count(1), labels.count(0)
        reason = None if n_pos and n_neg else ("no_negatives" if n_pos else "no_positives")
        alternatives = {
            name: Metric(auroc(values, labels), n_pos, n_neg, reason) for name, values in extras.items()
        }
    pimo = ranking.aupimo()
    seconds = time.perf_counter() - start
    device = detector.device()
    zeros = _zeros(detector)
    return Report(
        detector=detector.name,
        recipe=origin.recipe,
        dataset=origin.dataset,
        category=origin.category or (records[0].category if records else ""),
        seed=origin.seed,
        selection=detector.config.selection,
        score_rule=detector.stated_rule,
        tiling=detector.tiling,
        calibration=calibration,
        metrics=metrics,
        alternatives=alternatives,
        cases=cases,
        image_curve=curve(scores, labels) if n_pos and n_neg else None,
        pixel_curve=ranking.curve() if metrics["pixel_auroc"].reason is None else None,
        stages=origin.stages,
        weights=detector.used_weights,
        input_size=detector.input_size,
        evaluate_seconds=seconds,
        parameters=count_parameters(detector),
        multiply_adds=multiply_adds(detector, zeros),
        machine=describe_machine(device),
        latency=predict_latency(detector, _images(cases)) if latency else None,
        skipped=skipped,
        notes=(
            *label_notes(detector, origin.labelled),
            *_region_notes(calibration, cases),
            *_notes(records, cases, skipped),
            *_pixel_notes(ranking, metrics, pimo),
        ),
        gate=gate,
        labelled=origin.labelled,
        label_use=detector.label_use if origin.labelled else "",
        pixel_metrics="exact" if isinstance(ranking, PixelRanking) else "histogram",
        aupimo={} if np.isnan(pimo.mean) else dict(pimo.scores),
    )


def pixel_scores(
    records: Sequence[Record], mode: PixelMetrics, memory: float, threshold: float
) -> PixelRanking | PixelHistogram:
    """What collects the maps: exact, or bins where `mode` says so or all pixels need more than `memory` gigabytes."""
    if mode == "exact":
        return PixelRanking()
    if mode == "auto":
        pixels = 0
        for record in records:
            with contextlib.suppress(DataError):  # said when the image is decoded
                height, width = read_size(record.image)
                pixels += height * width
        if 4 * pixels <= memory * 1e9:
            return PixelRanking()
    return PixelHistogram(thresholds=[threshold])


def _records(test: Sequence[Record] | Dataset) -> Sequence[Record]:
    return test.test if hasattr(test, "test") else test


def _images(cases: Sequence[Case]) -> list[Record | npt.NDArray[np.uint8]]:
    """The images of the cases, decoded where they are kept."""
    return [case.record if case.pixels is None else case.pixels for case in cases]


def _zeros(detector: Detector) -> Any:
    import torch

    return torch.zeros(1, detector.input_channels, *detector.input_size, device=detector.device())


@dataclass(slots=True)
class _Scored:
    """What scoring all images gave."""

    cases: list[Case] = field(default_factory=list)
    extras: dict[str, list[float]] = field(default_factory=dict)
    """Further scores of the cases, by name."""
    tags: list[tuple[str, ...]] = field(default_factory=list)
    """Subsets each case counts in: those of its record and, where `saturation` names the defects of its masks, these."""
    skipped: dict[str, str] = field(default_factory=dict)


def _score(
    detector: Detector,
    records: Sequence[Record],
    saturation: dict[int, Saturation] | None,
    ranking: PixelRanking | PixelHistogram,
    gate: Gate | None,
    skip_unreadable: bool,
    progress: Progress,
) -> _Scored:
    """Analyse all images, feeding the pixel metrics on the way so that no full-size map is kept."""
    calibration, scored, room = detector.fitted(), _Scored(), PIXELS_KEPT
    with progress.task("evaluating", len(records)) as task:
        for found in detector.outcomes(records, keep_pictures=not detector.needs_points):
            task.advance()
            assert found.record is not None
            record = found.record
            if isinstance(found, Unreadable):
                if not skip_unreadable:
                    raise found.error
                scored.skipped[record.id] = str(found.error)
                continue
            raw = found.raw_score
            room -= 0 if found.picture is None else found.picture.nbytes
            for name, value in found.extras.items():
                scored.extras.setdefault(name, []).append(value)
            truth = load_ground_truth(record, found.size, saturation)
            channels = truth.defects if saturation or record.mask_kind == "channels" else ()
            named = [region.defect_name for region in channels] if saturation else []
            scored.tags.append(tuple(dict.fromkeys([*record_tags(record), *named])))
            common: dict[str, Any] = {
                "label": record.label or 0,
                "tags": scored.tags[-1],
                "name": record.id,
                "inspected": inspected_pixels(record, found.size),
            }
            ranking.add(found.raw_map, truth.union, channels=channels, **common)
            if gate is not None:
                gate.add(found.raw_map, truth.union, score=raw, **common)
            scored.cases.append(
                Case(
                    record=record,
                    raw_score=raw,
                    score=float(calibration.score_display(np.float32(raw))),
                    is_anomalous=raw >= calibration.image.value,
                    raw_map=found.cells,
                    size=found.size,
                    has_mask=has_pixel_truth(record, truth),
                    gated=gate.verdicts[-1] if gate is not None else None,
                    pixels=found.picture if room >= 0 else None,
                )
            )
    return scored


def _pixel_notes(
    ranking: PixelRanking | PixelHistogram, metrics: dict[str, Metric], pimo: Pimo
) -> Iterator[str]:
    bounds = [metric.error_bound for metric in metrics.values() if metric.error_bound is not None]
    if isinstance(ranking, PixelHistogram) and bounds:
        yield (
            "pixel metrics were counted in bins, in bounded memory: they are wrong by at most "
            f"{max(bounds):.1g}"
        )
    if not np.isnan(pimo.mean) and pimo.n_vertices < RELIABLE_VERTICES:
        yield (
            f"AUPIMO rests on {pimo.n_vertices} thresholds, fewer than the {RELIABLE_VERTICES} that make it "
            "reliable: it takes more good test pixels"
        )


def label_notes(detector: Detector, labelled: int) -> tuple[str, ...]:
    """One line on the labelled images, where any were taken out of the test."""
    if not labelled:
        return ()
    use = detector.label_use
    what = f"used for {use}" if use else f"not used: this {detector.name} learns from good pictures only"
    return (f"{labelled} labelled anomalous pictures were taken out of the test and {what}",)


def _region_notes(calibration: Calibration, cases: Sequence[Case]) -> Iterator[str]:
    if calibration.region is None:
        return
    yield (
        f"{100 * calibration.region.share:.3g} % of each picture is inspected; the rest (hatched in heat maps) changes no "
        "score and counts in no pixel metric"
    )
    hidden = [case.record.id for case in cases if _hidden(case)]
    if hidden:
        yield (
            f"{plural(len(hidden), 'picture')} with defects that lie wholly outside the inspected region still count as "
            f"anomalous: {first_few(hidden)}"
        )


def _hidden(case: Case) -> bool:
    """Whether the masks of an image mark something, and nothing that is inspected."""
    if case.has_mask or case.record.region is None:
        return False
    return bool(load_ground_truth(replace(case.record, region=None), case.size).defects)


def _notes(records: Sequence[Record], cases: Sequence[Case], skipped: dict[str, str]) -> tuple[str, ...]:
    notes = []
    without = sum(1 for case in cases if case.record.label == 1 and not case.has_mask and not _hidden(case))
    anomalous = sum(1 for record in records if record.label == 1)
    if anomalous and without == anomalous:
        notes.append("no masks were given, so only image metrics are computed")
    elif without:
        notes.append(
            f"{without} anomalous pictures have no mask or an empty one and are left out of the pixel metrics"
        )
    hidden = sum(1 for case in cases if case.gated is False and case.is_anomalous)
    if hidden:
        notes.append(
            f"behind the gate {hidden} flagged pictures count as good, since none of their pixels is marked"
        )
    if skipped:
        notes.append(f"{len(skipped)} unreadable pictures were skipped")
    return tuple(notes)
