"""Backup and restore of a line on SQLite. The line goes on meanwhile.

    BACKUP/manifest.json    counts, head of the audit, hash of SHA256SUMS
    BACKUP/SHA256SUMS       hash of every other file, as `sha256sum --check` reads it
    BACKUP/andon.sqlite     the database as of one moment
    BACKUP/images, maps, golden, candidates     hard links where the file system allows, otherwise copies

Hashes of images come from their rows, so that a backup need not read them; `restore` reads and compares every file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from andon.core.errors import DataError, OutputError
from andon.core.files import file_sha256, from_json, writing_errors
from andon.core.version import VERSION
from andon.line.clock import Clock, now_us
from andon.line.store import audit
from andon.line.store.audit import Entry, Head
from andon.line.store.connection import FILE_NAME, lock_folder, migrate, sqlite_engine, sqlite_reader
from andon.line.store.images import sync_folder
from andon.line.store.records import ImageState
from andon.line.store.recovery import set_state
from andon.line.store.schema import candidate, golden_item, inspection

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds."""

    andon: str
    """Version that wrote it."""
    created: int
    """Microseconds UTC."""
    rows: int
    images: int
    missing: int
    """Images whose file was gone."""
    audit_head: str
    sums_sha256: str
    missing_maps: int = 0
    """Maps whose file was gone, of images that are there."""
    missing_for_good: Sequence[str] = ()
    """Golden images and candidates whose file was gone: without them a line cannot do what it did."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore found."""

    rows: int
    images: int
    damaged: int
    """Images that differ from their hash or are missing; their rows say `lost`."""
    head: Head
    damaged_maps: int = 0
    """Maps that differ from their hash or are missing, of images that are there."""
    missing_for_good: Sequence[str] = ()
    """Golden images and candidates that differ from their hash or are missing."""


class _File(NamedTuple):
    """A file that a row names."""

    key: str
    sha256: str | None
    """None where the row does not know it."""
    image: str | None = None
    """Path of the image, where this is that image or its map."""

    @property
    def is_image(self) -> bool:
        return self.key == self.image


def backup(folder: Path, target: Path, *, clock: Clock = now_us) -> Manifest:
    """Copy the line in `folder` to the new folder `target`, which appears complete or not at all.

    Raises `DataError` where there is no database, `OutputError` where `target` is not empty or cannot be written.
    """
    source = folder / FILE_NAME
    if not source.is_file():
        raise DataError(
            f"{folder} has no {FILE_NAME}: name the data folder of the line; PostgreSQL is backed up with pg_dump"
        )
    with _new_folder(target) as part:
        _copy_database(source, part / FILE_NAME)
        lines = [f"{file_sha256(part / FILE_NAME)}  {FILE_NAME}"]
        rows, head, files = _contents(part / FILE_NAME)
        for file in files:
            if _link(folder / file.key, part / file.key):
                lines.append(f"{file.sha256 or file_sha256(part / file.key)}  {file.key}")
        images, missing, maps, for_good = _missing(part, files)
        (part / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        manifest = Manifest(
            VERSION, clock(), rows, images, missing, str(head), file_sha256(part / SUMS), maps, for_good
        )
        (part / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
        for path in (part / SUMS, part / MANIFEST, part / FILE_NAME):
            _sync(path)
    return manifest


def restore(source: Path, folder: Path, *, clock: Clock = now_us) -> Restored:
    """Make `folder` the data folder of a line from a backup.

    Database and audit are checked and have to be sound. Raises `DataError` for what is no sound backup and for a folder
    in use, `OutputError` where `folder` is not empty.
    """
    manifest = _manifest(source)
    if folder.is_dir() and (folder / FILE_NAME).exists():
        lock_folder(folder).close()  # refuses a running line
    with _new_folder(folder) as part:
        _copy_checked(source, part)
        _check_database(part / FILE_NAME)
        engine = sqlite_engine(part / FILE_NAME)
        try:
            migrate(engine, str(source / FILE_NAME))
            with engine.begin() as connection:
                audit.check(connection, Head.parse(manifest.audit_head))
                _images, _lost, maps, for_good = _missing(part, _files(connection))
                stored, lost = _settle(connection, part)
                new = {"backup": manifest.created, "lost": lost, "lost_maps": maps, "missing": for_good}
                head = audit.append(connection, Entry("system", "restore", new=new), clock())
        finally:
            engine.dispose()
    return Restored(manifest.rows, stored, lost, head, maps, for_good)


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target` that takes its place when the block succeeds and is removed otherwise."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} is not empty: choose a new folder")
    part = target.resolve().with_name(f".{target.resolve().name}.{os.getpid()}.part")
    with writing_errors(target):
        part.mkdir(parents=True)
        try:
            yield part
            if target.exists():
                target.rmdir()
            part.rename(target.resolve())
            sync_folder(target.resolve().parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _copy_database(source: Path, target: Path) -> None:
    """The database as of now, in one file without log."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        if "full" in str(error):
            raise OutputError(f"no space left for {target}: free some or choose another folder") from error
        raise DataError(f"{source} cannot be copied ({error}): check it") from error


def _contents(database: Path) -> tuple[int, Head, list[_File]]:
    """Rows, head of the audit, and every file that a row names."""
    engine = sqlite_reader(database)
    try:
        with engine.connect() as connection:
            rows = connection.execute(select(func.count()).select_from(inspection)).scalar_one()
            head, files = audit.head(connection), _files(connection)
    finally:
        engine.dispose()
    return rows, head, files


def _files(connection: Connection) -> list[_File]:
    """Every file that a row names."""
    named = select(inspection.c.image_key, inspection.c.map_key, inspection.c.image_sha256).where(
        inspection.c.image_key.is_not(None),
        inspection.c.image_state.in_([ImageState.STORED.value, ImageState.PENDING.value]),
    )
    files = []
    for image_key, map_key, sha256 in connection.execute(named):
        files.append(_File(image_key, sha256, image_key))
        if map_key is not None:
            files.append(_File(map_key, None, image_key))
    golden = select(golden_item.c.image_key, golden_item.c.image_sha256).distinct()
    packs = select(candidate.c.file, candidate.c.sha256).distinct()
    return files + [
        _File(key, sha256) for query in (golden, packs) for key, sha256 in connection.execute(query)
    ]


def _missing(part: Path, files: Sequence[_File]) -> tuple[int, int, int, list[str]]:
    """Images that are in a folder, images and maps that are not, and other files that are not."""
    images = missing = maps = 0
    for_good = set()
    for file in files:
        there = (part / file.key).is_file()
        if file.is_image:
            images, missing = images + there, missing + (not there)
        elif file.image is None and not there:
            for_good.add(file.key)
        elif file.image is not None and not there:
            maps += (part / file.image).is_file()
    return images, missing, maps, sorted(for_good)


def _manifest(source: Path) -> Manifest:
    try:
        manifest = Manifest(**from_json((source / MANIFEST).read_text(encoding="utf-8")))
        sums = file_sha256(source / SUMS)
    except (OSError, ValueError, TypeError):
        raise DataError(
            f"{source} is no complete backup of a line: name a folder written by `andon backup`"
        ) from None
    if sums != manifest.sums_sha256:
        raise DataError(f"{source / SUMS} was changed since the backup: use another backup")
    return manifest


def _copy_checked(source: Path, part: Path) -> None:
    """Copy every file of the backup that agrees with its hash. Raises `DataError` where the database does not."""
    for line in (source / SUMS).read_text(encoding="utf-8").splitlines():
        known, _, key = line.partition("  ")
        if Path(key).is_absolute() or ".." in Path(key).parts:
            raise DataError(f"{source / SUMS} names a file outside the backup ({key}): use another backup")
        target = part / key
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(source / key, target)
            if file_sha256(target) == known:
                continue
            target.unlink()
        if key == FILE_NAME:
            raise DataError(f"{source / key} was changed since the backup or is gone: use another backup")


def _settle(connection: Connection, part: Path) -> tuple[int, int]:
    """Set rows whose image is not there to `lost`. Returns how many images are there and how many are not."""
    named = select(inspection.c.id, inspection.c.image_key).where(
        inspection.c.image_state.in_([ImageState.STORED.value, ImageState.PENDING.value])
    )
    there: dict[bool, list[int]] = {True: [], False: []}
    for row, key in connection.execute(named):
        there[key is not None and (part / key).is_file()].append(row)
    set_state(connection, there[True], ImageState.STORED)
    set_state(connection, there[False], ImageState.LOST)
    return len(there[True]), len(there[False])


def _check_database(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise DataError(f"the database of the backup is damaged ({found}): use another backup")


def _link(source: Path, target: Path) -> bool:
    """Hard link or copy; False where there is no source."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        return False
    except OSError:  # another file system, or one without hard links
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            return False
        _sync(target)
    return True


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
