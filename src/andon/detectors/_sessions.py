"""Scores of good images within their sessions, beside those across sessions that set the thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from andon.core.records import Record
from andon.datasets.splits import folds, session_keys
from andon.nn.training import Trainer

if TYPE_CHECKING:
    from andon.detectors._base import Detector


def scores_within_sessions(detector: Detector, good: Sequence[Record], trainer: Trainer) -> dict[str, float]:
    """Raw score of each image, by id, cross-fitted in folds that mix the sessions; the detector is untrained afterwards.

    Empty where too few sessions are known to keep them apart.
    """
    if session_keys(good) is None:
        return {}
    mixed = [replace(record, session=None) for record in good]
    found = {}
    for result in detector.cross_fit(mixed, folds(mixed, trainer.seed), trainer):
        assert result.record is not None
        found[result.record.id] = result.raw_score
    detector.reset(trainer.seed)
    detector.to(trainer.device)
    return found
