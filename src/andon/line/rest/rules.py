"""Routes of stop rules: those of each station and their versions, what rules would do, and their change."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from andon.line import rule_versions
from andon.line.line import Line
from andon.line.rest.access import TheCaller, TheLine, TheStation, find_station, requires
from andon.line.rest.shapes import PreviewBody, Previews, RulePreview, RulesBody, RuleVersionShape
from andon.line.roles import Role
from andon.line.rule_versions import RuleVersion
from andon.line.rules import Preview, Rule, advice, parse_rule, preview

router = APIRouter(tags=["stop rules"])
NEWEST = 100
"""Versions that are listed."""


@router.get("/rules", dependencies=[requires(Role.VIEWER)])
def list_rules(line: TheLine) -> dict[str, list[dict[str, Any]]]:
    """Stop rules of each station with their titles."""
    return {name: rules_of(line, name) for name in line.stations}


@router.get("/rules/{station}", dependencies=[requires(Role.VIEWER)])
def list_versions(line: TheLine, station: TheStation) -> list[RuleVersionShape]:
    """Versions of the stop rules of a station, newest first; the first is in use."""
    return [_version(each) for each in rule_versions.versions(line.store, station.name, limit=NEWEST)]


@router.put("/rules/{station}", dependencies=[requires(Role.ENGINEER)])
def change_rules(line: TheLine, station: TheStation, caller: TheCaller, body: RulesBody) -> RuleVersionShape:
    """Change the stop rules of a station, with a reason of at least 10 characters. They count from the next part on.

    With `based_on`, the version that was seen: 412 where another one is in use.
    """
    who, rules = caller.author(body.who), parsed(body.rules)
    version = line.set_rules(station.name, rules, who=who, why=body.why, based_on=body.based_on)
    return _version(version)


@router.post("/rules/preview", dependencies=[requires(Role.VIEWER)])
def preview_rules(line: TheLine, body: PreviewBody) -> Previews:
    """False stops expected at a false-reject rate, beside what the rules would have done with the stored parts."""
    rules = parsed(body.rules) or None
    return previews(line, body.station, rules, body.parts, body.false_reject_rate)


def rules_of(line: Line, station: str) -> list[dict[str, Any]]:
    """Stop rules of a station as plain values."""
    return [titled(rule) for rule in line.alarms.rules(station).rules]


def titled(rule: Rule) -> dict[str, Any]:
    """A rule as plain values, with its title."""
    return {"title": rule.title, **rule.model_dump(mode="json")}


def parsed(rules: list[dict[str, Any]]) -> list[Rule]:
    """Rules from plain values, whose titles follow from the rest. Raises `ConfigError`."""
    plain = [{name: value for name, value in values.items() if name != "title"} for values in rules]
    return [parse_rule(values, where=f"rule {i}") for i, values in enumerate(plain, start=1)]


def previews(line: Line, station: str, rules: list[Rule] | None, parts: int, rate: float) -> Previews:
    """Forecast and replay of rules, by default of those of the station, on its last `parts`."""
    find_station(line, station)
    chosen = rules if rules is not None else [*line.alarms.rules(station).rules]
    found = preview(chosen, line.store.last_verdicts(station, parts), rate)
    return Previews(rules=[preview_shape(each) for each in found], advice=advice(chosen, rate))


def _version(version: RuleVersion) -> RuleVersionShape:
    rules = [titled(rule) for rule in version.rules]
    return RuleVersionShape(version=version.id, rules=rules, why=version.why, who=version.who, at=version.at)


def preview_shape(found: Preview) -> RulePreview:
    """A rule with its forecast and replay as it is answered."""
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
