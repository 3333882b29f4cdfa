"""`Report`, the result of an evaluation, and `Case`, one evaluated image (docs/reference/metrics.md, "Results")."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from andon.core.progress import Progress
from andon.core.records import Record
from andon.core.tiling import Tiling
from andon.metrics import Curve, Metric
from andon.metrics.bootstrap import CONFIDENCE, DRAWS
from andon.nn.sanity_checks import SanityCheck
from andon.thresholds.oddest import Oddest, oddest

if TYPE_CHECKING:
    from andon.exporting.latency import Latency
    from andon.nn.stage import Stage
    from andon.thresholds.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Case:
    """One evaluated image."""

    record: Record
    raw_score: float
    score: float
    """0 = typical good, 1 = threshold."""
    is_anomalous: bool
    raw_map: npt.NDArray[np.float32]
    """(h, w) anomaly map at the detector's own grid; `maps.full_map` resizes it to `size`."""
    size: tuple[int, int]
    """(H, W) of the image."""
    has_mask: bool
    """Whether the image has a mask that marks inspected pixels; anomalous images without one are not in the pixel metrics."""
    gated: bool | None = None
    """Verdict behind SPADE's gate; where it is False no pixel is marked. None: evaluated without the gate."""
    pixels: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    """(H, W, 3) decoded image, kept up to `evaluation.PIXELS_KEPT` bytes in all; None: read again when it is drawn."""


@dataclass(slots=True)
class Report:
    """The result of an evaluation: metrics, curves, cases, times. `save` writes it as files."""

    detector: str
    recipe: str
    dataset: str
    category: str
    seed: int
    selection: str
    """How the epoch was chosen: `budget`, `validation`, `synthetic`, `labels` or `test`. With `test` all tables say so."""
    score_rule: str
    calibration: Calibration
    metrics: dict[str, Metric]
    alternatives: dict[str, Metric]
    """Image AUROC of further image scores (mean, maximum, teacher likelihood), for information only."""
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
    errors: dict[str, str] = field(default_factory=dict)
    """Images with the verdict `ERROR`, which are in no metric, with the reason."""
    notes: tuple[str, ...] = ()
    gate: bool = False
    """Whether all metrics are also given behind SPADE's gate; images that are not flagged then have an empty mask."""
    labelled: int = 0
    """Number of labelled anomalous images that were moved from the test set to training."""
    label_use: str = ""
    """What they were used for; empty if the detector does not use them."""
    excluded: tuple[str, ...] = ()
    """Ids of good images that were left out of learning."""
    data_licence: str = ""
    """Origin and licence of the images; empty for data of the user."""
    pixel_metrics: str = "exact"
    """`exact` or `histogram`; with `histogram` the pixel metrics carry an error bound."""
    tiling: Tiling | None = None
    """How images were cut into tiles; None: each was predicted as a whole."""
    aupimo: dict[str, float] = field(default_factory=dict)
    """AUPIMO of each anomalous image with a mask, by the image's id; empty where it is undefined."""

    good_images: tuple[Record, ...] = ()
    """Good images that were learned from or held out, as far as they are known; the oddest of them are shown."""

    @property
    def odd(self) -> Oddest | None:
        """The oddest good images behind the thresholds."""
        return oddest(self.calibration)

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`."""
        odd = self.odd
        region = self.calibration.region
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
                "excluded": list(self.excluded),
                "pixel_metrics": self.pixel_metrics,
                "region": {"sha256": region.sha256, "inspected": region.share}
                if region is not None
                else None,
                "interval": {
                    "kind": "bootstrap, percentile, stratified",
                    "rates": "exact (Clopper, Pearson): image_recall, image_fpr",
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
            "oddest_good_images": None if odd is None else odd.to_json(),
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
            "data_licence": self.data_licence,
            "images": {"evaluated": len(self.cases), "skipped": self.skipped, "errors": self.errors},
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
