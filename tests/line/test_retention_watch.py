"""Retention and the clock: a wrong clock deletes nothing, and a person says when it is right."""

from __future__ import annotations

import shutil

import pytest

from andon.core.errors import UsageError
from andon.line.clock import DAY, HOUR, SECOND
from andon.line.retention_watch import AHEAD, HELD, IDLE, RetentionWatch, steady_us
from andon.line.settings import RetentionSettings
from andon.line.store import Store, rows
from line.running import running
from line.storing import NOON, part

RULE = RetentionSettings(ok_days=30, row_days=3650)


class Time:
    """The clock of a computer, and the one that nobody sets."""

    now, steady = NOON, 0

    def __call__(self) -> int:
        return self.now

    def passes(self, us: int) -> None:
        self.now += us
        self.steady += us


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def opened(folder, time):
    """A store with a part of now and one of ten days ago."""
    with Store.open(folder, clock=time) as store:
        for number, age in enumerate((10, 0)):
            t = NOON - age * DAY
            store.record(part(number, image=bytes(9), t_trigger=t, t_done=t)).result()
    with Store.open(folder, clock=time) as store:
        yield store


class Told:
    def __init__(self) -> None:
        self.why: dict[str, str] = {}

    def condition(self, _station: str, name: str, _present: bool, why: str) -> None:
        self.why[name] = why


def watch(store: Store, time: Time, told: Told | None = None) -> RetentionWatch:
    return RetentionWatch(
        store, RULE, ["press"], told or Told(), line="a", clock=time, steady=lambda: time.steady
    )


def images(store: Store) -> int:
    return sum(store.image(row) is not None for row in store.inspections())


def test_a_clock_that_is_wrong_for_a_minute_deletes_nothing(opened, time):
    told = Told()
    mine = watch(opened, time, told)
    time.passes(HOUR)
    mine.run()
    assert (mine.suspended, told.why) == ("", {"retention": ""})
    time.now += 3650 * DAY  # a wrong time server
    mine.look()
    assert "3650 days" in told.why[HELD]
    mine.run()
    time.now -= 3650 * DAY
    mine.run()
    assert "/accounts" in told.why[HELD]
    assert (images(opened), len(opened.inspections())) == (2, 2)
    with pytest.raises(UsageError, match="say why"):
        mine.release("ada", " ")
    mine.release("ada", "compared with my watch")
    assert told.why[HELD] == ""
    time.passes(25 * DAY)
    mine.run()
    assert images(opened) == 1
    with pytest.raises(UsageError, match="not suspended"):
        mine.release("ada", "again")
    done = [(row["action"], row["who"]) for row in opened.ask(lambda c: rows.find(c, "audit"))][::-1]
    assert [each for each in done if each[0].startswith("retention ")] == [
        ("retention suspended", "system"),
        ("retention released", "ada"),
    ]


def test_the_clock_is_set_between_a_look_and_the_run(opened, time):
    mine = watch(opened, time)
    time.now += 400 * DAY
    mine.run()
    assert mine.suspended and images(opened) == 2


def test_a_restart_under_a_wrong_clock_deletes_nothing(opened, time):
    mine = watch(opened, time)
    time.now += 400 * DAY
    mine.look()
    opened.record(part(7, t_trigger=time.now, t_done=time.now)).result()
    again = watch(opened, time)  # the newest part is of the wrong time
    again.run()
    assert "400 days" in again.suspended
    assert images(opened) == 2


def test_a_start_long_after_the_newest_part_asks_a_person(opened, time):
    time.now += IDLE
    assert not watch(opened, time).suspended
    time.now += DAY
    assert "judged 8 days before" in watch(opened, time).suspended
    watch(opened, time).release("ada", "we were on holiday")
    assert "8 days" in watch(opened, time).suspended  # of this start, too, until a part was judged


def test_small_steps_forward_add_up_and_steps_back_are_no_reason(opened, time):
    mine = watch(opened, time)
    time.now -= 30 * DAY
    mine.look()
    for _ in range(2):
        time.now += AHEAD // 2
        mine.look()
    assert not mine.suspended
    time.now += SECOND
    mine.look()
    assert "1 day" in mine.suspended


def test_the_steady_clock_goes_on():
    assert 0 <= steady_us() <= steady_us()


def test_an_administrator_releases_it_on_the_page(empty_store, tmp_path, client_of):
    with running(shutil.copytree(empty_store, tmp_path / "store"), rules=()) as line:
        client = client_of(line)
        assert "Old images are not deleted" not in client.get("/accounts").text
        line.retention._offset -= 2 * DAY
        line.retention.look()
        assert "The clock was set forward by 2 days." in client.get("/accounts").text
        assert {alarm.rule for alarm in line.alarms.active("press")} == {HELD}
        answer = client.post("/retention/release", data={"why": "compared with my watch"})
        assert (answer.status_code, line.retention.suspended) == (303, "")
