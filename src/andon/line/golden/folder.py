"""Golden parts from a folder of images, and their way into the data folder of a line that does not run.

FOLDER/good/*           known good
FOLDER/borderline/*     near a threshold
FOLDER/bad/TYPE/*       known bad, with the defect type; FOLDER/bad/* without
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from andon.core.errors import DataError
from andon.core.listing import list_images
from andon.line.golden.book import Book
from andon.line.golden.items import EXPECTED, GoldenSet, Item, Kind, together
from andon.line.judge import suffix_of
from andon.line.store import Store


@dataclass(frozen=True, slots=True)
class Found:
    """One image of a folder."""

    name: str
    """Defect type, or kind, and the name of the file without its suffix."""
    kind: Kind
    defect_type: str
    path: Path


def parts_of(folder: Path) -> list[Found]:
    """Golden parts in a folder, by name. Raises `DataError` where there are none."""
    found = [Found(f"{kind}/{path.stem}", kind, "", path) for kind in Kind for path in _images(folder / kind)]
    bad = folder / Kind.BAD
    for defects in sorted(path for path in (bad.iterdir() if bad.is_dir() else ()) if path.is_dir()):
        found += [Found(f"{defects.name}/{p.stem}", Kind.BAD, defects.name, p) for p in _images(defects)]
    if not found:
        raise DataError(
            f"{folder} has no images in good/, borderline/, bad/ or bad/TYPE/: put golden parts there"
        )
    return sorted(found, key=lambda each: each.name)


def _images(folder: Path) -> list[Path]:
    return list_images(folder) if folder.is_dir() else []


def add_to(
    data: Path, station: str, found: Iterable[Found], *, has_part: bool, who: str, why: str
) -> GoldenSet:
    """Add golden parts to a station whose line does not run; it judges them after its next start.

    Raises `DataError` where the line runs, `UsageError` where it never had this station.
    """
    with Store.open(data) as store:
        book = Book(store)
        before = book.newest(station)
        items = []
        for each in found:
            content = each.path.read_bytes()
            key, sha256 = book.keep_image(content, suffix_of(content))
            items.append(
                Item(
                    each.name,
                    each.kind,
                    key,
                    sha256,
                    defect_type=each.defect_type,
                    expected=EXPECTED.get(each.kind),
                    has_part=has_part,
                )
            )
        return book.add_set(
            station,
            together(before.items if before else (), items),
            model_sha256=before.model_sha256 if before else None,
            threshold_version=before.threshold_version if before else None,
            who=who,
            why=why,
        )
