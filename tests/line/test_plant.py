"""Several lines on one database: own stations, numbers that differ, and a page that shows all of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from andon.core.errors import ConfigError, DataError, UsageError
from andon.line import plant
from andon.line.accounts import Accounts, LogIn, LogInFailed
from andon.line.clock import DAY, SECOND
from andon.line.line import Line
from andon.line.opcua.settings import OpcUaSettings
from andon.line.roles import Role
from andon.line.settings import LineSettings, RetentionSettings
from andon.line.store import Store, StoreUnavailable, outbox, retention, rows
from andon.line.store.audit import Entry, append, check
from andon.line.store.boxes import STEP, Box
from andon.line.store.records import ImageState
from andon.line.verdicts import Verdict
from line.running import FakeJudge, answer, running, settings, until
from line.storing import NOON, part

TESTS = Path(__file__).parents[1]
START_SECONDS = 120.0
"""For a process that starts on a busy machine, which imports for most of the time."""


@given(st.integers(1, STEP - 1), st.integers(1, STEP - 1), st.lists(st.booleans(), max_size=30))
def test_lines_give_ascending_numbers_that_differ(a, b, turns):
    boxes, given_, last = (Box(a, "a", STEP), Box(b, "b", STEP)), [], 0
    for turn in turns:
        last = boxes[turn].next_id(last)
        given_.append(last)
        assert last % STEP == boxes[turn].id
    assert given_ == sorted(set(given_))
    assert Box(1, "only", 1).next_id(7) == 8


def test_page_of_a_plant_and_a_line_that_went_silent(folder, client_of, monkeypatch):
    address = "http://line-1:8000"
    with running(folder, "press", "oven", rules=(), line={"name": "line <1>", "address": address}) as line:
        client = client_of(line)
        for number, word in enumerate(("OK", "NG", "OK")):
            answer(line.stations["press"], number, word)
        until(lambda: sum(line.stations["press"].view().counts.values()) == 3)
        line.alarms.stop("oven", "eva", "belt torn")
        line.plant.report().result()
        oven, press = client.get("/api/v1/plant").json()
        assert (oven["name"], oven["line"], oven["state"], oven["address"]) == (
            "oven",
            "line <1>",
            "STOPPED",
            address,
        )
        assert (press["counts"], press["last_stop"]) == ({"OK": 2, "NG": 1}, None)
        assert oven["last_stop"] is not None
        assert "belt torn" in oven["last_stop_why"]
        page = client.get("/plant").text
        assert "line &lt;1&gt;" in page
        assert "3 parts since" in page
        assert 'href="/stations/press"' in page
        before = line.store.clock()
        monkeypatch.setattr(line.store, "clock", lambda: before + 31 * SECOND)
        assert {station.state for station in plant.stations(line.store)} == {plant.OFFLINE}
        assert client.get("/plant").text.count("tile is-offline") == 2


@pytest.mark.parametrize("address", ["javascript:alert(1)", "http://line 1", "http://line-1/", "line-1:8000"])
def test_addresses_that_browsers_cannot_follow(address, folder):
    with pytest.raises(ConfigError, match="address"):
        LineSettings.parse({"address": address}, where="line.toml")


def test_a_plant_has_no_stations_and_a_database(tmp_path):
    (tmp_path / "part.andon").touch()
    with pytest.raises(ConfigError, match="--plant needs the database"):
        LineSettings.load(plant=True)
    with pytest.raises(ConfigError, match="leave one out"):
        LineSettings.load(stations=[f"press={tmp_path / 'part.andon'}"], plant=True)
    assert LineSettings.load(changes={"database": "postgresql://h/d"}, plant=True).name == "plant"
    with pytest.raises(ConfigError, match=r"\[opcua\] in the options shows stations"):
        LineSettings.load(changes={"database": "postgresql://h/d", "opcua": OpcUaSettings()}, plant=True)


PAGES = (
    "/thresholds",
    "/candidate",
    "/reports/shift",
    "/studies",
    "/api/v1/reports/shift",
    "/stations/press",
)


def test_pages_of_a_station_are_not_on_a_plant(folder, client_of):
    with Line(LineSettings(name="plant", data=folder), open_judge=FakeJudge) as page:
        client = client_of(page)
        for path in (*PAGES, "/rules", "/golden", "/drift", "/outbox", "/history"):
            answered = client.get(path)
            assert answered.status_code == (404 if path in PAGES else 200), path
            assert ("the page /plant links to those of each line" in answered.text) == (path in PAGES), path


# On PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(cluster) -> str:
    return cluster.new_database()


def opened(url: str, folder: Path, line: str, *stations: str) -> Store:
    return Store.open(url, folder=folder / line, line=line, stations=stations)


@pytest.mark.service
def test_a_station_has_one_line(database, tmp_path):
    with opened(database, tmp_path, "a", "press", "oven") as a:
        with pytest.raises(DataError, match="station oven runs on line 'a' of this database: stop it there"):
            opened(database, tmp_path, "b", "lathe", "oven")
        with pytest.raises(DataError, match="a line named 'a' runs on this database: set another name"):
            Store.open(database, folder=tmp_path / "c", line="a")
        with opened(database, tmp_path, "b", "lathe") as b:
            assert (a.box.id, b.box.id) == (1, 2)
    with opened(database, tmp_path, "b", "lathe", "oven") as b:
        assert b.box.id == 2
        assert {s["name"]: s["box_id"] for s in b.ask(lambda c: rows.find(c, "station"))} == {
            "press": 1,
            "oven": 2,
            "lathe": 2,
        }


@pytest.mark.service
def test_lines_leave_the_rows_of_others_alone(database, tmp_path, monkeypatch):
    with opened(database, tmp_path, "a", "press") as a:
        image = a.record(part(1, image=b"x")).result().id
        with opened(database, tmp_path, "b", "oven") as b:
            mine = [b.record(part(n, station="oven")).result().id for n in (11, 12)]
            later = a.record(part(2)).result().id
            assert [row.id for row in b.inspections()] == [later, *reversed(mine), image]
            threads = [
                threading.Thread(target=lambda s=s: [s.audit(Entry("x", "y")).result() for _ in range(20)])
                for s in (a, b)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert b.ask(check).seq == 40
            told = b.ask(lambda c: outbox.results_after(c, b.box, 0, None, 10))
            assert [row.id for row in told] == mine
        until(lambda: a.inspection(image).image_state is ImageState.STORED)
        a.write(lambda c: c.execute(text("UPDATE inspection SET image_state = 1"))).result()
        with opened(database, tmp_path, "b", "oven") as b:  # recovers and deletes its own rows alone
            assert a.inspection(image).image_state is ImageState.PENDING
            monkeypatch.setattr(b, "clock", lambda: NOON + 9 * DAY)
            retention.run(b, RetentionSettings(row_days=1), threading.Event(), share=1.0)
            assert [row.id for row in b.inspections()] == [later, mine[-1], image]


@pytest.mark.service
def test_a_line_that_hangs_with_a_lock_does_not_stop_another(database, tmp_path):
    with opened(database, tmp_path, "a", "press") as a, opened(database, tmp_path, "b", "oven") as b:
        with b._engine.begin() as hanging:
            append(hanging, Entry("x", "y"), 1)
            refused, recorded = a.audit(Entry("x", "y")), a.record(part(1))
            assert recorded.result(10).row.verdict is Verdict.OK
            with pytest.raises(StoreUnavailable):
                refused.result(10)
        until(lambda: not a.spooling)
        assert [row.request_id for row in b.inspections()] == ["request-1"]
        assert a.audit(Entry("x", "y")).result().seq == 2


def begin(url: str, folder: Path, name: str, first: int) -> subprocess.Popen[str]:
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TESTS)])}
    command = [sys.executable, "-m", "line.plant_line", url, str(folder / name), name, str(first)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=place, text=True, **pipes)


class Listener:
    """What a line said, read by a thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.answers = process, list[list[str]]()
        self._runs = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.answers.append(line.split()[1:])
            self._runs.set()

    def more(self, n: int, *, spooled: bool = False) -> None:
        """Wait for `n` further answers, at first for the start; `spooled`: while the database is away."""
        assert self._runs.wait(START_SECONDS), "the line has not started"
        said = len(self.answers)
        until(lambda: sum(a[3] == str(spooled) for a in self.answers[said:]) >= n)

    def finish(self) -> None:
        """The line ends in order."""
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        self._thread.join()

    def kill(self) -> None:
        self.process.kill()
        with self.process:
            self._thread.join()


@pytest.mark.service
def test_two_lines_a_cut_and_a_kill_every_row_is_there_once(cluster, database, tmp_path):
    """The database is cut for some seconds, one line is killed meanwhile and starts again."""
    lines = [Listener(begin(database, tmp_path, name, first)) for name, first in (("a", 0), ("b", 100_000))]
    try:
        for line in lines:
            line.more(20)
        cluster.stop()
        try:
            for line in lines:
                line.more(20, spooled=True)
            lines[1].kill()
            time.sleep(1.0)
        finally:
            cluster.start()
        lines.append(Listener(begin(database, tmp_path, "b", 200_000)))
        for line in (lines[0], lines[2]):
            line.more(20)
        shown = LineSettings.load(changes={"database": database, "data": tmp_path / "plant"}, plant=True)
        with Line(shown, open_judge=FakeJudge) as page:
            until(
                lambda: (
                    {s.name: s.state for s in plant.stations(page.store)} == {"a": "RUNNING", "b": "RUNNING"}
                )
            )
            lines[0].finish()
            lines[2].finish()
            answered = {
                int(id): (request, verdict) for line in lines for id, request, verdict, _ in line.answers
            }
            assert len(answered) == sum(len(line.answers) for line in lines)
            query = text("SELECT id, request_id, verdict FROM inspection")
            found = {
                id: (request, Verdict(verdict).name)
                for id, request, verdict in page.store.ask(lambda c: c.execute(query).all())
            }
            assert {id: found.get(id) for id in answered} == answered
            assert len(found) - len(answered) in (0, 1)  # the part that was being answered at the kill
            counted = {name: sum(page.store.counts(name, since=0).values()) for name in ("a", "b")}
            assert sum(counted.values()) == len(found)
            page.store.ask(check)
    finally:
        for line in lines:
            line.kill()


@pytest.mark.service
def test_accounts_of_one_process_count_on_a_running_line(database, tmp_path, client_of, cheap_hashes):
    password = "correct horse"
    values = {"database": database, "name": "a"}
    with (
        Line(settings(tmp_path / "a", line=values, rules=()), open_judge=FakeJudge) as line,
        opened(database, tmp_path, "andon account") as store,
    ):
        client, there, door = client_of(line), Accounts(store), LogIn(line.accounts)
        assert client.get("/accounts").status_code == 200
        there.add("ada", Role.ADMIN, password, by="command line")
        until(lambda: client.get("/api/v1/me").status_code == 401)
        eva = {"name": "eva", "role": "admin", "password": password}
        assert client.post("/accounts", data=eva).status_code == 401
        there.add("ida", Role.LEADER, password, by="ada")
        until(lambda: line.accounts.named("ida"))
        cookie = door.by_password("ida", password, "10.0.0.7")
        there.set_disabled("ida", True, by="ada")
        until(lambda: door.by_cookie(cookie, is_act=True) is None)
        with pytest.raises(LogInFailed):
            door.by_password("ida", password, "10.0.0.7")
        token = {"Authorization": f"Bearer {there.add_token('camera', Role.VIEWER, by='ada')}"}
        until(lambda: client.get("/api/v1/me", headers=token).status_code == 200)
        there.revoke("camera", by="ada")
        until(lambda: client.get("/api/v1/me", headers=token).status_code == 401)


@pytest.mark.service
def test_two_lines_that_disable_each_others_administrator_keep_one(database, tmp_path, cheap_hashes):
    with opened(database, tmp_path, "a") as one, opened(database, tmp_path, "b") as two:
        here, names = Accounts(one), ("ada", "eva")
        for name in names:
            here.add(name, Role.ADMIN, "correct horse", by="test")
        there, refused = Accounts(two), []

        def disable(accounts: Accounts, name: str) -> None:
            try:
                accounts.set_disabled(name, True, by="test")
            except UsageError as error:
                refused.append(str(error))

        for _ in range(10):
            threads = [
                threading.Thread(target=disable, args=pair) for pair in zip((here, there), names, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            here.look()
            assert [each.is_disabled for each in here.people].count(True) == 1
            for each in here.people:
                here.set_disabled(each.name, False, by="test")
        assert len(refused) == 10


@pytest.mark.service
def test_a_plant_shows_and_operates_nothing(database, tmp_path, client_of):
    with Line(
        settings(tmp_path / "a", line={"database": database, "name": "a"}, rules=()), open_judge=FakeJudge
    ) as a:
        until(lambda: a.health().ready)
        row = answer(a.stations["press"], 1)
        until(lambda: a.view(a.stations["press"]).counts)
        a.plant.report().result()
        shown = LineSettings.load(changes={"database": database, "data": tmp_path / "plant"}, plant=True)
        with Line(shown, open_judge=FakeJudge) as page:
            client = client_of(page)
            assert client.get("/").headers["location"] == "/plant"
            assert "1 parts since" in client.get("/plant").text
            assert f'data-id="{row.id}"' in client.get("/history?station=press").text
            assert client.post("/api/v1/stations/press/stop", json={"who": "eva"}).status_code == 404
            assert client.get("/api/v1/health/ready").status_code == 200
