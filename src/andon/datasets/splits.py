"""Hold-out rule: which good images go to validation or test, from their names and a seed (docs/reference/data.md, "Splits").

The rule hashes names and uses no random generator, so that it is the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Record, Split
from andon.datasets.findings import FindingsLog, plural

VALIDATION_PERCENT = 10
TEST_PERCENT = 20


def held_out(keys: Sequence[str], percent: int, seed: int, *, round_down: bool = False) -> frozenset[str]:
    """Keys of the `percent` % of items that are held out: the first in the order of `sha256(f"{seed}:{key}")`.

    The number is rounded up, or down with `round_down`. Items with the same key stay together, so that with shared keys
    more may be held out. At least one key is kept.
    """
    wanted = percent * len(keys) // 100 if round_down else len(keys) - (100 - percent) * len(keys) // 100
    counts = Counter(keys)
    chosen: set[str] = set()
    taken = 0
    for key in sorted(counts, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()):
        if taken >= wanted or len(chosen) == len(counts) - 1:  # at least one key is kept
            break
        chosen.add(key)
        taken += counts[key]
    return frozenset(chosen)


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

    The key of an image is its object id, or without one its path relative to `base`. Raises `DataError` for fewer than
    `needs` images, or when all show the same object.
    """
    keys = [record.object_id or _relative(record.image, base) for record in records]
    if len(records) < needs:
        raise DataError(
            f"{base} has {plural(len(records), 'picture')} of good parts, setting some aside for {into} needs at "
            f"least {needs}: add pictures"
        )
    if len(set(keys)) < 2:
        raise DataError(
            f"all good pictures in {base} show the one object {keys[0]!r}: {into} needs another object, "
            "add pictures"
        )
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
    return kept, held


def _relative(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
