"""Downloads resume, and end with the right bytes or an error."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import names
from servers import serving

from andon.core.download import download

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8))


def test_download_reports_progress_and_leaves_only_the_file(tmp_path):
    seen: list[tuple[int, int]] = []
    with serving(CONTENT) as files:
        download(files.url, tmp_path / "a", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert names(tmp_path) == ["a"]


def test_dropped_connection_is_continued(tmp_path):
    with serving(CONTENT) as files:
        files.mode = "drop"
        with pytest.raises(OSError, match=f"ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes"):
            download(files.url, tmp_path / "a")
        assert names(tmp_path) == ["a.part"]
        files.mode = "range"
        download(files.url, tmp_path / "a")
    assert files.ranges == [None, f"bytes={len(CONTENT) // 2}-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_server_without_ranges_starts_again(tmp_path):
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    with serving(CONTENT) as files:
        files.mode = "whole"
        download(files.url, tmp_path / "a")
    assert files.ranges == ["bytes=1000-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_server_without_length(tmp_path):
    with serving(CONTENT) as files:
        files.mode = "no length"
        download(files.url, tmp_path / "a", progress=lambda done, total: pytest.fail() if total else None)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_partial_file_that_is_too_long_is_removed(tmp_path):
    (tmp_path / "a.part").write_bytes(bytes(len(CONTENT) + 5))
    with serving(CONTENT) as files:
        with pytest.raises(OSError, match="was removed"):
            download(files.url, tmp_path / "a")
        download(files.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("mode", ["garbage", "broken chunk", "error"])
def test_bad_answers_are_os_errors_and_give_no_file(tmp_path, mode):
    with serving(CONTENT) as files:
        files.mode = mode
        with pytest.raises(OSError, match=r"."):
            download(files.url, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_nobody_listens(tmp_path):
    with serving(CONTENT) as files:
        pass
    with pytest.raises(OSError, match="refused"):
        download(files.url, tmp_path / "a", timeout=2)
    assert names(tmp_path) == []
