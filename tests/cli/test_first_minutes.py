"""What a newcomer gets wrong in the first minutes ends with the next command to type."""

from __future__ import annotations

import re

import pytest
from commands import check_command
from conftest import texture, write_picture

CASES = [
    ("fit EMPTY", "`andon fit FOLDER`"),
    ("fit NOWHERE", "`andon data check FOLDER`"),
    ("fit PICTURE", "`andon fit THREE`"),
    ("fit FOREIGN", "`andon fit FOLDER`"),
    ("fit ONE", "`andon data check ONE`"),
    ("fit BAD", "`andon fit BAD/bad --good bad`"),
    ("fit OTHER", "`andon data check OTHER --good NAME --bad NAME`"),
    ("fit RUN", "`andon predict RUN IMAGES`"),
    ("fit THREE --out RUN", "`andon fit ... --out RUN-2`"),
    ("data check EMPTY", "`andon fit FOLDER`"),
    ("data check RUN", "`andon predict RUN IMAGES`"),
    ("evaluate THREE", "`andon fit THREE`"),
    ("evaluate NOWHERE", "`andon fit FOLDER`"),
    ("evaluate RUN --data THREE", "`andon evaluate RUN --data FOLDER`"),
    ("predict THREE PICTURE", "`andon fit THREE`"),
    ("predict PICTURE RUN", "`andon predict RUN THREE/0.png`"),
    ("predict THREE RUN", "`andon predict RUN THREE`"),
    ("predict PICTURE EMPTY", "`andon predict RUN THREE/0.png`"),
    ("predict PICTURE THREE", "`andon predict RUN THREE/0.png`"),
    ("predict RUN EMPTY", "`andon predict RUN IMAGES`"),
    ("predict RUN NOWHERE", "`andon predict RUN IMAGES`"),
    ("predict RUN RUN", "`andon predict RUN IMAGES`"),
    ("threshold THREE", "`andon fit THREE`"),
    ("export THREE", "`andon fit THREE`"),
    ("latency THREE", "`andon fit THREE`"),
    ("fit", "`andon fit --help`"),
    ("predict RUN", "`andon predict --help`"),
    ("train THREE", "`andon --help`"),
]


@pytest.mark.parametrize(("typed", "following"), CASES, ids=[typed for typed, _ in CASES])
def test_the_next_command(cli, tiny_run, tmp_path, monkeypatch, typed, following):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").symlink_to(tiny_run)
    for k in range(3):
        write_picture(tmp_path / f"THREE/{k}.png", texture(k))
    write_picture(tmp_path / "ONE/0.png", texture(0))
    write_picture(tmp_path / "BAD/bad/0.png", texture(0))
    write_picture(tmp_path / "OTHER/deep/inside/0.png", texture(0))
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FOREIGN").mkdir()
    (tmp_path / "FOREIGN/0.gif").write_bytes(b"GIF89a")
    words = [{"PICTURE": "THREE/0.png"}.get(word, word) for word in typed.split()]
    line = cli(*words).complaint()
    calls = re.findall(r"`andon ([^`]+)`", line)
    assert calls, line
    for call in calls:
        check_command(call, line)
    assert following in line
    assert line.rstrip(".").endswith("`") or "judges pictures with it" in line, line
