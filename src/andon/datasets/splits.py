"""Which good images are held out: a rule on names and a seed, without a random generator (spec A.3)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Record, Split
from andon.datasets.findings import plural

VALIDATION_PERCENT = 10
TEST_PERCENT = 20


def held_out(keys: Sequence[str], percent: int, seed: int, *, round_down: bool = False) -> frozenset[str]:
    """The keys of `percent` % of the items, rounded up: the first by hex digest of `sha256(f"{seed}:{key}")`.

    Items that share a key stay together, so that with shared keys a little more may be held out.
    """
    wanted = percent * len(keys) // 100 if round_down else len(keys) - (100 - percent) * len(keys) // 100
    counts = Counter(keys)
    chosen: set[str] = set()
    taken = 0
    for key in sorted(counts, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()):
        if taken >= wanted or len(chosen) == len(counts) - 1:  # something is always kept
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

    Keys are object ids where there are any, otherwise paths relative to `base`. Raises `DataError` when there
    are fewer than `needs` images, or when they all show one object.
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


def _relative(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
