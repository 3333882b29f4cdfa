"""Pages of the stop rules: what those in use cost, and a proposal with its forecast before it is saved."""

from __future__ import annotations

from itertools import zip_longest
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, Response

from andon.core.errors import ConfigError
from andon.line import rule_versions
from andon.line.rest.access import TheLine, TheStation, requires
from andon.line.rest.html import html
from andon.line.rest.rules import parsed, previews, rules_of
from andon.line.rest.shapes import Previews
from andon.line.roles import Role
from andon.line.rules import KINDS

page_router = APIRouter(default_response_class=HTMLResponse)
REPLAYED = 10_000
"""Stored parts on which the pages try rules."""
SPARE = 2
"""Empty rows in which rules can be added."""
VERSIONS = 10
"""Versions that the page lists."""
EMPTY = {"kind": "", "action": "stop", "verdict": "NG", "k": "", "n": "", "iou": "", "seconds": ""}
"""A row of the form; `_values` leaves out the columns that a kind does not know."""
Percent = Annotated[float, Query(ge=0, le=50)]
Texts = Annotated[list[str], Query(max_length=40)]


@page_router.get("/rules", dependencies=[requires(Role.VIEWER)])
def rules_page(line: TheLine, percent: Percent = 1.0) -> Response:
    """Stop rules with their expected false stops beside what they would have done."""
    found = {name: previews(line, name, None, REPLAYED, percent / 100) for name in line.stations}
    return html("rules", stations=found, percent=f"{percent:g}")


@page_router.get("/rules/{station}", dependencies=[requires(Role.VIEWER)])
def proposal_page(
    line: TheLine,
    station: TheStation,
    percent: Percent = 1.0,
    kind: Texts = [],  # noqa: B006 (FastAPI copies it)
    action: Texts = [],  # noqa: B006
    verdict: Texts = [],  # noqa: B006
    k: Texts = [],  # noqa: B006
    n: Texts = [],  # noqa: B006
    iou: Texts = [],  # noqa: B006
    seconds: Texts = [],  # noqa: B006
) -> Response:
    """Other rules for a station: their forecast and replay. Without rules in the query, those in use."""
    version = line.alarms.rules(station.name)
    columns = (kind, action, verdict, k, n, iou, seconds)
    written = [dict(zip(EMPTY, row, strict=True)) for row in zip_longest(*columns, fillvalue="")]
    shown = [row for row in written if row["kind"]] if kind else rules_of(line, station.name)
    found, problem = Previews(rules=[], advice=""), ""
    proposed: list[dict[str, Any]] = []
    try:
        rules = parsed([_values(row) for row in shown])
        proposed = rule_versions.plain(rules)
        found = previews(line, station.name, rules, REPLAYED, percent / 100)
    except ConfigError as error:
        problem = str(error)
    return html(
        "rule_change",
        station=station.name,
        percent=f"{percent:g}",
        found=found,
        problem=problem,
        rows=[EMPTY | row for row in [*shown, *({} for _ in range(SPARE))]],
        kinds=[*KINDS],
        differs=not problem and proposed != version.plain,
        versions=rule_versions.versions(line.store, station.name, limit=VERSIONS),
        initial={"station": station.name, "rules": proposed, "based_on": version.id},
    )


def _values(row: dict[str, Any]) -> dict[str, Any]:
    """What the kind of a rule knows of a row of the form, as numbers where they are some."""
    kind = KINDS.get(row["kind"])
    known = row if kind is None else {name: row[name] for name in kind.model_fields if name in row}
    return {name: _number(value) for name, value in known.items() if value != ""}


def _number(value: Any) -> Any:
    """An integer or float where a text is one."""
    for number in (int, float):
        try:
            return number(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value
