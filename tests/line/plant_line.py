"""A line on a shared database that judges parts until it is told to end or is killed; says what it answered.

Run by test_plant.py: URL, folder, name of the line and its station, first number of its parts.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from andon.line.line import Line
from line.disk import with_room
from line.running import FakeJudge, answer, settings, until


def main(url: str, folder: Path, name: str, first: int) -> None:
    values = {"database": url, "name": name}
    line = Line(settings(folder, name, line=values, rules=()), open_judge=FakeJudge)
    line.start()
    until(lambda: line.health().ready)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    number = first
    while not ended.is_set():
        row = answer(line.stations[name], number, "NG" if number % 5 == 0 else "OK")
        print("answered", row.id, row.request_id, row.verdict.name, line.store.spooling, flush=True)
        number += 1
        time.sleep(0.01)
    until(lambda: not line.store.spooling)
    line.stop()


if __name__ == "__main__":
    with_room(pytest.MonkeyPatch())
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
