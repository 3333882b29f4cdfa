"""Hostile and damaged archives are refused, and nothing is written outside the new folder."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import names, pack

from andon.core.errors import DataError
from andon.datasets.published import unpack as archives
from andon.datasets.published.unpack import extract, safe_name


def tar_of(*members: tuple[str, bytes, int | bytes]) -> bytes:
    """(name, type, length of content or target of a link) each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if isinstance(value, bytes):
                info.linkname = value.decode()
                opened.addfile(info)
            else:
                info.size = value
                opened.addfile(info, io.BytesIO(bytes(value)))
    return buffer.getvalue()


def zip_of(*members: tuple[str, int, bytes]) -> bytes:
    """(name, Unix mode, content) each."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, mode, value in members:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
            opened.writestr(info, value)
    return buffer.getvalue()


def encrypted() -> bytes:
    value = bytearray(zip_of(("a.png", 0o100644, b"a")))
    value[6] |= 1
    value[value.index(b"PK\x01\x02") + 8] |= 1
    return bytes(value)


def huge_header() -> bytes:
    """A long-name header that claims 200 MB: tarfile would read them into memory."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 200 << 20
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


FILE = tarfile.REGTYPE
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "tar: absolute name": (lambda: tar_of(("/tmp/evil.png", FILE, 3)), "outside the new folder"),
    "tar: ..": (lambda: tar_of(("part/../../evil.png", FILE, 3)), "outside the new folder"),
    "tar: backslashes": (lambda: tar_of(("..\\evil.png", FILE, 3)), "outside the new folder"),
    "tar: drive": (lambda: tar_of(("C:evil.png", FILE, 3)), "outside the new folder"),
    "tar: control characters": (lambda: tar_of(("a\nb.png", FILE, 3)), "control characters"),
    "tar: symbolic link": (lambda: tar_of(("part", tarfile.SYMTYPE, b"/etc")), "no regular file"),
    "tar: file through a link": (
        lambda: tar_of(("part", tarfile.SYMTYPE, b".."), ("part/evil.png", FILE, 3)),
        "no regular file",
    ),
    "tar: hard link": (
        lambda: tar_of(("a.png", FILE, 3), ("b.png", tarfile.LNKTYPE, b"a.png")),
        "no regular",
    ),
    "tar: device": (lambda: tar_of(("null", tarfile.CHRTYPE, 0)), "no regular file"),
    "tar: pipe": (lambda: tar_of(("pipe", tarfile.FIFOTYPE, 0)), "no regular file"),
    "tar: a name twice": (lambda: tar_of(("a.png", FILE, 3), ("./a.png", FILE, 4)), "twice"),
    "tar: below a file": (lambda: tar_of(("a", FILE, 3), ("a/b.png", FILE, 4)), "below a file"),
    "tar: empty": (lambda: tar_of(), "is empty"),
    "tar: cut": (lambda: tar_of(("a.png", FILE, 5000))[:2000], "damaged"),
    "tar: header of 200 MB": (huge_header, "has a header of 209715200 bytes"),
    "zip: ..": (lambda: zip_of(("../evil.png", 0o100644, b"a")), "outside the new folder"),
    "zip: absolute name": (lambda: zip_of(("/tmp/evil.png", 0o100644, b"a")), "outside the new folder"),
    "zip: symbolic link": (lambda: zip_of(("part", 0o120777, b"/etc")), "no regular file"),
    "zip: encrypted": (encrypted, "is encrypted"),
    "zip: cut": (lambda: zip_of(("a.png", 0o100644, b"a" * 99))[:-30], "damaged"),
    "zip: empty": (lambda: zip_of(), "is empty|damaged"),
    "text": (lambda: b"<html>log in</html>", "damaged or no zip or tar archive"),
    "nothing": (lambda: b"", "damaged or no zip or tar archive"),
    "gzip: cut": (lambda: b"\x1f\x8b\x08\x00\x00\x00", "damaged"),
    "bz2: text": (lambda: b"BZhthis is text", "damaged"),
    "xz: text": (lambda: b"\xfd7zXZ\x00this is text", "damaged"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(tmp_path: Path, case: str) -> None:
    make, message = HOSTILE[case]
    archive = tmp_path / "inside" / "archive"
    archive.parent.mkdir()
    archive.write_bytes(make())
    with pytest.raises(DataError, match=message):
        extract(archive, tmp_path / "inside" / "new")
    assert names(tmp_path) == ["inside/archive"] and not (tmp_path / "inside" / "new").exists()


def test_wrong_checksum_in_a_zip(tmp_path: Path) -> None:
    value = bytearray(zip_of(("a.png", 0o100644, os.urandom(200))))
    value[60] ^= 1
    (tmp_path / "a.zip").write_bytes(value)
    with pytest.raises(DataError, match="damaged"):
        extract(tmp_path / "a.zip", tmp_path / "new")


@pytest.mark.parametrize("lies", [False, True])
def test_zip_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lies: bool) -> None:
    """Whether the archive states its true size or hides it."""
    monkeypatch.setattr(archives, "LEAST", 100_000)
    value = bytearray(zip_of(("a.png", 0o100644, bytes(1_000_000))))
    if lies:  # in the local header and in the directory
        for place in (22, value.index(b"PK\x01\x02") + 24):
            value[place : place + 4] = struct.pack("<I", 10)
    (tmp_path / "a.zip").write_bytes(value)
    with pytest.raises(DataError, match="far more than its size" if not lies else "damaged|far more"):
        extract(tmp_path / "a.zip", tmp_path / "new")
    assert names(tmp_path) == ["a.zip"]


def test_tar_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LEAST", 100_000)
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as opened:
        for k in range(40):
            info = tarfile.TarInfo(f"{k}.png")
            info.size = 50_000
            opened.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match="far more than its size"):
        extract(tmp_path / "a.tar.xz", tmp_path / "new")


def test_more_bytes_than_stated(tmp_path: Path) -> None:
    """Whatever the reader of an archive lets through."""
    target = archives._Target(tmp_path / "a.zip", tmp_path, bytes_left=100)
    target.add_file("a.png", 1, io.BytesIO(bytes(60)))
    with pytest.raises(DataError, match="far more than its size"):
        target.add_file("b.png", 1, io.BytesIO(bytes(60)))


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = archives._Target
    monkeypatch.setattr(archives, "_Target", lambda *a: real(*a, files_left=3))
    (tmp_path / "a").write_bytes(tar_of(*((f"{k}.png", FILE, 1) for k in range(4))))
    with pytest.raises(DataError, match="holds more than"):
        extract(tmp_path / "a", tmp_path / "new")


@settings(deadline=None, max_examples=200)
@given(st.text(st.sampled_from("ab./\\:C \n"), max_size=12))
def test_names_stay_inside(name: str) -> None:
    """Against what the file system itself says of the joined path."""
    try:
        safe = safe_name(name, Path("archive"))
    except DataError:
        outside = name.startswith("/") or name[1:2] == ":" or "\\" in name or ".." in name.split("/")
        assert not name or outside or "\n" in name
    else:
        root = "/outer/new"
        assert os.path.commonpath([root, os.path.normpath(f"{root}/{safe}")]) == root
        assert "\\" not in name and ".." not in name.split("/")


@settings(deadline=None, max_examples=15)
@given(
    st.dictionaries(
        st.text(st.sampled_from("abc/"), min_size=1, max_size=6), st.binary(max_size=2000), min_size=1
    )
)
def test_what_is_packed_comes_out(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    base = tmp_path_factory.mktemp("round")
    source = base / "source"
    for name, value in files.items():
        path = source / f"{name.strip('/')}.png"
        if ".png/" not in str(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
    for kind in ("zip", "tar", "tar.gz"):
        extract(pack(source, base / f"a.{kind}"), base / kind)
        assert {n: (base / kind / n).read_bytes() for n in names(base / kind)} == {
            n: (source / n).read_bytes() for n in names(source)
        }
