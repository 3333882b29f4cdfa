"""Exact pixel metrics of a whole test set; each map is taken in once and not kept.

Definitions: docs/reference/metrics.md, "Pixel metrics", "AUPRO", "sPRO". The pixels of all images are pooled, those of good
images included.

AUPRO (Bergmann et al., IJCV 2021, https://doi.org/10.1007/s11263-020-01400-4, Sec. 5) is computed in closed form. The area
that one positive pixel adds depends only on the number of negatives above it (`ranking.area_above`), so AUPRO, like AUROC, is
a weighted sum over the positive pixels. The official code integrates the curve with float32 rates; both agree to about 1e-8.

AU-sPRO, the pixel metric of MVTec LOCO AD (Bergmann et al., IJCV 2022, https://doi.org/10.1007/s11263-022-01578-9, Sec. 4.3),
is the same sum over the S highest scores of each annotated defect, where S is its saturation area. The official code samples
the curve; both agree to about 1e-4.

Memory: 4 bytes per negative pixel and 8 per positive one. The negatives of each group of images are sorted in place, without
an index. `PixelHistogram` computes the same metrics from bins, in memory that does not grow with the number of pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.core.errors import nearest
from andon.core.records import Defect
from andon.metrics.counts import Confusion, Curve, OperatingPoint
from andon.metrics.pimo import PIMO_RANGE, Pimo, pimo, rate_curve, recalls_at
from andon.metrics.pixel_inputs import (
    AUPRO_LIMITS,
    AUSPRO_LIMITS,
    Channel,
    CheckedImage,
    Map,
    Mask,
    PixelSummary,
    check_limits,
    checked_image,
    chosen_channels,
    highest_scores,
    region_sizes,
)
from andon.metrics.ranking import CHUNK, Ranking


class PixelRanking:
    """Collects anomaly maps and masks image by image; computes pixel metrics of all images or of one subset.

    >>> ranking = PixelRanking()
    >>> ranking.add(np.float32([[0.1, 0.2]]), np.array([[False, False]]), label=0)
    >>> ranking.add(np.float32([[0.9, 0.1]]), np.array([[True, False]]), label=1, tags=["scratch"])
    >>> ranking.auroc("scratch")
    1.0
    """

    def __init__(self, chunk: int = CHUNK) -> None:
        """`chunk`: distinct positive scores processed at once; bounds memory, does not change results."""
        self._chunk = chunk
        self._groups: dict[tuple[frozenset[str], int, int], _Group] = {}
        """By tags, label and, for good images, number of pixels, since AUPIMO weights all images equally."""
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
        """Add one image; the arguments are copied.

        `anomaly_map` (H, W) is ranked as float32. `mask` (H, W) is the union of all annotated defects.
        `label` is 0 = good or 1 = anomalous; a good image is part of every subset. `tags` are the subsets of an
        anomalous image: its defect types, and `logical` or `structural`. `name` identifies the
        image in messages and in `aupimo`. `channels` are the defects of the image for AU-sPRO, each inside
        the mask; a tag that is the name of a defect selects its channels alone. `inspected` (H, W) are the
        evaluated pixels, those of the mask among them; None = all.

        An anomalous image with an empty mask is left out and counted in `n_left_out`: its defect would otherwise be
        counted as background. Raises ValueError for NaN, unequal shapes and a good image with a mask.
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
        """Add the images of another ranking, e.g. of another process; `other` is not changed."""
        self._summaries.clear()
        for key, group in other._groups.items():
            self._groups.setdefault(key, _Group()).merge(group)

    @property
    def tags(self) -> list[str]:
        """Names of all subsets, sorted."""
        return sorted({tag for tags, *_ in self._groups for tag in tags})

    def summary(self, tag: str | None = None, limits: Sequence[float] = AUPRO_LIMITS) -> PixelSummary:
        """All metrics of all images, or of the good images and the anomalous ones with this tag.

        `limits` are the FPR limits of AUPRO, in (0, 1]. Summaries are cached until the next `add`.
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
        """Largest pixel F1 over all thresholds; an oracle value, since it needs the masks."""
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
        """Whether any image was added with channels."""
        return any(group.channels for group in self._groups.values())

    def aupimo(
        self,
        tag: str | None = None,
        bounds: tuple[float, float] = PIMO_RANGE,
        *,
        force: bool = False,
    ) -> Pimo:
        """AUPIMO of each anomalous image; `force` computes it with fewer thresholds than the paper requires."""
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
        """Pixel counts for `score >= threshold`; the threshold is rounded to float32, the dtype of the maps."""
        return self._ranking(tag).confusion(threshold)

    def curve(self, tag: str | None = None, points: int = 1000) -> Curve:
        """ROC and precision-recall curve for a figure: exact counts at about `points` thresholds.

        Half of the thresholds are evenly spaced in the rank of the anomalous pixels (even steps of recall),
        half in that of the others (even steps of FPR). With few pixels all distinct scores are taken.
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
            n_channels=len(chosen_channels([c for group in groups for c in group.channels], tag)),
            auspro=self._areas_of_channels(tag, AUSPRO_LIMITS) if self.has_channels else {},
        )

    def _areas_of_channels(self, tag: str | None, limits: Sequence[float]) -> dict[float, float]:
        check_limits(limits)
        groups = self._select(tag)
        for group in groups:
            group.sort_negatives()
        channels = chosen_channels([c for group in groups for c in group.channels], tag)
        scores = np.concatenate([np.empty(0, np.float32), *(channel.highest for channel in channels)])
        weights = [np.full(c.highest.size, 1 / (len(channels) * c.saturation)) for c in channels]
        order = np.argsort(scores, kind="stable")
        ranking = Ranking(
            positives=scores[order],
            negatives=[group.negatives.values for group in groups],
            weights=np.concatenate([np.empty(0), *weights])[order],
        )
        return ranking.areas(limits, self._chunk)

    def _ranking(self, tag: str | None) -> Ranking:
        """Positives and negatives of a subset, sorted; the negatives in place, so that they are stored once."""
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
        """Groups of the good images and of the anomalous ones with this tag; all groups for None."""
        if tag is not None and tag not in self.tags:
            raise ValueError(f"no picture is tagged {tag!r}; {nearest(tag, self.tags)}")
        return [
            group
            for (tags, label, _), group in self._groups.items()
            if tag is None or not label or tag in tags
        ]


class _Buffer:
    """An array that values are appended to. It grows by an eighth, so that a large test set is not stored twice.

    `ndarray.resize` calls `realloc`, which can move large blocks without copying them.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._data: npt.NDArray[Any] = np.empty(0, dtype=dtype)
        self._size = 0

    @property
    def values(self) -> npt.NDArray[Any]:
        """View of the appended values; invalid after the next `extend`, which may move the memory."""
        return self._data[: self._size]

    def extend(self, values: npt.NDArray[Any]) -> None:
        size = self._size + values.size
        if size > self._data.size:
            self._data.resize(max(size, self._data.size * 9 // 8), refcheck=False)
        self._data[self._size : size] = values
        self._size = size


@dataclass(slots=True)
class _Group:
    """Pixels of the images with the same label and tags."""

    negatives: _Buffer = field(default_factory=lambda: _Buffer(np.float32))
    positives: _Buffer = field(default_factory=lambda: _Buffer(np.float32))
    region_sizes: _Buffer = field(default_factory=lambda: _Buffer(np.int32))
    """Size in pixels of the region that each positive belongs to."""
    images: list[tuple[str, int]] = field(default_factory=list)
    """Name and number of positives of each anomalous image, in the order of `positives`."""
    channels: list[Channel] = field(default_factory=list)
    n_good: int = 0
    n_regions: int = 0
    n_left_out: int = 0
    n_sorted: int = 0
    """Number of negatives when they were last sorted."""

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
    """About `count` elements at evenly spaced ranks, the first and the last included; all if there are fewer."""
    count = min(count, ordered.size)
    return ordered[np.linspace(0, ordered.size - 1, count).round().astype(np.int64)] if count else ordered[:0]
