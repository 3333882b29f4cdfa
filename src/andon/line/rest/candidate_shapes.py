"""What the REST interface takes and answers about candidates. Times are microseconds UTC."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from andon.line.candidates.candidates import MOST_SAMPLE, SAMPLE, View
from andon.line.candidates.figures import Figures, figures
from andon.line.candidates.standing import Action
from andon.line.rest.shapes import PLAIN, PREFIX, Author, Name, Reason, Shape
from andon.line.store.candidates import Pair, Step
from andon.line.views import VerdictName, verdict_name

FLIPS = 100
"""Parts with another verdict that are listed."""


class NewCandidate(Shape):
    """A packed file that may replace the model of a station."""

    name: Name
    """File name of the new candidate, or of the file in `candidates/` of the data folder where the body is empty."""
    who: Author = ""
    why: Reason


class CompareBody(Shape):
    """Parts of a comparison: the reviewed ones, and a random sample of the newest ones."""

    sample: int = Field(SAMPLE, ge=0, le=MOST_SAMPLE)
    who: Author = ""


class ShadowBody(Shape):
    """Whether the candidate scores the parts of the station after their answers."""

    on: bool
    who: Author = ""
    why: str = Field("", max_length=1000, pattern=PLAIN)


class PromoteBody(Shape):
    """Why the candidate shall judge; `based_on`: SHA-256 of the model that the person saw in use."""

    who: Author = ""
    why: Reason
    based_on: str | None = Field(None, max_length=64, pattern=PLAIN)


class ReturnBody(Shape):
    """Why the model before shall judge again."""

    who: Author = ""
    why: str = Field("", max_length=1000, pattern=PLAIN)


class ModelShareShape(Shape):
    """`count` of `n` parts, with the exact 95 % interval of the rate."""

    count: int
    n: int
    rate: float | None
    low: float
    high: float


class BothShape(Shape):
    """By the model in use and by the candidate, on the same parts."""

    base: ModelShareShape
    candidate: ModelShareShape


class AurocShape(Shape):
    """Ranking of reviewed parts; `low` and `high`: paired bootstrap interval of the difference, 95 %."""

    good: int
    bad: int
    base: float
    candidate: float
    difference: float
    low: float | None
    high: float | None


class TimesShape(Shape):
    """Milliseconds of judgements."""

    median: float
    p95: float


class FlipShape(Shape):
    """A part with another verdict."""

    inspection: int
    base: VerdictName
    candidate: VerdictName
    base_score: float | None
    candidate_score: float | None
    opinion: str | None
    thumbnail: str


class CellShape(Shape):
    """Parts with these two verdicts."""

    base: VerdictName
    candidate: VerdictName
    n: int


class ModelFiguresShape(Shape):
    """Two models on the same parts; at most 100 parts with another verdict are listed, reviewed ones first."""

    parts: int
    left_out: dict[str, int]
    agreement: ModelShareShape
    table: list[CellShape]
    flips: list[FlipShape]
    auroc: AurocShape | None
    escapes: BothShape
    false_rejects: BothShape
    base_ms: TimesShape | None
    candidate_ms: TimesShape | None


class ModelRunShape(Shape):
    """A comparison or a shadow run."""

    at: int
    who: str
    base_name: str
    base_sha256: str
    done: int
    total: int | None
    """None for shadow mode."""
    dropped: int
    is_running: bool
    error: str
    """Why it failed; empty where it did not."""
    golden: str
    golden_passed: bool | None
    figures: ModelFiguresShape | None
    """None in lists."""


class CandidateShape(Shape):
    """A candidate and where it stands."""

    id: int
    station: str
    name: str
    sha256: str
    why: str
    who: str
    at: int
    is_used: bool
    comparison: ModelRunShape | None
    shadow: ModelRunShape | None
    proposed_by: str | None
    """Who has proposed it; it waits for a second person then."""
    proposed_why: str
    promoted: int | None
    """When it came into use, where it was not taken back."""


def candidate_shape(
    view: View, comparison: list[Pair] | None = None, shadow: list[Pair] | None = None
) -> CandidateShape:
    """With the figures of its comparison and shadow run where their parts are given."""
    found, candidate = view.standing, view.candidate
    return CandidateShape(
        id=candidate.id,
        station=candidate.station,
        name=candidate.name,
        sha256=candidate.sha256,
        why=candidate.why,
        who=candidate.who,
        at=candidate.at,
        is_used=view.is_used,
        comparison=_comparison(view, comparison) if found.comparison else None,
        shadow=_run(found.shadow, view.shadowed, shadow, dropped=view.dropped, is_running=found.is_shadow)
        if found.shadow
        else None,
        proposed_by=found.proposal.who if found.proposal else None,
        proposed_why=found.proposal.why if found.proposal else "",
        promoted=found.promoted.at if found.promoted else None,
    )


def _comparison(view: View, pairs: list[Pair] | None) -> ModelRunShape:
    found = view.standing
    assert found.comparison is not None
    outcome = found.outcome
    detail = {} if outcome is None else outcome.detail
    failed = outcome is not None and outcome.action == Action.FAILED
    return _run(
        found.comparison,
        view.done,
        pairs,
        total=view.total,
        is_running=found.is_comparing,
        error=str(detail.get("why", "")) if failed else "",
        golden=str(detail.get("golden", "")),
        golden_passed=detail.get("passed"),
    )


def _run(
    step: Step,
    done: int,
    pairs: list[Pair] | None,
    *,
    is_running: bool,
    total: int | None = None,
    dropped: int = 0,
    error: str = "",
    golden: str = "",
    golden_passed: bool | None = None,
) -> ModelRunShape:
    return ModelRunShape(
        at=step.at,
        who=step.who,
        base_name=step.detail["base_name"],
        base_sha256=step.detail["base_sha256"],
        done=done,
        total=total,
        dropped=dropped,
        is_running=is_running,
        error=error,
        golden=golden,
        golden_passed=golden_passed,
        figures=None if pairs is None else figures_shape(figures(pairs)),
    )


def figures_shape(found: Figures) -> ModelFiguresShape:
    """Figures of a comparison."""
    auroc, names = found.auroc, ("good", "bad", "base", "candidate", "difference")
    low, high = (None, None) if auroc is None or auroc.interval is None else auroc.interval
    values: dict[str, Any] = {} if auroc is None else {name: getattr(auroc, name) for name in names}
    return ModelFiguresShape(
        parts=found.parts,
        left_out=dict(found.left_out),
        agreement=ModelShareShape(**found.agreement.to_json()),
        table=[
            CellShape(base=verdict_name(was), candidate=verdict_name(becomes), n=n)
            for (was, becomes), n in sorted(found.table.items())
        ],
        flips=[_flip(pair) for pair in found.flips[:FLIPS]],
        auroc=None if auroc is None else AurocShape(**values, low=low, high=high),
        escapes=BothShape.model_validate(found.escapes.to_json()),
        false_rejects=BothShape.model_validate(found.false_rejects.to_json()),
        base_ms=None if found.base_ms is None else TimesShape(**found.base_ms._asdict()),
        candidate_ms=None if found.candidate_ms is None else TimesShape(**found.candidate_ms._asdict()),
    )


def _flip(pair: Pair) -> FlipShape:
    return FlipShape(
        inspection=pair.inspection_id,
        base=verdict_name(pair.base.verdict),
        candidate=verdict_name(pair.candidate.verdict),
        base_score=pair.base.score,
        candidate_score=pair.candidate.score,
        opinion=None if pair.opinion is None else pair.opinion.name,
        thumbnail=f"{PREFIX}/inspections/{pair.inspection_id}/thumbnail",
    )
