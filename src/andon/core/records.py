"""The nouns of andon: what is read from disk, what flows through a detector, what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from andon.core.region import InspectionRegion

Split = Literal["train", "validation", "test"]
Group = Literal["good", "structural", "logical", "anomalous", "unknown"]
MaskKind = Literal["none", "single", "channels", "classes", "soft"]
"""A file of 0 and one other value; a file per defect; values that number the kinds of defect (any but 0 is anomalous);
grey edges, anomalous above 127."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image on disk with everything that is known about it; no pixels."""

    image: Path
    """File of the image."""
    id: str
    """POSIX path relative to the data root, without suffix; unique, the key of reports."""
    category: str = ""
    """Product or texture, e.g. `bottle`."""
    split: Split = "test"
    """`train` (good), `validation` (held-out good) or `test`."""
    label: int | None = None
    """1 anomalous, 0 good, None unknown."""
    defect_type: str = ""
    """`good`, the folder name of the defect, or empty when unknown."""
    group: Group = "unknown"
    """`logical` and `structural` where the data set tells them apart."""
    masks: tuple[Path, ...] = ()
    """Ground-truth files; several where each holds one defect (channels)."""
    mask_kind: MaskKind = "none"
    """How `masks` is to be read."""
    object_id: str | None = None
    """Images of one part share it."""
    depth: Path | None = None
    """File of the organised point cloud (H x W x 3, metres) taken with the image, where there is one."""
    metadata: dict[str, str] = field(default_factory=dict, compare=False, hash=False)
    """Further columns of a manifest."""
    region: InspectionRegion | None = field(default=None, compare=False, hash=False, repr=False)
    """Which pixels are inspected; None = all. Detectors set it on the records they are given."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One annotated defect of an image."""

    mask: npt.NDArray[np.bool_]
    """(H, W)."""
    defect_name: str
    pixel_value: int
    """Value in the mask file."""
    saturation_area: int
    """Pixels after which the defect counts as fully found (sPRO); the area itself where nothing else is stated."""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """All annotated defects of one image; none for a good one."""

    defects: tuple[Defect, ...]
    shape: tuple[int, int]
    """(H, W) of the image."""

    @property
    def union(self) -> npt.NDArray[np.bool_]:
        """(H, W), True where any defect is."""
        out = np.zeros(self.shape, dtype=np.bool_)
        for defect in self.defects:
            out |= defect.mask
        return out


@dataclass(slots=True)
class Batch:
    """Images on their way through a detector."""

    image: Tensor
    """(B, 3, H, W) float32 in [0, 1]; further channels follow for detectors that look at depth. Empty for an image in tiles."""
    records: tuple[Record, ...]
    sizes: tuple[tuple[int, int], ...]
    """Original (H, W) of each image, before resizing."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a detector says about one image.

    Scores are affine maps of the raw ones: 0 = a typical good image, 1 = the threshold. Higher is more anomalous.
    """

    score: float
    """Image score; anomalous from 1 on."""
    is_anomalous: bool
    """`raw_score >= threshold`."""
    anomaly_map: npt.NDArray[np.float32]
    """(H, W) at the image's own size; 0 = a typical good pixel, 1 = the pixel threshold."""
    mask: npt.NDArray[np.bool_]
    """(H, W), True where the raw map reaches the pixel threshold."""
    raw_score: float
    """As the detector computed it."""
    raw_map: npt.NDArray[np.float32]
    """(H, W), as the detector computed it."""
    record: Record | None = None
    needs_look: bool = False
    """Whether the score lies in the band, set by `andon limit --look`, in which a person decides."""

    @property
    def verdict(self) -> str:
        """`OK`, `look` or `NG`."""
        return "NG" if self.is_anomalous else "look" if self.needs_look else "OK"
