"""Names of image files, natural order, and the walk below a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.errors import DataError
from andon.core.listing import BROKEN, PassedBy, images_below, is_image, list_images, natural_key
from andon.core.own_output import mark
from andon.datasets.findings import FindingsLog
from andon.datasets.folder_scan import scan


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def walked(folder: Path) -> tuple[list[str], PassedBy]:
    passed = PassedBy()
    return [path.relative_to(folder).as_posix() for path in images_below(folder, passed)], passed


def test_suffixes_of_the_formats_that_are_read(tmp_path):
    names = ("a.jpe", "b.JFIF", "c.TIFF", "d.dib", "e.pjpeg", "f.apng")
    touch(tmp_path, *names)
    assert walked(tmp_path)[0] == list(names)


def test_what_is_passed_by_is_counted_and_named(tmp_path):
    touch(
        tmp_path,
        "a.png",
        "b.gif",
        "c.GIF",
        "d.heic",
        "e.pgm",
        "IMG_1",
        "readme.txt",
        ".f.png",
        "._a.png",
        "Thumbs.db",
    )
    touch(tmp_path, "drawn/h.png", ".git/i.png", "@eaDir/j.jpg")
    mark(tmp_path / "drawn")
    (tmp_path / "k.png").symlink_to(tmp_path / "absent.png")
    names, passed = walked(tmp_path)
    assert names == ["a.png"]
    assert passed.counts == {"other_format": 5, "no_picture": 1, "hidden": 1, "not_there": 1, "own_output": 1}
    formats = next(line for line in passed.lines() if "format" in line)
    assert "5 x" in formats
    assert "b.gif" in formats
    assert formats.count(str(tmp_path)) == 3
    assert "and 2 more" in formats
    assert passed.to_json()["no_picture"] == {"count": 1, "first": [str(tmp_path / "readme.txt")]}


def test_a_link_to_itself_is_a_broken_one(tmp_path):
    touch(tmp_path, "a.png")
    for name in ("loop.png", "loop"):
        (tmp_path / name).symlink_to(tmp_path / name)
    names, passed = walked(tmp_path)
    assert names == ["a.png"]
    assert passed.counts == {BROKEN: 2}
    assert list_images(tmp_path) == [tmp_path / "a.png"]
    log = FindingsLog()
    found = scan(tmp_path, log)
    assert (found.images, found.folders) == ((tmp_path / "a.png",), ())
    assert log.warnings == [
        f"{tmp_path / 'loop.png'} is a link to a missing file: skipped, copy it again or remove it"
    ]


def test_linked_folders_are_followed_once(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    touch(inside, "day2/a.png")
    touch(outside, "b.png", "deep/c.png")
    for name, target in {
        "day1": inside / "day2",
        "linked": outside,
        "more": outside / "deep",
        "up": tmp_path,
        "x": inside,
    }.items():
        (inside / name).symlink_to(target)
    (outside / "loop").symlink_to(outside)
    names, passed = walked(inside)
    assert names == ["day2/a.png", "linked/b.png", "linked/deep/c.png"]
    assert passed.counts == {"linked_again": 5}  # day1, linked/loop, more, up, x


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    touch(tmp_path, "shut/a.png")
    (tmp_path / "shut").chmod(0)
    with pytest.raises(DataError, match="shut cannot be listed"):
        walked(tmp_path)
    (tmp_path / "shut").chmod(0o700)


def test_natural_order():
    names = ["img10.png", "img2.png", "IMG1.png", "img02.png", "b", "img2b.png", "10", "a", "9"]
    ordered = ["9", "10", "a", "b", "IMG1.png", "img02.png", "img2.png", "img2b.png", "img10.png"]
    assert sorted(names, key=natural_key) == ordered
    assert natural_key("img2.png") < natural_key("img10.png")
    assert natural_key("IMG1") < natural_key("img2")


NAMES = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=12
) | st.text("ab01２.", max_size=8)


@given(a=NAMES, b=NAMES, c=NAMES)
@settings(deadline=None, max_examples=300)
def test_natural_key_is_a_total_order(a, b, c):
    x, y, z = natural_key(a), natural_key(b), natural_key(c)
    assert (x == y) == (a == b)
    assert (x < y) + (y < x) + (x == y) == 1
    if x <= y and y <= z:
        assert x <= z


@given(a=st.integers(0, 10**12), b=st.integers(0, 10**12), zeros=st.integers(0, 3))
@settings(deadline=None, max_examples=100)
def test_numbers_are_compared_as_numbers(a, b, zeros):
    left, right = f"part-{'0' * zeros}{a}.png", f"part-{b}.png"
    if a != b:
        assert (natural_key(left) < natural_key(right)) == (a < b)


def test_listing_leaves_out_what_is_no_image(tmp_path):
    for name in ("b10.PNG", "b2.jpeg", ".hidden.png", "notes.txt", "Thumbs.db", "zero.tif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["b2.jpeg", "b10.PNG", "zero.tif"]
    assert not is_image(Path("._photo.png"))
