"""What is known about golden parts, and whether what a station found agrees with it. Values alone, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from andon.core.errors import DataError, UsageError
from andon.line.judge import Judgement, Thresholds
from andon.line.store import NewInspection
from andon.line.verdicts import Verdict

TOLERANCE = 1e-3
"""How far the score of a stored image may lie from the recorded one, on the displayed scale."""
LONGEST_NAME = 100
"""Characters of the name of an item."""
SHORTEST_REASON = 10
"""Characters of the reason of a change or an override."""


class Kind(StrEnum):
    """What a golden part is."""

    BAD = "bad"
    GOOD = "good"
    BORDERLINE = "borderline"
    """Near a threshold: its stored image has to keep its verdict, the part itself only its window of scores."""


class Mode(StrEnum):
    """How golden parts are judged."""

    FILES = "files"
    """Stored images: checks model, thresholds and software."""
    PARTS = "parts"
    """Parts shown to the camera after the stored images: checks light and optics, too."""


EXPECTED = {Kind.BAD: Verdict.NG, Kind.GOOD: Verdict.OK}
"""Verdict by kind; that of a borderline part is the one it gets at first."""


@dataclass(frozen=True, slots=True)
class Item:
    """One golden part. `score`, `low` and `high` are on the displayed scale (1.0 = threshold of the packed model)."""

    name: str
    """Unique in its set."""
    kind: Kind
    image_key: str
    """Path of its image below the data folder."""
    image_sha256: str
    defect_type: str = ""
    expected: Verdict | None = None
    """None: what it gets when it is judged for the first time."""
    score: float | None = None
    """Of its stored image by the model of the set; None until it has been judged by it."""
    low: float | None = None
    """Least score when it is shown; None: no limit."""
    high: float | None = None
    has_part: bool = False
    """The part itself is kept and can be shown."""
    inspection_id: int | None = None
    """Where its image came from."""
    id: int = 0


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """All golden parts of a station, bound to a model and its thresholds. A change makes a new one."""

    id: int
    station: str
    model_sha256: str | None
    """None: not judged by any model yet."""
    threshold_version: int | None
    items: tuple[Item, ...]
    at: int
    """Microseconds UTC."""
    who: str
    why: str

    @property
    def has_parts(self) -> bool:
        """Whether parts can be shown to the camera."""
        return any(item.has_part for item in self.items)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a station found on a golden part."""

    verdict: Verdict
    score: float | None
    cause: str = ""
    """Why the verdict is ERROR."""
    ms: float = 0.0

    @classmethod
    def of(cls, found: Judgement | NewInspection, thresholds: Thresholds | None = None) -> Seen:
        """What a judgement or a row says; with `thresholds`, by these."""
        cause = "" if found.cause is None else str(found.cause)
        verdict = found.verdict
        if thresholds is not None and found.score is not None and verdict is not Verdict.ERROR:
            verdict = thresholds.verdict(found.score)
        return cls(verdict, found.score, cause, float(found.ms.get("judge", 0.0)))


@dataclass(frozen=True, slots=True)
class Result:
    """One golden part in one run. `why` says how it differs from what is expected; empty where it does not."""

    name: str
    mode: Mode
    seen: Seen
    why: str
    inspection_id: int | None = None


def result(item: Item, mode: Mode, seen: Seen, inspection_id: int | None = None) -> Result:
    """What was seen on an item, compared with what is expected."""
    why = of_image(item, seen) if mode is Mode.FILES else of_part(item, seen)
    return Result(item.name, mode, seen, why, inspection_id)


def of_image(item: Item, seen: Seen) -> str:
    """How the judgement of the stored image differs: by its verdict, or by more than `TOLERANCE` of the recorded score."""
    if wrong := _wrong_verdict(item, seen):
        return wrong
    if item.score is None:
        return ""
    if seen.score is None or not math.isfinite(seen.score) or abs(seen.score - item.score) > TOLERANCE:
        return f"score {item.score:.6g} is recorded, came out {'missing' if seen.score is None else format(seen.score, '.6g')}"
    return ""


def of_part(item: Item, seen: Seen) -> str:
    """How the judgement of the shown part differs: by its verdict (not where it is borderline), or outside its window."""
    borderline = item.kind is Kind.BORDERLINE and seen.verdict is not Verdict.ERROR
    if not borderline and (wrong := _wrong_verdict(item, seen)):
        return wrong
    score = math.nan if seen.score is None else seen.score
    if item.low is not None and not score >= item.low:
        return f"score {item.low:.6g} at least is expected, came out {score:.6g}"
    if item.high is not None and not score <= item.high:
        return f"score {item.high:.6g} at most is expected, came out {score:.6g}"
    return ""


def _wrong_verdict(item: Item, seen: Seen) -> str:
    if seen.verdict is Verdict.ERROR or seen.verdict is Verdict.NONE:
        return f"came out ERROR ({seen.cause or 'no verdict'})"
    if item.expected is not None and seen.verdict is not item.expected:
        return f"{item.expected.name} is expected, came out {seen.verdict.name}"
    return ""


def recorded(items: Iterable[Item], results: Iterable[Result]) -> tuple[Item, ...]:
    """Items with the score and verdict of their stored images, where they had none."""
    seen = {each.name: each.seen for each in results if each.mode is Mode.FILES}
    return tuple(
        replace(
            item,
            score=seen[item.name].score if item.score is None else item.score,
            expected=seen[item.name].verdict if item.expected is None else item.expected,
        )
        if item.name in seen
        else item
        for item in items
    )


def without_scores(items: Iterable[Item]) -> tuple[Item, ...]:
    """Items for another model, whose scores are not known yet. What a borderline part gets is the model's, too."""
    return tuple(
        replace(item, score=None, expected=None if item.kind is Kind.BORDERLINE else item.expected)
        for item in items
    )


def together(items: Iterable[Item], added: Iterable[Item], removed: Iterable[str] = ()) -> tuple[Item, ...]:
    """Items of the next set. Raises `DataError` for a name that is there twice, missing or too long."""
    there, gone = list(items), set(removed)
    missing = sorted(gone - {item.name for item in there})
    if missing:
        raise DataError(f"there is no golden part {missing[0]!r}: see the list of golden parts")
    following = [item for item in there if item.name not in gone]
    names = {item.name for item in following}
    for item in added:
        if not item.name.strip() or len(item.name) > LONGEST_NAME or not item.name.isprintable():
            raise DataError(f"golden part {item.name!r}: a name has 1 to {LONGEST_NAME} printable characters")
        if item.name in names:
            raise DataError(
                f"golden part {item.name!r} is there already: remove it first or use another name"
            )
        if item.low is not None and item.high is not None and item.low > item.high:
            raise DataError(f"golden part {item.name!r}: the least score is above the largest: exchange them")
        names.add(item.name)
        following.append(item)
    return tuple(following)


def check_reason(why: str) -> None:
    """Raise `UsageError` for a reason of a change that says nothing."""
    if len(why.strip()) < SHORTEST_REASON:
        raise UsageError(
            f"golden parts need a reason of at least {SHORTEST_REASON} characters: say where they come from"
        )


def names_failed(results: Iterable[Result]) -> str:
    """Names of the golden parts that differ, for pages that show no scores; empty where none does."""
    names = list(dict.fromkeys(each.name for each in results if each.why))
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def what_failed(results: Iterable[Result]) -> str:
    """One line about the golden parts that differ; empty where none does."""
    wrong = [f"{each.name}: {each.why}" for each in results if each.why]
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return "; ".join(wrong[:3]) + more
