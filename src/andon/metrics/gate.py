"""The gate of SPADE: only images whose score is anomalous are segmented (docs/reference/metrics.md, "Gate").

Cohen and Hoshen (arXiv 2005.02357) detect anomalous images first and segment those alone. Here the gate can be applied
to any detector, with two thresholds from held-out good images: one of the image score, one of the map.

    mask     = map >= pixel threshold where the image is flagged (score >= image threshold), empty elsewhere
    verdict  = flagged and the mask is not empty
    M_g      = map where flagged, map - (max(map) - pixel threshold)+ elsewhere, for the metrics that rank pixels

The largest value of a shifted map is the float just below the pixel threshold: a pixel is marked when its value is >= the
threshold, so a value equal to it would be marked in every image that is not flagged.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from andon.metrics.pixel_inputs import EIGHT_NEIGHBOURS, Mask, tag_set
from andon.metrics.pixels import PixelRanking
from andon.metrics.results import Metric, UndefinedMetricWarning, image_metrics, pixel_metrics

SUFFIX = "_gated"
"""Suffix of metrics behind the gate: `pixel_f1_gated`, `pixel_f1_gated@scratch`."""
NOTHING_FOUND = "nothing_found"
"""Reason of an undefined `defects_lost`: no defect was found without the gate."""


def gated_map(
    anomaly_map: npt.NDArray[np.float32], flagged: bool, threshold: float
) -> npt.NDArray[np.float32]:
    """M_g of one map (H, W): unchanged where the image is flagged, shifted below the pixel threshold elsewhere.

    The order of the pixels within an image does not change.
    """
    values = np.asarray(anomaly_map, np.float32)
    threshold32 = np.float32(threshold)
    largest = values.max(initial=-np.inf)
    if flagged or largest < threshold32:
        return values
    below = np.nextafter(threshold32, np.float32(-np.inf))
    if np.isposinf(largest):
        return np.minimum(values, below)
    shifted = values - (largest - below)
    return np.asarray(np.minimum(shifted, below), np.float32)  # the difference may round up to the threshold


def gated_mask(anomaly_map: npt.NDArray[np.float32], flagged: bool, threshold: float) -> Mask:
    """(H, W) pixels marked behind the gate; empty for an image that is not flagged."""
    values = np.asarray(anomaly_map, np.float32)
    return values >= np.float32(threshold) if flagged else np.zeros(values.shape, np.bool_)


def gated_verdict(anomaly_map: npt.NDArray[np.float32], flagged: bool, threshold: float) -> bool:
    """Whether an image is anomalous behind the gate: flagged, and at least one pixel is marked."""
    return bool(gated_mask(anomaly_map, flagged, threshold).any())


@dataclass(slots=True)
class _Hits:
    """Defects of one subset: annotated; with a marked pixel; with a marked pixel behind the gate."""

    defects: int = 0
    found: int = 0
    found_gated: int = 0

    def metric(self) -> Metric:
        """Share of the found defects that the gate loses; `n_pos` found without the gate, `n_neg` missed without it."""
        lost = (self.found - self.found_gated) / self.found if self.found else np.nan
        reason = None if self.found else (NOTHING_FOUND if self.defects else "no_regions")
        return Metric(float(lost), self.found, self.defects - self.found, reason)


@dataclass(slots=True)
class Gate:
    """Collects images one by one and computes all metrics behind the gate.

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
    """Verdict of each image, in the order of `add`."""
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
        """Add one image: the arguments of `PixelRanking.add` and its raw image `score`."""
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
        """All pixel metrics of M_g, image metrics of the verdicts, and the share of found defects that the gate loses.

        Names have the suffix `_gated` before the subset, except `defects_lost`, which exists only behind a gate. Image
        metrics are precision, recall, F1 and false positive rate: the gate gives verdicts, no ranking.
        """
        with warnings.catch_warnings():
            # The same metrics without the gate already warn.
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            found = pixel_metrics(self.ranking, self.pixel_threshold)
            verdicts = np.asarray(self.verdicts, np.float32)
            images = image_metrics(verdicts, self._labels, 0.5, tags=self._tags)
        decided = ("image_precision", "image_recall", "image_f1", "image_fpr")
        found |= {name: value for name, value in images.items() if name.partition("@")[0] in decided}
        lost = {f"defects_lost@{k}" if k else "defects_lost": h.metric() for k, h in self._hits.items()}
        return {_gated(name): value for name, value in found.items()} | lost


def _count_defects(mask: Mask, marked: Mask) -> tuple[int, int]:
    """Number of annotated defects (8-connected) of an image, and of those with a marked pixel."""
    from scipy import ndimage  # takes long to import, and answers do without

    if not mask.any():
        return 0, 0
    components, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    return int(count), len(np.unique(components[mask & marked]))


def _gated(name: str) -> str:
    metric, at, tag = name.partition("@")
    return f"{metric}{SUFFIX}{at}{tag}"
