"""The oddest good images: one bad part among the good ones can set the threshold, so they are named for a person to look at.

See docs/reference/metrics.md, "Thresholds".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from andon.thresholds.calibration import Calibration

APART = 5.0
"""Robust standard deviations above the median from which on a score lies far above the rest."""
SIGMA = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation."""
MOST = 5
"""Images that are named."""


@dataclass(frozen=True, slots=True)
class OddImage:
    """A good image with a high score."""

    name: str
    """Id of its record."""
    raw_score: float
    score: float
    """0 = a typical good image, 1 = the threshold."""
    apart: bool
    """Whether it lies far above the rest."""


@dataclass(frozen=True, slots=True)
class Oddest:
    """The oddest good images, the highest score first, and what they do to the image threshold."""

    images: tuple[OddImage, ...]
    threshold: float
    """Raw."""
    without: float | None
    """Raw threshold from the other images alone; None where the threshold is not the conformal one."""

    def describe(self) -> str:
        """What a person is to look at, in words."""
        listed = ", ".join(f"{image.name} (score {image.score:.2f})" for image in self.images)
        one = len(self.images) == 1
        text = f"oddest good picture{'' if one else 's'}: {listed}; look at {'it: is it' if one else 'these: are they'} good?"
        if self.without is not None:
            them = "it" if one else "them"
            text += f" image threshold without {them}: {self.without:.4g} (now {self.threshold:.4g})"
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain data for `report.json` and `--json`."""
        images = [
            {"name": x.name, "raw_score": x.raw_score, "score": x.score, "apart": x.apart}
            for x in self.images
        ]
        return {"images": images, "threshold": self.threshold, "threshold_without": self.without}


def oddest(calibration: Calibration) -> Oddest | None:
    """The images whose scores lie more than `APART` robust deviations above the median, at most `MOST`, at least the highest.

    None where the scores are those of images that were learned from, or of a single one.
    """
    scores = np.asarray(calibration.scores, np.float64)
    if calibration.source.startswith("train") or len(calibration.names) != len(scores) or len(scores) < 2:
        return None
    order = np.argsort(-scores, kind="stable")
    median = np.median(scores)
    deviation = SIGMA * float(np.median(np.abs(scores - median)))
    apart = (scores > median + APART * deviation) & (deviation > 0)
    named = [int(k) for k in order[: max(1, min(MOST, int(apart.sum())))]]
    shown = calibration.score_display(scores.astype(np.float32))
    images = tuple(
        OddImage(calibration.names[k], float(scores[k]), float(shown[k]), bool(apart[k])) for k in named
    )
    others = [k for k in range(len(scores)) if k not in named]
    return Oddest(images, calibration.image.value, calibration.image_threshold_from(others))
