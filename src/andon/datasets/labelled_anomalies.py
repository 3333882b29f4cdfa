"""Labelled anomalies for training: anomalous test images that are moved out of the test split.

In a comparison they are moved for every detector, also for those that do not train on them, so that all are tested on the
same images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from andon.core.errors import DataError
from andon.core.text import plural, utf8
from andon.datasets.dataset import Dataset, Records, file_digest

Labelled = int | Literal["half"]
"""Number of anomalous images moved out of test; `half` is an upper bound by supervision with half of them."""


def move_labelled(dataset: Dataset, count: Labelled, seed: int) -> Dataset:
    """The data set with `count` anomalous images moved from `test` to `labelled`; unchanged for 0.

    Images are taken in the order of `sha256(f"{seed}:labelled:{id}")`, all defect types together. With `half`, seeds 2k and
    2k+1 take the two halves of one order, so that together they test on every anomalous image once (cross-fitting). Other
    images of the same object and copies of a moved image are removed from `test`. Raises `DataError` when no anomalous
    image would remain in `test`.
    """
    if count == 0:
        return dataset
    anomalous = [record for record in dataset.test if record.label == 1]
    draw = seed // 2 if count == "half" else seed
    order = sorted(anomalous, key=lambda r: hashlib.sha256(utf8(f"{draw}:labelled:{r.id}")).hexdigest())
    taken = order[:count] if count != "half" else order[seed % 2 :: 2]
    chosen = {record.id for record in taken}
    moved = Records(replace(record, split="train") for record in dataset.test if record.id in chosen)
    parts = {record.object_id for record in moved} - {None}
    rest = [r for r in dataset.test if r.id not in chosen and r.object_id not in parts]
    kept = without_copies(Records(rest), {file_digest(record.image) for record in moved})
    if (count != "half" and len(moved) < count) or 1 not in kept.labels:
        raise DataError(
            f"{dataset.category} has {plural(len(anomalous), 'picture')} of defects, {count} labelled ones to learn from leave "
            "none to test on: ask for fewer with --labelled"
        )
    return replace(dataset, test=kept, labelled=moved)


def without_copies(records: Records, digests: Collection[str]) -> Records:
    """The records whose image has none of these sha256 digests."""
    return Records(record for record in records if file_digest(record.image) not in digests)
