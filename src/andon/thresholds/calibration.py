"""Thresholds and the scores behind them: what turns raw numbers into a verdict, for a detector and for its exports alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core.records import Prediction, Record
from andon.core.region import InspectionRegion
from andon.thresholds.display import AffineDisplay
from andon.thresholds.rules import Threshold


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds and the scores they come from."""

    image: Threshold
    pixel: Threshold
    """Of the largest map value of an image: at most the same share of good images shows any marked pixel."""
    score_display: AffineDisplay
    pixel_display: AffineDisplay
    scores: tuple[float, ...]
    """Raw scores of the good images."""
    maxima: tuple[float, ...]
    """Largest raw map value of each."""
    source: str
    """`validation`, or `train` where nothing was held out; both with what else chose the thresholds."""
    look: Threshold | None = None
    """From here up to `image` a person is to look at the part; None = there is no such band."""
    region: InspectionRegion | None = None
    """Which pixels are looked at; None = all."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `detector.json`."""
        area = {} if self.region is None else {"inspected": self.region.to_json()}
        plain = asdict(replace(self, region=None))
        del plain["region"]
        return plain | area

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_json`."""
        return cls(
            image=Threshold.from_json(data["image"]),
            pixel=Threshold.from_json(data["pixel"]),
            score_display=AffineDisplay(**data["score_display"]),
            pixel_display=AffineDisplay(**data["pixel_display"]),
            scores=tuple(data["scores"]),
            maxima=tuple(data["maxima"]),
            source=data["source"],
            look=Threshold.from_json(data["look"]) if data.get("look") else None,
            region=InspectionRegion.from_json(data["inspected"]) if data.get("inspected") else None,
        )

    def quieted(self, raw_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(H, W) with the value of a typical good pixel, displayed as 0, where the image is not inspected."""
        if self.region is None:
            return raw_map
        inside = self.region.at((raw_map.shape[0], raw_map.shape[1]))
        return np.where(inside, raw_map, np.float32(self.pixel_display.inverse(np.float32(0))))

    def judge(
        self, raw_map: npt.NDArray[np.float32], raw_score: float, record: Record | None = None
    ) -> Prediction:
        """Apply the thresholds to a raw map (H, W) and a raw score."""
        raw_map = self.quieted(raw_map)
        return Prediction(
            score=float(self.score_display(np.float32(raw_score))),
            is_anomalous=raw_score >= self.image.value,
            needs_look=self.look is not None and self.look.value <= raw_score < self.image.value,
            anomaly_map=np.asarray(self.pixel_display(raw_map), np.float32),
            mask=raw_map >= np.float32(self.pixel.value),
            raw_score=raw_score,
            raw_map=raw_map,
            record=record,
        )
