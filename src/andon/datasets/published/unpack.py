"""Unpack downloaded archives safely: nothing outside the target folder is written.

Only regular files and folders with relative names are extracted. Anything else (absolute names, `..`, links, devices,
encrypted or sparse files, duplicate names, too many bytes or files) raises `DataError`, and the target folder is removed.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, cast

from andon.core.errors import DataError

BLOCK = 1 << 20
HEADER_LIMIT = 16 << 20
"""Largest single read by tarfile in bytes; headers of valid archives are far smaller."""
GROWTH, LEAST = 20, 64 << 20
"""An archive may unpack to `GROWTH` times its size, or to `LEAST` bytes where that is more."""
MAX_FILES = 1_000_000
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
)
"""Raised by the archive readers for damaged files; gzip and bz2 also raise `OSError` without errno."""

OPENERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": cast("Callable[[Path], IO[bytes]]", gzip.open),
    b"\xfd7zXZ": cast("Callable[[Path], IO[bytes]]", lzma.open),
    b"BZh": cast("Callable[[Path], IO[bytes]]", bz2.open),
}
"""Decompressors by the first bytes of the file."""


@dataclass(slots=True)
class _Target:
    """The target folder and its remaining allowance."""

    archive: Path
    folder: Path
    bytes_left: int
    files_left: int = MAX_FILES

    def add_folder(self, name: str) -> None:
        """Create a folder of the archive."""
        self._count()
        self._make(self.folder / safe_name(name, self.archive), name)

    def add_file(self, name: str, stated: int, content: IO[bytes]) -> None:
        """Extract a file whose header states `stated` bytes."""
        self._count()
        path = self.folder / safe_name(name, self.archive)
        if path == self.folder:
            raise DataError(f"{self.archive} holds a file without a name: refused")
        self._make(path.parent, name)
        if stated > self.bytes_left:
            raise self._too_large()
        try:
            stream = path.open("xb")
        except (FileExistsError, IsADirectoryError) as error:
            raise DataError(f"{self.archive} holds {name!r} twice: refused") from error
        with stream:
            while block := content.read(BLOCK):
                self.bytes_left -= len(block)
                if self.bytes_left < 0:
                    raise self._too_large()
                stream.write(block)

    def _make(self, folder: Path, name: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise DataError(f"{self.archive} holds {name!r} below a file: refused") from error

    def _count(self) -> None:
        self.files_left -= 1
        if self.files_left < 0:
            raise DataError(f"{self.archive} holds more than {MAX_FILES} files: refused")

    def _too_large(self) -> DataError:
        return DataError(
            f"{self.archive} unpacks to far more than its size ({GROWTH} times are allowed): refused, it is no data set"
        )


def extract(archive: Path, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Unpack a zip or tar file (plain, gz, xz or bz2) into `folder`, which must not exist; it is removed on failure.

    `progress` is called with (bytes of the archive read, its size). Raises `DataError` for archives that are damaged or
    contain anything but regular files and folders, `OSError` for errors of the disk.
    """
    size = archive.stat().st_size
    target = _Target(archive, folder, max(GROWTH * size, LEAST))
    folder.mkdir(parents=True)
    try:
        with archive.open("rb") as raw:
            start = raw.read(6)
        if start.startswith(b"PK"):
            _extract_zip(archive, target, progress)
        else:
            _extract_tar(archive, start, target, progress)
        if not any(folder.iterdir()):
            raise DataError(f"{archive} is empty: fetch it again")
    except (*DAMAGED, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None:  # an error of the disk, not of the archive
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{archive} is damaged or no zip or tar archive ({reason}): fetch it again"
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def safe_name(name: str, archive: Path) -> PurePosixPath:
    """The name of an entry as a relative path. Raises `DataError` for absolute and other unsafe names."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    if not name or path.is_absolute() or windows.anchor or ".." in path.parts or "\\" in name:
        raise DataError(
            f"{archive} holds the name {name!r}, which may lead outside the new folder: refused, nothing is unpacked"
        )
    if any(ord(character) < 32 for character in name):
        raise DataError(f"{archive} holds the name {name!r} with control characters: refused")
    return path


def _extract_zip(archive: Path, target: _Target, progress: Callable[[int, int], None] | None) -> None:
    size = archive.stat().st_size
    with zipfile.ZipFile(archive) as opened:
        read = 0
        for entry in opened.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive was not made on Unix
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _not_regular(archive, entry.filename)
            if entry.flag_bits & 1:
                raise DataError(f"{archive} is encrypted: unpack it yourself and use the folder")
            if entry.is_dir():
                target.add_folder(entry.filename)
                continue
            with opened.open(entry) as content:
                target.add_file(entry.filename, entry.file_size, content)
            read += entry.compress_size
            if progress is not None:
                progress(min(read, size), size)


def _extract_tar(
    archive: Path, start: bytes, target: _Target, progress: Callable[[int, int], None] | None
) -> None:
    size = archive.stat().st_size
    with archive.open("rb") as raw, _plain(raw, start) as plain:
        bounded = cast("IO[bytes]", _BoundedReads(plain, archive))
        with tarfile.open(fileobj=bounded, mode="r:") as opened:
            for member in opened:
                if member.isdir():
                    target.add_folder(member.name)
                    continue
                content = opened.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None:
                    raise _not_regular(archive, member.name)
                target.add_file(member.name, member.size, content)
                if progress is not None:
                    progress(raw.tell(), size)


def _not_regular(archive: Path, name: str) -> DataError:
    return DataError(
        f"{archive} holds {name!r}, which is a link, a device or otherwise no regular file: refused, "
        "nothing is unpacked"
    )


@contextlib.contextmanager
def _plain(raw: IO[bytes], start: bytes) -> Iterator[IO[bytes]]:
    """The decompressed tar stream of `raw`."""
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        yield raw
        return
    with opener(cast("Path", raw)) as plain:
        yield plain


class _BoundedReads(io.RawIOBase):
    """A stream with limited reads: tarfile reads as many header bytes at once as the archive states."""

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self.stream, self.archive = stream, archive

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= HEADER_LIMIT:
            raise DataError(f"{self.archive} has a header of {size} bytes: refused, nothing is unpacked")
        return self.stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()
