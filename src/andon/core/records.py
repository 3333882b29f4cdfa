"""Data passed between modules: records and ground truth, batches, predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from andon.core.region import InspectionRegion

Split = Literal["train", "validation", "test"]
Group = Literal["good", "structural", "logical", "anomalous", "unknown"]
MaskKind = Literal["none", "single", "channels", "classes", "soft"]
"""How mask files are read: `none` are there; `single`: 0 and one other value; `channels`: one file per defect; `classes`: values
number the defect types, all but 0 are anomalous; `soft`: grey edges, anomalous above 127."""


@dataclass(frozen=True, slots=True)
class Record:
    """One image file with its label, masks and metadata; pixels are not loaded."""

    image: Path
    """File of the image."""
    id: str
    """POSIX path relative to the root of the data set, without suffix; unique, the key in reports."""
    category: str = ""
    """Category, e.g. `bottle`."""
    split: Split = "test"
    """`train` (good), `validation` (held-out good) or `test`."""
    label: int | None = None
    """1 anomalous, 0 good, None unknown."""
    defect_type: str = ""
    """`good`, the folder name of the defect, or empty when unknown."""
    group: Group = "unknown"
    """`logical` or `structural` where the data set distinguishes them."""
    masks: tuple[Path, ...] = ()
    """Mask files; several where each holds one defect (`channels`)."""
    mask_kind: MaskKind = "none"
    """How `masks` are read."""
    object_id: str | None = None
    """Equal for all images of one object (product)."""
    session: str | None = None
    """Equal for all images taken together, e.g. on one day; None where it is not known."""
    depth: Path | None = None
    """File of the organised point cloud (H, W, 3) in metres that belongs to the image, None without one."""
    metadata: dict[str, str] = field(default_factory=dict, compare=False, hash=False)
    """Other columns of a manifest."""
    region: InspectionRegion | None = field(default=None, compare=False, hash=False, repr=False)
    """Inspected pixels, None for all. Detectors set it on the records passed to them."""
    bit_depth: int = field(default=16, compare=False, hash=False, repr=False)
    """Bits that the values use where the file has more than 8. Detectors set it on the records passed to them."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One annotated defect of an image."""

    mask: npt.NDArray[np.bool_]
    """(H, W)."""
    defect_name: str
    pixel_value: int
    """Value in the mask file."""
    saturation_area: int
    """Pixels from which the defect counts as completely detected (sPRO); by default its area."""


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
    """Input of a detector."""

    image: Tensor
    """(B, 3, H, W) float32 in [0, 1]; detectors that use depth have further channels. Empty for an image that is tiled."""
    records: tuple[Record, ...]
    sizes: tuple[tuple[int, int], ...]
    """Original (H, W) of each image, before resizing."""


class Note(NamedTuple):
    """How an image is unlike the training images."""

    code: str
    """Short and stable, e.g. `size`."""
    text: str
    """In words, with the values."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Result of a detector for one image.

    `score` and `anomaly_map` are affine functions of the raw values: 0 is typical of good images, 1 is the threshold. Higher is
    more anomalous.
    """

    score: float
    """Image score; the image is anomalous from 1."""
    is_anomalous: bool
    """`raw_score >= threshold`; also True where there is an `error`, so that no part passes by it."""
    anomaly_map: npt.NDArray[np.float32]
    """(H, W) at the original size of the image; 0 is typical of good pixels, 1 is the pixel threshold."""
    mask: npt.NDArray[np.bool_]
    """(H, W), True where the raw map reaches the pixel threshold."""
    raw_score: float
    """Image score before scaling."""
    raw_map: npt.NDArray[np.float32]
    """(H, W), anomaly map before scaling."""
    record: Record | None = None
    needs_look: bool = False
    """Whether the score is in the band between two thresholds in which a person decides."""
    error: str = ""
    """Why there is no verdict: a value on the way to it is NaN or infinite. Empty otherwise."""
    notes: tuple[Note, ...] = ()
    """How the image is unlike the training images; empty where it is like them."""

    @property
    def verdict(self) -> str:
        """`OK`, `look`, `NG`, or `ERROR` where there is an `error`."""
        if self.error:
            return "ERROR"
        return "NG" if self.is_anomalous else "look" if self.needs_look else "OK"
