"""Folder names with a meaning, compared in lower case (docs/reference/data.md, "Own folders")."""

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
MASK_SUFFIXES = ("_mask", "_gt", "_label", "")
"""Suffixes that the stem of a mask may have after the stem of its image; earlier ones take precedence."""


def is_good(name: str) -> bool:
    """Whether a folder of this name holds good images."""
    return name.lower() in GOOD


def is_bad(name: str) -> bool:
    """Whether a folder of this name holds anomalous images."""
    return name.lower() in BAD
