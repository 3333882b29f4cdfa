"""Pixel metrics in bounded memory: scores counted in 2^20 bins, with a bound on the error this causes.

Each bin is treated as one tied score (docs/reference/metrics.md, "Pixel metrics"). An area is then wrong by at most half the
share of negatives that lie in the same bin as a positive; average precision and F1-max by what the order inside a bin could
change. `PixelSummary.bounds` holds these bounds. Counts at thresholds that are given beforehand are exact. Histograms of
several processes can be added.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from andon.core.errors import nearest
from andon.core.records import Defect
from andon.metrics.bins import (
    BITS,
    Bins,
    BinSums,
    Weights,
    at_or_above,
    bound_of_area,
    bound_of_average_precision,
    bound_of_f1_max,
    gathered,
    key_scores,
    order_keys,
    total_sums,
)
from andon.metrics.counts import Confusion, Curve
from andon.metrics.pimo import PIMO_RANGE, Pimo, RateCurve, pimo
from andon.metrics.pixel_inputs import (
    AUPRO_LIMITS,
    AUSPRO_LIMITS,
    Map,
    Mask,
    PixelSummary,
    check_limits,
    checked_image,
    chosen_channels,
    highest_scores,
    region_sizes,
)
from andon.metrics.ranking import Piece, summarise


class PixelHistogram:
    """As `PixelRanking`, from bins: memory does not grow with the number of negative pixels.

    >>> histogram = PixelHistogram()
    >>> histogram.add(np.float32([[0.1, 0.2]]), np.array([[False, False]]), label=0)
    >>> histogram.add(np.float32([[0.9, 0.1]]), np.array([[True, False]]), label=1, tags=["scratch"])
    >>> histogram.summary("scratch").auroc
    1.0
    """

    def __init__(self, thresholds: Sequence[float] = (), bits: int = BITS) -> None:
        """`thresholds` are those that `confusion` will be called with: their counts are exact."""
        if not 12 <= bits <= 24:
            raise ValueError(f"{bits} bits make no useful bins; use 12 to 24, the usual number is {BITS}")
        self._shift = 32 - bits
        self._thresholds = tuple(float(np.float32(t)) for t in thresholds)
        self._groups: dict[tuple[frozenset[str], int], _Group] = {}
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
        """Add one image, as `PixelRanking.add`."""
        image = checked_image(anomaly_map, mask, label, tags, channels, name, inspected)
        group = self._groups.setdefault((image.tags, label), _Group())
        self._summaries.clear()
        scores, marked, good = image.scores, image.mask, image.others
        if label and marked is None:
            group.n_left_out += 1
            return
        if good.size:
            bins = self._bins(good)
            first = int(bins.min())
            counts = np.bincount(bins - first)
            group.negatives.add(first, counts)
            if label == 0:
                group.rates.add(first, counts / good.size)
        group.n_good += int(label == 0)
        if marked is not None:
            group.images.append(self._positives(scores, marked, name, channels))
        for threshold in self._thresholds:
            at = np.float32(threshold)
            tp = int(np.count_nonzero(scores[marked] >= at)) if marked is not None else 0
            before = group.called.get(threshold, (0, 0))
            group.called[threshold] = (before[0] + tp, before[1] + int(np.count_nonzero(good >= at)))

    def merge(self, other: PixelHistogram) -> None:
        """Add the images of another histogram, e.g. of another process; `other` is not changed."""
        if (other._shift, other._thresholds) != (self._shift, self._thresholds):
            raise ValueError("histograms of other bins or thresholds cannot be added; make both alike")
        self._summaries.clear()
        for key, group in other._groups.items():
            self._groups.setdefault(key, _Group()).merge(group)

    @property
    def tags(self) -> list[str]:
        """Names of all subsets, sorted."""
        return sorted({tag for tags, _ in self._groups for tag in tags})

    @property
    def has_channels(self) -> bool:
        """Whether any image was added with channels."""
        return any(image.channels for group in self._groups.values() for image in group.images)

    def summary(self, tag: str | None = None, limits: Sequence[float] = AUPRO_LIMITS) -> PixelSummary:
        """All metrics of all images, or of the good images and the anomalous ones with this tag, with error `bounds`."""
        check_limits(limits)
        key = (tag, tuple(limits))
        if key not in self._summaries:
            self._summaries[key] = self._summarise(tag, limits)
        return self._summaries[key]

    def confusion(self, threshold: float, tag: str | None = None) -> Confusion:
        """Counts for `score >= threshold`, exact for the thresholds given to the constructor.

        Raises ValueError for another threshold, unless it is the lower end of a bin.
        """
        at = np.float32(threshold)
        groups = self._select(tag)
        n_pos = sum(image.n_pixels for group in groups for image in group.images)
        n_neg = sum(group.negatives.total for group in groups)
        if float(at) in self._thresholds:
            called = [group.called.get(float(at), (0, 0)) for group in groups]
            tp, fp = sum(c[0] for c in called), sum(c[1] for c in called)
        else:
            first = int(self._bins(at.reshape(1))[0])
            if self._lowest(np.array([first]))[0] != at:
                raise ValueError(
                    f"threshold {threshold:g} lies inside a bin, so its counts are not known; name it when the "
                    "histogram is made"
                )
            pieces = [image.pixels for group in groups for image in group.images]
            tp = sum(int(counts[bins >= first].sum()) for bins, counts in pieces)
            fp = sum(int(group.negatives.from_bin(first)) for group in groups)
        return Confusion(tp=tp, fp=fp, fn=n_pos - tp, tn=n_neg - fp)

    def curve(self, tag: str | None = None, points: int = 1000) -> Curve:
        """ROC and precision-recall curve for a figure: counts at the lower ends of about `points` bins."""
        groups = self._select(tag)
        negatives = total_sums([group.negatives for group in groups])
        bins, hits, _ = gathered([p.pixels for group in groups for p in group.images])
        used = np.union1d(bins, np.flatnonzero(negatives.values) + negatives.start)
        tp_all, fp_all = at_or_above(bins, hits, used), negatives.at_or_above(used)
        n_pos, n_neg = int(hits.sum()), negatives.total
        position = (tp_all / max(n_pos, 1) + fp_all / max(n_neg, 1))[::-1]  # rises as thresholds fall
        wanted = np.linspace(0, position.max(initial=0), points)  # even steps in recall and FPR together
        steps = np.unique(np.searchsorted(position, wanted))
        kept = used.size - 1 - steps[steps < used.size]
        return Curve(
            thresholds=np.concatenate(([np.inf], self._lowest(used[kept]).astype(np.float64))),
            tp=np.concatenate(([0], tp_all[kept])),
            fp=np.concatenate(([0], fp_all[kept])),
            n_pos=n_pos,
            n_neg=n_neg,
        )

    def aupimo(
        self, tag: str | None = None, bounds: tuple[float, float] = PIMO_RANGE, *, force: bool = False
    ) -> Pimo:
        """AUPIMO of each anomalous image, with a bound on the error of its mean."""
        good = [group for (_, label), group in self._groups.items() if label == 0]
        n_good = sum(group.n_good for group in good)
        shares = total_sums([group.rates for group in good])
        used = (np.flatnonzero(shares.values) + shares.start)[::-1]
        rates = np.cumsum(shares.values[used - shares.start]) / max(n_good, 1)
        rates = np.minimum(rates, 1.0)
        curve = RateCurve(used.astype(np.float64), rates, bounds)
        images = [image for group in self._select(tag) for image in group.images]
        recalls = [(image.name, at_or_above(*image.pixels, used) / image.n_pixels) for image in images]
        above = (at_or_above(*image.pixels, used + 1) / image.n_pixels for image in images)
        return pimo(curve, n_good, recalls, force=force, above=above)

    def _summarise(self, tag: str | None, limits: Sequence[float]) -> PixelSummary:
        groups = self._select(tag)
        images = [image for group in groups for image in group.images]
        negatives = total_sums([group.negatives for group in groups])
        n_regions = sum(image.n_regions for image in images)
        regions = self._piece(
            [p.pixels for p in images], [p.region_weights / max(n_regions, 1) for p in images], negatives
        )
        n_pos, n_neg = sum(image.n_pixels for image in images), negatives.total
        found = summarise([regions] if n_pos else [], n_pos, n_neg, limits)
        pixels = replace(regions, weights=regions.hits / max(n_pos, 1))
        bounds = {
            "auroc": bound_of_area(pixels, n_neg, 1.0),
            "average_precision": bound_of_average_precision(regions, n_pos),
            "f1_max": bound_of_f1_max(regions, n_pos),
        } | {f"aupro_{limit:.2f}": bound_of_area(regions, n_neg, limit) for limit in limits}
        auspro: dict[float, float] = {}
        channels = chosen_channels([c for image in images for c in image.channels], tag)
        if self.has_channels:
            piece = self._piece(
                [c.pixels for c in channels],
                [c.pixels[1] / (len(channels) * c.saturation) for c in channels],
                negatives,
            )
            for limit in AUSPRO_LIMITS:
                both = bool(channels) and n_neg > 0
                auspro[limit] = piece.area(n_neg, limit) if both else np.nan
                bounds[f"auspro_{limit:.2f}"] = bound_of_area(piece, n_neg, limit)
        return PixelSummary(
            n_pos=n_pos,
            n_neg=n_neg,
            n_regions=n_regions,
            n_left_out=sum(group.n_left_out for group in groups),
            auroc=found.auroc,
            average_precision=found.average_precision,
            f1_max=found.f1_max,
            aupro=found.weighted_area,
            n_channels=len(channels),
            auspro=auspro,
            bounds=bounds,
        )

    def _positives(self, scores: Map, mask: Mask, name: str, channels: Sequence[Defect]) -> _Image:
        sizes, n_regions = region_sizes(mask)
        bins = self._bins(scores[mask])
        used, place, counts = np.unique(bins, return_inverse=True, return_counts=True)
        found = []
        for region in channels:
            highest = np.unique(self._bins(highest_scores(scores, region)), return_counts=True)
            found.append(_Channel(region.defect_name, region.saturation_area, highest))
        return _Image(
            name, (used, counts), np.bincount(place, 1.0 / sizes).astype(np.float64), n_regions, found
        )

    def _piece(
        self, pixels: Sequence[tuple[Bins, Bins]], weights: Sequence[Weights], negatives: BinSums
    ) -> Piece:
        """The bins that hold positives, ascending, each as one tied score."""
        bins, hits, sums = gathered(pixels, weights)
        return Piece(
            thresholds=self._lowest(bins),
            hits=hits,
            weights=sums,
            tp=np.cumsum(hits[::-1])[::-1],
            fp=negatives.at_or_above(bins),
            fp_above=negatives.at_or_above(bins + 1),
        )

    def _bins(self, scores: Map) -> Bins:
        return (order_keys(scores) >> np.uint32(self._shift)).astype(np.int64)

    def _lowest(self, bins: Bins) -> Map:
        """(n,) scores at the lower ends of the bins (n,)."""
        return key_scores((bins << self._shift).astype(np.uint32))

    def _select(self, tag: str | None) -> list[_Group]:
        """Groups of the good images and of the anomalous ones with this tag; all groups for None."""
        if tag is not None and tag not in self.tags:
            raise ValueError(f"no picture is tagged {tag!r}; {nearest(tag, self.tags)}")
        return [
            group for (tags, label), group in self._groups.items() if tag is None or not label or tag in tags
        ]


@dataclass(frozen=True, slots=True)
class _Channel:
    name: str
    saturation: int
    pixels: tuple[Bins, Bins]
    """Bins of the S highest scores, ascending, and the number of pixels in each."""


@dataclass(frozen=True, slots=True)
class _Image:
    """The positives of an anomalous image."""

    name: str
    pixels: tuple[Bins, Bins]
    """Bins, ascending, and the number of pixels in each."""
    region_weights: Weights
    """Sum of 1 / |region| over the pixels of each bin."""
    n_regions: int
    channels: list[_Channel]

    @property
    def n_pixels(self) -> int:
        return int(self.pixels[1].sum())


@dataclass(slots=True)
class _Group:
    """Images with the same label and tags."""

    negatives: BinSums = field(default_factory=lambda: BinSums(np.int64))
    rates: BinSums = field(default_factory=lambda: BinSums(np.float64))
    """Sum over good images of 1 / number of pixels of the image."""
    images: list[_Image] = field(default_factory=list)
    called: dict[float, tuple[int, int]] = field(default_factory=dict)
    """Threshold -> number of positives and of negatives with `score >= threshold`."""
    n_good: int = 0
    n_left_out: int = 0

    def merge(self, other: _Group) -> None:
        for mine, theirs in ((self.negatives, other.negatives), (self.rates, other.rates)):
            if theirs.values.size:
                mine.add(theirs.start, theirs.values)
        self.images += other.images
        for threshold, (tp, fp) in other.called.items():
            before = self.called.get(threshold, (0, 0))
            self.called[threshold] = (before[0] + tp, before[1] + fp)
        self.n_good += other.n_good
        self.n_left_out += other.n_left_out
