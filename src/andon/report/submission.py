"""Submission to the benchmark server of MVTec AD 2, whose private test sets have no published labels.

    anomaly_images/<category>/{test_private,test_private_mixed}/<image>.tiff                  float16
    anomaly_images_thresholded/<category>/{test_private,test_private_mixed}/<image>.png       0 and 255

in one .tar.gz, at the images' own size. The server's metrics depend on the order of values within a category alone, so maps
are written on the displayed scale (0 = a typical good pixel, 1 = the pixel threshold), which suits the precision of float16.
The masks mark pixels that reach mean + 3 standard deviations of all pixels of the validation images, as in the paper
(Heckler-Kram et al., arXiv 2503.21622).
"""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.core.files import writing
from andon.core.progress import NoProgress, Progress
from andon.core.records import Record
from andon.datasets.dataset import Dataset

if TYPE_CHECKING:
    from andon.detectors._base import Detector

LAYOUT = "mvtec_ad_2"
DEVIATIONS = 3.0
MAPS, MASKS = "anomaly_images", "anomaly_images_thresholded"


@dataclass(frozen=True, slots=True)
class Submission:
    """A written submission."""

    archive: Path
    images: Mapping[str, int]
    """Number of images by category."""
    thresholds: Mapping[str, float]
    """Raw pixel threshold by category."""


def write_submission(
    detectors: Mapping[str, Detector],
    datasets: Sequence[Dataset],
    archive: Path,
    *,
    progress: Progress | None = None,
) -> Submission:
    """Predicts the private test images of each category with its detector and writes the archive.

    `detectors` by category, each fitted on the training images of its data set alone. Raises `DataError` for a data set
    without private or validation images or without a detector, before anything is computed.
    """
    if not datasets:
        raise DataError("there is nothing to submit: give at least one category of MVTec AD 2")
    asked = {dataset.category: _private(dataset) for dataset in datasets}
    for category in asked:
        if category not in detectors:
            raise DataError(f"no detector was given for {category}: fit one, or leave the category out")
        if detectors[category].fitted().folds:
            raise DataError(
                f"the detector of {category} has learned from the validation pictures, which set the pixel threshold here: "
                "fit it with threshold_scores=held_out"
            )
    thresholds: dict[str, float] = {}
    total = sum(len(dataset.validation) + len(asked[dataset.category]) for dataset in datasets)
    with (
        writing(archive) as part,
        tarfile.open(part, "w:gz", compresslevel=3) as opened,
        (progress or NoProgress()).task("answering", total) as task,
    ):
        for dataset in datasets:
            detector = detectors[dataset.category]
            pixels = PixelMoments()
            for found in detector.scan(dataset.validation):
                pixels.add(found.raw_map)
                task.advance(1, dataset.category)
            threshold = np.float32(pixels.mean + DEVIATIONS * pixels.std)
            thresholds[dataset.category] = float(threshold)
            scale = detector.fitted().pixel_display
            for found in detector.scan(asked[dataset.category]):
                assert found.record is not None
                name, shown = found.record.id, np.asarray(scale(found.raw_map), np.float64)
                _add(opened, f"{MAPS}/{name}.tiff", map_file(shown))
                _add(opened, f"{MASKS}/{name}.png", mask_file(found.raw_map >= threshold))
                task.advance(1, dataset.category)
    return Submission(archive, {category: len(records) for category, records in asked.items()}, thresholds)


class PixelMoments:
    """Running mean and standard deviation (ddof 0) of the pixels of many maps."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """Add the pixels of one map (Chan, Golub and LeVeque's pairwise update)."""
        mean = float(values.mean(dtype=np.float64))
        squares = float(np.square(values.astype(np.float64) - mean).sum())
        count = self.count + values.size
        difference = mean - self.mean
        self._squares += squares + difference**2 * self.count * values.size / count
        self.mean += difference * values.size / count
        self.count = count

    @property
    def std(self) -> float:
        """Standard deviation; NaN without pixels."""
        return math.sqrt(self._squares / self.count) if self.count else math.nan


def map_file(shown: npt.NDArray[np.floating]) -> bytes:
    """Content of an uncompressed float16 TIFF (H, W); values are clipped to the range of float16."""
    import tifffile

    largest = float(np.finfo(np.float16).max)
    buffer = io.BytesIO()
    values = np.clip(shown, -largest, largest).astype(np.float16)
    tifffile.imwrite(buffer, values, photometric="minisblack", metadata=None)
    return buffer.getvalue()


def mask_file(marked: npt.NDArray[np.bool_]) -> bytes:
    """Content of a PNG (H, W), 255 where `marked`."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(marked.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def _private(dataset: Dataset) -> list[Record]:
    records = [record for record in dataset.test if record.label is None]
    if dataset.layout != LAYOUT or not records:
        raise DataError(
            f"{dataset.category} has no pictures in test_private or test_private_mixed: give MVTec AD 2 complete"
        )
    if not dataset.validation:
        raise DataError(f"{dataset.category} has no validation pictures to set a pixel threshold: add them")
    return records


def _add(opened: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(PurePosixPath(name).as_posix())
    info.size = len(content)
    opened.addfile(info, io.BytesIO(content))
