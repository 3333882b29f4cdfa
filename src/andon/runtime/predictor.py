"""From an image to a verdict: the one path, for detectors and for exported networks. NumPy only.

    decode -> resize -> network -> enlarge the map to the image's size -> apply the thresholds

`Predictor.outcomes` is that path up to the raw map and score, `stream` applies the thresholds. Files, arrays, batches, tiles,
archives, evaluation and latency all pass here. What differs between a detector (PyTorch) and an exported network is in
the methods that a subclass defines.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
from PIL.Image import Image as PillowImage

from andon.core.appearance import measure
from andon.core.errors import DataError, NotFittedError
from andon.core.image_files import point_cloud_beside
from andon.core.images import AHEAD, as_uint8, chunks, inspected_points, prefetch, read_decoded
from andon.core.records import Note, Prediction, Record
from andon.core.region import InspectionRegion
from andon.core.tiling import BATCH, Map, Pixels, Tiling, analyse_in_tiles
from andon.runtime.arrays import as_pixels
from andon.thresholds.calibration import Calibration, not_finite

Image = str | Path | Record | PillowImage | npt.NDArray[np.uint8] | npt.NDArray[np.floating[Any]]
"""A file, by its path or record, an opened image, or pixels (H, W, C) or (H, W)."""
Mark = Callable[[str], None]
"""Stage timer: called with `decode`, `resize`, `network`, `post-processing` at the end of each."""


def _no_mark(stage: str) -> None:
    """Measure nothing."""


class RawBatch(NamedTuple):
    """What a network computes for B images, as NumPy arrays."""

    maps: npt.NDArray[np.float32]
    """(B, h, w) raw anomaly maps at the network's own grid."""
    scores: npt.NDArray[np.float32]
    """(B,) raw scores."""
    extras: Mapping[str, npt.NDArray[np.float32]] = {}
    """Further image scores (B,) by name."""


@dataclass(frozen=True, slots=True)
class RawPrediction:
    """What a network computes for one image, before any threshold."""

    record: Record | None
    """With the region that is inspected; None for an array."""
    raw_score: float
    raw_map: Map
    """(H, W) at the image's own size; pixels that are not inspected hold the lowest inspected value."""
    cells: Map
    """(h, w): the map at the network's own grid."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """Further image scores by name."""
    image: npt.NDArray[np.uint8] | None = None
    """(H, W, 3) as decoded, where it was asked for."""
    reduction: int = 1
    """Factor by which width and height of the file were divided while decoding."""
    error: str = ""
    """Why there is no verdict: a value of the input, the score or the map is NaN or infinite. Empty otherwise."""
    notes: tuple[Note, ...] = ()
    """How the image is unlike the training images."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.raw_map.shape[0], self.raw_map.shape[1]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image for which there is no prediction."""

    record: Record | None
    error: DataError


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A decoded image, ready for the network."""

    record: Record | None
    region: InspectionRegion | None
    size: tuple[int, int]
    prepared: Any
    """Pixels (H, W, C) for an image in tiles, else what `prepare` made of them."""
    image: npt.NDArray[np.uint8] | None
    reduction: int = 1
    error: str = ""
    """Why no verdict can follow from these pixels."""
    notes: tuple[Note, ...] = ()


class UnlikeTrainingWarning(UserWarning):
    """An image is unlike the training images, so its verdict may be wrong."""


class Predictor(ABC):
    """Predicts images. Base of detectors and of exported networks; what `andon.load` returns is one."""

    calibration: Calibration | None
    """Thresholds, displayed scale and inspected region; None before `fit`."""
    batch_size: int = BATCH
    """Files that pass through the network at a time."""
    tile_batch: int = BATCH
    """Tiles of one image that pass through the network at a time."""
    self_contained: bool = False
    """Whether the network takes images of 8 bits and any size, resizes them, and fills pixels that are not inspected."""
    warned: frozenset[str] = frozenset()
    """Codes of the notes that `stream` has warned of, each once."""

    # What a subclass defines ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> str:
        """The detector's name."""

    @property
    @abstractmethod
    def tiling(self) -> Tiling | None:
        """How images are cut into tiles; None where they are analysed as a whole."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """What executes the network: torch, onnx or openvino, with the version."""

    @property
    def needs_points(self) -> bool:
        """Whether images have six channels: colours, then the x, y, z of each pixel in metres."""
        return False

    @abstractmethod
    def prepare(self, pixels: Pixels) -> Any:
        """One decoded image or tile (H, W, C), uint8 or float32 in [0, 1], as `analyse_prepared` takes it. Runs in threads."""

    @abstractmethod
    def analyse_prepared(self, prepared: Sequence[Any]) -> RawBatch:
        """Raw maps and scores of some prepared images."""

    @abstractmethod
    def enlarge(self, cells: Map, size: tuple[int, int]) -> Map:
        """Raw map (h, w) to (H, W): bilinear, half-pixel centres."""

    # From image to verdict -----------------------------------------------------------------------------------------

    def fitted(self) -> Calibration:
        """The thresholds. Raises `NotFittedError` before `fit`."""
        if self.calibration is None:
            raise NotFittedError(
                f"this {self.name} has not learned yet: call fit(train, validation) or andon.load(folder) first"
            )
        return self.calibration

    @overload
    def predict(self, images: Image) -> Prediction: ...
    @overload
    def predict(self, images: list[Image] | tuple[Image, ...]) -> list[Prediction]: ...
    def predict(self, images: Image | list[Image] | tuple[Image, ...]) -> Prediction | list[Prediction]:
        """Predict one image, or a list of them.

        An image is a path, a record, a Pillow image, a uint8 array (H, W, 3) or (H, W), or a float array of the same shape with
        values in [0, 1]. Detectors that look at depth take float arrays (H, W, 6): colours, then x, y, z in metres. Exported
        networks round values to 8 bits. Everything else is refused.

        The verdict is `ERROR`, with the reason in `error`, where a value of the input, the map or the score is NaN or infinite.
        How an image is unlike the training images is in `notes`, with an `UnlikeTrainingWarning`, once for each code. Raises
        `NotFittedError` before `fit`, `DataError` for what is no image or cannot be read.
        """
        if isinstance(images, list | tuple):
            return list(self.stream(images))
        return next(self.stream([images], ahead=0))

    def stream(
        self, images: Iterable[Image], *, ahead: int = AHEAD, mark: Mark = _no_mark
    ) -> Iterator[Prediction]:
        """As `predict` for any number of images, one result at a time; `mark` times stages where `ahead` is 0."""
        for prediction in self.judged(images, ahead=ahead, mark=mark):
            self._warn(prediction)
            yield prediction

    def judged(
        self, images: Iterable[Image], *, ahead: int = AHEAD, mark: Mark = _no_mark
    ) -> Iterator[Prediction]:
        """As `stream`, without warnings: for images that are not a user's question."""
        self.fitted()
        for outcome in self.outcomes(images, ahead=ahead, mark=mark):
            if isinstance(outcome, Unreadable):
                raise outcome.error
            prediction = self.judge(outcome)
            mark("post-processing")
            yield prediction

    def _warn(self, found: Prediction) -> None:
        for note in found.notes:
            if note.code not in self.warned:
                self.warned |= {note.code}
                where = "this picture" if found.record is None else found.record.image
                said = f"{where} is unlike the training pictures ({note.text}): its verdict may be wrong"
                warnings.warn(said, UnlikeTrainingWarning, stacklevel=3)

    def judge(self, raw: RawPrediction) -> Prediction:
        """Apply the thresholds."""
        found = self.fitted().judge(raw.raw_map, raw.raw_score, raw.record, raw.error)
        return replace(found, notes=raw.notes) if raw.notes else found

    def scan(
        self,
        images: Iterable[Image],
        *,
        batch_size: int | None = None,
        ahead: int = AHEAD,
        mark: Mark = _no_mark,
    ) -> Iterator[RawPrediction]:
        """Raw maps and scores of all images, in order.

        Raises `DataError` for an image that cannot be read, or whose map or score holds a value that is NaN or infinite.
        """
        for outcome in self.outcomes(images, batch_size=batch_size, ahead=ahead, mark=mark):
            if isinstance(outcome, Unreadable):
                raise outcome.error
            if outcome.error:
                where = "this picture" if outcome.record is None else outcome.record.image
                raise DataError(f"{where}: {outcome.error}: check this picture, or leave it out")
            yield outcome

    def outcomes(
        self,
        images: Iterable[Image],
        *,
        batch_size: int | None = None,
        ahead: int = AHEAD,
        keep_images: bool = False,
        reduce: bool = False,
        mark: Mark = _no_mark,
    ) -> Iterator[RawPrediction | Unreadable]:
        """What becomes of each image, in order; each file is decoded once.

        Images are drawn as they are needed. `ahead` batches are decoded by threads while the network works; images in tiles
        come one by one. With `keep_images` results carry the decoded image. With `reduce` a JPEG above the limit of pixels is
        decoded at a fraction of its size, unless images are cut into tiles or have points.
        """
        if self.tiling is not None:
            batch_size, ahead = 1, 0
        may_reduce = reduce and self.tiling is None and not self.needs_points

        def load(chunk: Sequence[Image]) -> list[_Loaded | Unreadable]:
            return [self._load(image, keep_images, may_reduce, mark) for image in chunk]

        for chunk in prefetch(load, chunks(images, batch_size or self.batch_size), ahead):
            found = self._analyse([loaded for loaded in chunk if isinstance(loaded, _Loaded)], mark)
            for loaded in chunk:
                yield loaded if isinstance(loaded, Unreadable) else next(found)

    def _load(self, image: Image, keep_image: bool, reduce: bool, mark: Mark) -> _Loaded | Unreadable:
        record, reduction, region = None, 1, None if self.calibration is None else self.calibration.region
        try:
            if not isinstance(image, str | Path | Record):
                depth = 16 if self.calibration is None else self.calibration.bit_depth
                pixels: Pixels = as_pixels(image, with_points=self.needs_points, bit_depth=depth)
                if self.needs_points:
                    inspected_points(
                        pixels[:, :, 3:].astype(np.float32, copy=False), region, "of this picture"
                    )
                bits = 8 if pixels.dtype == np.uint8 else 0
            else:
                record = self.as_learned(as_record(image))
                region = record.region
                decoded = read_decoded(
                    record, with_points=self.needs_points, reduce=reduce, eight_bits=self.self_contained
                )
                pixels, reduction, bits = decoded.pixels, decoded.reduction, decoded.bits
            fault = _unknown_colours(pixels)
            if fault:
                pixels = np.where(np.isfinite(pixels), pixels, np.float32(0)).astype(np.float32)
            kept = as_uint8(pixels[:, :, :3]) if keep_image else None
            notes = self._notes(pixels, bits, region, reduction)
            prepared = self._prepare(pixels, region, "this picture" if record is None else record.image, mark)
        except DataError as error:
            return Unreadable(record, error)
        except MemoryError:
            where = "this picture" if record is None else record.image
            return Unreadable(
                record, DataError(f"{where} does not fit into the free memory: cut it into tiles")
            )
        size = (pixels.shape[0], pixels.shape[1])
        return _Loaded(record, region, size, prepared, kept, reduction, fault, notes)

    def as_learned(self, record: Record) -> Record:
        """The record with the inspected region and the bit depth that were learned, where they were."""
        if self.calibration is None:
            return record
        region = record.region if self.calibration.region is None else self.calibration.region
        return replace(record, region=region, bit_depth=self.calibration.bit_depth)

    def _notes(
        self, pixels: Pixels, bits: int, region: InspectionRegion | None, reduction: int
    ) -> tuple[Note, ...]:
        """How the image is unlike the training images, where it is known what they looked like."""
        seen = None if self.calibration is None else self.calibration.seen
        if seen is None:
            return ()
        inside = None if region is None else region.resized((pixels.shape[0], pixels.shape[1]))
        return seen.differences(measure(pixels, bits, inside, reduction), tiled=self.tiling is not None)

    def _prepare(self, pixels: Pixels, region: InspectionRegion | None, where: object, mark: Mark) -> Any:
        """Pixels outside the region filled, and, but for an image in tiles, what `prepare` makes of that."""
        size = (pixels.shape[0], pixels.shape[1])
        if region is not None and self.tiling is None and self.self_contained:
            region.at(size, where)  # the network fills, but does not check the proportions
        elif region is not None:
            pixels = region.filled(pixels, where)
        mark("decode")
        if self.tiling is not None:
            self.tiling.check(size, str(where))
            return pixels
        prepared = self.prepare(pixels)
        if not self.self_contained:
            mark("resize")
        return prepared

    def _analyse(self, batch: Sequence[_Loaded], mark: Mark) -> Iterator[RawPrediction]:
        if not batch:
            return
        if self.tiling is None:
            raw = self.analyse_prepared([loaded.prepared for loaded in batch])
        else:
            raw = self._in_tiles(batch[0].prepared, self.tiling, batch[0].region)
        mark("network")
        for k, loaded in enumerate(batch):
            found = self.at_full_size(raw, k, loaded.record, loaded.size, loaded.region, loaded.image)
            # What was computed without the bad values says nothing.
            score = np.nan if loaded.error else found.raw_score
            error = loaded.error or found.error
            yield replace(found, raw_score=score, reduction=loaded.reduction, error=error, notes=loaded.notes)

    def at_full_size(
        self,
        raw: RawBatch,
        k: int,
        record: Record | None,
        size: tuple[int, int],
        region: InspectionRegion | None,
        image: npt.NDArray[np.uint8] | None = None,
    ) -> RawPrediction:
        """Image `k` of the batch, of (H, W) = `size`, with its map enlarged."""
        cells = raw.maps[k]
        raw_map, raw_score = self.enlarge(cells, size), float(raw.scores[k])
        raw_map = raw_map if region is None else region.lowered(raw_map)
        return RawPrediction(
            record=record,
            raw_score=raw_score,
            raw_map=raw_map,
            cells=cells,
            extras={name: float(values[k]) for name, values in raw.extras.items()},
            image=image,
            error=not_finite(raw_map, raw_score),
        )

    def _in_tiles(self, pixels: Pixels, tiling: Tiling, region: InspectionRegion | None) -> RawBatch:
        def maps(tiles: Sequence[Pixels]) -> Map:
            return self.analyse_prepared([self.prepare(tile) for tile in tiles]).maps

        blended = analyse_in_tiles(pixels, tiling, maps, batch=self.tile_batch)
        blended = blended if region is None else region.lowered_cells(blended)
        return RawBatch(blended[None], np.array([tiling.score(blended)], np.float32))


def _unknown_colours(pixels: Pixels) -> str:
    """Why no verdict follows from colours (H, W, 3 or more) that are NaN or infinite; empty where all are finite."""
    if pixels.dtype == np.uint8 or np.isfinite(pixels[:, :, :3]).all():
        return ""
    return "the picture holds values that are NaN or infinite"


def as_record(image: str | Path | Record) -> Record:
    """The record of an image file, with the point cloud beside it where there is one."""
    if isinstance(image, Record):
        return image
    path = Path(image)
    return Record(image=path, id=path.with_suffix("").as_posix(), depth=point_cloud_beside(path))
