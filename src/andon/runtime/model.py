"""An exported detector that answers as the detector does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.core.image_files import decode
from andon.core.records import Prediction, Record
from andon.core.tiling import BATCH, Map, Pixels, Tiling, enlarge, look
from andon.runtime.sessions import Outputs, Session, open_session
from andon.thresholds.calibration import Calibration

FORMAT = 1
"""Version of the description inside exported networks."""
Image = npt.NDArray[np.uint8]
Picture = str | Path | Record | Image


class Model:
    """A network with its thresholds; `predict` and `stream` as those of a detector."""

    def __init__(self, session: Session, description: Mapping[str, Any], where: str = "this model") -> None:
        """`description` is what `andon export` wrote. Raises `DataError` where this andon cannot read it."""
        if description.get("format") != FORMAT:
            raise DataError(
                f"{where} has export format {description.get('format')}, this andon reads {FORMAT}: "
                "export it again, or use the andon that wrote it"
            )
        self.session = session
        self.description = dict(description)
        self.calibration = Calibration.from_json(description["calibration"])
        self.tiling = Tiling.from_json(description.get("tiles"))
        self.batch = 1 if description.get("batch") == 1 else BATCH

    @property
    def name(self) -> str:
        """The detector's name."""
        return str(self.description["detector"])

    def fitted(self) -> Calibration:
        """The thresholds."""
        return self.calibration

    @overload
    def predict(self, pictures: Picture) -> Prediction: ...
    @overload
    def predict(self, pictures: list[Picture] | tuple[Picture, ...]) -> list[Prediction]: ...
    def predict(self, pictures: Picture | Sequence[Picture]) -> Prediction | list[Prediction]:
        """Answer for one image or several: paths, records, or (H, W, 3) uint8 arrays.

        Raises `DataError` for an image that cannot be read. Files with more than 8 bits are rounded to 8.
        """
        if isinstance(pictures, str | Path | Record | np.ndarray):
            return next(self.stream([pictures]))
        return list(self.stream(pictures))

    def stream(self, pictures: Sequence[Picture]) -> Iterator[Prediction]:
        """As `predict` for many images, one result at a time."""
        for picture in pictures:
            pixels, record = read(picture)
            yield self.answer(pixels, record)

    def answer(self, pixels: Image, record: Record | None = None) -> Prediction:
        """Answer for one decoded image (H, W, 3)."""
        if self.tiling is None:
            return self.judge(self.session(pixels[None]), record)
        where = "this picture" if record is None else str(record.image)
        area = self.calibration.region
        pixels = pixels if area is None else area.filled(pixels, where)
        blended = look(pixels, self.tiling, self._tile_maps, batch=self.batch, where=where)
        whole = enlarge(blended, (pixels.shape[0], pixels.shape[1]))
        return self.calibration.judge(whole, self.tiling.score(blended), record)

    def _tile_maps(self, tiles: Pixels) -> Map:
        found = self.session(np.asarray(tiles, np.uint8)).anomaly_map
        return np.asarray(self.calibration.pixel_display.inverse(found), np.float32)

    def judge(self, found: Outputs, record: Record | None = None) -> Prediction:
        """Apply the thresholds to what the network answered for one image."""
        raw_map = np.asarray(self.calibration.pixel_display.inverse(found.anomaly_map[0]), np.float32)
        return self.calibration.judge(raw_map, float(found.raw_score[0]), record)


def read(picture: Picture) -> tuple[Image, Record | None]:
    """(H, W, 3) pixels of an image, and its record where it is a file."""
    if isinstance(picture, np.ndarray):
        if picture.shape[2:] != (3,) or picture.dtype != np.uint8:
            raise DataError(
                f"a picture must be (H, W, 3) uint8, this one is {picture.shape} {picture.dtype}: convert it"
            )
        return picture, None
    record = (
        picture
        if isinstance(picture, Record)
        else Record(Path(picture), Path(picture).with_suffix("").as_posix())
    )
    return np.round(decode(record.image).pixels * 255).astype(np.uint8), record


def open_model(path: str | Path, runtime: str | None = None, *, threads: int | None = None) -> Model:
    """Open a file made by `andon export` (.onnx, .xml), with the runtime it was made for unless told otherwise.

    Raises `DataError` for a file that is none, `ConfigError` where the runtime is not installed.
    """
    found = open_session(Path(path), runtime, threads=threads)
    return Model(found.session, found.description, str(path))
