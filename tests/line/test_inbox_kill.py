"""A line killed again and again while it judges a drop folder: each file has one row and is moved."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from andon.line.store import Store
from line.running import PICTURE

pytestmark = pytest.mark.service
FILES = 1000
LONGEST_SECONDS = 600


def test_kill_minus_9_while_files_are_judged(tmp_path):
    drop, luck, kills = tmp_path / "inbox", random.Random(3), 0
    drop.mkdir()
    for k in range(FILES):
        (drop / f"{k:04}.png").write_bytes(PICTURE + f"|{'NG' if k % 5 == 0 else 'OK'}|{k}".encode())
    end = time.monotonic() + LONGEST_SECONDS
    while waiting := list(drop.glob("*.png")):
        command = [sys.executable, "-m", "line.dropped", str(tmp_path / "store"), str(drop)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as child:
            child.stdout.readline()
            left = max(0, len(waiting) - luck.randrange(80))
            while len(list(drop.glob("*.png"))) > left and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(luck.uniform(0.0, 0.02))
            child.kill()
        kills += 1
        assert time.monotonic() < end
    with Store.open(tmp_path / "store") as store:
        rows = store.inspections(limit=FILES)
        assert sum(store.counts("press", since=0).values()) == FILES
    assert sorted(row.part_id for row in rows) == [f"{k:04}" for k in range(FILES)]
    assert all((row.verdict.name == "NG") == (int(row.part_id) % 5 == 0) for row in rows)
    assert len(list(drop.glob("done/*/*.png"))) == len(list(drop.glob("answers/*.json"))) == FILES
    assert kills >= FILES // 80
