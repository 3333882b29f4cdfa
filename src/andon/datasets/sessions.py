"""Sessions: which good images were taken together, such as those of one day (docs/reference/data.md, "Sessions").

Images of one session are alike. A detector that has learned from a session is better on it than on the next one, so whole
sessions are held out where there are at least `splits.FEWEST_SESSIONS`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from andon.core.errors import ConfigError, DataError
from andon.core.opening import read_day
from andon.core.records import Record
from andon.core.text import plural
from andon.datasets.dataset import Dataset
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.splits import session_keys

AUTO, NONE, EXIF = "auto", "none", "exif"
"""Ways to tell sessions apart, beside a pattern."""
NAMED_SESSIONS = 12
"""Sessions that a message names; the rest is counted."""


def with_sessions(records: Sequence[Record], how: str, log: FindingsLog) -> list[Record]:
    """The good `records` with their `session`, told apart by `how`; the sessions are logged as a note.

    `auto` keeps what a manifest or folders say, and otherwise takes the day of EXIF where every image has one; `none`
    knows no sessions; `exif` takes the day of EXIF; anything else is a pattern (`session_pattern`) for file names.
    Raises `DataError` where `exif` or the pattern finds no session.
    """
    if how == NONE:
        return [replace(record, session=None) for record in records]
    if how == AUTO:
        named = list(records)
        source = "folders or manifest"
        if not any(record.session for record in records):
            named, source = _by_day(records) or named, "EXIF day"
    elif how == EXIF:
        named, source = [replace(record, session=read_day(record.image)) for record in records], "EXIF day"
        if not any(record.session for record in named):
            raise DataError(
                f"--sessions exif: none of the {len(records)} good pictures has an EXIF day (DateTimeOriginal): leave it "
                "out, or give a pattern for file names"
            )
    else:
        named, source = _by_pattern(records, how), f"pattern {how}"
    _log_sessions(named, source, log)
    return named


def session_pattern(text: str) -> re.Pattern[str]:
    """A regular expression with one group, which is searched in file names and holds the session. Raises `ConfigError`."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"--sessions {text!r} is no regular expression ({error}): correct it, e.g. '^(\\d{{8}})_'"
        ) from None
    if pattern.groups != 1:
        raise ConfigError(
            f"--sessions {text!r} has {plural(pattern.groups, 'group')}, must be auto, none, exif or a pattern with one group "
            "around the part of the file name that tells sessions apart, e.g. '^(\\d{8})_'"
        )
    return pattern


def session_counts(records: Sequence[Record]) -> dict[str, int]:
    """Number of images of each session, in order of their names; images without a session are left out."""
    return dict(sorted(Counter(record.session for record in records if record.session).items()))


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of the good images of a data set."""

    images: dict[str, int]
    """Number of training and validation images of each session."""
    held_out: tuple[str, ...]
    """Sessions that are in validation as a whole; empty where every session is in training."""
    in_turn: bool = False
    """Whether each session is scored by what the others teach (cross-fitting)."""

    def describe(self) -> str:
        """One sentence: which sessions the false-reject rate holds for."""
        if len(self.images) < 2:
            known = f"all pictures are of one session ({next(iter(self.images))})" if self.images else ""
            return f"{known or 'nothing is known about sessions'}: the promised rate holds for pictures like these"
        if self.in_turn:
            return (
                f"each of {len(self.images)} sessions was scored by what the others teach: the promised rate holds for new "
                "sessions as far as they are like these"
            )
        if not self.held_out:
            return f"pictures of all {len(self.images)} sessions were learned from: the promised rate holds for these sessions"
        return (
            f"whole sessions were held out ({len(self.held_out)} of {len(self.images)}: {first_few(self.held_out)}): the "
            "promised rate holds for new sessions as far as they are like these"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for recipe.yaml and `--json`."""
        return {"pictures": self.images, "held_out": list(self.held_out), "in_turn": self.in_turn}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sessions:
        """Inverse of `to_json`."""
        return cls(dict(data["pictures"]), tuple(data["held_out"]), data.get("in_turn", False))


def sessions_of(dataset: Dataset, *, cross_fitted: bool = False) -> Sessions:
    """The sessions of the training and validation images; `cross_fitted`: all are learned from, fold by fold."""
    learned, held = session_counts(dataset.train), session_counts(dataset.validation)
    whole = [name for name in held if name not in learned]
    good = [*dataset.train, *dataset.validation]
    in_turn = cross_fitted and session_keys(good) is not None
    return Sessions(session_counts(good), () if cross_fitted else tuple(whole), in_turn)


def _by_day(records: Sequence[Record]) -> list[Record] | None:
    """The records with the day of EXIF, None unless every image has one; the first without one ends the reading."""
    named = []
    for record in records:
        day = read_day(record.image)
        if day is None:
            return None
        named.append(replace(record, session=day))
    return named


def _by_pattern(records: Sequence[Record], text: str) -> list[Record]:
    pattern = session_pattern(text)
    matches = [pattern.search(record.image.name) for record in records]
    named = [
        replace(record, session=(match[1] or None) if match else None)
        for record, match in zip(records, matches, strict=True)
    ]
    if not any(record.session for record in named):
        names = first_few([record.image.name for record in records])
        raise DataError(
            f"--sessions {text!r} matches none of {plural(len(records), 'file name')} ({names}): correct the pattern"
        )
    return named


def _log_sessions(records: Sequence[Record], source: str, log: FindingsLog) -> None:
    counts = session_counts(records)
    if not counts:
        return
    listed = first_few([f"{name} ({count})" for name, count in counts.items()], NAMED_SESSIONS)
    log.notes.append(f"{plural(len(counts), 'session')} of good pictures ({source}): {listed}")
    unknown = [record.id for record in records if not record.session]
    if unknown:
        log.warnings.append(
            f"{plural(len(unknown), 'good picture')} of no known session count as one session of their own: "
            f"{first_few(unknown)}"
        )
