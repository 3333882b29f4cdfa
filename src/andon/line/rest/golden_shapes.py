"""What the REST interface takes and answers about golden parts. Times are microseconds UTC."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from andon.line.golden.book import Run
from andon.line.golden.items import EXPECTED, GoldenSet, Item, Kind, Mode, Result
from andon.line.rest.shapes import PLAIN, PREFIX, Author, Name, Reason, Shape, Who
from andon.line.verdicts import Verdict
from andon.line.views import GoldenView, VerdictName, verdict_name

Score = Annotated[float | None, Field(ge=-1000, le=1000, allow_inf_nan=False)]


class NewItem(Shape):
    """A golden part. A window (`low`, `high`) holds for the part when it is shown, not for its stored image."""

    name: Name
    kind: Kind
    defect_type: str = Field("", max_length=100, pattern=PLAIN)
    expected: Literal["OK", "NG", "REVIEW"] | None = None
    """Default: NG for bad, OK for good parts, for borderline ones the verdict of their first check."""
    low: Score = None
    high: Score = None
    has_part: bool = False
    """The part itself is kept and can be shown to the camera."""
    who: Author = ""
    why: Reason

    def item(self, key: str, sha256: str, inspection_id: int | None = None) -> Item:
        """With its stored image."""
        expected = EXPECTED.get(self.kind) if self.expected is None else Verdict[self.expected]
        return Item(
            name=self.name,
            kind=self.kind,
            image_key=key,
            image_sha256=sha256,
            defect_type=self.defect_type,
            expected=expected,
            low=self.low,
            high=self.high,
            has_part=self.has_part,
            inspection_id=inspection_id,
        )


class FromInspection(NewItem):
    """A golden part whose image is that of an inspection."""

    inspection: int = Field(ge=0, lt=2**63)


class GoldenRemoveBody(Shape):
    """Golden parts that are needed no more."""

    names: list[Name] = Field(min_length=1, max_length=1000)
    who: Author = ""
    why: Reason


class GoldenRunBody(Who):
    """A check: `files` judges the stored images, `parts` waits for parts that are shown to the camera as well."""

    mode: Mode = Mode.FILES


class ShowBody(Who):
    """Which golden part is shown next."""

    item: Name


class GoldenOverrideBody(Shape):
    """Parts may be OK for a time although a check failed or is overdue."""

    minutes: float = Field(gt=0, le=480)
    who: Author = ""
    why: Reason


class GoldenItemShape(Shape):
    """A golden part and its recorded score (displayed scale, 1.0 = threshold of the packed model)."""

    id: int
    name: str
    kind: Kind
    defect_type: str
    expected: VerdictName | None
    score: float | None
    low: float | None
    high: float | None
    has_part: bool
    inspection: int | None
    image: str
    image_sha256: str


class GoldenResultShape(Shape):
    """One golden part in a check; `why`: how it differs from what is expected, empty where it does not."""

    name: str
    mode: Mode
    verdict: VerdictName
    score: float | None
    cause: str
    why: str
    ms: float
    inspection: int | None


class GoldenRunShape(Shape):
    """One check; `is_trial`: of thresholds or a model that were refused."""

    id: int
    mode: Mode
    passed: bool
    is_trial: bool
    why: str
    who: str
    started: int
    ended: int
    accept: float
    reject: float
    model_sha256: str
    results: list[GoldenResultShape]


class GoldenShape(Shape):
    """Golden parts of a station: `state` is `clear`, `due`, `overdue`, `failed` or `overridden`."""

    station: str
    state: str
    text: str
    needs: Mode | None
    due: int | None
    grace_until: int | None
    passed_at: int | None
    override_until: int | None
    left: list[str]
    """Parts that are still to be shown."""
    waits_for: str | None
    message: str
    set: int | None
    model_sha256: str | None
    threshold_version: int | None
    items: list[GoldenItemShape]


def golden_shape(station: str, view: GoldenView, golden: GoldenSet | None) -> GoldenShape:
    """As it is answered."""
    return GoldenShape(
        station=station,
        state=view.state,
        text=view.text,
        needs=None if view.needs is None else Mode(view.needs),
        due=view.due,
        grace_until=view.grace_until,
        passed_at=view.passed_at,
        override_until=view.override_until,
        left=list(view.left),
        waits_for=view.waits_for,
        message=view.message,
        set=golden.id if golden else None,
        model_sha256=golden.model_sha256 if golden else None,
        threshold_version=golden.threshold_version if golden else None,
        items=[_item(station, item) for item in golden.items] if golden else [],
    )


def _item(station: str, item: Item) -> GoldenItemShape:
    return GoldenItemShape(
        id=item.id,
        name=item.name,
        kind=item.kind,
        defect_type=item.defect_type,
        expected=None if item.expected is None else verdict_name(item.expected),
        score=item.score,
        low=item.low,
        high=item.high,
        has_part=item.has_part,
        inspection=item.inspection_id,
        image=f"{PREFIX}/golden/{station}/items/{item.id}/image",
        image_sha256=item.image_sha256,
    )


def run_shape(run: Run) -> GoldenRunShape:
    """As it is answered."""
    return GoldenRunShape(
        id=run.id,
        mode=run.mode,
        passed=run.passed,
        is_trial=run.is_trial,
        why=run.why,
        who=run.who,
        started=run.started,
        ended=run.ended,
        accept=run.thresholds.accept,
        reject=run.thresholds.reject,
        model_sha256=run.model_sha256,
        results=[_result(each) for each in run.results],
    )


def _result(each: Result) -> GoldenResultShape:
    return GoldenResultShape(
        name=each.name,
        mode=each.mode,
        verdict=verdict_name(each.seen.verdict),
        score=each.seen.score,
        cause=each.seen.cause,
        why=each.why,
        ms=each.seen.ms,
        inspection=each.inspection_id,
    )
