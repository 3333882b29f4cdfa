"""Bootstrap intervals of image metrics (docs/reference/metrics.md, "Intervals").

Reference: Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13. Good and anomalous images are
resampled with replacement, separately (stratified), to their own numbers. The interval spans the middle 95 % of
the metric over 1,000 resamples. Images of one part are drawn together, since they are not independent. The
interval covers the choice of test images, not repeated training.

With few images these intervals are too narrow. Where every anomalous image scores above every good one, no
resample differs and the interval is the single value 1. Recall and FPR of single images have the exact interval of
their counts instead (`counts.exact_interval`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from andon.metrics.counts import Rates
from andon.metrics.ranking import Scores

DRAWS = 1000
CONFIDENCE = 0.95
FEWEST = 2
"""With fewer good or anomalous images (or parts) there is no interval: all resamples would be equal."""
CELLS = 1 << 22
"""Counts in memory at once; does not change results."""

Draws = npt.NDArray[np.float64]
"""(B,) values of one metric, NaN where it is undefined in a resample."""


def percentile_interval(values: Draws, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Quantiles that enclose the share `confidence` of the values (B,); None unless more than half are defined."""
    defined = values[~np.isnan(values)]
    if 2 * defined.size <= values.size:
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def image_draws(
    scores: Scores,
    truth: npt.NDArray[np.bool_],
    subsets: Mapping[str, npt.NDArray[np.bool_]],
    threshold: float | None = None,
    *,
    object_ids: Sequence[Hashable | None] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, Draws]]:
    """All image metrics of each resample: subset -> metric -> (B,).

    `scores` (n,) and `truth` (n,) are those of all images; `subsets` mark the anomalous images (n,) of each subset.
    Images with the same `object_ids` (n,) are drawn together; None is a part of its own. Resample b has the same good
    images in every subset, so that means over subsets can be taken per resample. A subset with
    fewer than `FEWEST` images (or parts) of either kind is left out. The result does not depend on the images' order.
    """
    good = _sample(scores, ~truth, object_ids)
    out: dict[str, dict[str, Draws]] = {}
    for name in sorted(subsets):
        bad = _sample(scores, subsets[name] & truth, object_ids)
        if min(good.n_parts, bad.n_parts) >= FEWEST:
            values = []
            # The same seed for every subset: resample b has the same good images in all of them.
            good_random, bad_random = (np.random.default_rng([seed, k]) for k in (0, 1))
            block = max(1, CELLS // (good.scores.size + bad.scores.size))
            for first in range(0, draws, block):
                rows = min(block, draws - first)
                drawn = good.draw(good_random, rows), bad.draw(bad_random, rows)
                values.append(_values(good.scores, bad.scores, *drawn, threshold))
            out[name] = {key: np.concatenate([part[key] for part in values]) for key in values[0]}
    return out


@dataclass(frozen=True, slots=True)
class _Sample:
    """The good or the anomalous images of one subset."""

    scores: Scores
    """(n,) ascending."""
    parts: npt.NDArray[np.int64]
    """(n,) index of the part that each image shows."""

    @property
    def n_parts(self) -> int:
        return int(self.parts.max(initial=-1)) + 1

    def draw(self, random: np.random.Generator, rows: int) -> npt.NDArray[np.int64]:
        """(rows, n) how often each image is drawn."""
        n = self.n_parts
        return random.multinomial(n, np.full(n, 1 / n), rows)[:, self.parts]


def _sample(
    scores: Scores, chosen: npt.NDArray[np.bool_], object_ids: Sequence[Hashable | None] | None
) -> _Sample:
    """The chosen images in an order that does not depend on their order in `scores`."""
    found = scores[chosen]
    ids = [None] * scores.size if object_ids is None else object_ids
    own = [identity for identity, is_chosen in zip(ids, chosen, strict=True) if is_chosen]
    names = np.array(["" if identity is None else repr(identity) for identity in own], dtype=str)
    order = np.lexsort((names, found)).tolist()  # by score, ties by part
    numbers: dict[Hashable, int] = {}
    keys = [("image", k) if own[k] is None else ("part", own[k]) for k in order]
    parts = [numbers.setdefault(key, len(numbers)) for key in keys]
    return _Sample(found[order], np.array(parts, dtype=np.int64))


def _values(
    good: Scores,
    bad: Scores,
    good_drawn: npt.NDArray[np.int64],
    bad_drawn: npt.NDArray[np.int64],
    threshold: float | None,
) -> dict[str, Draws]:
    """All metrics of B resamples at once, from counts at every distinct score; `*_drawn` are (B, n)."""
    at, place = np.unique(np.concatenate([good, bad]), return_inverse=True)  # ascending
    fp, tp = (
        _count_at_or_above(good_drawn, place[: good.size], at.size),
        _count_at_or_above(bad_drawn, place[good.size :], at.size),
    )
    n_neg, n_pos = fp[:, -1], tp[:, -1]
    tp_steps, fp_steps = (np.diff(counts, axis=1, prepend=0.0) for counts in (tp, fp))
    precision = tp / np.maximum(tp + fp, 1)
    values = {
        "auroc": np.sum(fp_steps * (tp - tp_steps / 2), axis=1) / (n_pos * n_neg),
        "ap": np.sum(tp_steps * precision, axis=1) / n_pos,
        "f1_max": np.max(2 * tp / (tp + fp + n_pos[:, None]), axis=1),
    }
    if threshold is None:
        return values
    # Column k has the counts at the (k + 1)-th highest score.
    called = int(np.count_nonzero(at >= at.dtype.type(threshold)))
    nothing = np.zeros(n_pos.size)
    hit, wrong = (tp[:, called - 1], fp[:, called - 1]) if called else (nothing, nothing)
    return values | {
        "f1": 2 * hit / (hit + wrong + n_pos),
        "precision": np.divide(hit, hit + wrong, out=np.full(hit.size, np.nan), where=hit + wrong > 0),
        "recall": hit / n_pos,
        "fpr": wrong / n_neg,
    }


def _count_at_or_above(counts: npt.NDArray[np.int64], place: npt.NDArray[np.int64], n_scores: int) -> Rates:
    """(B, n_scores) number of drawn images with `score >= t` for each distinct score t, the highest first."""
    by_score = np.zeros((n_scores, counts.shape[0]))
    np.add.at(by_score, place, counts.T)
    return np.cumsum(by_score[::-1], axis=0).T


def paired_auroc(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    truth: npt.NDArray[np.bool_],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, tuple[float, float] | None]:
    """AUROC of `second` minus AUROC of `first` on the same images, and its paired bootstrap interval.

    Both are (S, n) scores of S runs (seeds) on n images, NaN where a run did not have the image; `truth` (n,) marks the
    anomalous ones. The difference is the mean over the runs. Each resample takes the same images for both and for all runs,
    so that the difficulty of single images cancels. The interval is None where a run has fewer than `FEWEST` images of
    either kind.
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (first, second))
    both = ~(np.isnan(a) | np.isnan(b))  # (S, n)
    pairs = [
        wins(after[None, seen], truth[seen]) - wins(before[None, seen], truth[seen])  # (bad, good) of the run
        for before, after, seen in zip(a, b, both, strict=True)
    ]
    difference = float(np.mean([run.mean() for run in pairs]))
    if min(min(run.shape) for run in pairs) < FEWEST:
        return difference, None
    bad, good = _resampled(int(truth.sum()), int((~truth).sum()), np.random.default_rng(seed), draws)
    values = [
        _weighted_mean(run, bad[:, seen[truth]], good[:, seen[~truth]])
        for run, seen in zip(pairs, both, strict=True)
    ]
    return difference, percentile_interval(np.mean(values, axis=0))


def _resampled(
    n_pos: int, n_neg: int, random: np.random.Generator, draws: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(draws, P) and (draws, N) how often each anomalous and each good image is drawn."""
    bad, good = (random.multinomial(n, np.full(n, 1 / n), draws) for n in (n_pos, n_neg))
    return bad, good


def _weighted_mean(
    pairs: npt.NDArray[np.float64], bad: npt.NDArray[np.int64], good: npt.NDArray[np.int64]
) -> Draws:
    """(draws,) means of the pairs (P, N) that each resample holds; NaN where it holds none."""
    with np.errstate(invalid="ignore"):
        return np.asarray(((bad @ pairs) * good).sum(1) / (bad.sum(1) * good.sum(1)))


def wins(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """(P, N) for each pair of an anomalous and a good image, the mean over runs of [higher] + ½ [equal]."""
    found = np.zeros((int(truth.sum()), int((~truth).sum())))
    for row in scores:
        bad, good = row[truth][:, None], row[~truth][None]
        found += (bad > good) + 0.5 * (bad == good)
    return found / len(scores)


def mean_draws(first: Mapping[str, Draws], second: Mapping[str, Draws]) -> dict[str, Draws]:
    """Mean of two subsets in each resample."""
    return {name: (first[name] + second[name]) / 2 for name in first}


def intervals(
    values: Mapping[str, Mapping[str, Draws]], mean_of: Sequence[str] = ()
) -> dict[str, dict[str, tuple[float, float]]]:
    """Subset -> metric -> interval; where both subsets of `mean_of` exist, also of their `mean`."""
    sets = dict(values)
    if mean_of and all(name in values for name in mean_of):
        sets["mean"] = mean_draws(values[mean_of[0]], values[mean_of[1]])
    return {
        name: {key: found for key, draws in one.items() if (found := percentile_interval(draws)) is not None}
        for name, one in sets.items()
    }
