"""Metrics on NumPy arrays: rank metrics of images and pixels, counts at a threshold, named results."""

from __future__ import annotations

from andon.metrics.counts import Confusion, Curve, OperatingPoint
from andon.metrics.gate import Gate, gated_map, gated_mask, gated_verdict
from andon.metrics.histogram import PixelHistogram
from andon.metrics.pimo import Pimo
from andon.metrics.pixel_inputs import AUPRO_LIMITS, AUSPRO_LIMITS, PixelSummary
from andon.metrics.pixels import PixelRanking
from andon.metrics.ranking import (
    Ranking,
    auroc,
    average_precision,
    confusion,
    curve,
    f1_max,
    rank,
)
from andon.metrics.results import (
    Metric,
    UndefinedMetricWarning,
    image_metrics,
    pixel_metrics,
    record_tags,
)

__all__ = [
    "AUPRO_LIMITS",
    "AUSPRO_LIMITS",
    "Confusion",
    "Curve",
    "Gate",
    "Metric",
    "OperatingPoint",
    "Pimo",
    "PixelHistogram",
    "PixelRanking",
    "PixelSummary",
    "Ranking",
    "UndefinedMetricWarning",
    "auroc",
    "average_precision",
    "confusion",
    "curve",
    "f1_max",
    "gated_map",
    "gated_mask",
    "gated_verdict",
    "image_metrics",
    "pixel_metrics",
    "rank",
    "record_tags",
]
