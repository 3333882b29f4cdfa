"""Data sets of reviewed parts: a folder that `andon fit` and `andon evaluate` read, which never changes.

    datasets/3f9a.../good/41.png  defect/crack/57.jpg  snapshot.json

The id of a snapshot is the SHA-256 of its parts; the same reviews give the same snapshot again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from andon.core.errors import DataError
from andon.core.files import from_json, write_bytes, write_json, writing_errors
from andon.line.review.reviews import Review, Reviews, standing
from andon.line.store import Inspection, Store
from andon.line.store import reviews as stored
from andon.line.store.audit import Entry
from andon.line.verdicts import Opinion

FOLDER = "datasets"
MANIFEST = "snapshot.json"
UNTYPED = "untyped"
"""Folder of bad parts without a type of defect."""
PAGE = 500
"""Parts read in one query."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A data set of reviewed parts."""

    id: str
    folder: Path
    good: int
    bad: int
    left_out: dict[str, int]
    """Reviewed parts that are not in it, by reason."""
    who: str
    at: int
    """Microseconds UTC."""


def make(
    store: Store, reviews: Reviews, *, who: str, station: str | None = None, since: int | None = None
) -> Snapshot:
    """Write the parts that people called good or bad to `datasets/ID/` of the data folder, with a row in the audit.

    Left out are parts that a person is unsure of, on which people disagree, and whose image is not there or not the one that
    was judged. Raises `DataError` where no good part is left, and `OutputError` where nothing can be written.
    """
    left_out, parts = Counter[str](), []
    for row, history in _reviewed(store, reviews, station, since):
        if (reason := _reason(store, row, history)) is None:
            parts.append(_part(row, history))
        else:
            left_out[reason] += 1
    good = sum(part["label"] == "good" for part in parts)
    if not good:
        raise DataError(
            f"none of {len(parts) + left_out.total()} reviewed parts is good and has its image: review more parts"
        )
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    id = hashlib.sha256(text.encode()).hexdigest()
    folder = store.folder.absolute() / FOLDER / id[:16]
    if (folder / MANIFEST).is_file():
        return read(folder)
    found = Snapshot(id, folder, good, len(parts) - good, dict(left_out), who, store.clock())
    _write(store, found, parts)
    store.audit(
        Entry(who, "snapshot", f"data set {id[:16]}", new={"good": found.good, "bad": found.bad})
    ).result()
    return found


def snapshots(store: Store) -> list[Snapshot]:
    """All of a data folder, newest first."""
    found = [read(file.parent) for file in (store.folder.absolute() / FOLDER).glob(f"*/{MANIFEST}")]
    return sorted(found, key=lambda snapshot: snapshot.at, reverse=True)


def read(folder: Path) -> Snapshot:
    """What the manifest of a snapshot says. Raises `DataError` where its parts were changed."""
    try:
        manifest = from_json((folder / MANIFEST).read_text(encoding="utf-8"))
        text = json.dumps(manifest.pop("parts"), sort_keys=True, separators=(",", ":"))
        whole = hashlib.sha256(text.encode()).hexdigest() == manifest["id"]
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise DataError(f"{folder / MANIFEST} was changed: take the snapshot again")
    return Snapshot(folder=folder, **manifest)


def _write(store: Store, snapshot: Snapshot, parts: list[dict[str, Any]]) -> None:
    """Beside its place first, so that a snapshot is complete or not there; files can only be read."""
    part_folder = snapshot.folder.with_suffix(".part")
    shutil.rmtree(part_folder, ignore_errors=True)
    for part in parts:
        content = (store.folder / part["image_key"]).read_bytes()
        write_bytes(part_folder / part["file"], content)
    manifest = {name: value for name, value in asdict(snapshot).items() if name != "folder"}
    write_json(part_folder / MANIFEST, {**manifest, "parts": parts})
    with writing_errors(snapshot.folder):
        for file in part_folder.rglob("*.*"):
            file.chmod(0o444)
        part_folder.rename(snapshot.folder)


def _reviewed(
    store: Store, reviews: Reviews, station: str | None, since: int | None
) -> Iterator[tuple[Inspection, list[Review]]]:
    """Parts with an opinion that counts, by id, with all opinions that stand."""
    last = -1
    while ids := store.ask(_page(last)):
        for id in ids:
            row = store.inspection(id)
            if row and station in (None, row.station) and row.t_done >= (since or 0):
                yield row, standing(reviews.history(id))
        last = ids[-1]


def _page(after: int) -> Callable[[Any], list[int]]:
    return lambda connection: stored.judged(connection, after=after, limit=PAGE)


def _reason(store: Store, row: Inspection, history: list[Review]) -> str | None:
    """Why a part is left out; None where it is not."""
    said = {review.verdict for review in history}
    if Opinion.UNSURE in said:
        return "unsure"
    if len(said) > 1:
        return "people disagree"
    content = store.image(row)
    if content is None:
        return "no image"
    return None if hashlib.sha256(content).hexdigest() == row.image_sha256 else "another image"


def _part(row: Inspection, history: list[Review]) -> dict[str, Any]:
    assert row.image_key is not None
    last = max(history, key=lambda review: review.id)
    is_good = last.verdict is Opinion.GOOD
    folder = "good" if is_good else f"defect/{last.defect_type or UNTYPED}"
    return {
        "file": f"{folder}/{row.id}{Path(row.image_key).suffix}",
        "label": "good" if is_good else "bad",
        "defect_type": last.defect_type,
        "inspection": row.id,
        "station": row.station,
        "part_id": row.part_id,
        "lot": row.lot,
        "verdict": row.verdict.name,
        "image_key": row.image_key,
        "image_sha256": row.image_sha256,
        "reviews": [
            {"id": each.id, "who": each.who, "at": each.at, "opinion": each.verdict.name, "blind": each.blind}
            for each in sorted(history, key=lambda review: review.id)
        ],
    }
