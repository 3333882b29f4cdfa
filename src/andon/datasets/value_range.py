"""How much of their range the values of a data set use."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from andon.core.errors import DataError
from andon.core.image_files import decode
from andon.core.records import Record
from andon.datasets.findings import Findings

LEAST_USED = 0.25
"""Largest value of a data set, as a share of the full range, below which a warning is given."""
SAMPLE = 8
"""Images that `sampled_range` decodes."""


def range_warnings(largest: Sequence[float]) -> list[str]:
    """A warning where the largest values in [0, 1] of all images are below `LEAST_USED`, else nothing."""
    if not largest or max(largest) >= LEAST_USED:
        return []
    return [
        f"the brightest value of {len(largest)} pictures is {max(largest):.1%} of the range: files of 16 bits may hold 10 or 12 "
        "bits; multiply their values so that the range is used, or expose longer"
    ]


def sampled_range(records: Sequence[Record]) -> Findings:
    """`range_warnings` of up to `SAMPLE` images, evenly taken; those that cannot be read are left out."""
    largest = []
    for k in np.linspace(0, len(records) - 1, min(SAMPLE, len(records))).astype(int):
        with contextlib.suppress(DataError):  # `fit` names it
            largest.append(float(decode(records[k].image).pixels.max()))
    return Findings(warnings=tuple(range_warnings(largest)))
