"""A line whose PostgreSQL goes away: parts are answered, the stop holds, and everything is there afterwards."""

from __future__ import annotations

import pytest

from andon.line.andon_states import StationState as S
from andon.line.line import Line
from andon.line.store import StoreUnavailable, rows
from andon.line.store.audit import check
from andon.line.verdicts import Verdict
from line.running import FakeJudge, answer, part, settings, until

pytestmark = pytest.mark.service


def started(url: str, folder) -> Line:
    line = Line(settings(folder).updated({"database": url}), open_judge=FakeJudge)
    line.start()
    until(lambda: line.health().ready)
    return line


def test_a_stop_without_its_database(cluster, folder):
    url = cluster.new_database()
    line = started(url, folder)
    try:
        press = line.stations["press"]
        assert answer(press, 0).verdict is Verdict.OK
        cluster.stop()
        try:
            ids = [answer(press, k, "NG").id for k in (1, 2, 3)]
            until(lambda: line.alarms.station("press").state is S.STOPPED)
            with pytest.raises(StoreUnavailable):
                line.alarms.give_cause("press", "product", "", "eva")
        finally:
            cluster.start()
        until(lambda: not line.store.spooling)
        line.alarms.tick()
        assert line.alarms.station("press").state is S.CAUSE_GIVEN
        assert not press.faults
    finally:
        line.stop()
    line = started(url, folder)
    try:
        assert line.alarms.station("press").state is S.CAUSE_GIVEN
        line.alarms.resume("press", "eva")
        (stop,) = line.store.ask(lambda c: rows.find(c, "alarm", rule="3 NG in a row"))
        assert (stop["inspection_from"], stop["inspection_to"]) == (ids[0], ids[-1])
        assert (stop["state"], stop["resolved_by"]) == ("normal", "eva")
        assert sum(line.store.counts("press", since=0).values()) == 4
        line.store.ask(check)
    finally:
        line.stop()


def test_rest_answers_without_its_database(cluster, folder, client_of):
    line = started(cluster.new_database(), folder)
    client = client_of(line)

    def send(number: int) -> tuple[int, str, int]:
        address = f"/api/v1/stations/press/inspections?request_id=part-{number}"
        found = client.post(address, content=part(number).image)
        return found.status_code, found.json()["verdict"], found.json()["id"]

    try:
        first = send(0)
        cluster.stop()
        try:
            away = [send(number) for number in (1, 2, 3, 1, 0)]
        finally:
            cluster.start()
        assert first[:2] == (201, "OK")
        assert [answered[:2] for answered in away] == [(201, "OK")] * 3 + [(200, "OK")] * 2
        assert (away[3][2], away[4][2]) == (away[0][2], first[2])
        until(lambda: not line.store.spooling)
        assert [row.id for row in line.store.inspections()] == [
            each[2] for each in reversed((first, *away[:3]))
        ]
    finally:
        line.stop()
