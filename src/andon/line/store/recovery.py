"""What is put right at the start: rows and files that a crash left apart."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, select, text, update

from andon.core.text import whole_number
from andon.line.store.images import IMAGES, MAPS, PART, QUARANTINE, hourly_folders
from andon.line.store.records import ImageState
from andon.line.store.schema import inspection

RECENT_HOURS = 48
"""Newest hourly folders that are searched for files without a row."""
CHUNK = 500
"""Most ids in one statement."""
Own = Sequence[ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Recovery:
    """Counts of what was found."""

    stored: int = 0
    """Pending rows whose file is there."""
    lost: int = 0
    """Pending rows whose file is missing."""
    unfinished: int = 0
    """Half-written files, deleted."""
    quarantined: int = 0
    """Files without a row, moved to `quarantine/`."""


def recover(connection: Connection, folder: Path, own: Own = (), *, everything: bool = False) -> Recovery:
    """Settle pending rows, delete half-written files, move files without a row. `everything`: search all folders."""
    stored, lost = settle_pending(connection, folder, own)
    unfinished = quarantined = 0
    for kind in (IMAGES, MAPS):
        hours = hourly_folders(folder / kind)
        for hour in hours if everything else itertools.islice(hours, RECENT_HOURS):
            files = [Path(entry.path) for entry in os.scandir(hour) if entry.is_file()]
            for part in [file for file in files if file.name.endswith(PART)]:
                part.unlink(missing_ok=True)
                unfinished += 1
                files.remove(part)
            for stray in _without_row(connection, files):
                target = folder / QUARANTINE / stray.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                stray.replace(target)
                quarantined += 1
    return Recovery(stored, lost, unfinished, quarantined)


def settle_pending(
    connection: Connection, folder: Path, own: Own = (), *, missing_is_lost: bool = True
) -> tuple[int, int]:
    """Set pending rows to `stored` or `lost` by whether their file is there. Returns both counts.

    `own`: conditions of the rows whose files this folder has.
    """
    pending = select(inspection.c.id, inspection.c.image_key).where(text("image_state = 1"), *own)
    found: dict[ImageState, list[int]] = {ImageState.STORED: [], ImageState.LOST: []}
    for row, key in connection.execute(pending):
        there = key is not None and (folder / key).is_file()
        found[ImageState.STORED if there else ImageState.LOST].append(row)
    if not missing_is_lost:
        found[ImageState.LOST] = []
    for state, rows in found.items():
        set_state(connection, rows, state)
    return len(found[ImageState.STORED]), len(found[ImageState.LOST])


def set_state(connection: Connection, rows: Sequence[int], state: ImageState) -> None:
    """Set the image state of rows."""
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        connection.execute(
            update(inspection).where(inspection.c.id.in_(chunk)).values(image_state=state.value)
        )


def _without_row(connection: Connection, files: Sequence[Path]) -> list[Path]:
    numbers = {file: file.name.split("_")[0] for file in files}
    named = sorted({id for number in numbers.values() if (id := whole_number(number)) is not None})
    known: set[str] = set()
    for start in range(0, len(named), CHUNK):
        rows = select(inspection.c.id).where(inspection.c.id.in_(named[start : start + CHUNK]))
        known |= {str(row) for row in connection.execute(rows).scalars()}
    return [file for file in files if numbers[file] not in known]
