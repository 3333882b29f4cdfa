"""Fetch a published data set: resumable download, check of the archive, unpacking. The folder appears when it is complete.

The caller shows the licence and asks for agreement first (`andon data fetch`).
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import os
import shutil
import time
import urllib.error
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from andon.core.download import WrongFile, download, is_offline
from andon.core.errors import DataError, OutputError, UsageError
from andon.core.files import NO_SPACE, write_json
from andon.core.text import plural
from andon.datasets.open import list_categories, open_dataset
from andon.datasets.published.sources import PublishedSet
from andon.datasets.published.unpack import extract

ORIGIN = "andon-origin.json"
"""File in the data set folder with name, page, licence, archive and its hash."""
ATTEMPTS = 4
"""Attempts without a new byte before a link is given up."""
PAUSE = 2.0
"""Seconds before the second attempt, doubled before each further one."""
Show = Callable[[str, int, int], None]
"""Called with (activity, bytes done, total bytes or 0)."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A fetched data set."""

    folder: Path
    sha256: str
    """Of the archive."""
    categories: tuple[str, ...]
    warnings: tuple[str, ...]
    """Errors and warnings of opening it, such as differences from the published counts."""


def announce(source: PublishedSet, folder: Path) -> list[str]:
    """Lines to show before agreement is asked: page, licence, citation, content, archive, folder."""
    size = f"{source.size / 1e9:.2f} GB" if source.size else "size not known"
    lines = [f"{source.title}: {source.page}", f"licence: {source.licence}", f"cite: {source.cite}"]
    if source.images:
        lines.append(f"content: {len(source.counts)} categories, {plural(source.images, 'picture')}")
    if source.archive:
        lines.append(f"archive: {source.archive}, {size}, sha256 {source.sha256 or 'not known'}")
    return [*lines, f"folder: {folder}"]


def check_fetch(
    source: PublishedSet, folder: Path, *, url: str = "", archive: Path | None = None, sha256: str = ""
) -> None:
    """Raise a `UsageError` for arguments that cannot work, before anything is asked or downloaded."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            f"{folder} is there already and is left alone: choose another folder, or move it away"
        )
    if sha256 and (len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef")):
        raise DataError(f"{sha256!r} is no sha256: give 64 hexadecimal digits")
    if archive is not None:
        if not archive.is_file():
            raise DataError(f"{archive} is no file: give the archive downloaded from {source.page}")
        return
    if is_offline():
        raise DataError(
            f"downloads are forbidden (offline): bring the archive here from {source.page}, then "
            f"`andon data fetch {source.name} {folder} --from-archive FILE`"
        )
    if url:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(f"{url!r} is no link: give one that begins with https://, or --from-archive FILE")
    elif not source.links:
        way = "pass --from-archive FILE" if source.archive else "nothing is fetched"
        raise DataError(f"{source.title} has no direct link ({source.page}); {source.how}; {way}")


def fetch(
    source: PublishedSet,
    folder: Path,
    *,
    url: str = "",
    archive: Path | None = None,
    sha256: str = "",
    keep_archive: bool = False,
    show: Show = lambda what, done, total: None,
    pause: float = PAUSE,
) -> Fetched:
    """Download the archive (or use `archive`), check it, unpack it and move the content to `folder`.

    An interrupted download is resumed by the next call. `url` replaces the known links. `sha256` (64 hex digits) replaces
    the known hash and size, for an archive that the publisher changed. Raises a `UsageError` that states the remedy.
    """
    check_fetch(source, folder, url=url, archive=archive, sha256=sha256)
    size, expected = (0, sha256.lower()) if sha256 else (source.size, source.sha256)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = archive or _download(source, folder, (url,) if url else source.links, size, show, pause)
        found = _check(source, file, size, expected, is_ours=archive is None, show=show)
        try:
            _unpack(source, file, folder, found, url, show)
        except DataError as error:
            if archive is not None:
                raise
            file.unlink()  # so that the next call downloads it again
            raise DataError(f"{error}; if it is so again, get the present link from {source.page}") from error
        if archive is None:
            _put_away(file, folder.parent / source.archive if keep_archive and source.archive else None)
    except OSError as error:
        raise _disk_error(error, folder) from error
    return Fetched(folder, found, *_open_all(folder))


def _download(
    source: PublishedSet, folder: Path, links: tuple[str, ...], size: int, show: Show, pause: float
) -> Path:
    """The archive beside `folder`, downloaded from the first link that works or completed by an earlier call."""
    file = folder.with_name(f"{folder.name}.download")
    if file.is_file():
        return file
    part = file.with_name(f"{file.name}.part")
    _check_room(folder.parent, size, part)
    reasons = []
    for link in links:
        try:
            _persist(link, file, part, size, show, pause)
            return file
        except OSError as error:
            if error.errno in NO_SPACE or isinstance(error, PermissionError):
                raise
            reasons.append(f"{urllib.parse.urlsplit(link).hostname}: {' '.join(str(error).split())}")
    kept = f" ({part.stat().st_size} bytes are kept and continued from)" if part.is_file() else ""
    raise DataError(
        f"{source.title} could not be fetched{kept}: {'; '.join(reasons)}. Run the command again, or get the present link "
        f"from {source.page} and pass --url LINK, or download it in a browser and pass --from-archive FILE"
    )


def _persist(link: str, file: Path, part: Path, size: int, show: Show, pause: float) -> None:
    """Download with retries; gives up after `ATTEMPTS` attempts in a row without a new byte."""
    failures, most = 0, _size(part)
    while True:
        try:
            download(link, file, size=size, progress=lambda done, total: show("downloading", done, total))
            return
        except WrongFile:
            raise
        except OSError as error:
            refused = (
                isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429
            )
            if refused or error.errno in NO_SPACE or isinstance(error, PermissionError):
                raise
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= ATTEMPTS:
                raise
            time.sleep(pause * 2 ** (failures - 1))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check_room(folder: Path, size: int, part: Path) -> None:
    """Raise `OutputError` unless there is space for the archive and its content, about twice its size."""
    free, needed = shutil.disk_usage(folder).free, 2 * size - _size(part)
    if free < needed:
        raise OutputError(
            f"{folder} has {free / 1e9:.1f} GB free, archive and content need about {needed / 1e9:.1f} GB: "
            "free some or choose another folder"
        )


def _check(source: PublishedSet, file: Path, size: int, expected: str, *, is_ours: bool, show: Show) -> str:
    """The sha256 of the archive. A downloaded archive (`is_ours`) with another hash or size is removed."""
    found_size = file.stat().st_size
    if size and found_size != size:
        raise _wrong(source, file, f"has {found_size} bytes, the published archive has {size}", is_ours)
    digest, done = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            done += len(block)
            show("checking", done, found_size)
    found = digest.hexdigest()
    if expected and found != expected:
        raise _wrong(source, file, f"has sha256 {found}, expected {expected}", is_ours)
    return found


def _wrong(source: PublishedSet, file: Path, what: str, is_ours: bool) -> DataError:
    removed = ""
    if is_ours:
        file.unlink()
        removed = " and was removed"
    return DataError(
        f"{file} {what}: it is damaged or another file{removed}; fetch it again, or, if {source.page} names a new archive, "
        "pass its --sha256"
    )


def _put_away(file: Path, kept: Path | None) -> None:
    """Remove the downloaded archive, or rename it to `kept` where that does not exist."""
    if kept is None:
        file.unlink()
    elif not kept.exists():
        file.rename(kept)


def _unpack(source: PublishedSet, file: Path, folder: Path, sha256: str, url: str, show: Show) -> None:
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        extract(file, part, progress=lambda done, total: show("unpacking", done, total))
        inside = list(part.iterdir())
        enclosed = len(inside) == 1 and inside[0].is_dir() and bool(source.enclosing)
        enclosed = enclosed and inside[0].match(source.enclosing)
        content = inside[0] if enclosed else part
        origin = {
            "name": source.name,
            "title": source.title,
            "page": source.page,
            "licence": source.licence,
            "cite": source.cite,
            "archive": source.archive or file.name,
            "url": url,
            "bytes": file.stat().st_size,
            "sha256": sha256,
            "unpacked": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_json(content / ORIGIN, origin)
        content.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputError(
                f"{folder} appeared meanwhile and is left alone: choose another folder, or move it away"
            ) from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _open_all(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Categories, and the errors and warnings of opening them."""
    try:
        names = list_categories(folder)
        found = [open_dataset(folder, name).findings for name in names]
    except UsageError as error:
        return (), (f"unpacked, but not recognised: {error}",)
    return tuple(names), tuple(line for each in found for line in each.errors + each.warnings)


def _disk_error(error: OSError, folder: Path) -> OutputError:
    if error.errno in NO_SPACE:
        return OutputError(
            f"no space left while fetching into {folder}: free some, then run the command again to continue"
        )
    reason = error.strerror or str(error) or type(error).__name__
    return OutputError(
        f"{error.filename or folder} cannot be read or written ({reason}): choose another folder"
    )
