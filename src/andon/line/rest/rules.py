"""Routes of stop rules: those of each station, and what rules would do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from andon.line.line import Line
from andon.line.rest.access import TheLine, find_station, requires
from andon.line.rest.shapes import PreviewBody, Previews, RulePreview
from andon.line.roles import Role
from andon.line.rules import Preview, Rule, advice, parse_rule, preview
from andon.line.station import Station

router = APIRouter(tags=["stop rules"])


@router.get("/rules", dependencies=[requires(Role.VIEWER)])
def list_rules(line: TheLine) -> dict[str, list[dict[str, Any]]]:
    """Stop rules of each station with their titles."""
    return {name: rules_of(station) for name, station in line.stations.items()}


@router.post("/rules/preview", dependencies=[requires(Role.VIEWER)])
def preview_rules(line: TheLine, body: PreviewBody) -> Previews:
    """False stops expected at a false-reject rate, beside what the rules would have done with the stored parts."""
    rules = [parse_rule(values, where=f"rule {i}") for i, values in enumerate(body.rules, start=1)]
    return previews(line, body.station, rules or None, body.parts, body.false_reject_rate)


def rules_of(station: Station) -> list[dict[str, Any]]:
    """Stop rules of a station as plain values."""
    return [{"title": rule.title, **rule.model_dump(mode="json")} for rule in station.settings.rules]


def previews(line: Line, station: str, rules: list[Rule] | None, parts: int, rate: float) -> Previews:
    """Forecast and replay of rules, by default of those of the station, on its last `parts`."""
    of_station = find_station(line, station).settings.rules
    chosen = rules or [*of_station]
    found = preview(chosen, line.store.last_verdicts(station, parts), rate)
    return Previews(rules=[_shape(each) for each in found], advice=advice(chosen, rate))


def _shape(found: Preview) -> RulePreview:
    expected = found.forecast
    return RulePreview(
        title=found.rule.title,
        action=found.rule.action.value,
        per_10_000=None if expected is None else expected.per_10_000,
        method=None if expected is None else expected.method,
        standard_error=None if expected is None else expected.standard_error,
        parts=found.replayed.parts,
        stops=len(found.replayed.stops),
        calls=len(found.replayed.calls),
        useless=found.is_useless,
        sentence=found.sentence,
    )
