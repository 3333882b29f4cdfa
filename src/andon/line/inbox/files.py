"""Files of a drop folder: which are parts, whole contents, answers, and where judged files go."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from andon.core.errors import DataError
from andon.line.clock import SECOND
from andon.line.judge import decoded, suffix_of
from andon.line.store import Inspection
from andon.line.store.inspections import FOLDER_REQUEST
from andon.line.store.records import LONGEST
from andon.line.verdicts import Cause

DONE, BAD, ANSWERS = "done", "bad", "answers"
"""Folders inside the drop folder."""
READY_SUFFIX = ".done"
"""`NAME.done` says that NAME is complete (setting `ready_file`)."""
UNFINISHED = (".tmp", ".part", READY_SUFFIX)
BY_OTHERS = {"thumbs.db", "desktop.ini"}
"""Files that Windows leaves in folders."""
LARGEST = 64 << 20
"""Bytes of the largest file that is read; a larger one counts as no image."""
ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9"}
"""What a whole file contains. Decoders accept one without it when its pixels are there."""
LONGEST_NAME = 255
"""Bytes of a file name that file systems take."""


class Found(NamedTuple):
    """A file as it was seen. The same values later: nobody has written to it."""

    name: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, name: str, stat: os.stat_result) -> Found:
        """A file by its status."""
        return cls(name, stat.st_size, stat.st_mtime_ns)


def is_part(name: str) -> bool:
    """Whether a file may be a part: not hidden, not temporary, not a mark of completeness."""
    low = name.lower()
    return not low.startswith((".", "~")) and not low.endswith(UNFINISHED) and low not in BY_OTHERS


def listing(folder: Path) -> tuple[dict[str, Found], set[str]]:
    """Parts by name, and all names in the folder. Subfolders and links are left out. Raises `OSError`."""
    found: dict[str, Found] = {}
    names: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            names.add(entry.name)
            if is_part(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = Found.of(entry.name, entry.stat(follow_symlinks=False))
    return found, names


def read(folder: Path, file: Found) -> bytes | None:
    """Content of a file; None where it is gone or was changed since it was seen. Too large: empty. Raises `OSError`."""
    path = folder / file.name
    if file.size > LARGEST:
        return b""
    try:
        content = path.read_bytes()
        unchanged = Found.of(file.name, path.stat()) == file
    except FileNotFoundError:
        return None
    return content if unchanged and len(content) == file.size else None


def is_image(content: bytes) -> bool:
    """Whether the content decodes to its end."""
    end = ENDS.get(suffix_of(content))
    if end is not None and end not in content:
        return False
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
    except Exception:  # what Pillow refuses may be a TIFF that the judge reads
        try:
            decoded(content)
        except DataError:
            return False
    return True


def request_id(station: str, file: Found, content: bytes) -> str:
    """Id of the request: the same for the same file, another one after any change."""
    digest = hashlib.sha256(content).hexdigest()
    key = json.dumps([station, shown(file.name), file.size, file.mtime_ns, digest])
    return f"{FOLDER_REQUEST}{hashlib.sha256(key.encode()).hexdigest()}"


def shown(name: str) -> str:
    """A file name as text that can be stored: bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace").encode()[:LONGEST].decode("utf-8", "ignore")


def write_answer(folder: Path, name: str, answer: Mapping[str, Any]) -> Path:
    """`answers/NAME.json`, which appears complete. Raises `OSError`."""
    target = _answer(folder, name)
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(".answer.tmp")
    temporary.write_text(json.dumps(answer, ensure_ascii=False), encoding="utf-8")
    return temporary.replace(target)


def remove_answer(folder: Path, name: str) -> None:
    """Remove the answer to an earlier file `name`. Raises `OSError`."""
    _answer(folder, name).unlink(missing_ok=True)


def is_replaced(folder: Path, file: Found) -> bool:
    """Whether another file has its name in the folder. Raises `OSError`."""
    try:
        return Found.of(file.name, (folder / file.name).lstat()) != file
    except FileNotFoundError:
        return False


def put_away(folder: Path, file: Found, row: Inspection, *, delete: bool) -> None:
    """Move a judged file to `done/YYYY-MM-DD/` (local day), an unreadable one to `bad/`, or delete it. Raises `OSError`.

    Where another file took its name meanwhile, that one stays in the folder.
    """
    is_bad = row.cause == Cause.NOT_AN_IMAGE
    target = folder / (BAD if is_bad else DONE)
    target.mkdir(exist_ok=True)
    if not is_bad:
        target /= datetime.fromtimestamp(row.t_done / SECOND).strftime("%Y-%m-%d")
        target.mkdir(exist_ok=True)
    place = target / file.name
    if place.exists():
        stem, suffix = os.path.splitext(file.name)  # noqa: PTH122 (Path.stem differs for names with a final dot)
        place = target / _fitting(f"{stem}.{row.id}{suffix}", f"{row.id}{suffix[:20]}")
    path = folder / file.name
    try:
        if Found.of(file.name, path.stat()) != file:
            return
        path.rename(place)
    except FileNotFoundError:
        return
    if Found.of(file.name, place.stat()) != file:  # renamed over in the last moment
        _give_back(place, path)
    elif delete and not is_bad:
        place.unlink()


def _give_back(place: Path, path: Path) -> None:
    """Put a file back into the folder, under another name where its own was taken again."""
    try:
        os.link(place, path)
        place.unlink()
    except FileExistsError:
        place.rename(
            path.with_name(_fitting(f"again-{path.name}", f"again-{place.stat().st_ino}{path.suffix}"))
        )


def _answer(folder: Path, name: str) -> Path:
    """Where the answer to file `name` is."""
    short = f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.json"
    return folder / ANSWERS / _fitting(f"{name}.json", short)


def _fitting(name: str, short: str) -> str:
    """`name`, or `short` where file systems refuse its length."""
    return name if len(os.fsencode(name)) <= LONGEST_NAME else short
