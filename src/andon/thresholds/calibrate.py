"""Sets a detector's thresholds: from good images that were not learned from, and from labelled anomalous ones if asked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from andon.core.records import Record
from andon.core.region import inspected_pixels
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.metrics import PixelRanking
from andon.thresholds.calibration import Calibration
from andon.thresholds.display import AffineDisplay
from andon.thresholds.rules import conformal, from_labelled, labelled_f1, with_room

if TYPE_CHECKING:
    from andon.detectors._base import Detector


def good_limits(detector: Detector, good: Sequence[Record], *, source: str) -> Calibration:
    """Thresholds by the conformal rule on `good` images, at the detector's false-reject rate."""
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


def labelled_limits(
    detector: Detector, found: Calibration, good: Sequence[Record], labelled: Sequence[Record]
) -> Calibration:
    """`found` with thresholds of the best F1; that of the pixels stays where no labelled image has a mask."""
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
    """(N,) raw values of the cells (h, w) that are inspected."""
    return cells.ravel() if record.region is None else record.region.values(cells)


def _parts(records: Sequence[Record]) -> list[str] | None:
    """Parts the images belong to, where that is known."""
    if not any(record.object_id for record in records):
        return None
    return [record.object_id or record.id for record in records]
