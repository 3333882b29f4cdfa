"""Embedded images that several tests look at, drawn once, and what changed in them."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from andon.datasets.embedded import Rendered, render


@cache
def drawn(category: str, defect: str, index: int = 0) -> Rendered:
    """Image of the test split, 256 px high."""
    return render(category, "test", defect, index)


def union(rendered: Rendered) -> npt.NDArray[np.bool_]:
    """(H, W), True inside any mask."""
    return np.asarray(np.logical_or.reduce([mask for _, mask in rendered.masks]))


def levels(rendered: Rendered) -> npt.NDArray[np.int64]:
    """(H, W) largest channel difference from the twin, in grey levels."""
    difference = np.abs(rendered.image.astype(np.int64) - rendered.twin)
    return np.asarray(difference if difference.ndim == 2 else difference.max(axis=2))
