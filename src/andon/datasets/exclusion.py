"""Good images that are left out on request, found by id, file name or path (docs/reference/data.md, "Excluded images")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from andon.core.errors import DataError, nearest
from andon.core.records import Record
from andon.core.text import plural
from andon.datasets.findings import first_few


def find_excluded(records: Sequence[Record], names: Sequence[str], *, strict: bool = True) -> frozenset[str]:
    """Ids of the `records` that `names` name: each an id, a file name, or a path or the end of one, with or without suffix.

    Raises `DataError` for a name of several images and, if `strict`, for one of none.
    """
    chosen: set[str] = set()
    for name in names:
        found = _named(records, name)
        if len(found) > 1:
            raise DataError(
                f"--exclude {name}: {plural(len(found), 'good picture')} have this name "
                f"({first_few([record.id for record in found], 5)}): give the id or more of the path"
            )
        if not found and strict:
            known = {record.id for record in records} | {record.image.name for record in records}
            raise DataError(
                f"--exclude {name} is none of the {plural(len(records), 'good picture')} to learn from; "
                f"{_hint(name, known)}"
            )
        chosen.update(record.id for record in found)
    return frozenset(chosen)


def _named(records: Sequence[Record], name: str) -> list[Record]:
    """The image with this id or at this path; without one, all whose path ends so."""
    path = Path(name).expanduser()
    full = path.resolve()
    exact = [record for record in records if record.id == name or record.image.resolve() == full]
    return exact or [record for record in records if _ends_with(record.image, path)]


def _ends_with(image: Path, end: Path) -> bool:
    count = len(end.parts)
    return count > 0 and end.parts in (image.parts[-count:], image.with_suffix("").parts[-count:])


def _hint(name: str, known: set[str]) -> str:
    """The nearest names, or what to do."""
    text = nearest(name, known)
    return text if text.startswith("did you mean") else "give its id, file name or path"
