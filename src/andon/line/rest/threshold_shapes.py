"""What the routes of thresholds take and answer."""

from __future__ import annotations

from pydantic import Field

from andon.line.rest.shapes import PLAIN, Author, Reason, RulePreview, Shape, ThresholdsShape
from andon.line.views import VerdictName


class ThresholdsBody(Shape):
    """New thresholds of a station, taken between two parts."""

    accept: float = Field(gt=0, le=1000, allow_inf_nan=False)
    reject: float = Field(gt=0, le=1000, allow_inf_nan=False)
    why: Reason
    """Reason, at least 10 characters; kept with the version."""
    who: Author = ""
    based_on: int | None = None
    """Version that was seen, 0: the thresholds of the packed file; 412 where another one is in use."""


class VersionShape(ThresholdsShape):
    """A stored version of thresholds."""

    why: str
    who: str
    at: int


class ProposalShape(Shape):
    """Thresholds that wait for a second person."""

    proposal: int
    accept: float
    reject: float
    why: str
    who: str
    at: int
    based_on: int
    """Version that was in use; 0: the thresholds of the packed file."""


class Versions(Shape):
    """Thresholds in use, all stored versions of the model's thresholds, and open proposals, newest first."""

    now: ThresholdsShape
    packed: ThresholdsShape
    """Of the packed file, version 0."""
    versions: list[VersionShape]
    second_person: bool
    """Whether a second person has to approve."""
    proposals: list[ProposalShape]


class RollbackBody(Shape):
    """Uses the thresholds of an earlier version again, 0: those of the packed file."""

    version: int = Field(ge=0)
    who: Author = ""
    why: Reason | None = None
    """By default that it is a rollback, and to which version."""


class DecisionBody(Shape):
    """What a second person says to a proposal."""

    who: Author = ""
    note: str = Field("", max_length=1000, pattern=PLAIN)


class TrialBody(Shape):
    """Thresholds to try on the newest stored parts."""

    accept: float = Field(gt=0, le=1000, allow_inf_nan=False)
    reject: float = Field(gt=0, le=1000, allow_inf_nan=False)
    parts: int = Field(10_000, ge=1, le=100_000)


class ChangedShape(Shape):
    """A stored part that would get another verdict."""

    id: int
    score: float
    was: VerdictName
    becomes: VerdictName


class Trial(Shape):
    """What thresholds would have done with stored parts of the model in use; nothing is changed."""

    parts: int
    since: int | None
    """When the oldest part was judged."""
    was: dict[str, int]
    """Stored verdicts."""
    becomes: dict[str, int]
    stops_was: int
    """Stops by the rules in use on the stored verdicts."""
    stops_become: int
    calls_was: int
    calls_become: int
    changed: int
    """Parts with another verdict."""
    nearest: list[ChangedShape]
    """Those nearest to a threshold."""
    false_reject_rate: float | None
    """Expected from the good images of the calibration; None where they are not known."""
    rules: list[RulePreview]
    """Each rule at this rate, and alone on the parts with their new verdicts."""
