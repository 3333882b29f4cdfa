"""Golden parts from a folder of images, and their way into the data folder of a line that does not run.

FOLDER/good/*           known good
FOLDER/borderline/*     near a threshold
FOLDER/bad/TYPE/*       known bad, with the defect type; FOLDER/bad/* without
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from andon.core.errors import DataError, UsageError
from andon.core.listing import list_images
from andon.line.golden.book import Book
from andon.line.golden.items import EXPECTED, GoldenSet, Item, Kind, check_reason, together
from andon.line.judge import decoded, suffix_of
from andon.line.store import Store


class Known(NamedTuple):
    """By what a golden part of a name is told to be the same."""

    kind: str
    defect_type: str
    has_part: bool
    sha256: str | None
    """Of its image; None where a line does not say it."""


@dataclass(frozen=True, slots=True)
class Found:
    """One image of a folder."""

    name: str
    """Defect type, or kind, and the name of the file without its suffix."""
    kind: Kind
    defect_type: str
    path: Path

    def content(self) -> bytes:
        """Its image. Raises `DataError`, which names the file, for what is no picture."""
        try:
            content = self.path.read_bytes()
            decoded(content)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}): replace or remove it") from error
        except DataError as error:
            said = str(error).replace("the image", str(self.path), 1)
            raise DataError(said.replace("send a whole image", "replace or remove it")) from None
        return content

    def known(self, has_part: bool) -> Known:
        """As a line that has this part tells it."""
        sha256 = hashlib.sha256(self.content()).hexdigest()
        return Known(self.kind.value, self.defect_type, has_part, sha256)


def parts_of(folder: Path) -> list[Found]:
    """Golden parts in a folder, by name. Raises `DataError` where there are none, or two of the same name."""
    found = [Found(f"{kind}/{path.stem}", kind, "", path) for kind in Kind for path in _images(folder / kind)]
    bad = folder / Kind.BAD
    for defects in sorted(path for path in (bad.iterdir() if bad.is_dir() else ()) if path.is_dir()):
        found += [Found(f"{defects.name}/{p.stem}", Kind.BAD, defects.name, p) for p in _images(defects)]
    if not found:
        raise DataError(
            f"{folder} has no images in good/, borderline/, bad/ or bad/TYPE/: put golden parts there"
        )
    found.sort(key=lambda each: each.name)
    _check_names(found)
    return found


def still_missing(found: Iterable[Found], there: Mapping[str, Known], *, has_part: bool) -> list[Found]:
    """Those that a station has not yet, by name. Every image is read before.

    Raises `DataError` for a file that is no picture, `UsageError` for a name under which the station has another part.
    """
    missing = []
    for each in found:
        known = each.known(has_part)
        if each.name not in there:
            missing.append(each)
        elif there[each.name] != known:
            raise UsageError(
                f"golden part {each.name!r} is there already with another image or other values than {each.path}: "
                "remove the part first, or rename the file"
            )
    return missing


def _check_names(found: Iterable[Found]) -> None:
    for one, other in itertools.pairwise(found):
        if one.name == other.name:
            raise DataError(
                f"{one.path} and {other.path} would both be golden part {one.name!r}: rename one of them"
            )


def _images(folder: Path) -> list[Path]:
    return list_images(folder) if folder.is_dir() else []


def add_to(
    data: Path, station: str, found: Iterable[Found], *, has_part: bool, who: str, why: str
) -> GoldenSet:
    """Add golden parts to a station whose line does not run; it judges them after its next start.

    Raises `DataError` where the line runs or a file is no picture, `UsageError` where it never had this station, and without a
    reason. Nothing is kept then.
    """
    check_reason(why)
    contents = [(each, each.content()) for each in found]
    with Store.open(data) as store:
        book = Book(store)
        before = book.newest(station)
        items = []
        for each, content in contents:
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
