"""Scores of golden parts over their checks, as figures and as points of a small drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from andon.line.golden.book import Run

WIDTH, HEIGHT = 240, 60
"""Of a drawing, in its own units."""
LEAST_TOP = 2.0
"""Score at the upper edge of a drawing, unless one is larger: twice the threshold of the packed model."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The course of one golden part, oldest check first."""

    scores: tuple[float, ...]
    points: str
    """`x,y x,y ...` in a drawing of `WIDTH` x `HEIGHT`."""
    accept: float
    """Height of the threshold in the drawing, as the next one."""
    reject: float
    is_wrong: tuple[tuple[float, float], ...]
    """Points of checks in which the part came out wrong."""

    @property
    def text(self) -> str:
        """Least, largest and last score."""
        if not self.scores:
            return "not judged yet"
        return f"{min(self.scores):.3f} to {max(self.scores):.3f}, last {self.scores[-1]:.3f}"


def trends(names: Iterable[str], runs: Sequence[Run]) -> dict[str, Trend]:
    """Course of each golden part in the checks of a station, which come newest first. Trials are left out."""
    course: dict[str, list[tuple[float, bool]]] = {name: [] for name in names}
    checks = [run for run in reversed(runs) if not run.is_trial]
    for each in (each for run in checks for each in run.results):
        if each.name in course and each.seen.score is not None:
            course[each.name].append((each.seen.score, bool(each.why)))
    accept, reject = checks[-1].thresholds[:2] if checks else (1.0, 1.0)
    return {name: _trend(found, accept, reject) for name, found in course.items()}


def _trend(found: Sequence[tuple[float, bool]], accept: float, reject: float) -> Trend:
    scores = [score for score, _ in found]
    bottom, top = min([0.0, *scores]), max([LEAST_TOP, *scores])

    def height(score: float) -> float:
        return round(HEIGHT * (top - min(score, top)) / (top - bottom), 1)

    step = WIDTH / max(1, len(found) - 1)
    at = [(round(number * step, 1), height(score)) for number, (score, _) in enumerate(found)]
    wrong = tuple(place for place, (_, is_wrong) in zip(at, found, strict=True) if is_wrong)
    points = " ".join(f"{x},{y}" for x, y in at)
    return Trend(tuple(scores), points, height(accept), height(reject), wrong)
