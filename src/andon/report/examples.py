"""The images a report shows: the worst errors (or, without errors, the closest calls) and an example of each defect type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from andon.report.report import Case, Report
from andon.report.text import plural

WORST = 3
"""Images shown per kind of error."""
MOST_TYPES = 16
"""Largest number of defect types with an example."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of the test images at the fixed image threshold."""

    n_anomalous: int
    n_caught: int
    n_good: int
    n_rejected: int

    @property
    def n_escapes(self) -> int:
        """Anomalous images called good."""
        return self.n_anomalous - self.n_caught

    def sentence(self) -> str:
        """For example "Of 40 anomalous pictures 38 were caught (2 escapes); of 25 good pictures 1 was rejected."."""
        if self.n_anomalous:
            escapes = plural(self.n_escapes, "escape") if self.n_escapes else "no escape"
            first = f"{_of(self.n_anomalous, 'anomalous')} {_were(self.n_caught, self.n_anomalous)} caught ({escapes})"
        else:
            first = "there was no anomalous picture to catch"
        if self.n_good:
            second = f"{_of(self.n_good, 'good')} {_were(self.n_rejected, self.n_good)} rejected"
        else:
            second = "there was no good picture to reject"
        return f"{first[0].upper()}{first[1:]}; {second}."


def verdict(cases: Sequence[Case]) -> Verdict:
    """Counts of the images by label and verdict."""
    anomalous = [case for case in cases if case.record.label == 1]
    good = [case for case in cases if case.record.label != 1]
    return Verdict(
        n_anomalous=len(anomalous),
        n_caught=sum(case.is_anomalous for case in anomalous),
        n_good=len(good),
        n_rejected=sum(case.is_anomalous for case in good),
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Images shown together, with a heading and a sentence."""

    title: str
    text: str
    cases: tuple[Case, ...]


def errors(report: Report) -> list[Group]:
    """The worst false rejects and the worst escapes; if there are none, the images closest to the threshold."""
    good = [case for case in report.cases if case.record.label != 1]
    anomalous = [case for case in report.cases if case.record.label == 1]
    groups = [
        _worst(
            good,
            wrong=lambda case: case.is_anomalous,
            badness=lambda case: case.raw_score,
            kind="false reject",
            what="Good pictures that were rejected",
            order="the highest score first",
            near="No good picture was rejected. Shown are those with the highest scores",
        ),
        _worst(
            anomalous,
            wrong=lambda case: not case.is_anomalous,
            badness=lambda case: -case.raw_score,
            kind="escape",
            what="Anomalous pictures that were called good",
            order="the lowest score first",
            near="No anomalous picture was called good. Shown are those with the lowest scores",
        ),
    ]
    return [group for group in groups if group is not None]


def examples(report: Report) -> Group | None:
    """The image with the median score of each defect type and of the good images; None without images."""
    by_type: dict[str, list[Case]] = {}
    for case in report.cases:
        by_type.setdefault(_type(case), []).append(case)
    if not by_type:
        return None
    kinds = sorted(by_type.keys() - {"good"})
    left_out = kinds[MOST_TYPES:]
    shown = [*kinds[:MOST_TYPES], *(by_type.keys() & {"good"})]
    text = "For each defect type, and for good pictures, the picture with the median score."
    if left_out:
        text += f" Not shown: {', '.join(left_out)}."
    return Group("Examples", text, tuple(_median(by_type[name]) for name in shown))


def _worst(
    cases: Sequence[Case],
    *,
    wrong: Callable[[Case], bool],
    badness: Callable[[Case], float],
    kind: str,
    what: str,
    order: str,
    near: str,
) -> Group | None:
    """The worst errors of one kind among `cases`; if there are none, the images closest to being one."""
    if not cases:
        return None
    found = sorted(filter(wrong, cases), key=badness, reverse=True)
    if found:
        shown = f"the worst {WORST} of {len(found)}, " if len(found) > WORST else ""
        return Group(f"{kind.capitalize()}s: {len(found)}", f"{what}, {shown}{order}.", tuple(found[:WORST]))
    closest = sorted(cases, key=badness, reverse=True)[:WORST]
    return Group(f"No {kind}", f"{near}.", tuple(closest))


def _type(case: Case) -> str:
    if case.record.label != 1:
        return "good"
    return case.record.defect_type or "anomalous"


def _median(cases: Sequence[Case]) -> Case:
    """The case with the median score; of two the lower."""
    return sorted(cases, key=lambda case: case.raw_score)[(len(cases) - 1) // 2]


def _of(count: int, kind: str) -> str:
    return f"of {count} {kind} picture{'' if count == 1 else 's'}"


def _were(count: int, whole: int) -> str:
    number = "none" if count == 0 else f"all {count}" if count == whole > 1 else str(count)
    return f"{number} {'was' if count < 2 else 'were'}"
