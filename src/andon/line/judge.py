"""From an image to a judgement, with a packed model and without PyTorch.

    judge = Judge(Path("part.andon"))
    judge.self_check()                                   # before the first part
    judge.judge(image_bytes, judge.thresholds).verdict

A judgement is never an exception: whatever goes wrong with an image is the verdict ERROR with its cause.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from andon.core.appearance import TrainingImages, measure
from andon.core.errors import ConfigError, DataError
from andon.core.files import file_sha256
from andon.core.image_files import REMEDY, decode
from andon.core.images import as_uint8
from andon.core.records import Note, Prediction
from andon.exporting.packed import Packed, read_pack
from andon.line.verdicts import Cause, Region, Verdict
from andon.runtime import Model
from andon.runtime.predictor import Unreadable
from andon.thresholds.evidence import Evidence, line_thresholds

LOG = logging.getLogger(__name__)
Pixels = npt.NDArray[np.uint8]

MOST_REGIONS = 32
"""Regions of a part that are kept, the largest ones."""
MAP_SIDE = 512
"""Longest side of a stored map; each of its pixels is the largest value of a block."""
NEIGHBOURS = np.ones((3, 3), np.int64)
"""Pixels that touch at a corner belong to one region."""
MEMORY = Path("/dev/shm")
"""Where an image is unpacked for its decoder, so that a full disk does not keep parts from being judged."""
SUFFIXES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"RIFF": ".webp",
}


class Thresholds(NamedTuple):
    """Two thresholds on the displayed scale, where 1.0 is the threshold of the packed model."""

    accept: float
    """OK below."""
    reject: float
    """NG at or above; REVIEW in between."""
    version: int | None = None
    """Id of the stored version; None: those of the packed model or of the settings."""

    def verdict(self, score: float) -> Verdict:
        """Verdict on a finite score; ERROR for any other."""
        if not np.isfinite(score):
            return Verdict.ERROR
        if score >= self.reject:
            return Verdict.NG
        return Verdict.OK if score < self.accept else Verdict.REVIEW


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found on one image."""

    verdict: Verdict
    score_raw: float | None = None
    score: float | None = None
    """Displayed scale, 1.0 = threshold of the packed model; None for ERROR."""
    regions: tuple[Region, ...] = ()
    """Where the map reaches the pixel threshold, largest first, at most `MOST_REGIONS`."""
    map: bytes | None = None
    """PNG of 8 bits, 0 to 255 is 0 to 2 x threshold; sides at most `MAP_SIDE`."""
    cause: Cause | None = None
    """Why the verdict is ERROR; None for every other."""
    why: str = ""
    """The cause in words, for the log and the sender."""
    pixels: Pixels | None = field(default=None, compare=False, repr=False)
    """The decoded image (H, W, 3) or (H, W), for those who measure it."""
    notes: tuple[Note, ...] = ()
    """How the image is unlike the training images."""
    ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each stage: `decode`, `network`, `post-processing`, `map`, and their sum `judge`."""

    @classmethod
    def failed(cls, cause: Cause, why: str, ms: Mapping[str, float] | None = None) -> Judgement:
        """ERROR."""
        return cls(Verdict.ERROR, cause=cause, why=why, ms=ms or {})


class Judging(Protocol):
    """What a station needs of a judge."""

    name: str
    sha256: str
    evidence: Evidence
    """Scores of known images behind the thresholds; empty where the packed file holds none."""
    images: Mapping[str, bytes]
    """PNG of the known images that the packed file holds, by name."""

    @property
    def thresholds(self) -> Thresholds:
        """Those of the packed model."""

    def self_check(self) -> None:
        """Raises `AndonError` where this machine does not answer as the one that packed the model."""

    def judge(self, image: bytes | Pixels, thresholds: Thresholds) -> Judgement:
        """Never raises for what is wrong with an image."""


class Judge:
    """A packed model that judges images. One thread at a time."""

    def __init__(self, pack: Path, *, threads: int | None = None) -> None:
        """`threads`: processor cores of the network, by default all.

        Raises `DataError` for a file that is no whole packed model or holds no network, `ConfigError` without ONNX Runtime.
        """
        packed = read_pack(pack)
        self.sha256 = file_sha256(pack)
        opened = packed.open("onnx", threads=threads)
        assert isinstance(opened, Model)
        if opened.needs_points:
            raise ConfigError(
                f"{pack} needs point clouds, which a line does not take: give a model of images"
            )
        self._model = opened
        self.name = pack.stem
        found = opened.fitted()
        self._score, self._pixel = found.score_display, found.pixel_display
        self._seen = seen_by(packed, opened)
        self.evidence = Evidence.of(found, packed.tests())
        self.images: Mapping[str, bytes] = {
            check.origin: packed.members[check.file] for check in packed.checks()
        }
        checks = {name: content for name, content in packed.members.items() if name.startswith("checks")}
        self._packed = replace(packed, members=checks)  # the rest is in the network

    @property
    def thresholds(self) -> Thresholds:
        """Those of the packed model, with its band in which a person decides where it has one."""
        return Thresholds(*line_thresholds(self._model.fitted()))

    def self_check(self) -> None:
        """Score the check images of the file. Raises `ProofError` where they do not come out as where it was made."""
        self._packed.prove(self._model)

    def judge(self, image: bytes | Pixels, thresholds: Thresholds) -> Judgement:
        """Judge an encoded image, or pixels (H, W, 3) or (H, W). ERROR with a cause for all that cannot be judged."""
        watch = Stopwatch()
        try:
            judgement = self._judge(image, thresholds, watch)
        except Exception as error:
            LOG.exception("a part could not be judged")
            judgement = Judgement.failed(Cause.JUDGE_FAILED, f"{type(error).__name__}: {error}")
        return replace(judgement, ms=watch.total())

    def _judge(self, image: bytes | Pixels, thresholds: Thresholds, watch: Stopwatch) -> Judgement:
        try:
            depth = self._model.fitted().bit_depth
            pixels = as_uint8(decoded(image, depth, eight_bits=True)) if isinstance(image, bytes) else image
        except DataError as error:
            return Judgement.failed(Cause.NOT_AN_IMAGE, str(error))
        form = self._seen.form_differences(pixels.shape[1], pixels.shape[0])
        if self._model.tiling is None and form:
            return Judgement.failed(Cause.IMAGE_DIFFERS, form[0].text)
        outcome = next(iter(self._model.outcomes([pixels], ahead=0, mark=watch)))
        if isinstance(outcome, Unreadable):
            return Judgement.failed(Cause.IMAGE_DIFFERS, str(outcome.error))
        found = self._model.judge(outcome)
        if found.error:
            return Judgement.failed(Cause.NOT_FINITE, found.error)
        judgement = self._judgement(found, thresholds)
        watch("post-processing")
        drawn = map_png(self._pixel(reduced(found.raw_map)))
        watch("map")
        return replace(judgement, map=drawn, pixels=pixels, notes=outcome.notes)

    def _judgement(self, found: Prediction, thresholds: Thresholds) -> Judgement:
        score = float(self._score(np.float64(found.raw_score)))
        # Rounding of the displayed scale must not move a part over the threshold of the packed model.
        score = max(score, 1.0) if found.is_anomalous else min(score, float(np.nextafter(1.0, 0.0)))
        return Judgement(
            thresholds.verdict(score),
            score_raw=found.raw_score,
            score=score,
            regions=tuple(
                region._replace(peak=float(self._pixel(np.float32(region.peak))))
                for region in regions(found.mask, found.raw_map)
            ),
        )


class Stopwatch:
    """Milliseconds of the stages of one judgement: called with the name of each at its end."""

    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()
        self._ms: dict[str, float] = {}

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        self._ms[stage] = self._ms.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    def total(self) -> dict[str, float]:
        """All stages, and the time since the beginning as `judge`."""
        return {**self._ms, "judge": (time.perf_counter() - self._begin) * 1e3}


def seen_by(packed: Packed, model: Model) -> TrainingImages:
    """What `fit` saw; of a file that does not say so, its check images stand for that. Raises `DataError`."""
    if (seen := model.fitted().seen) is not None:
        return seen
    return TrainingImages.of([measure(packed.image(check), 8) for check in packed.checks()])


def decoded(
    image: bytes, bit_depth: int = 16, *, eight_bits: bool = False
) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """(H, W, 3) of an encoded image, with the options and results of `core.image_files.decode`. Raises `DataError`."""
    with _unpacked(image) as path:
        try:
            return decode(path, bit_depth=bit_depth, eight_bits=eight_bits).pixels
        except DataError as error:
            said = str(error).replace(REMEDY, "send a whole image").replace(str(path), "the image")
            raise DataError(said) from None


@contextlib.contextmanager
def _unpacked(image: bytes) -> Iterator[Path]:
    """A file in memory that holds the image; decoders know it by path and suffix."""
    folder = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.NamedTemporaryFile(prefix="andon-", suffix=suffix_of(image), dir=folder) as file:
        file.write(image)
        file.flush()
        yield Path(file.name)


def suffix_of(image: bytes) -> str:
    """Suffix of the format by its first bytes; `.bin` for an unknown one."""
    return next((suffix for begin, suffix in SUFFIXES.items() if image.startswith(begin)), ".bin")


def regions(mask: npt.NDArray[np.bool_], anomaly_map: npt.NDArray[np.floating]) -> tuple[Region, ...]:
    """Boxes around the connected parts of a mask (H, W), largest area first, with the highest value of the map (H, W) in each."""
    if not mask.any():
        return ()
    labels, count = ndimage.label(mask, NEIGHBOURS)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    found = []
    for k in np.argsort(-areas, kind="stable")[:MOST_REGIONS]:
        rows, columns = boxes[k]
        peak = float(anomaly_map[rows, columns][labels[rows, columns] == k + 1].max())
        found.append(
            Region(
                int(columns.start),
                int(rows.start),
                int(columns.stop - columns.start),
                int(rows.stop - rows.start),
                peak,
            )
        )
    return tuple(found)


def reduced(anomaly_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The map with sides of at most `MAP_SIDE`: the largest value of each square block."""
    step = -(-max(anomaly_map.shape) // MAP_SIDE)
    if step <= 1:
        return anomaly_map
    padded = np.pad(anomaly_map, [(0, -side % step) for side in anomaly_map.shape], mode="edge")
    rows = reduce(np.maximum, (padded[k::step] for k in range(step)))
    return reduce(np.maximum, (rows[:, k::step] for k in range(step)))


def map_png(anomaly_map: npt.ArrayLike) -> bytes:
    """A displayed map (h, w) as PNG of 8 bits: 0 to 255 is 0 to 2 x threshold, the same for all parts."""
    grey = np.round(np.clip(np.asarray(anomaly_map, np.float32), 0.0, 2.0) * np.float32(127.5))
    stream = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
