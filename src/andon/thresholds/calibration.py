"""Calibration: thresholds, displayed scale and the good scores behind them; the one place where raw numbers become a verdict.

A detector and the networks exported from it share it. `calibrate_on_good` and `calibrate_on_labelled` compute it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from andon.core.appearance import TrainingImages
from andon.core.errors import DataError
from andon.core.records import Prediction, Record
from andon.core.region import InspectionRegion, inspected_pixels
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.datasets.splits import UNKNOWN_SESSION
from andon.metrics import PixelRanking
from andon.thresholds.display import AffineDisplay, smallest_unit
from andon.thresholds.rules import Threshold, conformal, from_labelled, labelled_f1, with_room

CELLS = 2**16
"""Map values of an image that the displayed scale is computed from; maps with more are thinned evenly."""

LARGEST = float(np.finfo(np.float64).max)
"""Of a threshold; whole numbers in JSON may be larger than any float."""


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
    """`validation`, `cross-fitted in K folds`, or `train` where nothing was held out; with what else chose the thresholds."""
    names: tuple[str, ...] = ()
    """Id of each good image."""
    parts: tuple[str, ...] = ()
    """Part that each shows, where some part has several images."""
    folds: int = 0
    """Folds of the cross-fitting that the scores come from; 0 = no cross-fitting."""
    sessions: tuple[str, ...] = ()
    """Session of each image, where some are known; empty for an image without one."""
    within: tuple[float, ...] = ()
    """Raw score of each by what others, of its own session too, teach; `scores` are then by what other sessions teach."""
    look: Threshold | None = None
    """From here up to `image` a person is to look at the part; None = there is no such band."""
    region: InspectionRegion | None = None
    """Which pixels are looked at; None = all."""
    seen: TrainingImages | None = None
    """What the training images looked like; None where it is not known."""

    @property
    def bit_depth(self) -> int:
        """Bits that the values of files with more than 8 bits use."""
        return 16 if self.seen is None else self.seen.bit_depth

    @property
    def too_deep(self) -> str:
        """Why a network file, which takes 8 bits, answers otherwise than the detector; empty where it does not."""
        if self.seen is None or not self.seen.deep:
            return ""
        return "it learned from pictures of more than 8 bits, which a network file rounds to 8"

    def to_json(self) -> dict[str, Any]:
        """Plain data for `detector.json`."""
        area = {} if self.region is None else {"inspected": self.region.to_json()}
        seen = {} if self.seen is None else {"seen": self.seen.to_json()}
        plain = asdict(replace(self, region=None, seen=None))
        del plain["region"], plain["seen"]
        return plain | area | seen

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_json`. Raises `DataError` for thresholds that are no finite numbers, or not 1 on their scale."""
        if said := unusable_threshold(data):
            raise DataError(f"{said}: bring back the original file or fit again")
        for kind, display in (("image", "score_display"), ("pixel", "pixel_display")):
            if data[kind]["value"] != data[display]["threshold"]:
                raise DataError(
                    f"the {kind} threshold is {data[kind]['value']:g} and 1 on the displayed scale is "
                    f"{data[display]['threshold']:g}: bring back the original file or fit again"
                )
        return cls(
            image=Threshold.from_json(data["image"]),
            pixel=Threshold.from_json(data["pixel"]),
            score_display=AffineDisplay(**data["score_display"]),
            pixel_display=AffineDisplay(**data["pixel_display"]),
            scores=tuple(data["scores"]),
            maxima=tuple(data["maxima"]),
            source=data["source"],
            names=tuple(data.get("names", ())),
            parts=tuple(data.get("parts", ())),
            folds=data.get("folds", 0),
            sessions=tuple(data.get("sessions", ())),
            within=tuple(data.get("within", ())),
            look=None if data.get("look") is None else Threshold.from_json(data["look"]),
            region=InspectionRegion.from_json(data["inspected"]) if data.get("inspected") else None,
            seen=TrainingImages.from_json(data["seen"]) if data.get("seen") else None,
        )

    def image_threshold_from(self, chosen: Sequence[int]) -> float | None:
        """Raw image threshold by the scores of the chosen good images alone; None where `image` is not the conformal one."""
        alpha = self.image.parameter
        if self.image.rule != "conformal" or alpha is None:
            return None
        scores = [self.scores[k] for k in chosen]
        parts = [self.parts[k] for k in chosen] if self.parts else ()
        return good_threshold(
            scores, alpha, on_small="max", parts=parts, folds=self.folds, least=self.score_display.floor
        ).value

    def with_thresholds(self, image: Threshold, pixel: Threshold, look: Threshold | None) -> Calibration:
        """With other thresholds, which are 1 on the displayed scales from now on; 0 stays the typical good image and pixel."""
        return replace(
            self,
            image=image,
            pixel=pixel,
            look=look,
            score_display=replace(self.score_display, threshold=image.value),
            pixel_display=replace(self.pixel_display, threshold=pixel.value),
        )

    def quieted(self, raw_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(H, W) with the value of a typical good pixel, displayed as 0, where the image is not inspected."""
        if self.region is None:
            return raw_map
        inside = self.region.at((raw_map.shape[0], raw_map.shape[1]))
        return np.where(inside, raw_map, np.float32(self.pixel_display.inverse(np.float32(0))))

    def judge(
        self,
        raw_map: npt.NDArray[np.float32],
        raw_score: float,
        record: Record | None = None,
        error: str = "",
    ) -> Prediction:
        """Apply the thresholds to a raw map (H, W) and a raw score.

        The verdict is `ERROR` where the score, a threshold, or the map where it is inspected, holds a value that is NaN or
        infinite. `error` is a reason known before.
        """
        raw_map = self.quieted(raw_map)
        error = error or not_finite(raw_map, raw_score) or self._unusable()
        return Prediction(
            score=float(self.score_display(raw_score)),
            is_anomalous=bool(error) or not raw_score < self.image.value,
            needs_look=not error
            and self.look is not None
            and self.look.value <= raw_score < self.image.value,
            anomaly_map=np.asarray(self.pixel_display(raw_map), np.float32),
            mask=raw_map >= np.float32(self.pixel.value),
            raw_score=raw_score,
            raw_map=raw_map,
            record=record,
            error=error,
        )

    def _unusable(self) -> str:
        look = () if self.look is None else (("look", self.look.value),)
        return _not_real((("image", self.image.value), ("pixel", self.pixel.value), *look))


def not_finite(raw_map: npt.NDArray[np.float32], raw_score: float) -> str:
    """Which value is NaN or infinite, so that no verdict follows; empty where all are finite."""
    if not np.isfinite(raw_score):
        return f"the score is {raw_score}, not a finite number"
    count = int(raw_map.size - np.count_nonzero(np.isfinite(raw_map)))
    return (
        f"the anomaly map holds {count} of {raw_map.size} values that are no finite numbers" if count else ""
    )


def unusable_threshold(data: Mapping[str, Any]) -> str:
    """Which threshold is no finite real number; empty where all are. Only `look` may be missing, or None."""
    names = ("image", "pixel") if data.get("look") is None else ("image", "pixel", "look")
    return _not_real((name, None if data[name] is None else data[name]["value"]) for name in names)


def _not_real(thresholds: Iterable[tuple[str, Any]]) -> str:
    for name, value in thresholds:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            return f"the {name} threshold is {value}, not a finite number"
    return ""


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


class GoodResults:
    """Raw results of good images that the detector has not learned from, one after another."""

    def __init__(self, *, keep: bool = False) -> None:
        """`keep` keeps the whole results, whose maps `calibrate_on_labelled` needs."""
        self.scores: list[float] = []
        self.maxima: list[float] = []
        self.records: list[Record] = []
        self.kept: list[RawScores] = []
        self.within: dict[str, float] = {}
        """Score of each image, by id, by what others of its own session teach too; set where sessions are kept apart."""
        self._keep = keep
        self._cells: list[npt.NDArray[np.float32]] = []

    def add(self, found: RawScores) -> None:
        """Add the result of one image. Raises `DataError`, which names it, where a value is NaN or infinite."""
        assert found.record is not None
        if error := not_finite(found.raw_map, found.raw_score):
            raise DataError(
                f"{found.record.image}: {error}, so no threshold follows from it: check this picture, or leave it out"
            )
        self.scores.append(found.raw_score)
        self.maxima.append(float(found.raw_map.max()))
        self.records.append(found.record)
        cells = _inspected_cells(found.cells, found.record)
        self._cells.append(cells[:: -(-cells.size // CELLS)].copy())
        if self._keep:
            self.kept.append(found)

    @property
    def cells(self) -> npt.NDArray[np.float32]:
        """Inspected map values of all images, at most `CELLS` evenly spaced ones of each."""
        return np.concatenate(self._cells)

    @property
    def parts(self) -> tuple[str, ...]:
        """Part of each image, where that is known."""
        if not any(record.object_id for record in self.records):
            return ()
        return tuple(record.object_id or record.id for record in self.records)

    @property
    def sessions(self) -> tuple[str, ...]:
        """Session of each image, where some are known."""
        if not any(record.session for record in self.records):
            return ()
        return tuple(record.session or UNKNOWN_SESSION for record in self.records)


class Settings(Protocol):
    """The settings that calibration uses."""

    @property
    def false_reject_rate(self) -> float:
        """Share of good images the threshold may reject."""

    @property
    def few_images(self) -> Literal["max", "error"]:
        """What happens where there are too few images for that rate."""


def calibrate_on_good(settings: Settings, good: GoodResults, *, source: str, folds: int = 0) -> Calibration:
    """Thresholds by the conformal rule on `good` images, at the false-reject rate of the settings.

    `source` says where the images come from, e.g. `validation`; `folds` how many folds they were cross-fitted in. Raises
    `DataError` where no threshold follows from them.
    """
    cells = good.cells
    unit, pixel_unit = smallest_unit(good.scores, cells), smallest_unit(cells)
    image, pixel = (
        good_threshold(
            x,
            settings.false_reject_rate,
            on_small=settings.few_images,
            parts=good.parts,
            folds=folds,
            least=least,
        )
        for x, least in ((good.scores, unit), (good.maxima, pixel_unit))
    )
    return Calibration(
        image=image,
        pixel=pixel,
        score_display=AffineDisplay.fit(good.scores, image.value, unit),
        pixel_display=AffineDisplay.fit(cells, pixel.value, pixel_unit),
        scores=tuple(good.scores),
        maxima=tuple(good.maxima),
        source=source,
        names=tuple(record.id for record in good.records),
        parts=good.parts,
        folds=folds,
        sessions=good.sessions,
        within=tuple(good.within[record.id] for record in good.records) if good.within else (),
        region=good.records[-1].region if good.records else None,
    )


def good_threshold(
    scores: Sequence[float],
    alpha: float,
    *,
    on_small: Literal["max", "error"] = "error",
    parts: Sequence[str] = (),
    folds: int = 0,
    least: float = 0.0,
) -> Threshold:
    """`conformal` on float32 scores, `with_room` of at least that of the distance `least`.

    `parts` names the part of each image where some have several.
    """
    found = conformal(
        np.asarray(scores, np.float32), alpha, on_small=on_small, object_ids=parts or None, folds=folds
    )
    return with_room(found, scores, least=least)


def calibrate_on_labelled(
    found: Calibration, good: GoodResults, labelled: Iterable[RawScores]
) -> Calibration:
    """`found` with the thresholds of the best F1 on `good` and `labelled` images; without masks the pixel threshold stays."""
    scores, ranking, count = [*found.scores], PixelRanking(), 0
    for raw in chain(good.kept, labelled):
        assert raw.record is not None
        record, truth = raw.record, load_ground_truth(raw.record, raw.size)
        if record.label == 1:
            scores.append(raw.raw_score)
            count += 1
        if has_pixel_truth(record, truth):
            inside = inspected_pixels(record, raw.size)
            ranking.add(raw.raw_map, truth.union, label=record.label or 0, inspected=inside)
    image = labelled_f1(scores, [0] * len(found.scores) + [1] * count)
    marked = ranking.summary().n_pos > 0
    pixel = from_labelled(ranking.f1_max().threshold, len(scores)) if marked else found.pixel
    return replace(
        found,
        image=image,
        pixel=pixel,
        score_display=AffineDisplay.fit(found.scores, image.value, found.score_display.floor),
        pixel_display=AffineDisplay.fit(good.cells, pixel.value, found.pixel_display.floor),
        source=f"{found.source} and {count} labelled anomalous pictures",
    )


def _inspected_cells(cells: npt.NDArray[np.float32], record: Record) -> npt.NDArray[np.float32]:
    """(N,) raw values of the cells (h, w) inside the region."""
    return cells.ravel() if record.region is None else record.region.values(cells)
