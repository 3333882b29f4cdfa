"""Where the files of an image go: names that every file system takes and that never meet."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from andon.core.records import Record

UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]|^[. ]+|[. ]+$')
"""What Windows, macOS or Linux refuses in a name, or takes for hidden."""
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Devices of Windows."""
LONGEST = 120
"""Bytes of a name; file systems take 255, and a suffix and a temporary name need some of them."""


def safe_name(text: str) -> str:
    """`text` as the name of one file or folder; where characters had to go, a piece of its hash keeps it apart.

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
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name}-{digest[:8]}"


def places(records: Sequence[Record]) -> list[str]:
    """`<defect>/<image>` for each record, without suffix, no two alike even where case does not count.

    The image is the last part of the id; where images of several folders share it, the whole id with `_` for `/`, and
    a number where even that is not enough.
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
    """Path for an image whose neighbours are not known: that of its id, every part made safe.

    Ids of single images keep their suffix; `.png` is dropped since every file written for them is an image again.
    """
    return "/".join(safe_name(part) for part in record.id.removesuffix(".png").split("/"))


def folder(record: Record) -> str:
    """Folder of a record's defect type; `good` and `anomalous` where it has none."""
    return safe_name(record.defect_type or ("anomalous" if record.label else "good"))


def _free(place: str, taken: set[str]) -> str:
    """`place`, or the first of `place-2`, `place-3`, ... that is not taken."""
    name, number = place, 2
    while name.casefold() in taken:
        name, number = f"{place}-{number}", number + 1
    return name
