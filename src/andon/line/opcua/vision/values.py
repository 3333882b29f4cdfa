"""Results and recipes of a vision system as plain values, and what clients look for. No OPC UA library is needed.

OPC 40100-1:2019, 7.7 (recipes), 7.10 (results), 12 (data types).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeVar

from andon.line.store import Inspection
from andon.line.verdicts import Cause, Verdict
from andon.line.views import StationView, answer

T = TypeVar("T")


class ResultState(IntEnum):
    """How a result came about."""

    COMPLETED = 1
    """The part was judged: OK, NG or REVIEW."""
    ABORTED = 3
    """The part was dropped before it was judged, or came while no job ran."""
    FAILED = 4
    """The part could not be judged."""


class Job(NamedTuple):
    """An execution that a client or the station itself started."""

    id: str
    measurement: str = ""
    """`MeasId` of the client; empty without one."""


NO_JOB = Job("")


class Recipe(NamedTuple):
    """What parts are judged by."""

    code: str
    """As the environment calls it; empty without a recipe."""
    model: str
    """SHA-256 of the packed model, hexadecimal; empty where it is not known."""

    @property
    def id(self) -> str:
        """Its id in this system: the code, without one the SHA-256 of the model."""
        return self.code or self.model


class Result(NamedTuple):
    """A committed part. Times are microseconds UTC."""

    id: str
    state: ResultState
    job: Job
    part: str
    recipe: Recipe
    configuration: str
    """Version of the thresholds, 0: of the packed model."""
    begin: int
    end: int
    content: str
    """JSON as REST answers it."""


class Wanted(NamedTuple):
    """What a client looks for; what is empty or 0 does not matter."""

    state: int = 0
    measurement: str = ""
    part: str = ""
    code: str = ""
    recipe: str = ""
    external_configuration: str = ""
    configuration: str = ""
    product: str = ""
    job: str = ""


def result(row: Inspection, job: Job) -> Result:
    """A committed part as a result; `job`: which was running."""
    dropped = row.cause in (Cause.NOT_READY, Cause.RESULTS_LOST)
    failed = ResultState.ABORTED if dropped else ResultState.FAILED
    return Result(
        id=str(row.id),
        state=failed if row.verdict is Verdict.ERROR else ResultState.COMPLETED,
        job=job,
        part=row.part_id or "",
        recipe=Recipe(row.recipe or "", row.model_sha256),
        configuration=str(row.threshold_version or 0),
        begin=row.t_trigger,
        end=row.t_done,
        content=json.dumps(answer(row)),
    )


def matching(results: Iterable[Result], wanted: Wanted) -> list[Result]:
    """Results that a client looks for. There are neither products nor ids of configurations from outside."""
    return [
        each
        for each in results
        if _is(wanted.state, each.state)
        and _is(wanted.measurement, each.job.measurement)
        and _is(wanted.part, each.part)
        and _is(wanted.code, each.recipe.code)
        and _is(wanted.recipe, each.recipe.id)
        and _is(wanted.configuration, each.configuration)
        and _is(wanted.job, each.job.id)
        and not wanted.external_configuration
        and not wanted.product
    ]


def in_use(view: StationView) -> Recipe:
    """What the next part is judged by."""
    return Recipe(view.recipe or "", view.model_sha256)


def recipes(view: StationView, *, is_prepared: bool) -> list[tuple[Recipe, bool]]:
    """All recipes of a station, and whether each is prepared; `is_prepared`: the one in use is."""
    used = in_use(view)
    known = [used if code == used.code else Recipe(code, "") for code in view.recipes]
    if used not in known:
        known.insert(0, used)
    return [(each, is_prepared and each == used) for each in known]


def page(found: Sequence[T], start: int, most: int) -> tuple[list[T], bool]:
    """Up to `most` entries (0: all) from `start` on, and whether none follows."""
    end = start + most if most else len(found)
    return list(found[start:end]), end >= len(found)


def _is(wanted: object, found: object) -> bool:
    return not wanted or wanted == found
