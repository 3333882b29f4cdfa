"""What a station hands to the store, and what the store hands back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Literal, NamedTuple, Self

from andon.core.errors import DataError
from andon.line.verdicts import Cause, Opinion, Queued, Region, Verdict

LONGEST = 300
"""UTF-8 bytes of a request id, part id, lot or recipe."""
LARGEST = 2**63 - 1
"""Largest integer that both databases store."""


class ImageState(IntEnum):
    """What became of the image of a row."""

    NONE = 0
    """The row has no image."""
    PENDING = 1
    """Committed, the file is being written."""
    STORED = 2
    LOST = 3
    """Could not be written, or is gone from the disk."""
    NOT_STORED = 4
    """Left out because the disk is nearly full."""
    DELETED = 5
    """Deleted by the retention rule."""


@dataclass(frozen=True, slots=True)
class NewInspection:
    """A judged part to be stored. Times are microseconds UTC.

    A verdict without a finite score becomes ERROR with cause `not_finite`. Raises `DataError` for texts longer than 300
    bytes, with NUL or without UTF-8 form, and for integers beyond 64 bits.
    """

    station: str
    request_id: str
    """Unique over all stations; the same id with the same station, image and kind is the same part."""
    trigger_no: int | None
    """Unique in one session of one station."""
    part_id: str | None
    lot: str | None
    recipe: str | None
    model_sha256: str
    threshold_version: int | None
    """Id of a row of `threshold_version`; None: the threshold of the packed file."""
    t_trigger: int
    t_done: int
    verdict: Verdict
    score_raw: float | None
    score: float | None
    """Displayed scale, 1.0 = threshold; None for ERROR."""
    regions: tuple[Region, ...] = ()
    """Largest first."""
    ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each stage."""
    cause: str = ""
    """Empty unless the verdict is ERROR."""
    image_sha256: str | None = None
    image: bytes | None = None
    """Original bytes."""
    image_suffix: str = ".png"
    map: bytes | None = None
    """8-bit PNG of the anomaly map, 0 to 2 x threshold."""
    on_full_disk: Literal["error", "ok_without_image"] = "error"
    """Where the disk has no room for the image: store ERROR, or the verdict without its image."""
    review_why: Queued | None = None
    """Why a person is to look at the part; None where nobody has to."""
    sample_rate: float | None = None
    """Probability with which a part that passed was drawn for review; None where it was not drawn."""
    triggered: bool = False
    """The line took the image for the request; otherwise the image came with it."""

    def __post_init__(self) -> None:
        for name in ("station", "request_id", "part_id", "lot", "recipe", "cause"):
            _check_text(name, getattr(self, name))
        if not self.station or not self.request_id:
            raise DataError("station and request id must not be empty")
        for name in ("trigger_no", "t_trigger", "t_done"):
            number = getattr(self, name)
            if number is not None and not 0 <= number <= LARGEST:
                raise DataError(f"{name} {number} is outside 0 to 2^63 - 1")
        if not self.image_suffix.startswith(".") or not self.image_suffix[1:].isalnum():
            raise DataError(f"image suffix {self.image_suffix!r} is not a dot and letters")

    def checked(self) -> Self:
        """The same with plain numbers; as ERROR where a verdict has no finite score or is unknown."""
        score, raw = _finite(self.score), _finite(self.score_raw)
        known = self.verdict in (Verdict.OK, Verdict.NG, Verdict.REVIEW)
        if self.verdict is Verdict.ERROR or (known and score is not None and raw is not None):
            return replace(self, score=score, score_raw=raw)
        return self.failed(Cause.NOT_FINITE)

    def failed(self, cause: Cause) -> Self:
        """The same part with verdict ERROR."""
        return replace(
            self,
            verdict=Verdict.ERROR,
            cause=cause.value,
            score=None,
            score_raw=None,
            regions=(),
            review_why=Queued.ERROR,
            sample_rate=None,
        )


class Reviewed(NamedTuple):
    """The opinion on a part that counts."""

    opinion: Opinion
    defect_type: str | None
    who: str
    overridden: bool
    """It says the opposite of the verdict OK or NG."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A stored row. Rows are ordered by `id`; times may go back when the clock is set back."""

    id: int
    station: str
    session: int
    """One start of the process; trigger numbers are unique within it."""
    request_id: str
    trigger_no: int | None
    part_id: str | None
    lot: str | None
    recipe: str | None
    model_sha256: str
    threshold_version: int | None
    t_trigger: int
    t_done: int
    verdict: Verdict
    score_raw: float | None
    score: float | None
    regions: tuple[Region, ...]
    ms: dict[str, float]
    cause: str
    image_state: ImageState
    image_key: str | None
    """Path of the image below the folder of the store, with `/`."""
    map_key: str | None
    image_sha256: str | None
    image_bytes: int | None
    """Image and map together; None where nothing was written."""
    same_as: int | None = None
    """The first part of a drop folder of this station with the same bytes, where this one came by the folder later."""
    review_why: Queued | None = None
    sample_rate: float | None = None
    reviewed: Reviewed | None = None
    """None where nobody has judged the part."""
    triggered: bool | None = None
    """As in `NewInspection`; None for rows of an earlier andon."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Answer to `Store.record`: the committed row. Its verdict is the one that may leave."""

    id: int
    replayed: bool
    """The request had been recorded before; `row` is the first answer."""
    row: Inspection


class PastVerdict(NamedTuple):
    """What stop rules need of a stored part."""

    id: int
    t_done: int
    verdict: Verdict
    regions: tuple[Region, ...]
    """Empty for parts that passed."""


class PastScore(NamedTuple):
    """What other thresholds need of a stored part."""

    id: int
    t_done: int
    verdict: Verdict
    score: float | None
    """Displayed scale; None for ERROR."""
    regions: tuple[Region, ...]
    """Empty for parts below the score from which regions were asked for."""


def regions_to_text(regions: tuple[Region, ...]) -> str | None:
    """Compact JSON, None where there are none."""
    plain = [[int(r.x), int(r.y), int(r.w), int(r.h), float(r.peak)] for r in regions]
    return json.dumps(plain, separators=(",", ":")) if plain else None


def regions_from_text(text: str | None) -> tuple[Region, ...]:
    """Inverse of `regions_to_text`."""
    return tuple(Region(*values) for values in json.loads(text)) if text else ()


def ms_to_text(ms: Mapping[str, float]) -> str:
    """Compact JSON, microsecond resolution; numbers that are not finite are left out."""
    finite = {key: round(float(value), 3) for key, value in ms.items() if math.isfinite(value)}
    return json.dumps(finite, separators=(",", ":"))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _check_text(name: str, text: str | None) -> None:
    if text is None:
        return
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise DataError(f"{name} {text!r} has no UTF-8 form: use letters that have one") from None
    if size > LONGEST:
        raise DataError(f"{name} has {size} bytes, at most {LONGEST} are stored: use a shorter one")
    if "\0" in text:
        raise DataError(f"{name} {text!r} has a NUL character, which databases refuse: leave it out")
