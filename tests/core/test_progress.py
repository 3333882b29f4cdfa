"""Progress: nothing for short work, remaining time where the amount is known, never on stdout."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from andon.core import progress
from andon.core.progress import BarProgress, LineProgress, NoProgress, default_progress, track


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress.time, "monotonic", found)
    return found


@pytest.mark.parametrize("kind", [LineProgress, BarProgress, NoProgress])
def test_short_work_shows_nothing(kind, capsys):
    assert list(track(kind(), range(5), "counting", 5)) == [0, 1, 2, 3, 4]
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_lines_tell_what_is_left(clock, capsys):
    with LineProgress().task("learning", 100, done=40) as task:
        clock.now += 21
        task.advance(20, "loss 0.5")
        clock.now += 5
        task.advance(1)  # too early for another line
        clock.now += 20
        task.advance(19)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "learning: 60/100, about 42 s left loss 0.5",
        "learning: 80/100, about 23 s left",
        "learning: done in 46 s",
    ]


def test_unknown_amount_has_no_time_left(clock, capsys):
    with LineProgress().task("fetching (MB)", 0) as task:
        clock.now += 21
        task.advance(3, "of 17")
    assert capsys.readouterr().err.splitlines()[0] == "fetching (MB): 3 of 17"


def test_failed_work_is_not_called_done(clock, capsys):
    with pytest.raises(ZeroDivisionError), LineProgress().task("learning", 10):
        clock.now += 60
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_bars_start_late_and_always_stop(clock, monkeypatch):
    events: list[str] = []
    start, stop = RichProgress.start, RichProgress.stop
    monkeypatch.setattr(RichProgress, "start", lambda bars: (events.append("start"), start(bars)))
    monkeypatch.setattr(RichProgress, "stop", lambda bars: (events.append("stop"), stop(bars)))
    with pytest.raises(ZeroDivisionError), BarProgress().task("learning", 10) as task:
        task.advance()
        assert events == []
        clock.now += 3
        task.advance()
        assert events == ["start"]
        raise ZeroDivisionError
    assert events == ["start", "stop"]


def test_bars_are_for_terminals(monkeypatch):
    assert isinstance(default_progress(), LineProgress)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert isinstance(default_progress(), BarProgress)


def test_names_are_no_markup(clock, monkeypatch):
    bars: list[RichProgress] = []
    start = RichProgress.start
    monkeypatch.setattr(RichProgress, "start", lambda one: (bars.append(one), start(one)))
    with BarProgress().task("lot[/a] :ok:", 10) as task:
        clock.now += 3
        task.advance(note="[/b]\x1b[2J")
        console = Console(width=200, file=io.StringIO())
        console.print(bars[0].get_renderable())
    shown = console.file.getvalue()
    assert "lot[/a] :ok:" in shown and "[/b]\\x1b[2J" in shown
