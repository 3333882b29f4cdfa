"""Settings that all detectors have. Needs no PyTorch, as recipes are read without it."""

from __future__ import annotations

from typing import Literal

from andon.core.config import Config, Rate
from andon.core.tiling import TileConfig


class DetectorConfig(Config):
    """Settings all detectors have."""

    selection: Literal["budget", "validation", "synthetic", "labels", "test"] = "budget"
    """What ends training: the budget, the loss on held-out good images, the AUROC on these and synthetic anomalies, or
    labelled anomalous ones, or (to reproduce published numbers) the test labels."""
    threshold: Literal["good", "labels"] = "good"
    """Where thresholds come from: good images alone, or the best F1 on held-out good and labelled anomalous images."""
    threshold_scores: Literal["held_out", "cross_fitted"] = "held_out"
    """Which good images are scored for the thresholds: those held out, or all, each by what was learned from the others."""
    false_reject_rate: Rate = 0.05
    """Share of good images the threshold may reject (alpha of the conformal rule)."""
    few_images: Literal["max", "error"] = "max"
    """When there are too few held-out images for that rate: use their maximum and say which rate it gives, or refuse."""
    bit_depth: Literal["auto", 10, 12, 14, 16] = "auto"
    """Bits that the values of 16-bit files use; `auto`: the fewest of 10, 12, 14 and 16 that hold the good images."""
    tile: TileConfig = TileConfig()
    """Large images in overlapping tiles at their own resolution."""


class ClosedFormConfig(DetectorConfig):
    """Settings of detectors that are fitted in closed form."""

    threshold_scores: Literal["held_out", "cross_fitted"] = "cross_fitted"
    """Which good images are scored for the thresholds: those held out, or all, each by what was learned from the others."""
