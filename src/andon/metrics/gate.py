"""The gate of SPADE: pixels are looked at only where the image as a whole is anomalous (docs/reference/metrics.md, "Gate").

Cohen and Hoshen (arXiv 2005.02357) find anomalous images first and segment those alone. Here the gate stands behind
any detector, as two thresholds from held-out good images: one of the image score, one of the map.

    mask     = map >= pixel threshold where the image is flagged (score >= image threshold), empty elsewhere
    verdict  = flagged and the mask is not empty
    M_g      = map where flagged, map - (max(map) - pixel threshold)+ elsewhere, for the metrics that rank pixels

The largest value of a shifted map comes to lie just below the pixel threshold, not on it: a pixel is marked when its
value reaches the threshold, so one on it would be marked in every image that the gate holds back.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.metrics.pixel_inputs import EIGHT_NEIGHBOURS, Mask, tag_set
from andon.metrics.pixels import PixelRanking
from andon.metrics.results import Metric, UndefinedMetricWarning, image_metrics, pixel_metrics

SUFFIX = "_gated"
"""Ends the name of every metric that was taken behind the gate: `pixel_f1_gated`, `pixel_f1_gated@scratch`."""
NOTHING_FOUND = "nothing_found"
"""No defect was found before the gate, so none can be lost to it."""


def gated_map(
    anomaly_map: npt.NDArray[np.float32], flagged: bool, threshold: float
) -> npt.NDArray[np.float32]:
    """M_g of one map (H, W): unchanged where the image is flagged, shifted below the pixel threshold elsewhere.

    Within one image the order of the pixels stays as it is.
    """
    values = np.asarray(anomaly_map, np.float32)
    limit = np.float32(threshold)
    largest = values.max(initial=-np.inf)
    if flagged or largest < limit:
        return values
    below = np.nextafter(limit, np.float32(-np.inf))
    if np.isposinf(largest):
        return np.minimum(values, below)
    shifted = values - (largest - below)
    return np.asarray(np.minimum(shifted, below), np.float32)  # the difference may round up to the threshold


def gated_mask(anomaly_map: npt.NDArray[np.float32], flagged: bool, threshold: float) -> Mask:
    """(H, W) pixels that are marked behind the gate: none where the image is not flagged."""
    values = np.asarray(anomaly_map, np.float32)
    return values >= np.float32(threshold) if flagged else np.zeros(values.shape, np.bool_)


def gated_verdict(anomaly_map: npt.NDArray[np.float32], flagged: bool, threshold: float) -> bool:
    """Whether an image is anomalous behind the gate: flagged, and at least one pixel is marked."""
    return bool(gated_mask(anomaly_map, flagged, threshold).any())


@dataclass(slots=True)
class _Hits:
    """Defects of one subset: annotated, touched by a marked pixel, touched behind the gate."""

    defects: int = 0
    found: int = 0
    found_gated: int = 0

    def metric(self) -> Metric:
        """Share of the found defects that the gate hides; `n_pos` found ones, `n_neg` those that were missed anyway."""
        lost = (self.found - self.found_gated) / self.found if self.found else np.nan
        reason = None if self.found else (NOTHING_FOUND if self.defects else "no_regions")
        return Metric(float(lost), self.found, self.defects - self.found, reason)


@dataclass(slots=True)
class Gate:
    """Collects images one after the other and answers with every metric as it is behind the gate.

    >>> gate = Gate(image_threshold=1.0, pixel_threshold=0.5)
    >>> gate.add(np.float32([[0.9, 0.1]]), np.array([[True, False]]), score=0.8, label=1)
    >>> gate.metrics()["defects_lost"].value  # the defect was marked, but its image was not flagged
    1.0
    """

    image_threshold: float
    pixel_threshold: float
    ranking: PixelRanking = field(default_factory=PixelRanking)
    """The maps M_g."""
    verdicts: list[bool] = field(default_factory=list)
    """Of each image, in the order they came."""
    _labels: list[int] = field(default_factory=list)
    _tags: list[frozenset[str]] = field(default_factory=list)
    _hits: dict[str, _Hits] = field(default_factory=dict)

    def add(
        self,
        anomaly_map: npt.NDArray[np.float32],
        mask: Mask,
        *,
        score: float,
        label: int,
        tags: Collection[str] = (),
        name: str = "",
        inspected: Mask | None = None,
    ) -> None:
        """Take in one image; arguments as of `PixelRanking.add`, and its raw image `score`."""
        flagged = score >= self.image_threshold
        self.ranking.add(
            gated_map(anomaly_map, flagged, self.pixel_threshold),
            mask,
            label=label,
            tags=tags,
            name=name,
            inspected=inspected,
        )
        marked = gated_mask(anomaly_map, True, self.pixel_threshold)
        self.verdicts.append(bool(flagged and marked.any()))
        self._labels.append(label)
        self._tags.append(tag_set(tags))
        defects, found = _count_defects(mask, marked)
        for key in ["", *tag_set(tags)]:
            hits = self._hits.setdefault(key, _Hits())
            hits.defects += defects
            hits.found += found
            hits.found_gated += found if flagged else 0

    def metrics(self) -> dict[str, Metric]:
        """All pixel metrics of M_g, image metrics of the verdicts, and the share of found defects that the gate hides.

        Names end in `_gated` before the subset, but for `defects_lost`, which exists behind a gate only. Of the images
        only precision, recall, F1 and false positive rate: the gate decides, it does not rank.
        """
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UndefinedMetricWarning
            )  # said for the same metrics without the gate
            found = pixel_metrics(self.ranking, self.pixel_threshold)
            verdicts = np.asarray(self.verdicts, np.float32)
            images = image_metrics(verdicts, self._labels, 0.5, tags=self._tags)
        decided = ("image_precision", "image_recall", "image_f1", "image_fpr")
        found |= {name: value for name, value in images.items() if name.partition("@")[0] in decided}
        lost = {f"defects_lost@{k}" if k else "defects_lost": h.metric() for k, h in self._hits.items()}
        return {_gated(name): value for name, value in found.items()} | lost


def _count_defects(mask: Mask, marked: Mask) -> tuple[int, int]:
    """Annotated defects (8-connected) of an image, and how many of them have a marked pixel."""
    if not mask.any():
        return 0, 0
    components, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    return int(count), len(np.unique(components[mask & marked]))


def _gated(name: str) -> str:
    metric, at, tag = name.partition("@")
    return f"{metric}{SUFFIX}{at}{tag}"
