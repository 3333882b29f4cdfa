"""Pixel metrics of a whole test set, exact, with every image's map seen once and then forgotten.

Definitions: docs/reference/metrics.md, "Pixel metrics", "AUPRO", "sPRO". All evaluated pixels are pooled, good images included.
AU-PRO is that of the MVTec AD paper (Bergmann et al., IJCV 2021, https://doi.org/10.1007/s11263-020-01400-4, section 5) in
closed form: the area that one positive pixel adds depends only on how many negatives lie above it (`ranking.area_above`), so
AU-PRO, like AUROC, is a weighted sum over the positive pixels. The official code draws the curve instead, with float32 rates;
both agree to about 1e-8.

AU-sPRO, the pixel metric of MVTec LOCO AD (Bergmann et al., IJCV 2022,
https://doi.org/10.1007/s11263-022-01578-9, section 4.3), is the same sum over the S highest scores of each
annotated defect, where S is the number of found pixels from which on it counts as found. The official code
samples the curve; both agree to about 1e-4.

Cost: 4 bytes per negative pixel, 8 per positive one, one in-place sort of the negatives per group of
images. No index of the negatives is ever made. `PixelHistogram` gives the same answers from bins, in memory
that does not grow with the pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.core.errors import nearest
from andon.core.records import Defect
from andon.metrics.counts import Confusion, Curve, OperatingPoint
from andon.metrics.pimo import PIMO_RANGE, Pimo, pimo, rate_curve, recalls_at
from andon.metrics.ranking import CHUNK, Ranking

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
    """FPR limit -> AU-PRO, normalised by the limit."""
    n_channels: int = 0
    """Annotated defects with a saturation area."""
    auspro: dict[float, float] = field(default_factory=dict)
    """FPR limit -> AU-sPRO, normalised by the limit; empty where no defect of any image has a channel."""
    bounds: dict[str, float] = field(default_factory=dict)
    """Largest error of `auroc`, `average_precision`, `f1_max`, `aupro_L` and `auspro_L`; empty where exact."""


class PixelRanking:
    """Collects anomaly maps and masks, image after image, and answers for all of them or for one tag.

    >>> ranking = PixelRanking()
    >>> ranking.add(np.float32([[0.1, 0.2]]), np.array([[False, False]]), label=0)
    >>> ranking.add(np.float32([[0.9, 0.1]]), np.array([[True, False]]), label=1, tags=["scratch"])
    >>> ranking.auroc("scratch")
    1.0
    """

    def __init__(self, chunk: int = CHUNK) -> None:
        """`chunk`: distinct positive scores handled at once; bounds memory, does not change results."""
        self._chunk = chunk
        self._groups: dict[tuple[frozenset[str], int, int], _Group] = {}
        """By tags, label and, for good images, number of pixels: AUPIMO weighs each image the same."""
        self._summaries: dict[tuple[str | None, tuple[float, ...]], PixelSummary] = {}

    def add(
        self,
        anomaly_map: npt.NDArray[np.floating],
        mask: Mask,
        *,
        label: int,
        tags: Collection[str] = (),
        name: str = "",
        channels: Sequence[Defect] = (),
        inspected: Mask | None = None,
    ) -> None:
        """Take in one image; nothing of the arguments is kept.

        `anomaly_map` (H, W) is ranked as float32. `mask` (H, W) is the union of all annotated defects.
        `label` is 0 = good or 1 = anomalous; a good image counts in every subset. `tags` are the subsets an
        anomalous image counts in: its defect types, and `logical` or `structural`. `name` identifies the
        image in messages and in `aupimo`. `channels` are the defects of the image for AU-sPRO, each inside
        the mask; a tag that is the name of a defect selects its channels alone. `inspected` (H, W) are the pixels that
        count, the mask's among them; None = all.

        An anomalous image whose mask is empty is left out and counted, since its defect would pass for
        background. Raises ValueError for NaN, unequal shapes and a good image with a mask.
        """
        image = checked_image(anomaly_map, mask, label, tags, channels, name, inspected)
        n_pixels = image.others.size if label == 0 else 0
        group = self._groups.setdefault((image.tags, label, n_pixels), _Group())
        self._summaries.clear()
        if label == 0:
            group.negatives.extend(image.others)
            group.n_good += 1
        elif image.mask is None:
            group.n_left_out += 1
        else:
            _add_anomalous(group, image, name, channels)

    def merge(self, other: PixelRanking) -> None:
        """Take in the images of another ranking, e.g. that of another process; `other` is left as it was."""
        self._summaries.clear()
        for key, group in other._groups.items():
            self._groups.setdefault(key, _Group()).merge(group)

    @property
    def tags(self) -> list[str]:
        """Names of all subsets seen, sorted."""
        return sorted({tag for tags, *_ in self._groups for tag in tags})

    def summary(self, tag: str | None = None, limits: Sequence[float] = AUPRO_LIMITS) -> PixelSummary:
        """All metrics in one pass: of all images, or of the good ones and those of one tag.

        `limits` are the FPR limits of AU-PRO, in (0, 1]. Summaries are remembered until the next `add`.
        """
        key = (tag, tuple(limits))
        if key not in self._summaries:
            self._summaries[key] = self._summarise(tag, limits)
        return self._summaries[key]

    def auroc(self, tag: str | None = None) -> float:
        """Pixel AUROC; NaN unless there are anomalous and other pixels."""
        return self.summary(tag).auroc

    def average_precision(self, tag: str | None = None) -> float:
        """Pixel average precision; NaN without anomalous pixels."""
        return self.summary(tag).average_precision

    def f1_max(self, tag: str | None = None) -> OperatingPoint:
        """Largest pixel F1 over all thresholds, an oracle since it needs the masks."""
        return self.summary(tag).f1_max

    def aupro(self, limit: float = 0.30, tag: str | None = None) -> float:
        """Area under the per-region overlap up to the FPR `limit`, divided by the limit.

        1 is perfect, a random map gives about limit / 2; NaN without regions or without negatives.
        """
        limits = AUPRO_LIMITS if limit in AUPRO_LIMITS else (limit,)
        return self.summary(tag, limits).aupro[limit]

    def auspro(self, limit: float = 0.05, tag: str | None = None) -> float:
        """Area under the saturated per-region overlap up to the FPR `limit`, divided by it."""
        return self._areas_of_channels(tag, (limit,))[limit]

    @property
    def has_channels(self) -> bool:
        """Whether any defect was given with its saturation area."""
        return any(group.channels for group in self._groups.values())

    def aupimo(
        self,
        tag: str | None = None,
        bounds: tuple[float, float] = PIMO_RANGE,
        *,
        force: bool = False,
    ) -> Pimo:
        """AUPIMO of each anomalous image; `force` gives it where it is too coarse to mean much."""
        groups = self._select(tag)
        good = [(group, n_pixels) for (_, label, n_pixels), group in self._groups.items() if label == 0]
        for group, _ in good:
            group.sort_negatives()
        n_good = sum(group.n_good for group, _ in good)
        curve = rate_curve([(group.negatives.values, n) for group, n in good], n_good, bounds)
        recalls = [
            (name, recalls_at(scores, curve.thresholds))
            for group in groups
            for name, scores in group.positives_by_image()
        ]
        return pimo(curve, n_good, recalls, force=force)

    def confusion(self, threshold: float, tag: str | None = None) -> Confusion:
        """Pixel counts for `score >= threshold`, the threshold rounded to float32, the dtype of the maps."""
        return self._ranking(tag).confusion(threshold)

    def curve(self, tag: str | None = None, points: int = 1000) -> Curve:
        """ROC and precision-recall curve for a figure: exact counts at about `points` thresholds.

        The thresholds are evenly spaced in rank, half of them among the anomalous pixels (even in recall),
        half among the others (even in FPR); with few pixels they are all thresholds there are.
        """
        ranking = self._ranking(tag)
        chosen = [_evenly(ranking.positives, points // 2)]
        for negatives in ranking.negatives:
            share = negatives.size / max(ranking.n_neg, 1)
            chosen.append(_evenly(negatives, max(2, round(share * points / 2))))
        return ranking.curve(np.concatenate(chosen))

    def _summarise(self, tag: str | None, limits: Sequence[float]) -> PixelSummary:
        check_limits(limits)
        groups = self._select(tag)
        summary = self._ranking(tag).summary(limits, self._chunk)
        return PixelSummary(
            n_pos=summary.n_pos,
            n_neg=summary.n_neg,
            n_regions=sum(group.n_regions for group in groups),
            n_left_out=sum(group.n_left_out for group in groups),
            auroc=summary.auroc,
            average_precision=summary.average_precision,
            f1_max=summary.f1_max,
            aupro=summary.weighted_area,
            n_channels=len(self._channels(groups, tag)),
            auspro=self._areas_of_channels(tag, AUSPRO_LIMITS) if self.has_channels else {},
        )

    def _areas_of_channels(self, tag: str | None, limits: Sequence[float]) -> dict[float, float]:
        check_limits(limits)
        groups = self._select(tag)
        for group in groups:
            group.sort_negatives()
        channels = self._channels(groups, tag)
        scores = np.concatenate([np.empty(0, np.float32), *(channel.highest for channel in channels)])
        weights = [np.full(c.highest.size, 1 / (len(channels) * c.saturation)) for c in channels]
        order = np.argsort(scores, kind="stable")
        ranking = Ranking(
            positives=scores[order],
            negatives=[group.negatives.values for group in groups],
            weights=np.concatenate([np.empty(0), *weights])[order],
        )
        return ranking.areas(limits, self._chunk)

    def _channels(self, groups: Sequence[_Group], tag: str | None) -> list[Channel]:
        """Channels of the groups; those of one defect where the tag is the name of one."""
        found = [channel for group in groups for channel in group.channels]
        return [c for c in found if c.name == tag] if any(c.name == tag for c in found) else found

    def _ranking(self, tag: str | None) -> Ranking:
        """Sort what is not sorted yet; the negatives of each group in place, so they are held once."""
        groups = self._select(tag)
        for group in groups:
            group.sort_negatives()
        positives = np.concatenate([np.empty(0, np.float32), *(group.positives.values for group in groups)])
        sizes = np.concatenate([np.empty(0, np.int32), *(group.region_sizes.values for group in groups)])
        order = np.argsort(positives, kind="stable")
        n_regions = sum(group.n_regions for group in groups)
        return Ranking(
            positives=positives[order],
            negatives=[group.negatives.values for group in groups],
            weights=1.0 / (n_regions * sizes[order].astype(np.float64)),
        )

    def _select(self, tag: str | None) -> list[_Group]:
        """Groups of the good images and of the anomalous ones with this tag; of all for None."""
        if tag is not None and tag not in self.tags:
            raise ValueError(f"no picture is tagged {tag!r}; {nearest(tag, self.tags)}")
        return [
            group
            for (tags, label, _), group in self._groups.items()
            if tag is None or not label or tag in tags
        ]


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image whose map, mask and label fit together."""

    scores: Map
    """(H, W)."""
    mask: Mask | None
    """(H, W); None where nothing is marked."""
    others: Map
    """(N,) scores of the inspected pixels that are not marked."""
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Channel:
    """One annotated defect: what AU-sPRO needs of it."""

    name: str
    saturation: int
    """Pixels from which on the defect counts as found."""
    highest: Map
    """(S,) the highest scores on it; the others change nothing."""


def checked_image(
    anomaly_map: npt.NDArray[np.floating],
    mask: Mask,
    label: int,
    tags: Collection[str],
    channels: Sequence[Defect],
    name: str,
    inspected: Mask | None = None,
) -> CheckedImage:
    """The arguments of `add` in their own types, or ValueError that says what does not fit."""
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
    """The S highest scores on a defect, S its saturation area, or all where it has fewer pixels."""
    own = scores[defect.mask]
    if defect.saturation_area < own.size:
        own = np.partition(own, own.size - defect.saturation_area)[own.size - defect.saturation_area :]
    return own


def region_sizes(mask: Mask) -> tuple[npt.NDArray[np.int64], int]:
    """For each marked pixel (P,) the pixels of its 8-connected region, and the number of regions."""
    components, n_regions = ndimage.label(mask, EIGHT_NEIGHBOURS)
    region_of_pixel = components[mask]
    return np.bincount(region_of_pixel)[region_of_pixel], int(n_regions)


def check_limits(limits: Sequence[float]) -> None:
    """Raise ValueError for what is no FPR limit."""
    for limit in limits:
        if not 0 < limit <= 1:
            raise ValueError(f"limit {limit} is no false positive rate in (0, 1]; the usual one is 0.3")


def tag_set(tags: Collection[str]) -> frozenset[str]:
    """The tags as a set; a bare string is one tag, not its letters."""
    return frozenset([tags] if isinstance(tags, str) else tags)


class _Buffer:
    """Values appended to one array that grows by an eighth, so that a large test set is not held twice.

    `ndarray.resize` is `realloc`, which moves large blocks by their page tables where the system can.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._data: npt.NDArray[Any] = np.empty(0, dtype=dtype)
        self._size = 0

    @property
    def values(self) -> npt.NDArray[Any]:
        """View of what was appended; not to be kept across `extend`, which may move the memory."""
        return self._data[: self._size]

    def extend(self, values: npt.NDArray[Any]) -> None:
        size = self._size + values.size
        if size > self._data.size:
            self._data.resize(max(size, self._data.size * 9 // 8), refcheck=False)
        self._data[self._size : size] = values
        self._size = size


@dataclass(slots=True)
class _Group:
    """Pixels of the images that count in the same subsets."""

    negatives: _Buffer = field(default_factory=lambda: _Buffer(np.float32))
    positives: _Buffer = field(default_factory=lambda: _Buffer(np.float32))
    region_sizes: _Buffer = field(default_factory=lambda: _Buffer(np.int32))
    """Pixels of the region that each positive belongs to."""
    images: list[tuple[str, int]] = field(default_factory=list)
    """Name and number of positives of each anomalous image, in the order of `positives`."""
    channels: list[Channel] = field(default_factory=list)
    n_good: int = 0
    n_regions: int = 0
    n_left_out: int = 0
    n_sorted: int = 0
    """Negatives when they were last sorted."""

    def sort_negatives(self) -> None:
        if self.n_sorted < self.negatives.values.size:
            self.negatives.values.sort()
            self.n_sorted = self.negatives.values.size

    def positives_by_image(self) -> Iterator[tuple[str, Map]]:
        start = 0
        for name, count in self.images:
            yield name, self.positives.values[start : start + count]
            start += count

    def merge(self, other: _Group) -> None:
        for name in ("negatives", "positives", "region_sizes"):
            getattr(self, name).extend(getattr(other, name).values)
        self.images += other.images
        self.channels += other.channels
        self.n_good += other.n_good
        self.n_regions += other.n_regions
        self.n_left_out += other.n_left_out


def _add_anomalous(group: _Group, image: CheckedImage, name: str, channels: Sequence[Defect]) -> None:
    scores, mask = image.scores, image.mask
    assert mask is not None
    sizes, n_regions = region_sizes(mask)
    group.negatives.extend(image.others)
    group.positives.extend(scores[mask])
    group.region_sizes.extend(sizes)
    group.images.append((name, sizes.size))
    group.n_regions += n_regions
    for region in channels:
        group.channels.append(
            Channel(region.defect_name, region.saturation_area, highest_scores(scores, region))
        )


def _evenly(ordered: Map, count: int) -> Map:
    """About `count` elements at even ranks, the first and the last among them; all where there are fewer."""
    count = min(count, ordered.size)
    return ordered[np.linspace(0, ordered.size - 1, count).round().astype(np.int64)] if count else ordered[:0]
