"""What the routes of reviews take and answer. Times are microseconds UTC."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from andon.line.rest.shapes import PLAIN, Author, Shape
from andon.line.review.settings import DefectType
from andon.line.views import VerdictName

OpinionName = Literal["GOOD", "BAD", "UNSURE"]
Id = Annotated[int, Field(ge=0, lt=2**63)]


class NextBody(Shape):
    """Who takes parts, how many, and of which stations (none: all); parts in `skip` are let go."""

    who: Author = ""
    n: int = Field(1, ge=1, le=20)
    stations: list[str] = Field([], max_length=100)
    skip: list[Id] = Field([], max_length=1000)


class ItemShape(Shape):
    """A part to be judged. In blind mode it has no verdict, score, cause, reason or heat map."""

    id: int
    station: str
    part_id: str | None
    lot: str | None
    version: int
    """For `If-Match`."""
    second: bool
    """Another person judged it before."""
    blind: bool
    defect_types: list[str]
    verdict: VerdictName | None
    score: float | None
    why: str | None
    """Why it is reviewed: `sample`, `band`, `error`, `ng`."""
    links: dict[str, str]


class Items(Shape):
    """Parts that were handed out for 60 seconds, and how many wait for this person (counted up to 10,000)."""

    items: list[ItemShape]
    waiting: int


class ReviewBody(Shape):
    """An opinion; `defect_type` with `BAD` alone."""

    who: Author = ""
    opinion: OpinionName
    defect_type: DefectType | None = None
    reason: str = Field("", max_length=1000, pattern=PLAIN)


class UndoBody(Shape):
    """Who withdraws the last opinion."""

    who: Author = ""


class ReviewShape(Shape):
    """A stored row of reviews."""

    id: int
    at: int
    who: str
    number: int
    """1 for the first person, 2 for the second."""
    opinion: str
    """`GOOD`, `BAD`, `UNSURE`, `WITHDRAWN`."""
    defect_type: str | None
    reason: str
    blind: bool


class ReviewsShape(Shape):
    """Verdict of the machine, the opinion that counts, and all rows, newest first."""

    inspection: int
    version: int
    """Id of the last row, for `If-Match`; 0 where there is none."""
    verdict: VerdictName
    score: float | None
    opinion: str | None
    overridden: bool
    reviews: list[ReviewShape]


class OverrideShape(Shape):
    """Opinions opposite to the verdict OK or NG: `count` of `n`, with the limits of the exact 95 % interval."""

    count: int
    n: int
    rate: float | None
    low: float
    high: float


class StratumShape(Shape):
    """The random sample of a station at one rate."""

    station: str
    rate: float
    drawn: int
    good: int
    bad: int
    unsure: int


class EscapesShape(Shape):
    """Bad share of the parts that passed, estimated from the random sample."""

    rate: float | None
    low: float
    high: float
    drawn: int
    reviewed: int
    bad: int
    unsure: int
    strata: list[StratumShape]


class ConfusionShape(Shape):
    """How often a reviewer said what about parts of each verdict."""

    who: str
    n: int
    counts: dict[str, dict[str, int]]
    """Verdict of the machine: opinion: parts."""


class KappaShape(Shape):
    """Cohen's kappa of first and second opinions."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    agree: int


class FiguresShape(Shape):
    """What follows from reviews."""

    escapes: EscapesShape
    overrides: OverrideShape
    reviewers: list[ConfusionShape]
    kappa: KappaShape


class SnapshotBody(Shape):
    """Who takes a snapshot; of one station or all, of parts judged since a time."""

    who: Author = ""
    station: str | None = None
    since: Id | None = None


class SnapshotShape(Shape):
    """A frozen data set of reviewed parts."""

    id: str
    folder: str
    good: int
    bad: int
    left_out: dict[str, int]
    """Reviewed parts that are not in it, by reason."""
    who: str
    at: int
