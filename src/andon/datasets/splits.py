"""Which good images go to validation, to test or to a fold, from their names and a seed (docs/reference/data.md, "Splits").

The rule hashes names and uses no random generator, so that it is the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from andon.core.errors import DataError
from andon.core.records import Record, Split
from andon.core.text import plural, utf8
from andon.datasets.findings import FindingsLog, first_few

VALIDATION_PERCENT = 10
TEST_PERCENT = 20
FEWEST_SESSIONS = 3
"""Sessions from which on whole ones are held out."""
UNKNOWN_SESSION = ""
"""Key of images without a session where others have one."""
FOLDS = 10
"""Folds of up to `FOLDS_UP_TO` images."""
FOLDS_UP_TO = 60
FEWER_FOLDS = 5
"""Folds of more images: each takes a fit, and the detectors of few folds differ little where there are many images."""


def held_out(keys: Sequence[str], percent: int, seed: int, *, round_down: bool = False) -> frozenset[str]:
    """Keys of the `percent` % of items that are held out: the first in the order of `sha256(f"{seed}:{key}")`.

    The number is rounded up, or down with `round_down`. Items with the same key stay together, so that with shared keys
    more may be held out. At least one key is kept.
    """
    wanted = _wanted(len(keys), percent, round_down)
    counts = Counter(keys)
    chosen: set[str] = set()
    taken = 0
    for key in _shuffled(counts, seed):
        if taken >= wanted or len(chosen) == len(counts) - 1:  # at least one key is kept
            break
        chosen.add(key)
        taken += counts[key]
    return frozenset(chosen)


def held_out_sessions(
    keys: Sequence[str], percent: int, seed: int, *, round_down: bool = False
) -> frozenset[str]:
    """Sessions that are held out, of the session of each image: in hash order, until `percent` % of the images are.

    A session that brings more than twice that number is passed over; where every one does, the smallest is held out.
    """
    wanted = _wanted(len(keys), percent, round_down)
    counts = Counter(keys)
    order = _shuffled(counts, seed)
    chosen: set[str] = set()
    taken = 0
    for key in order:
        if taken < wanted and taken + counts[key] <= 2 * wanted:
            chosen.add(key)
            taken += counts[key]
    return frozenset(chosen or {min(order, key=lambda key: counts[key])})


def session_keys(records: Sequence[Record]) -> list[str] | None:
    """Session of each image, None with fewer than `FEWEST_SESSIONS`. Images of one object have that of its first image."""
    first: dict[str, str] = {}
    keys = []
    for record in records:
        own = record.session or UNKNOWN_SESSION
        keys.append(own if record.object_id is None else first.setdefault(record.object_id, own))
    return keys if len(set(keys)) >= FEWEST_SESSIONS else None


def hold_out(
    records: Sequence[Record],
    percent: int,
    seed: int,
    *,
    base: Path,
    into: Split,
    needs: int = 2,
    round_down: bool = False,
) -> tuple[list[Record], list[Record]]:
    """Split good `records` into (kept, held out for `into`); images of one object stay together.

    The key of an image is its object id, or without one its path relative to `base`. Where at least `FEWEST_SESSIONS`
    sessions are known, whole sessions are held out (`held_out_sessions`). Raises `DataError` for fewer than `needs` images,
    or when all show the same object.
    """
    keys = [record.object_id or _relative(record.image, base) for record in records]
    if len(records) < needs:
        raise DataError(
            f"{base} has {plural(len(records), 'picture')} of good parts, setting some aside for {into} needs at "
            f"least {needs}: add pictures, then look with `andon data check {quote(str(base))}`"
        )
    if len(set(keys)) < 2:
        raise DataError(
            f"all good pictures in {base} show the one object {keys[0]!r}: {into} needs another object, "
            "add pictures"
        )
    sessions = session_keys(records)
    if sessions is not None:
        keys, chosen = sessions, held_out_sessions(sessions, percent, seed, round_down=round_down)
    else:
        chosen = held_out(keys, percent, seed, round_down=round_down)
    kept = [record for record, key in zip(records, keys, strict=True) if key not in chosen]
    held = [replace(record, split=into) for record, key in zip(records, keys, strict=True) if key in chosen]
    return kept, held


def hold_out_validation(
    records: Sequence[Record], seed: int, log: FindingsLog, *, base: Path, whose: str = " of train"
) -> tuple[list[Record], list[Record]]:
    """Split good `records` into (kept, validation), `VALIDATION_PERCENT` % of them, and log the number as a note.

    `whose` describes the images in the note.
    """
    kept, held = hold_out(records, VALIDATION_PERCENT, seed, base=base, into="validation")
    log.notes.append(f"{plural(len(held), 'picture')}{whose} held out for validation (seed {seed})")
    sessions = {record.session for record in records if record.session}
    if session_keys(records) is not None:
        names = sorted({record.session or "no known session" for record in held})
        log.notes.append(f"whole sessions are held out for validation: {first_few(names)}")
    elif len(sessions) > 1:
        log.notes.append(
            f"{len(sessions)} sessions are too few to hold out whole ones, that takes {FEWEST_SESSIONS}: pictures of each are "
            "held out"
        )
    return kept, held


def _wanted(count: int, percent: int, round_down: bool) -> int:
    """`percent` % of `count`, rounded up, or down with `round_down`."""
    return percent * count // 100 if round_down else count - (100 - percent) * count // 100


def folds(records: Sequence[Record], seed: int, *, most: int | None = None) -> tuple[int, ...]:
    """Fold of each image, 0 to K - 1, none empty; images of one object stay together, from `FEWEST_SESSIONS` on sessions.

    In the order of their hashes, these groups go to the fold with the fewest images so far. K is `most`, by default `FOLDS`
    or `FEWER_FOLDS` by the number of images, or the number of groups where that is smaller.
    """
    keys = session_keys(records) or [record.object_id or record.id for record in records]
    sizes = Counter(keys)
    wanted = most or (FOLDS if len(records) <= FOLDS_UP_TO else FEWER_FOLDS)
    filled = [0] * min(wanted, len(sizes))
    fold_of: dict[str, int] = {}
    for key in _shuffled(sizes, seed):
        fold_of[key] = filled.index(min(filled))
        filled[fold_of[key]] += sizes[key]
    return tuple(fold_of[key] for key in keys)


def _shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """The keys in the order of `sha256(f"{seed}:{key}")`."""
    return sorted(keys, key=lambda key: hashlib.sha256(utf8(f"{seed}:{key}")).hexdigest())


def _relative(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
