"""An exported network with its thresholds: predicts as the detector does, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core.errors import DataError
from andon.core.images import as_uint8
from andon.core.tiling import BATCH, Map, Pixels, Tiling, enlarge
from andon.runtime.predictor import Predictor, RawBatch
from andon.runtime.runtimes import Session, open_session
from andon.thresholds.calibration import Calibration

FORMAT = 1
"""Version of the description inside exported networks."""
Image = npt.NDArray[np.uint8]


class Model(Predictor):
    """A network with its thresholds; `predict` and `stream` as those of a detector."""

    batch_size = 1  # files differ in size, and the network takes images of one size at a time
    self_contained = True

    def __init__(
        self,
        session: Session,
        description: Mapping[str, Any],
        where: str = "this model",
        calibration: Calibration | None = None,
    ) -> None:
        """`description` is what `andon export` wrote; `calibration` has the thresholds where they were changed since.

        Raises `DataError` where this andon cannot read the description.
        """
        if description.get("format") != FORMAT:
            raise DataError(
                f"{where} has export format {description.get('format')}, this andon reads {FORMAT}: "
                "export it again, or use the andon that wrote it"
            )
        self.session = session
        self.description = dict(description)
        self.tile_batch = 1 if description.get("batch") == 1 else BATCH
        try:
            exported = Calibration.from_json(description["calibration"])
            self._tiling = Tiling.from_json(description.get("tiles"))
            self._name = str(description["detector"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise DataError(
                f"{where} holds a description that cannot be understood ({said}): bring back the original, or export it again"
            ) from error
        self.calibration = calibration or exported
        self._map_scale = exported.pixel_display

    @property
    def name(self) -> str:
        """The detector's name."""
        return self._name

    @property
    def runtime(self) -> str:
        """What executes the network, with the version."""
        return self.session.name

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut into tiles; None where they are analysed as a whole."""
        return self._tiling

    def prepare(self, pixels: Pixels) -> Image:
        """(H, W, 3) uint8; the network does the rest."""
        return as_uint8(pixels)

    def analyse_prepared(self, prepared: Sequence[Image]) -> RawBatch:
        """Raw maps (B, H, W) and scores of B images of one size; of tiles, maps (B, h, w) at the detector's own grid."""
        found = self.session(prepared[0][None] if len(prepared) == 1 else np.stack(prepared))
        maps = np.asarray(self._map_scale.inverse(found.anomaly_map), np.float32)
        return RawBatch(maps, found.raw_score)

    def enlarge(self, cells: Map, size: tuple[int, int]) -> Map:
        """(H, W): the map blended from tiles enlarged; others have the image's size already."""
        return cells if self.tiling is None else enlarge(cells, size)


def open_model(path: str | Path, runtime: str | None = None, *, threads: int | None = None) -> Model:
    """Open a file made by `andon export` (.onnx, .xml), with the runtime it was made for unless told otherwise.

    Raises `DataError` for a file that is none, `ConfigError` where the runtime is not installed.
    """
    found = open_session(Path(path), runtime, threads=threads)
    return Model(found.session, found.description, str(path))
