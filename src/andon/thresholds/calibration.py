"""Calibration: thresholds, displayed scale and the good scores behind them; the one place where raw numbers become a verdict.

A detector and the networks exported from it share it. `calibrate_on_good` and `calibrate_on_labelled` compute it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from andon.core.records import Prediction, Record
from andon.core.region import InspectionRegion, inspected_pixels
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.metrics import PixelRanking
from andon.thresholds.display import AffineDisplay
from andon.thresholds.rules import Threshold, conformal, from_labelled, labelled_f1, with_room


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


class RawScores(Protocol):
    """Raw results of one image."""

    @property
    def record(self) -> Record | None:
        """The image."""

    @property
    def raw_score(self) -> float:
        """Image score."""

    @property
    def raw_map(self) -> npt.NDArray[np.float32]:
        """(H, W) map at the image's own size."""

    @property
    def cells(self) -> npt.NDArray[np.float32]:
        """(h, w) map at the detector's grid."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""


class Scans(Protocol):
    """What calibration needs of a detector."""

    config: Any
    """Settings, of which `false_reject_rate` and `few_images` are used."""

    def scan(self, records: Sequence[Record]) -> Iterator[RawScores]:
        """Raw results of the images, in order."""


def calibrate_on_good(detector: Scans, good: Sequence[Record], *, source: str) -> Calibration:
    """Thresholds by the conformal rule on held-out `good` images, at the false-reject rate that `detector` is set to.

    `source` says where the images come from, e.g. `validation`. Raises `DataError` where no threshold follows from them.
    """
    scores: list[float] = []
    maxima: list[float] = []
    cells: list[npt.NDArray[np.float32]] = []
    for found in detector.scan(good):
        assert found.record is not None
        scores.append(found.raw_score)
        maxima.append(float(found.raw_map.max()))
        cells.append(_inspected_cells(found.cells, found.record))
        region = found.record.region
    alpha, on_small, parts = detector.config.false_reject_rate, detector.config.few_images, _parts(good)
    image, pixel = (
        with_room(conformal(np.asarray(x, np.float32), alpha, on_small=on_small, object_ids=parts), x)
        for x in (scores, maxima)
    )
    return Calibration(
        image=image,
        pixel=pixel,
        score_display=AffineDisplay.fit(scores, image.value),
        pixel_display=AffineDisplay.fit(np.concatenate(cells), pixel.value),
        scores=tuple(scores),
        maxima=tuple(maxima),
        source=source,
        region=region,
    )


def calibrate_on_labelled(
    detector: Scans, found: Calibration, good: Sequence[Record], labelled: Sequence[Record]
) -> Calibration:
    """`found` with the thresholds of the best F1 on `good` and `labelled` images; without masks the pixel threshold stays."""
    scores, ranking = [*found.scores], PixelRanking()
    cells: list[npt.NDArray[np.float32]] = []
    for raw in detector.scan([*good, *labelled]):
        assert raw.record is not None
        record, truth = raw.record, load_ground_truth(raw.record, raw.size)
        if record.label == 1:
            scores.append(raw.raw_score)
        else:
            cells.append(_inspected_cells(raw.cells, record))
        if has_pixel_truth(record, truth):
            inside = inspected_pixels(record, raw.size)
            ranking.add(raw.raw_map, truth.union, label=record.label or 0, inspected=inside)
    image = labelled_f1(scores, [0] * len(good) + [1] * len(labelled))
    marked = ranking.summary().n_pos > 0
    pixel = from_labelled(ranking.f1_max().threshold, len(scores)) if marked else found.pixel
    return replace(
        found,
        image=image,
        pixel=pixel,
        score_display=AffineDisplay.fit(found.scores, image.value),
        pixel_display=AffineDisplay.fit(np.concatenate(cells), pixel.value),
        source=f"{found.source} and {len(labelled)} labelled anomalous pictures",
    )


def _inspected_cells(cells: npt.NDArray[np.float32], record: Record) -> npt.NDArray[np.float32]:
    """(N,) raw values of the cells (h, w) inside the region."""
    return cells.ravel() if record.region is None else record.region.values(cells)


def _parts(records: Sequence[Record]) -> list[str] | None:
    """Part of each image, where that is known."""
    if not any(record.object_id for record in records):
        return None
    return [record.object_id or record.id for record in records]
