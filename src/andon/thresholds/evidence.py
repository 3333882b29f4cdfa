"""What is known about the thresholds of a model: displayed scores of images whose truth is known.

1.0 is the image threshold in use, 0 a typical good image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from andon.metrics.parts import largest_per_object
from andon.thresholds.calibration import Calibration
from andon.thresholds.display import AffineDisplay

Labelled = Mapping[str, tuple[bool, float]]
"""Whether each image of a test is anomalous, and its raw score, by id."""


@dataclass(frozen=True, slots=True)
class Images:
    """Scores of images of one kind; `names` and `sessions` are empty, or one for each score."""

    scores: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    """Empty text: of no known session."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Scores behind the thresholds of a model."""

    good: Images = Images()
    """Good images of the calibration that the model has not learned from."""
    good_tests: Images = Images()
    """Good test images of the last evaluation."""
    bad: Images = Images()
    """Defective test images of the last evaluation."""
    within: tuple[float, ...] = ()
    """Score of each image of `good` by what others of its own session teach too; `good` is then by other sessions."""
    parts: tuple[float, ...] = ()
    """Largest score of each good part; as `good` where each part has one image."""
    promised: float | None = None
    """False-reject rate that the calibration guarantees; None where it guarantees none."""

    @classmethod
    def of(cls, calibration: Calibration, tests: Labelled | None = None) -> Self:
        """From a calibration and the scores of the last evaluation, where there was one."""
        display = calibration.score_display
        labelled = dict(tests or {})
        kinds = [
            Images(_shown(display, (labelled[name][1] for name in names)), tuple(names))
            for names in ([name for name in labelled if labelled[name][0] is bad] for bad in (False, True))
        ]
        if calibration.source.startswith("train"):  # training images score lower than new ones
            return cls(good_tests=kinds[0], bad=kinds[1])
        scores = _shown(display, calibration.scores)
        parts = largest_per_object(np.asarray(scores), calibration.parts) if calibration.parts else scores
        guarantee = calibration.image.guarantee
        return cls(
            good=Images(scores, calibration.names, calibration.sessions),
            good_tests=kinds[0],
            bad=kinds[1],
            within=_shown(display, calibration.within),
            parts=tuple(float(score) for score in parts),
            promised=None if guarantee is None else max(guarantee.alpha, guarantee.expected_rate),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not known and how it becomes known, as sentences."""
        found = []
        if not self.good.scores:
            found.append(
                "No scores of good images that the model has not learned from: hold some out, or cross-fit."
            )
        if not self.bad.scores:
            found.append(
                "No scores of defective images, so nothing says what passes: evaluate the run on some, then pack it again."
            )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the page."""
        return asdict(self)


def line_thresholds(calibration: Calibration) -> tuple[float, float]:
    """Accept and reject of a line, displayed: the band in which a person looks, where there is one, and 1.0."""
    look = calibration.look
    return 1.0 if look is None else min(1.0, float(calibration.score_display(np.float64(look.value)))), 1.0


def _shown(display: AffineDisplay, raw: Iterable[float]) -> tuple[float, ...]:
    values: npt.NDArray[np.float64] = np.fromiter(raw, np.float64)
    return tuple(float(score) for score in display(values))
