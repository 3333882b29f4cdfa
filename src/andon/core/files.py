"""Atomic writing: a file appears complete or not at all. JSON, written strictly and read safely. Hashes of files and in files."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from andon.core.errors import OutputError

CHECKSUM_BYTES = 32
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.EFBIG,
    errno.EIO,
    errno.ELOOP,
    errno.ENXIO,
}
"""Reasons why a place cannot be written that another place does not have."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is moved to `path` when the block succeeds and removed otherwise.

    Raises `OutputError` when the disk is full or the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writing_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_errors(path: Path) -> Iterator[None]:
    """Raise `OutputError` for a full disk or a place that cannot be written while the block writes `path`; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise OutputError(
                f"no space left while writing {path}: free some or choose another folder"
            ) from error
        if error.errno in UNWRITABLE:
            raise OutputError(
                f"{path} cannot be written ({error.strerror}): choose another folder"
            ) from error
        raise


@contextlib.contextmanager
def all_or_nothing() -> Iterator[Callable[[Path, Path], None]]:
    """A function that moves a file, making the folders of its new place; an exception inside takes all of it back."""
    moved: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        _rename(source, target)
        moved.append((source, target))

    try:
        yield move
    except BaseException:
        for source, target in reversed(moved):
            _rename(target, source)
        raise


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # a linked folder may be on another disk
            raise
        shutil.move(source, target)


def lock(handle: int) -> bool:
    """Hold an open file or folder for this process until it is closed, where the system can (POSIX).

    False where another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_place(path: Path) -> None:
    """Raise `OutputError` where `path` cannot be written, before the work for it is done; leaves nothing behind."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        with writing_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    finally:
        for folder in made:  # the innermost first
            with contextlib.suppress(OSError):
                folder.rmdir()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with writing(path) as part:
        part.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically; undecodable bytes of file names become `\\udcXX`, which JSON reads back."""
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write strict JSON (`null` for NaN) atomically."""
    write_text(path, to_json(values) + "\n")


def to_json(values: Any, *, ascii_only: bool = False) -> str:
    """Strict, indented JSON: NaN and infinities become `null`; with `ascii_only` other characters are escaped."""
    return json.dumps(_strict(values), indent=2, ensure_ascii=ascii_only, allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """JSON as Python values. Raises `ValueError` for what is none, and for what is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def file_sha256(path: Path) -> str:
    """sha256 (hex) of the content of a file. Raises `OSError` where it cannot be read."""
    import hashlib  # takes long to import, and most commands do without

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_checksum(body: bytes) -> bytes:
    """The content of a file that `checked` reads: the SHA-256 of `body`, then `body`."""
    import hashlib

    return hashlib.sha256(body).digest() + body


def checked(content: bytes) -> bytes:
    """The body that `with_checksum` was given. Raises `ValueError` where a byte has changed since."""
    import hashlib

    checksum, body = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest() != checksum:
        raise ValueError("the checksum differs")
    return body


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "item"):  # NumPy scalars
        return _strict(value.item())
    return value
