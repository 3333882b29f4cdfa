"""Gauge study from the history of a station: parts that were judged several times, with references given by people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from andon.core.errors import UsageError
from andon.line.reports.agreement import Agreement, Shown, agreement
from andon.line.store import Connection
from andon.line.store import studies as stored
from andon.line.store.reports import Period
from andon.line.store.studies import Shot, Shots
from andon.line.verdicts import Opinion, Verdict

FEWEST_PARTS, MOST_REPEATS = 20, 10
CLEAR = (Opinion.GOOD, Opinion.BAD)
References = Mapping[str, Opinion | None]
"""Reference by part id; None: the part is left out."""


class Candidate(NamedTuple):
    """A part that was shown several times."""

    part_id: str
    reference: Opinion | None
    """What people said in reviews of any of its shots; None where they said nothing clear or differ."""
    by: str
    verdicts: tuple[Verdict, ...]
    """Of its newest shots, as many for each part, oldest first."""
    inspections: tuple[int, ...]

    @property
    def accepted(self) -> tuple[bool, ...]:
        """Whether each shot passed the part."""
        return tuple(verdict.passes for verdict in self.verdicts)


def candidates(shots: Sequence[Shot], repeats: int) -> list[Candidate]:
    """Parts in the order of their first shots, each with its newest `repeats` shots."""
    by_part: dict[str, list[Shot]] = {}
    for shot in shots:
        by_part.setdefault(shot.part_id, []).append(shot)
    return [_candidate(part_id, each, repeats) for part_id, each in by_part.items() if len(each) >= repeats]


def with_references(found: Sequence[Candidate], references: References, who: str) -> list[Candidate]:
    """Parts with a reference: that of `references`, given by `who`, otherwise that of reviews."""
    chosen = []
    for each in found:
        said = references.get(each.part_id, each.reference)
        by = each.by if said == each.reference else who
        if said in CLEAR:
            chosen.append(each._replace(reference=said, by=by))
    return chosen


def figures(parts: Sequence[Candidate]) -> Agreement:
    """Figures of parts with references."""
    return agreement([Shown(each.reference is Opinion.GOOD, each.accepted) for each in parts])


def problem(parts: Sequence[Candidate]) -> str:
    """Why parts make no study; empty where they do."""
    kinds = {each.reference for each in parts}
    if len(parts) < FEWEST_PARTS:
        return f"{len(parts)} parts have a reference, a study needs {FEWEST_PARTS} to {stored.MOST_PARTS}: show more parts"
    if len(kinds) < 2:
        return "all parts have the same reference: show good and bad parts"
    return ""


def read(connection: Connection, of: Period, repeats: int) -> tuple[Shots, list[Candidate]]:
    """What stands in the history of a period."""
    shots = stored.shots(connection, of, repeats)
    return shots, candidates(shots.shots, repeats)


def content(
    connection: Connection, of: Period, repeats: int, references: References, *, who: str, why: str, at: int
) -> dict[str, Any]:
    """What is signed, as plain values: period, parts, figures. Raises `UsageError` where parts make no study."""
    shots, found = read(connection, of, repeats)
    if unknown := [part_id for part_id in references if part_id not in {each.part_id for each in found}]:
        raise UsageError(f"part {unknown[0]!r} was not judged {repeats} times in this period: leave it out")
    parts = with_references(found, references, who)
    if wrong := problem(parts):
        raise UsageError(wrong)
    return {
        **of._asdict(),
        "repeats": repeats,
        "model": shots.model,
        "threshold_version": shots.threshold_version,
        "parts": [
            {
                "part_id": each.part_id,
                "reference": each.reference.name if each.reference else None,
                "by": each.by,
                "verdicts": [verdict.name for verdict in each.verdicts],
                "inspections": [*each.inspections],
            }
            for each in parts
        ],
        "figures": figures(parts).to_json(),
        "who": who,
        "why": why,
        "at": at,
    }


def _candidate(part_id: str, shots: Sequence[Shot], repeats: int) -> Candidate:
    said = {shot.opinion for shot in shots if shot.opinion in CLEAR}
    by = ", ".join(sorted({shot.reviewer or "" for shot in shots if shot.opinion in CLEAR}))
    newest = shots[-repeats:]
    agreed = said.pop() if len(said) == 1 else None
    return Candidate(
        part_id,
        agreed,
        by if agreed else "",
        tuple(shot.verdict for shot in newest),
        tuple(shot.id for shot in newest),
    )
