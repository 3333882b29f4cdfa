"""A line killed at any moment: no answer without its row, no part twice, and it comes back in the state in which it was."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from andon.line.alarms import Alarms
from andon.line.andon_states import StationState as S
from andon.line.store import Store
from andon.line.store.audit import check
from line.running import settings

pytestmark = pytest.mark.service
KILLS = 25
RUNS = {S.RUN, S.CALL}
ALLOWED = {
    "answered": {*RUNS, S.STOPPED},
    "sends": {*RUNS, S.STOPPED},
    "stopped": {S.STOPPED},
    "gives-cause": {S.STOPPED, S.CAUSE_GIVEN},
    "cause-given": {S.CAUSE_GIVEN},
    "resumes": {S.CAUSE_GIVEN, S.RESUME_REQUESTED, *RUNS},
    "resumed": {S.RESUME_REQUESTED, *RUNS},
}
"""State after a restart, by the last thing the line said."""


def test_kill_minus_9_at_any_moment(tmp_path):
    folder, luck, answered, before, number = tmp_path / "store", random.Random(7), {}, "", 0
    for _ in range(KILLS):
        command = [sys.executable, "-m", "line.killed", str(folder), str(number)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        ) as child:
            said = [child.stdout.readline().split()]
            said += [child.stdout.readline().split() for _ in range(luck.randrange(45))]
            child.kill()
            rest = child.stdout.read().splitlines(keepends=True)
        said += [line.split() for line in rest if line.endswith("\n")]
        assert said[0][0] == "begins"
        assert said[0][1] == before or before in ("", "resume_requested")
        answered |= {int(words[1]): words[2:] for words in said if words[0] == "answered"}
        number = max([number, *(int(words[1]) for words in said if words[0] == "sends")])
        with Store.open(folder) as store:
            alarms = Alarms(store, settings(folder))
            before = alarms.station("press").state.value
            assert len(said) == 1 or S(before) in ALLOWED[said[-1][0]], said[-8:]
            stops = [alarm for alarm in alarms.active("press") if alarm.stops]
            assert bool(stops) == (before == "stopped"), before
            store.ask(check)
    assert len(answered) > 5 * KILLS
    with Store.open(folder) as store:
        for request, (verdict, id) in answered.items():
            row = store.by_request(f"request-{request}")
            assert (row.verdict.name, row.id) == (verdict, int(id))
        assert sum(store.counts("press", since=0).values()) <= number
    with sqlite3.connect(folder / "andon.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
