"""A line that judges parts, stops and is resumed until it is killed; says what it has done. Run by test_line_kill.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from andon.line.andon_states import StationState
from line.disk import with_room
from line.running import answer, running, until


def say(*words: object) -> None:
    print(*words, flush=True)


def main(folder: Path, first: int) -> None:
    with running(folder) as line:
        press = line.stations["press"]

        def state() -> StationState:
            return line.alarms.station("press").state

        say("begins", state())
        number = first
        while True:
            if state() is StationState.STOPPED:
                say("gives-cause")
                line.alarms.give_cause("press", "product", "", "eva")
                say("cause-given")
            if state() is StationState.CAUSE_GIVEN:
                say("resumes")
                line.alarms.resume("press", "eva")
                say("resumed")
            for word in ("OK", "OK", "REVIEW", "OK", "NG", "NG", "NG"):
                number += 1
                say("sends", number)
                row = answer(press, number, word)
                say("answered", number, row.verdict.name, row.id)
            until(lambda: state() is not StationState.RUN)
            say("stopped")


if __name__ == "__main__":
    with_room(pytest.MonkeyPatch())
    main(Path(sys.argv[1]), int(sys.argv[2]))
