"""What can be said about a part: verdict, abnormal regions, and the cause where no judgement was possible."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple


class Verdict(IntEnum):
    """Verdict on one part. A part is bad until cleared: `OK` alone passes, and 0 (zeroed or missing data) never does."""

    NONE = 0
    OK = 1
    NG = 2
    REVIEW = 3
    ERROR = 4

    @property
    def passes(self) -> bool:
        """Whether the part may go on without a person looking at it."""
        return self is Verdict.OK


class Region(NamedTuple):
    """An abnormal rectangle in pixels of the original image, and its highest score (1.0 = threshold)."""

    x: int
    y: int
    w: int
    h: int
    peak: float


class Opinion(IntEnum):
    """What a person says about a part. It never changes the verdict of the machine."""

    WITHDRAWN = 0
    """The opinion before does not count any more."""
    GOOD = 1
    BAD = 2
    UNSURE = 3


class Queued(IntEnum):
    """Why a part waits for review."""

    SAMPLE = 1
    """Passed, drawn at random when it was judged."""
    BAND = 2
    """Verdict REVIEW."""
    ERROR = 3
    NG = 4


class Cause(StrEnum):
    """Why the verdict of a part is ERROR. The texts are stored and stay as they are."""

    OVERRUN = "overrun"
    """The queue of the station was full."""
    TIMEOUT = "timeout"
    """No result within the cycle limit."""
    NOT_AN_IMAGE = "not_a_picture"
    """The bytes cannot be decoded."""
    IMAGE_DIFFERS = "picture_differs"
    """Size or mode differ from what the detector learned from."""
    NOT_FINITE = "not_finite"
    """The score is missing, infinite or not a number."""
    JUDGE_FAILED = "judge_failed"
    """The detector failed on this image."""
    NOT_READY = "not_ready"
    """The station had no verified detector, or failed in a way in which no part may pass."""
    RESULTS_LOST = "results_lost"
    """Triggered before a restart, never judged."""
    REPEATED = "repeated_trigger"
    """The PLC triggered with the number of the part before."""
    CAMERA_FAILED = "camera_failed"
    """The camera gave no whole image of the part."""
    DISK_FULL = "disk_full"
    """The image cannot be kept, and the station requires it."""
    GOLDEN_FAILED = "golden_failed"
    """Golden parts were judged wrong or are overdue: no part may pass."""
    GOLDEN_PART = "golden_part"
    """No part of the production: a golden one, shown to the camera. It is not counted."""
