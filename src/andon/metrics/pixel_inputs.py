"""What the exact and the binned pixel metrics share: checked maps and masks, annotated regions, and `PixelSummary`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from andon.core.records import Defect
from andon.metrics.counts import OperatingPoint

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int64)
AUPRO_LIMITS = (0.30, 0.05)
"""False positive rates up to which PRO is integrated: MVTec AD, MVTec AD 2."""
AUSPRO_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
"""False positive rates up to which sPRO is integrated; 0.05 is the headline of MVTec LOCO AD."""
Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PixelSummary:
    """All scalar pixel metrics of one subset; undefined values are NaN."""

    n_pos: int
    """Anomalous pixels."""
    n_neg: int
    """All other evaluated pixels, of good and of anomalous images."""
    n_regions: int
    """8-connected components of the masks."""
    n_left_out: int
    """Anomalous images without a mask, which are not evaluated."""
    auroc: float
    average_precision: float
    f1_max: OperatingPoint
    aupro: dict[float, float]
    """FPR limit -> AUPRO, normalised by the limit."""
    n_channels: int = 0
    """Annotated defects with a saturation area."""
    auspro: dict[float, float] = field(default_factory=dict)
    """FPR limit -> AU-sPRO, normalised by the limit; empty where no image has channels (annotated defects)."""
    bounds: dict[str, float] = field(default_factory=dict)
    """Largest possible error of `auroc`, `average_precision`, `f1_max`, `aupro_L` and `auspro_L`; empty where exact."""


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image whose map, mask and label are consistent."""

    scores: Map
    """(H, W)."""
    mask: Mask | None
    """(H, W); None where no pixel is annotated."""
    others: Map
    """(N,) scores of the inspected pixels outside the mask: the negatives."""
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Channel:
    """What AU-sPRO needs of one annotated defect, a channel of the ground truth of MVTec LOCO AD."""

    name: str
    saturation: int
    """S, the number of found pixels from which on the defect counts as fully found."""
    highest: Map
    """(S,) its highest scores; the others do not enter AU-sPRO."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_AnyChannel = TypeVar("_AnyChannel", bound=_Named)


def chosen_channels(channels: Sequence[_AnyChannel], tag: str | None) -> Sequence[_AnyChannel]:
    """The channels of a subset; if `tag` is the name of a defect, its channels alone."""
    return [channel for channel in channels if channel.name == tag] or channels


def checked_image(
    anomaly_map: npt.NDArray[np.floating],
    mask: Mask,
    label: int,
    tags: Collection[str],
    channels: Sequence[Defect],
    name: str,
    inspected: Mask | None = None,
) -> CheckedImage:
    """The arguments of `PixelRanking.add`, converted. Raises ValueError where they contradict each other."""
    who = name or "picture"
    mask = np.asarray(mask, dtype=np.bool_)
    if mask.shape != anomaly_map.shape or mask.ndim != 2:
        raise ValueError(
            f"{who}: map {anomaly_map.shape} and mask {mask.shape} must both be (H, W) of one size; "
            "resize the map to the mask"
        )
    if label not in (0, 1):
        raise ValueError(
            f"{who}: label is {label}; it must be 0 = good or 1 = anomalous, leave unknown ones out"
        )
    scores = np.asarray(anomaly_map, dtype=np.float32)
    if np.isnan(scores).any():
        raise ValueError(
            f"{who}: the anomaly map holds NaN, which cannot be ranked; check the detector on it"
        )
    anomalous = bool(mask.any())
    if anomalous and label == 0:
        raise ValueError(
            f"{who}: labelled good but its mask marks {np.count_nonzero(mask)} px; correct one of them"
        )
    for region in channels:
        if region.mask.shape != mask.shape or (region.mask & ~mask).any():
            raise ValueError(
                f"{who}: the channel {region.defect_name!r} marks pixels outside the mask; give the union "
                "of all channels as mask"
            )
    return CheckedImage(
        scores,
        mask if anomalous else None,
        scores[_others(mask, inspected, who)],
        tag_set(tags) if label else frozenset(),
    )


def _others(mask: Mask, inspected: Mask | None, who: str) -> Mask:
    """(H, W) inspected pixels outside the mask."""
    if inspected is None:
        return ~mask
    if inspected.shape != mask.shape or (mask & ~inspected).any():
        raise ValueError(
            f"{who}: the mask marks pixels that are not inspected, or has another size; leave them out of it"
        )
    return inspected & ~mask


def highest_scores(scores: Map, defect: Defect) -> Map:
    """(S,) highest scores on a defect, S its saturation area; all scores where it has fewer pixels."""
    own = scores[defect.mask]
    if defect.saturation_area < own.size:
        own = np.partition(own, own.size - defect.saturation_area)[own.size - defect.saturation_area :]
    return own


def region_sizes(mask: Mask) -> tuple[npt.NDArray[np.int64], int]:
    """(P,) size of the 8-connected region of each pixel of the mask, and the number of regions."""
    from scipy import ndimage  # takes long to import, and answers do without

    components, n_regions = ndimage.label(mask, EIGHT_NEIGHBOURS)
    region_of_pixel = components[mask]
    return np.bincount(region_of_pixel)[region_of_pixel], int(n_regions)


def check_limits(limits: Sequence[float]) -> None:
    """Raises ValueError unless all limits are false positive rates in (0, 1]."""
    for limit in limits:
        if not 0 < limit <= 1:
            raise ValueError(f"limit {limit} is no false positive rate in (0, 1]; the usual one is 0.3")


def tag_set(tags: Collection[str]) -> frozenset[str]:
    """The tags as a set; a bare string is one tag, not its letters."""
    return frozenset([tags] if isinstance(tags, str) else tags)
