"""What the REST interface answers: typed, so that OpenAPI describes it. Times are microseconds UTC."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from andon.core.interface import API
from andon.line.andon_states import StopCause
from andon.line.store import Inspection
from andon.line.views import VerdictName, answer

PREFIX = API
PLAIN = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
"""Texts without control characters; databases refuse NUL."""
Reason = Annotated[str, Field(min_length=10, max_length=1000, pattern=PLAIN)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=PLAIN)]
Author = Annotated[str, Field(max_length=100, pattern=PLAIN)]
"""Who acts; with accounts their names count, and this may be left out."""
Filter = Annotated[str | None, Query(max_length=300, pattern=PLAIN)]
IMAGES = ("image", "preview", "thumbnail")
MAPS = ("map", "heat", "overlay")


class Shape(BaseModel):
    """Base of all answers and bodies."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class RegionShape(Shape):
    """An abnormal rectangle in pixels of the image; `peak`: its highest score (1.0 = threshold)."""

    x: int
    y: int
    w: int
    h: int
    peak: float


class ThresholdsShape(Shape):
    """OK below `accept`, NG at or above `reject`, REVIEW in between; 1.0 is the threshold of the packed model."""

    accept: float
    reject: float
    version: int | None
    """None: the thresholds of the packed model or of the settings."""


class InspectionShape(Shape):
    """A committed verdict. Only `OK` passes the part."""

    id: int
    station: str
    request_id: str
    part_id: str | None
    lot: str | None
    recipe: str | None
    trigger_no: int | None
    t_trigger: int
    t_done: int
    verdict: VerdictName
    score: float | None
    """1.0 = threshold; None for ERROR."""
    score_raw: float | None
    cause: str
    """Why the verdict is ERROR; empty otherwise."""
    threshold_version: int | None
    model_sha256: str
    regions: list[RegionShape]
    """Largest first."""
    ms: dict[str, float]
    """Milliseconds of each stage."""
    image_state: str
    """`none`, `pending`, `stored`, `lost`, `not_stored`, `deleted`."""
    image_sha256: str | None
    same_as: int | None
    """The first part of the station's drop folder with the same bytes; None where this one is the first or came by REST."""
    opinion: str | None
    """What a person said: `GOOD`, `BAD`, `UNSURE`; None where nobody judged the part."""
    defect_type: str | None
    reviewer: str | None
    overridden: bool
    """The person said the opposite of the verdict OK or NG."""
    links: dict[str, str]


class Page(Shape):
    """Inspections, newest first; `next`: address of the next page, None at the end."""

    inspections: list[InspectionShape]
    next: str | None


class Accepted(Shape):
    """The part is queued and has no verdict yet, so it is bad."""

    request_id: str
    verdict: None = None
    links: dict[str, str]


class Who(Shape):
    """A person's action."""

    who: Author = ""
    note: str = Field("", max_length=1000, pattern=PLAIN)


class CauseBody(Who):
    """Why the line stopped; `other` needs a note."""

    cause: StopCause


class PinBody(Shape):
    """A person, by name and PIN or badge number."""

    name: str = Field(min_length=1, max_length=100, pattern=PLAIN)
    pin: str = Field(min_length=1, max_length=100, pattern=PLAIN)


class Me(Shape):
    """Who a request comes from."""

    name: str
    """Empty without accounts."""
    role: str
    is_locked: bool
    """Nothing was done for 15 minutes: the log-in only sees."""
    csrf: str


class AuditRow(Shape):
    """One change."""

    seq: int
    at: int
    who: str
    role: str
    """Role of the account; empty without accounts and for what the line did by itself."""
    action: str
    object: str
    old_json: str | None
    new_json: str | None
    reason: str
    prev_hash: str
    hash: str
    """SHA-256 of `prev_hash` and the rest of the row."""


class AuditPage(Shape):
    """Changes, newest first; `next`: address of the next page, None at the end."""

    rows: list[AuditRow]
    next: str | None


class Chain(Shape):
    """Result of a check of the audit."""

    is_sound: bool | None
    """None: not known."""
    rows: int
    head: str
    """NUMBER:HASH of the last row."""
    problem: str
    at: int


class RecipeBody(Who):
    """Changes the product of a station."""

    code: Name


class ShelveBody(Who):
    """Puts an alarm aside; needs a note with the reason."""

    minutes: float = Field(gt=0, le=480)


class RulesBody(Shape):
    """All stop rules of a station, each with `kind` and its settings; taken between two parts, with empty windows."""

    rules: list[dict[str, Any]] = Field(max_length=20)
    why: Reason
    """Reason, at least 10 characters; kept with the version."""
    who: Author = ""
    based_on: int | None = None
    """Version that the change begins from."""


class RuleVersionShape(Shape):
    """A stored version of the stop rules of a station."""

    version: int
    rules: list[dict[str, Any]]
    why: str
    who: str
    at: int


class PreviewBody(Shape):
    """Rules to try on the last parts of a station; without rules, those of the station."""

    station: str
    rules: list[dict[str, Any]] = []
    parts: int = Field(10_000, ge=1, le=100_000)
    false_reject_rate: float = Field(0.01, ge=0, lt=1)


class RulePreview(Shape):
    """Expected false stops (calls) of a rule, and what it would have done with the stored parts."""

    title: str
    action: str
    per_10_000: float | None
    """Expected in 10,000 good parts; None where that does not follow from the false-reject rate."""
    method: str | None
    standard_error: float | None
    parts: int
    """Stored parts it was tried on."""
    stops: int
    calls: int
    useless: bool
    sentence: str


class Previews(Shape):
    """Each rule, and advice where rules stop too often; empty where none does."""

    rules: list[RulePreview]
    advice: str


def links(row: Inspection) -> dict[str, str]:
    """Addresses of one inspection and of what belongs to it."""
    base = f"{PREFIX}/inspections/{row.id}"
    version = f"?v={(row.image_sha256 or '')[:12]}"  # browsers keep pictures; ids begin again in a new store
    names = [*(IMAGES if row.image_key else ()), *(MAPS if row.map_key else ())]
    return {"self": base, **{name: f"{base}/{name}{version}" for name in names}}


def inspection_shape(row: Inspection) -> InspectionShape:
    """The row as it is answered."""
    said = row.reviewed
    return InspectionShape(
        **answer(row),
        opinion=None if said is None else said.opinion.name,
        defect_type=None if said is None else said.defect_type,
        reviewer=None if said is None else said.who,
        overridden=said is not None and said.overridden,
        links=links(row),
    )
