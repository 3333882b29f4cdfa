"""Paths of the files written for an image: valid on every file system and unique."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from andon.core.records import Record
from andon.core.text import utf8

UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]|^[. ]+|[. ]+$')
"""Characters that Windows, macOS or Linux does not allow in a name, and leading dots, which hide a file."""
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names of Windows devices."""
LONGEST = 120
"""Longest name in bytes. File systems allow 255, of which a suffix and a temporary name need some."""


def safe_name(text: str) -> str:
    """`text` as the name of one file or folder; if characters were replaced, a part of its hash keeps it unique.

    >>> safe_name("000"), safe_name("a/b"), safe_name("..")
    ('000', 'a_b-c14cddc0', '_-c3641f88')
    """
    name = UNSAFE.sub("_", unicodedata.normalize("NFC", text))
    if RESERVED.fullmatch(name) or not name:
        name = f"_{name}"
    if len(name.encode()) > LONGEST:
        name = name.encode()[: LONGEST - 9].decode(errors="ignore")
    if name == text:
        return name
    digest = hashlib.sha256(utf8(text)).hexdigest()
    return f"{name}-{digest[:8]}"


def places(records: Sequence[Record]) -> list[str]:
    """`<defect>/<image>` for each record, without suffix, unique even on case-insensitive file systems.

    The image is the last part of the id. Where images of several folders share it, it is the whole id with `_` for `/`,
    with a number if that is not unique either.
    """
    short = [f"{folder(record)}/{safe_name(record.id.rsplit('/', 1)[-1])}" for record in records]
    shared = Counter(place.casefold() for place in short)
    taken: set[str] = set()
    out = []
    for record, place in zip(records, short, strict=True):
        if shared[place.casefold()] > 1:
            place = f"{folder(record)}/{safe_name(record.id.replace('/', '_'))}"
        out.append(_free(place, taken))
        taken.add(out[-1].casefold())
    return out


def single_place(record: Record) -> str:
    """Path for one image, from its id alone, each part a safe name.

    The id of a single image includes its suffix; `.png` is removed, since the written files have their own suffix.
    """
    return "/".join(safe_name(part) for part in record.id.removesuffix(".png").split("/"))


def folder(record: Record) -> str:
    """Folder of a record's defect type; `good` and `anomalous` where it has none."""
    return safe_name(record.defect_type or ("anomalous" if record.label else "good"))


def _free(place: str, taken: set[str]) -> str:
    """`place`, or the first of `place-2`, `place-3`, ... that is free."""
    name, number = place, 2
    while name.casefold() in taken:
        name, number = f"{place}-{number}", number + 1
    return name
