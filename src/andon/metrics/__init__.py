"""Metrics in numpy: rank metrics of images and pixels, thresholds, normalisation, names of results."""

from __future__ import annotations

from andon.metrics.counts import Confusion, Curve, OperatingPoint
from andon.metrics.gate import Gate, gated_map, gated_mask, gated_verdict
from andon.metrics.histogram import PixelHistogram
from andon.metrics.normalisation import AffineDisplay
from andon.metrics.pimo import Pimo
from andon.metrics.pixels import AUPRO_LIMITS, AUSPRO_LIMITS, PixelRanking, PixelSummary
from andon.metrics.ranking import (
    Ranking,
    aupr_trapz,
    auroc,
    average_precision,
    confusion,
    curve,
    f1_max,
    rank,
)
from andon.metrics.results import (
    Average,
    Metric,
    UndefinedMetricWarning,
    category_averages,
    image_metrics,
    pixel_metrics,
    record_tags,
)
from andon.metrics.thresholds import Guarantee, Threshold, conformal, manual, mean_std, p_value, quantile

__all__ = [
    "AUPRO_LIMITS",
    "AUSPRO_LIMITS",
    "AffineDisplay",
    "Average",
    "Confusion",
    "Curve",
    "Gate",
    "Guarantee",
    "Metric",
    "OperatingPoint",
    "Pimo",
    "PixelHistogram",
    "PixelRanking",
    "PixelSummary",
    "Ranking",
    "Threshold",
    "UndefinedMetricWarning",
    "aupr_trapz",
    "auroc",
    "average_precision",
    "category_averages",
    "conformal",
    "confusion",
    "curve",
    "f1_max",
    "gated_map",
    "gated_mask",
    "gated_verdict",
    "image_metrics",
    "manual",
    "mean_std",
    "p_value",
    "pixel_metrics",
    "quantile",
    "rank",
    "record_tags",
]
