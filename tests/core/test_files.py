"""Files are written completely or not at all; JSON is strict."""

from __future__ import annotations

import errno
import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import names
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.errors import OutputError
from andon.core.files import check_place, from_json, to_json, write_bytes, write_json, write_text, writing

# Writing ----------------------------------------------------------------------------------------------------------


def test_folders_are_made_and_the_file_is_whole(tmp_path):
    write_text(tmp_path / "a/b/c.txt", "ä")
    assert (tmp_path / "a/b/c.txt").read_bytes() == "ä".encode()
    assert names(tmp_path / "a/b") == ["c.txt"]


def test_failure_leaves_the_old_file_and_no_trace(tmp_path):
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    with pytest.raises(RuntimeError, match="in the middle"), writing(target) as part:
        part.write_bytes(b"half")
        raise RuntimeError("in the middle")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_the_old_file_and_says_so(tmp_path, number):
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    with (
        pytest.raises(OutputError, match=r"no space left while writing .*a\.bin: free some"),
        writing(target) as part,
    ):
        part.write_bytes(b"half")
        raise OSError(number, "full")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KiB, where mounting is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_really_full_disk(small_disk):
    write_bytes(small_disk / "a.bin", b"old")
    with pytest.raises(OutputError, match="no space left"):
        write_bytes(small_disk / "a.bin", bytes(200_000))
    assert names(small_disk) == ["a.bin"]
    assert (small_disk / "a.bin").read_bytes() == b"old"


def test_file_where_a_folder_is_needed_is_an_output_error(tmp_path):
    write_text(tmp_path / "a", "x")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "a/b.txt", "y")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "a/b/c.txt", "y")


@pytest.mark.parametrize("place", ["/proc/nothing/a.onnx", "/proc/nothing/b/a.onnx"])
def test_a_folder_that_cannot_be_made_is_an_output_error(place):
    for write in (check_place, lambda path: write_text(path, "x")):
        with pytest.raises(OutputError, match=r"a.onnx cannot be written \(No such file"):
            write(Path(place))


def test_a_place_that_is_looked_at_stays_as_it_was(tmp_path):
    check_place(tmp_path / "a/b/c.onnx")
    check_place(tmp_path / "c.onnx")
    assert names(tmp_path) == []
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "a", "x")
        check_place(tmp_path / "a/b.onnx")
    assert names(tmp_path) == ["a"]


# JSON -------------------------------------------------------------------------------------------------------------


def test_json_is_strict(tmp_path):
    values = {
        "nan": math.nan,
        "inf": [math.inf, -math.inf, np.float32("nan")],
        "numpy": (np.float32(0.5), np.int64(3), np.bool_(True)),
        "path": Path("a/b"),
        7: {"ä": None},
    }
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "nan": None,
        "inf": [None, None, None],
        "numpy": [0.5, 3, True],
        "path": "a/b",
        "7": {"ä": None},
    }
    assert "ä" in text


def test_json_that_is_nested_too_deeply_is_a_value_error():
    with pytest.raises(ValueError, match="nested too deeply"):
        from_json("[" * 100_000 + "]" * 100_000)
    assert from_json(b'{"a": [1]}') == {"a": [1]}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
@settings(deadline=None, max_examples=100)
def test_plain_values_survive(values):
    assert json.loads(to_json(values)) == values
