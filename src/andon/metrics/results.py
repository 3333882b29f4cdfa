"""Named metrics of images and pixels, pooled and by subset, as in `report.json` (docs/reference/metrics.md, "Results").

Names are `image_auroc`, `pixel_f1`, `aupro_0.30`, ...; a suffix names the subset: `@<defect type>`,
`@logical`, `@structural`, and `@mean` for the mean of the last two. Every subset has all good images as
negatives.

    *_auroc, *_ap                       over all thresholds
    *_f1, *_precision, *_recall, *_fpr  at the threshold that was set without test data
    *_f1_max, *_f1_max_precision, ...   at the threshold that is best on the test labels (`oracle`)
    aupro_L                             area under the per-region overlap up to the FPR L
    auspro_L                            the same with saturation areas, where the data set defines them
    aupimo, aupimo_median, ...          recall per anomalous image at FPRs of 1e-5 to 1e-4 on good images

The headline of MVTec LOCO AD is `image_auroc@mean` and `auspro_0.05@mean`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from andon.core.records import Record
from andon.metrics.bootstrap import image_draws, intervals
from andon.metrics.counts import Confusion, exact_interval
from andon.metrics.pimo import Pimo
from andon.metrics.pixel_inputs import AUPRO_LIMITS, PixelSummary, tag_set
from andon.metrics.ranking import RankSummary, checked, rank

MEAN_OF = ("logical", "structural")
"""Subsets whose mean is the `@mean` of MVTec LOCO."""

NO_POSITIVES = "no_positives"
NO_NEGATIVES = "no_negatives"
NO_REGIONS = "no_regions"
NO_MASKS = "no_masks"
FEW_VERTICES = "few_vertices"
"""Too few distinct scores of good pixels in the range of AUPIMO."""
NOTHING_CALLED = "nothing_called"
"""No sample reaches the threshold, so there is no precision."""


BOUNDED = {"auroc": "pixel_auroc", "average_precision": "pixel_ap", "f1_max": "pixel_f1_max"}
"""Key of `PixelSummary.bounds` -> name of the metric, where they differ."""


class UndefinedMetricWarning(UserWarning):
    """Some metrics are undefined on this data: NaN, with a reason."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The value of one metric and the numbers of samples it is computed from."""

    value: float
    """A fraction in [0, 1], NaN where undefined."""
    n_pos: int
    """Anomalous images or pixels; regions for AUPRO, annotated defects for AU-sPRO, images for AUPIMO."""
    n_neg: int
    """Good images, or pixels outside the masks; good images for AUPIMO."""
    reason: str | None = None
    """Why the value is undefined: no_positives, no_negatives, no_regions, no_masks, nothing_called, few_vertices."""
    oracle: bool = False
    """Whether the threshold was chosen with the test labels."""
    interval: tuple[float, float] | None = None
    """95 % interval over the test images, image metrics only: exact for `image_recall` and `image_fpr`, else bootstrap."""
    error_bound: float | None = None
    """Largest error of a value computed from bins; None where it is exact."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `report.json`; an undefined value is null, `interval` and `error_bound` only where known."""
        known = {
            "interval": None if self.interval is None else list(self.interval),
            "error_bound": self.error_bound,
        }
        return {
            "value": None if math.isnan(self.value) else self.value,
            "n_pos": self.n_pos,
            "n_neg": self.n_neg,
            "reason": self.reason,
            "oracle": self.oracle,
        } | {name: value for name, value in known.items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Metric:
        """Inverse of `to_json`."""
        interval = data.get("interval")
        return cls(
            **{
                **data,
                "value": math.nan if data["value"] is None else data["value"],
                "interval": None if interval is None else (interval[0], interval[1]),
            }
        )


class PixelScores(Protocol):
    """What `pixel_metrics` needs: `PixelRanking` is exact, `PixelHistogram` has error bounds."""

    @property
    def tags(self) -> list[str]: ...

    def summary(self, tag: str | None = None, limits: Sequence[float] = AUPRO_LIMITS) -> PixelSummary: ...

    def confusion(self, threshold: float, tag: str | None = None) -> Confusion: ...

    def aupimo(self, tag: str | None = None) -> Pimo: ...


def record_tags(record: Record) -> tuple[str, ...]:
    """Subsets of an anomalous image: `logical` or `structural`, and each of its defect types.

    A good image has none. A record joins several types by `+`. A folder such as `logical_anomalies` repeats the
    group and is no subset of its own.
    """
    if record.label != 1:
        return ()
    group = [record.group] if record.group in MEAN_OF else []
    types = [name for name in record.defect_type.split("+") if name and name != f"{record.group}_anomalies"]
    return tuple(dict.fromkeys([*group, *types]))


def image_metrics(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    threshold: float | None = None,
    *,
    tags: Sequence[Collection[str]] | None = None,
    names: Sequence[str] | None = None,
    object_ids: Sequence[Hashable | None] | None = None,
    draws: int = 0,
    seed: int = 0,
) -> dict[str, Metric]:
    """Metrics of image scores (n,) with labels (n,), 0 = good and 1 = anomalous, pooled and per subset.

    `threshold` was set without these labels; None leaves out the metrics at a threshold. `tags[i]` are the subsets of
    image i if it is anomalous (`record_tags`). `names` identify images in messages. Recall and FPR get exact intervals
    (`counts.exact_interval`) where no two images have the same `object_ids`. With `draws` (usually `bootstrap.DRAWS`)
    every other metric gets a bootstrap interval, for which images of one object are drawn together. Undefined values are
    NaN with a reason, and one UndefinedMetricWarning lists them. Raises ValueError for NaN scores.
    """
    values, truth = checked(scores, labels, names)
    if tags is not None and len(tags) != values.size:
        raise ValueError(
            f"{values.size} scores but tags of {len(tags)} pictures; give one collection per picture"
        )
    known = [identity for identity in object_ids or () if identity is not None]
    exact = len(set(known)) == len(known)
    metrics = _image_values(values, truth, threshold, exact)
    by_tag, subsets = {}, {"": truth}
    anomalous_tags = [
        tag_set(one) if bad else frozenset() for one, bad in zip(tags or (), truth, strict=False)
    ]
    for tag in sorted(frozenset[str]().union(*anomalous_tags)):
        subsets[tag] = np.array([tag in one for one in anomalous_tags])
        chosen = ~truth | subsets[tag]
        by_tag[tag] = _image_values(values[chosen], truth[chosen], threshold, exact)
    metrics = _with_subsets(metrics, by_tag)
    if draws:
        drawn = image_draws(values, truth, subsets, threshold, object_ids=object_ids, draws=draws, seed=seed)
        for subset, found in intervals(drawn, MEAN_OF).items():
            for name, interval in found.items():
                key = f"image_{name}@{subset}" if subset else f"image_{name}"
                if metrics[key].interval is None:
                    metrics[key] = replace(metrics[key], interval=interval)
    return metrics


def pixel_metrics(
    ranking: PixelScores, threshold: float | None = None, limits: Sequence[float] = AUPRO_LIMITS
) -> dict[str, Metric]:
    """Metrics of all maps in `ranking`, pooled first, then per subset.

    `threshold` is the pixel threshold, set without these masks; None leaves out the metrics at a threshold. `limits`
    are the FPR limits of AUPRO. Undefined values are NaN with a reason, and one UndefinedMetricWarning lists
    them.
    """
    metrics = _pixel_values(ranking, None, threshold, limits) | _pimo_quartiles(ranking.aupimo())
    by_tag = {tag: _pixel_values(ranking, tag, threshold, limits) for tag in ranking.tags}
    return _with_subsets(metrics, by_tag)


def _image_values(
    scores: npt.NDArray[np.floating[Any]],
    truth: npt.NDArray[np.bool_],
    threshold: float | None,
    exact: bool,
) -> dict[str, Metric]:
    """Metrics of one subset; `exact`: recall and FPR with the exact intervals of their counts."""
    ranking = rank(scores, truth)
    at = None if threshold is None else ranking.confusion(threshold)
    metrics = _common_values("image", ranking.summary(), at, NO_POSITIVES)
    if at is not None and exact:
        for name, part, whole in (
            ("image_recall", at.tp, at.tp + at.fn),
            ("image_fpr", at.fp, at.fp + at.tn),
        ):
            if whole:
                metrics[name] = replace(metrics[name], interval=exact_interval(part, whole))
    return metrics


def _pixel_values(
    ranking: PixelScores, tag: str | None, threshold: float | None, limits: Sequence[float]
) -> dict[str, Metric]:
    summary = ranking.summary(tag, limits)
    at = None if threshold is None else ranking.confusion(threshold, tag)
    missing = NO_MASKS if summary.n_left_out else None
    metrics = _common_values("pixel", summary, at, missing or NO_POSITIVES)
    reason = _first_reason(summary.n_regions, missing or NO_REGIONS, summary.n_neg)
    for limit, value in summary.aupro.items():
        metrics[f"aupro_{limit:.2f}"] = Metric(value, summary.n_regions, summary.n_neg, reason)
    reason = _first_reason(summary.n_channels, missing or NO_REGIONS, summary.n_neg)
    for limit, value in summary.auspro.items():
        metrics[f"auspro_{limit:.2f}"] = Metric(value, summary.n_channels, summary.n_neg, reason)
    for name, bound in summary.bounds.items():
        key = BOUNDED.get(name, name)
        if metrics[key].reason is None:
            metrics[key] = replace(metrics[key], error_bound=bound)
    found = ranking.aupimo(tag)
    reason = _reason_of_pimo(found, missing or NO_POSITIVES)
    pimo = Metric(found.mean, len(found.scores), found.n_good, reason, error_bound=found.bound)
    return metrics | {"aupimo": pimo}


def _reason_of_pimo(found: Pimo, without_positives: str) -> str | None:
    reason = _first_reason(len(found.scores), without_positives, found.n_good)
    return FEW_VERTICES if reason is None and math.isnan(found.mean) else reason


def _pimo_quartiles(found: Pimo) -> dict[str, Metric]:
    """Quartiles of AUPIMO over the anomalous images and the share with 0; empty where it is undefined."""
    if math.isnan(found.mean):
        return {}
    values = {
        "aupimo_q25": found.quantile(0.25),
        "aupimo_median": found.quantile(0.5),
        "aupimo_q75": found.quantile(0.75),
        "aupimo_zero": found.zero_share,
    }
    return {name: Metric(value, len(found.scores), found.n_good) for name, value in values.items()}


def _common_values(
    level: str, summary: RankSummary | PixelSummary, at: Confusion | None, without_positives: str
) -> dict[str, Metric]:
    """The metrics that images and pixels share."""
    n_pos, n_neg, best = summary.n_pos, summary.n_neg, summary.f1_max
    no_pos = None if n_pos else without_positives
    metrics = {
        "auroc": Metric(summary.auroc, n_pos, n_neg, _first_reason(n_pos, without_positives, n_neg)),
        "ap": Metric(summary.average_precision, n_pos, n_neg, no_pos),
    }
    if at is not None:
        metrics |= {
            "f1": Metric(at.f1, n_pos, n_neg, no_pos),
            "precision": Metric(at.precision, n_pos, n_neg, None if at.tp + at.fp else NOTHING_CALLED),
            "recall": Metric(at.recall, n_pos, n_neg, no_pos),
            "fpr": Metric(at.fpr, n_pos, n_neg, None if n_neg else NO_NEGATIVES),
        }
    metrics |= {
        "f1_max": Metric(best.f1, n_pos, n_neg, no_pos, oracle=True),
        "f1_max_precision": Metric(best.precision, n_pos, n_neg, no_pos, oracle=True),
        "f1_max_recall": Metric(best.recall, n_pos, n_neg, no_pos, oracle=True),
    }
    return {f"{level}_{name}": metric for name, metric in metrics.items()}


def _first_reason(n_pos: int, without_positives: str, n_neg: int) -> str | None:
    """Why a metric that needs both classes is undefined; None where it is defined."""
    if not n_pos:
        return without_positives
    return None if n_neg else NO_NEGATIVES


def _with_subsets(
    metrics: dict[str, Metric], by_tag: Mapping[str, Mapping[str, Metric]]
) -> dict[str, Metric]:
    """Pooled metrics, those of each subset and, where `logical` and `structural` exist, their mean."""
    subsets = dict(by_tag)
    if all(tag in by_tag for tag in MEAN_OF):
        first, second = (by_tag[tag] for tag in MEAN_OF)
        subsets["mean"] = {name: _mean(first[name], second[name]) for name in first}
    for tag, subset in subsets.items():
        metrics |= {f"{name}@{tag}": metric for name, metric in subset.items()}
    undefined = [f"{name} ({metric.reason})" for name, metric in metrics.items() if math.isnan(metric.value)]
    if undefined:
        warnings.warn(
            f"undefined, written as null: {', '.join(undefined)}", UndefinedMetricWarning, stacklevel=3
        )
    return metrics


def _mean(first: Metric, second: Metric) -> Metric:
    """Mean of two subsets with the same good images; undefined if either is."""
    return Metric(
        value=(first.value + second.value) / 2,
        n_pos=first.n_pos + second.n_pos,
        n_neg=max(first.n_neg, second.n_neg),
        reason=first.reason or second.reason,
        oracle=first.oracle,
        interval=first.interval if first.interval == second.interval else None,
        error_bound=None
        if first.error_bound is None or second.error_bound is None
        else (first.error_bound + second.error_bound) / 2,
    )
