"""What a request asks by its query: filters of inspections, the same everywhere, and names that a route does not know."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, get_args

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from andon.line.rest.problems import Problem
from andon.line.rest.shapes import Filter
from andon.line.store import ReviewFilter
from andon.line.verdicts import Verdict
from andon.line.views import VerdictName

OF_PICTURES = "v"
"""Links to pictures have it, because browsers keep pictures; routes do not read it."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which inspections are meant, on the page, in lists and in the export; None: all."""

    station: str | None = None
    verdict: VerdictName | None = None
    part_id: str | None = None
    lot: str | None = None
    reviewed: ReviewFilter | None = None
    since: int | None = None
    """Microseconds UTC."""

    def asked(self) -> dict[str, Any]:
        """Arguments of `Store.inspections`."""
        return {**asdict(self), "verdict": None if self.verdict is None else Verdict[self.verdict]}

    def query(self) -> dict[str, Any]:
        """Those that are set, for the query of an address."""
        return {name: value for name, value in asdict(self).items() if value is not None}


async def _filters(
    station: Filter = None,
    verdict: VerdictName | None = None,
    part_id: Filter = None,
    lot: Filter = None,
    reviewed: ReviewFilter | None = None,
    since: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
) -> Filters:
    return Filters(station, verdict, part_id, lot, reviewed, since)


TheFilters = Annotated[Filters, Depends(_filters)]


def chosen_of(kind: Any, text: str, what: str) -> tuple[Any, str]:
    """One of the values of the `Literal` `kind`, None for an empty text, and what is wrong with any other text."""
    values = get_args(kind)
    if not text or text in values:
        return text or None, ""
    return None, f"There is no {what} {text!r}: choose one of {', '.join(values)}."


def unknown(request: Request) -> str:
    """What is wrong with the names in the query of a request; empty where the route knows all of them."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = _names(route.dependant) | {
        each["name"] for each in (route.openapi_extra or {}).get("parameters", ())
    }
    for name in request.query_params:
        if name not in known and name != OF_PICTURES:
            there = f"there are {', '.join(sorted(known))}" if known else "there are none here"
            return f"there is no query parameter {name!r}: {there}"
    return ""


async def refuse_unknown(request: Request) -> None:
    """Raises a 422 `Problem` for a name in the query that the route does not know: a filter that is ignored shows too much."""
    if problem := unknown(request):
        raise Problem(422, "invalid", problem)


def _names(dependant: Dependant) -> set[str]:
    found: set[str] = set()
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {info.alias or name for name, info in kind.model_fields.items()}
        else:
            found.add(field.alias)
    return found.union(*map(_names, dependant.dependencies))
