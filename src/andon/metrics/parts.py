"""Metrics of parts taken in several images: Real-IAD, MVTec AD 2 (docs/reference/metrics.md, "Subsets and averages")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from andon.metrics.ranking import Scores, auroc
from andon.metrics.results import Metric


def part_metrics(
    scores: npt.ArrayLike, labels: npt.ArrayLike, object_ids: Sequence[str | None]
) -> dict[str, Metric]:
    """`part_auroc`: AUROC of parts, each with the largest score of its images (n,); empty if no part has two images.

    A part is anomalous if any of its images (labels 0 or 1) is. An image without id is a part of its own.
    """
    counts = Counter(identity for identity in object_ids if identity is not None)
    if max(counts.values(), default=0) < 2:
        return {}
    of_parts = largest_per_object(np.asarray(scores), object_ids)
    truth = largest_per_object(np.asarray(labels), object_ids)
    n_pos = int(truth.sum())
    n_neg = len(truth) - n_pos
    if not n_pos or not n_neg:
        return {"part_auroc": Metric(np.nan, n_pos, n_neg, "no_negatives" if n_pos else "no_positives")}
    return {"part_auroc": Metric(auroc(of_parts, truth), n_pos, n_neg)}


def largest_per_object(scores: Scores, object_ids: Sequence[Hashable | None]) -> Scores:
    """(m,) largest score of each part, m <= n; an image whose id is None is a part of its own."""
    if len(object_ids) != scores.size:
        raise ValueError(f"{scores.size} scores but {len(object_ids)} object ids; give one per score")
    largest: dict[Hashable, np.floating[Any]] = {}
    for index, (score, identity) in enumerate(zip(scores, object_ids, strict=True)):
        key = ("own", index) if identity is None else ("object", identity)
        largest[key] = max(score, largest.get(key, score))
    return np.array(list(largest.values()), dtype=scores.dtype)
