"""Shift reports: figures against the stored rows, page and file, command, mail at the end of a shift."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from andon.core.errors import AndonError, DataError, UsageError
from andon.line.clock import DAY, HOUR, MINUTE, SECOND
from andon.line.outbox.settings import EmailSettings
from andon.line.page.render import report_file
from andon.line.reports import shift
from andon.line.reports.mail import ShiftMail, report_mail
from andon.line.rules import InARow
from andon.line.store import Store, rows
from andon.line.store import reports as stored
from andon.line.store.reports import Period
from andon.line.store.schema import metadata
from andon.line.tally import shift_begin
from andon.line.verdicts import Opinion, Queued, Verdict
from line.asking import Client
from line.running import answer, running, until
from line.storing import NOON, part

WORDS = [Verdict.OK, Verdict.OK, Verdict.NG, Verdict.OK, Verdict.REVIEW, Verdict.ERROR, Verdict.OK]
PERIOD = Period("press", NOON, NOON + HOUR)


def fill(store: Store) -> None:
    """Parts 0 to 139, one a second, lots of 20; a stop of 90 s, one that began earlier, one without end; golden checks."""
    version = store.write(_thresholds).result()
    for number in range(140):
        verdict = WORDS[number % 7]
        score = None if verdict is Verdict.ERROR else 0.5
        drawn = {"review_why": Queued.SAMPLE, "sample_rate": 0.5} if number % 14 == 0 else {}
        changes = {"threshold_version": version, "lot": f"lot-{number // 20}", "score": score, **drawn}
        cause = "timeout" if verdict is Verdict.ERROR else ""
        store.record(part(number, verdict=verdict, score_raw=score, cause=cause, **changes))
    golden = part(701, verdict=Verdict.ERROR, cause="golden_part", score=None, score_raw=None)
    store.record(golden)
    store.record(part(702, t_done=NOON + 2 * HOUR))
    store.write(_changes).result()


def _thresholds(connection: Any) -> int:
    model = rows.add(connection, "model", sha256="a" * 64, name="washer", created=NOON)
    values = {"accept": 0.9, "reject": 1.1, "why": "after the trial", "who": "Ada", "at": NOON - HOUR}
    return rows.add(connection, "threshold_version", model_id=model, **values)


def _changes(connection: Any) -> None:
    station = rows.find(connection, "station", name="press")[0]["id"]
    alarm = {"station_id": station, "state": "active_unack", "raised": NOON}
    drift = rows.add(connection, "alarm", rule="drift", **alarm)
    series = rows.add(connection, "alarm", rule="in a row", **alarm)
    for at, alarm_id, event, old, new, who, cause, note in (
        (-HOUR, None, "run", "cause_given", "run", "Ada", "", ""),
        (-600 * SECOND, None, "stop", "run", "stop_requested", "", "", "earlier"),
        (120 * SECOND, None, "run", "cause_given", "run", "Ada", "", ""),
        (300 * SECOND, drift, "raise", "normal", "active_unack", "", "", "light: 12 % darker"),
        (400 * SECOND, series, "raise", "normal", "active_unack", "", "", "3 in a row"),
        (400 * SECOND, None, "stop", "run", "stop_requested", "", "", "3 in a row"),
        (420 * SECOND, series, "acknowledge", "active_unack", "active_ack", "Bob", "", ""),
        (450 * SECOND, None, "give_cause", "stopped", "cause_given", "Bob", "light", ""),
        (490 * SECOND, None, "run", "cause_given", "run", "Bob", "", ""),
        (3000 * SECOND, None, "stop", "run", "stop_requested", "", "", "later"),
        (3900 * SECOND, None, "run", "cause_given", "run", "Bob", "", ""),
        (4000 * SECOND, series, "raise", "normal", "active_unack", "", "", "after the period"),
    ):
        values = {
            "event": event,
            "from_state": old,
            "to_state": new,
            "who": who,
            "cause": cause,
            "note": note,
        }
        rows.add(connection, "alarm_event", at=NOON + at, alarm_id=alarm_id, station_id=station, **values)
    for at in (-2 * HOUR, -HOUR, 10 * MINUTE, 2 * HOUR):
        values = {"settings_json": "[]", "why": f"rules {at // MINUTE}", "who": "Ada"}
        rows.add(connection, "rule_version", station_id=station, at=NOON + at, **values)
    golden = rows.add(connection, "golden_set", station_id=station, why="first", who="Ada", at=NOON)
    run = {"set_id": golden, "station_id": station, "mode": "files", "accept": 0.9, "reject": 1.1}
    run |= {"model_sha256": "a" * 64, "is_trial": False, "passed": False, "why": "shift", "who": "system"}
    checked = rows.add(connection, "golden_run", **run, started=NOON, ended=NOON + SECOND)
    rows.add(connection, "golden_run", **run, started=NOON - HOUR, ended=NOON - HOUR)
    for name, why in (("crack 1", "OK instead of NG"), ("good 1", "")):
        result = {"run_id": checked, "station_id": station, "name": name, "mode": "files", "verdict": 1}
        rows.add(connection, "golden_result", **result, cause="", why=why, ms=1.0)
    drawn = {
        "first_who": "Ada",
        "who": "Ada",
        "overridden": 0,
        "station_id": station,
        "wanted": 1,
        "given": 1,
    }
    ids = sorted(row["id"] for row in rows.find(connection, "inspection"))
    for number, opinion in ((1, Opinion.GOOD), (15, Opinion.BAD)):
        rows.add(connection, "review_item", id=ids[number - 1], why=1, opinion=opinion.value, **drawn)


def test_figures_are_those_of_the_stored_rows(store):
    fill(store)
    found = store.ask(lambda c: shift.read(c, PERIOD, line="line 1", now=NOON + HOUR))
    expected = Counter(WORDS[number % 7] for number in range(140))
    for rate, verdict in zip(found.rates, shift.WORDS, strict=True):
        interval = stats.binomtest(expected[verdict], 140).proportion_ci(0.95, "exact")
        assert (rate.verdict, rate.n) == (verdict.name, expected[verdict])
        assert (rate.low, rate.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert (found.parts, found.causes) == (140, (("timeout", 20),))
    assert [stop.why for stop in found.stops] == ["earlier", "3 in a row", "later"]
    assert found.down_seconds == 120 + 90 + 600  # two stops reach over the ends of the period
    assert found.stop_summary.to_acknowledge == 20
    assert found.stop_summary.to_resume == pytest.approx((720 + 90 + 900) / 3)
    assert found.stops[1].cause == "light"
    assert [each.rule for each in found.alarms] == ["drift", "in a row"]
    assert [(each.parts, each.version.reject) for each in found.thresholds] == [(140, 1.1)]
    assert [(each.parts, each.name) for each in found.models] == [(140, "washer")]
    assert [each.why for each in found.rules] == ["rules -60", "rules 10"]
    assert [(each.passed, each.parts, each.wrong) for each in found.golden] == [
        (False, 2, ("crack 1: OK instead of NG",))
    ]
    assert [note.why for note in found.drift] == ["light: 12 % darker"]
    assert (found.escapes.drawn, found.escapes.reviewed, found.escapes.bad) == (10, 2, 1)
    html = report_file(found)
    for text in ("Shift report", "13.5 min", "57.1 %", "crack 1: OK instead of NG", "light: 12 % darker"):
        assert text in html, text
    assert "http" not in html.replace("http-equiv", "")


def test_a_report_has_all_changes_or_says_that_there_are_too_many(sqlite_store, monkeypatch):
    fill(sqlite_store)
    read = partial(shift.read, of=PERIOD, line="line 1", now=NOON + HOUR)
    number = len(sqlite_store.ask(lambda c: stored.changes(c, PERIOD)))
    monkeypatch.setattr(stored, "MOST_CHANGES", number)
    assert len(sqlite_store.ask(read).stops) == 3
    monkeypatch.setattr(stored, "MOST_CHANGES", number - 1)
    with pytest.raises(
        UsageError, match=f"more than {number - 1} changes of alarms in this time: ask for a shorter"
    ):
        sqlite_store.ask(read)


def test_a_report_of_a_quarter_has_its_last_day(sqlite_store):
    quarter = PERIOD._replace(since=NOON - 80 * DAY)
    raised = {"event": "raise", "from_state": "normal", "to_state": "active_unack", "at": NOON - 2 * DAY}

    def add(connection):
        station = rows.ensure(connection, "station", {"name": PERIOD.station})
        many = [{**raised, "station_id": station} for _ in range(25_000)]
        connection.execute(metadata.tables["alarm_event"].insert(), many)

    sqlite_store.write(add).result()
    fill(sqlite_store)
    found = sqlite_store.ask(
        lambda c: shift.read(c, quarter, line="line 1", now=NOON + HOUR), seconds=shift.REPORT_SECONDS
    )
    assert [stop.why for stop in found.stops] == ["earlier", "3 in a row", "later"]


def test_a_lot_lasts_from_its_first_to_its_last_part(sqlite_store):
    fill(sqlite_store)

    def read(connection: Any) -> tuple[Period, shift.ShiftReport]:
        of = shift.period(connection, "press", now=NOON + HOUR, lot="lot-3")
        return of, shift.read(connection, of, line="line 1", now=NOON + HOUR)

    of, found = sqlite_store.ask(read)
    assert (of.since, of.until) == (NOON + 60 * SECOND + 40_000, NOON + 79 * SECOND + 40_001)
    assert found.parts == 20
    assert sum(each.n for each in found.rates) == 20
    assert found.escapes.drawn == sum(number % 14 == 0 for number in range(60, 80))


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"station": "saw"}, DataError, "station 'saw'"),
        ({"lot": "lot-9"}, DataError, "lot 'lot-9'"),
        ({"since": NOON, "until": NOON}, UsageError, "ends before"),
        ({"since": -1, "until": 5}, UsageError, "before 1970"),
        ({"since": 0}, UsageError, "92 days"),
    ],
)
def test_periods_that_cannot_be_reported(sqlite_store, values, error, said):
    sqlite_store.record(part(1)).result()
    with pytest.raises(error, match=said):
        sqlite_store.ask(lambda c: shift.period(c, **{"station": "press", "now": NOON, **values}))


def test_last_shift_ends_where_the_running_one_begins():
    for hours in range(0, 49, 5):
        now = NOON + hours * HOUR
        since, end = shift.last_shift(now)
        assert end == shift_begin(now)
        assert end - since == 8 * HOUR


def test_pages_and_command(cli, folder, client_of: Callable[..., Client], tmp_path: Path):
    with running(folder, "press", "saw", rules=(InARow(k=2),)) as line:
        client = client_of(line)
        for number, word in enumerate(("OK", "NG", "NG")):
            answer(line.stations["press"], number, word, lot="L <1>")
        until(lambda: line.stations["press"].view().wants_stop)
        until(lambda: "1 stop," in client.get("/reports/shift?station=press").text)
        assert "Report of lot L &lt;1&gt;" in client.get("/reports/shift?lot=L+%3C1%3E").text
        assert "has no part of lot" in client.get("/reports/shift?lot=other").text
        assert "cannot be read" in client.get("/reports/shift?since=yesterday").text
        assert client.get("/reports/shift?shift=last").status_code == 200
        found = client.get("/api/v1/reports/shift").json()
        assert {each["verdict"]: each["n"] for each in found["rates"]} == {
            "OK": 1,
            "NG": 2,
            "REVIEW": 0,
            "ERROR": 0,
        }
        assert client.get("/api/v1/reports/shift?station=saw").json()["parts"] == 0
        assert client.get("/api/v1/reports/shift?lot=other").status_code == 404
        assert client.get("/api/v1/reports/shift?since=5&until=4").status_code == 422
        out = tmp_path / "shift.html"
        done = cli("shift-report", "press", "--data", folder, "-o", out, "--name", "line 1")
        assert (done.code, done.err.strip()) == (0, f"{out}: 3 parts, 1 stop")
        assert "line 1, station press" in out.read_text(encoding="utf-8")
    for wrong in (("saw2",), ("press", "--since", "soon")):
        assert cli("shift-report", *wrong, "--data", folder).code == 2


class Server:
    """A mail server that fails at first."""

    def __init__(self) -> None:
        self.tried, self.mails, self.got = 0, list[tuple[str, str, str]](), threading.Event()

    def send(self, subject: str, text: str, html: str = "") -> None:
        self.tried += 1
        if self.tried == 1:
            raise AndonError("away")
        self.mails.append((subject, text, html))
        if len(self.mails) == 2:
            self.got.set()


def test_a_mail_for_each_station_when_a_shift_ends(sqlite_store, monkeypatch):
    monkeypatch.setattr("andon.line.reports.mail.AGAIN_SECONDS", 0.001)
    fill(sqlite_store)
    now, server = [NOON], Server()

    def build(station: str, since: int, until: int) -> shift.ShiftReport:
        return sqlite_store.ask(lambda c: shift.read(c, Period(station, since, until), line="A", now=now[0]))

    mail = ShiftMail(["press", "saw"], build, server, lambda: now[0])
    mail.start()
    mail.tick()
    assert not mail._due
    now[0] = shift_begin(NOON) + 8 * HOUR
    mail.tick()
    assert server.got.wait(10)
    mail.stop(10)
    (subject, text, html), other = server.mails
    assert subject.startswith("A, station press: shift report")
    assert "141 parts\nOK: 81\n" in text
    assert "Shift report" in html
    assert "0 parts" in other[1]
    assert server.tried == 3
    assert report_mail(build("press", NOON, NOON + 1))[1].startswith("0 parts")


def test_the_end_of_a_shift_is_seen_after_the_clock_was_wrong():
    now = [NOON]
    mail = ShiftMail(["press"], lambda *_: pytest.fail("no thread"), Server(), lambda: now[0])
    for jump, expected in ((365 * DAY, 1), (0, 0), (8 * HOUR, 1)):
        mail._due = []
        now[0] = NOON + jump
        mail.tick()
        assert len(mail._due) == expected


def test_mail_is_a_setting(folder):
    email = EmailSettings(host="mail", sender="line@plant", to=("a@plant",), alarms="none", shift_report=True)
    for found, expected in ((email, 1), (email.model_copy(update={"shift_report": False}), 0), (None, 0)):
        with running(folder, line={"email": found}) as line:
            assert sum(isinstance(each, ShiftMail) for each in line.followers) == expected
