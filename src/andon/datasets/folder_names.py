"""Folder names that carry meaning, any case (spec A.10)."""

from __future__ import annotations

GOOD = frozenset({"good", "ok", "normal", "nominal", "no_defect", "negative", "0"})
BAD = frozenset(
    {"defect", "defects", "defective", "bad", "ko", "ng", "anomaly", "anomalous", "abnormal", "faulty", "1"}
)
TRAIN = frozenset({"train", "training"})
VALIDATION = frozenset({"validation", "valid", "val"})
TEST = frozenset({"test", "testing"})
MASKS = frozenset({"ground_truth", "masks", "gt"})
RESERVED = TRAIN | VALIDATION | TEST | MASKS
"""Never the name of a category or defect type."""
MASK_MARKS = ("_mask", "_gt", "_label", "")
"""What a mask's stem may add to its image's stem, the most explicit first."""


def is_good(name: str) -> bool:
    """Whether a folder of this name holds good images."""
    return name.lower() in GOOD


def is_bad(name: str) -> bool:
    """Whether a folder of this name holds anomalous images."""
    return name.lower() in BAD
