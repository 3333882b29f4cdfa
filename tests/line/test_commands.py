"""Commands by MQTT without a broker: what is obeyed, once, and what is refused."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from andon.line.outbox.commands import LARGEST, WAITING, Commands, LineActs, Message, order_of
from andon.line.settings import LineSettings
from andon.line.store import rows as stored
from andon.line.verdicts import Verdict
from line.running import answer, part, running, until
from line.test_cameras import FakeCamera, line_of, rows

REQUESTS = (f"r{number}" for number in count())


def message(command: str = "trigger", came: float = 10.0, **values: Any) -> Message:
    """A message that counts for 5 seconds; `payload`, `retained`, ...: of `Message`, everything else of its JSON."""
    own = {name: values.pop(name) for name in Message._fields if name in values}
    payload = json.dumps({"request_id": next(REQUESTS), **values}).encode()
    return Message(command, **{"payload": payload, "came": came, "expiry_s": 5, **own})


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (message("stop"), "there is no command 'stop': send one of trigger, recipe"),
        (message(retained=True), "it is retained"),
        (message(expiry_s=None), "no message expiry interval"),
        (message(came=5.0), "it has expired after 5 s"),
        (message(payload=b"\xff"), "no object of JSON"),
        (message(payload=b"[" * 4000), "no object of JSON"),
        (message(payload=b"[1]"), "no object of JSON"),
        (message(payload=b" " * (LARGEST + 1)), "4097 bytes, more than 4096"),
        (message(payload=b"{}"), "request_id"),
        (message(part_id="x" * 201), "part_id"),
        (message(image="x"), "image"),
        (message("recipe"), "recipe"),
        (message("recipe", recipe=3), "recipe"),
    ],
)
def test_what_is_refused_says_why_in_one_line(refused, why, caplog):
    commands = Commands("press", acts=None, steady=lambda: 10.0)
    found = commands.obey(refused)
    assert found["accepted"] is False and why in found["why"] and "verdict" not in found
    assert len(caplog.records) == 1 and "press" in caplog.text and "Traceback" not in caplog.text


def test_a_message_in_time_is_an_order():
    order = order_of(message(part_id="A-17", came=5.1), 10.0)
    assert (order.part_id, order.lot) == ("A-17", None)
    assert order_of(message("recipe", recipe="3"), 10.0).recipe == "3"


def test_a_failure_inside_is_an_answer_and_the_next_command_is_obeyed():
    class Acts:
        def trigger(self, station, order):
            raise RuntimeError("no hands")

    replies: list[str] = []
    commands = Commands("press", Acts(), steady=lambda: 10.0)
    for topic in ("plant/answers", "andon/v1/site/line/press/state", ""):
        commands.put(message(response_topic=topic, reply=replies.append))
    commands.put(message("", response_topic="plant/answers", reply=replies.append))
    for _ in range(2 * WAITING):  # more than wait are lost, and nobody waits for it
        commands.put(message(expiry_s=None))
    commands.start()
    until(lambda: len(replies) == 2)
    assert json.loads(replies[0])["why"] == "no hands"
    until(lambda: commands._waiting.empty())
    commands.stop(5.0)
    assert len(replies) == 2


def test_a_trigger_takes_one_image_however_often_it_comes(folder):
    camera = FakeCamera(on_demand=True)
    camera.shows(1, "OK")
    camera.shows(2, "NG")
    with line_of(folder, camera, trigger="software", timeout_s=0.2) as line:
        first, lost = (message(part_id=name, lot="L2") for name in ("a", "b"))
        for _ in ("before a restart", "after it"):
            commands = Commands("press", LineActs(line), steady=lambda: 10.0)
            found = [commands.obey(first) for _ in range(2)]
            assert found[0] == found[1] and found[0]["verdict"] == "OK"
        assert commands.obey(message())["verdict"] == "NG"
        assert commands.obey(lost)["result"]["cause"] == "camera_failed"  # there was no third image
        assert commands.obey(lost)["verdict"] == "ERROR"
        assert [(row.part_id, row.verdict) for row in rows(line)] == [
            ("a", Verdict.OK),
            (None, Verdict.NG),
            ("b", Verdict.ERROR),
        ]
        until(lambda: not line.stations["press"].faults)
        camera.shows(3, "OK")
        line.stations["press"].halt("broken")
        refused = message()
        assert "not ready (broken)" in commands.obey(refused)["why"]
        assert commands.obey(refused)["verdict"] == "ERROR"  # its row


def test_a_trigger_with_the_request_id_of_another_part_is_refused(folder):
    camera = FakeCamera(on_demand=True)
    with line_of(folder, camera, "oven", trigger="software", timeout_s=0.2) as line:
        line.stations["oven"].submit(part(1, request_id="r1")).result(20.0)
        camera.shows(1)
        commands = Commands("press", LineActs(line), steady=lambda: 10.0)
        refused = commands.obey(message(request_id="r1"))
        assert (refused["accepted"], "verdict" in refused) == (False, False)
        assert "another part" in refused["why"]
        assert len(rows(line)) == 1


def test_a_recipe_is_changed_once_and_audited(folder):
    for code in ("3", "4"):
        (folder / f"{code}.andon").touch()
    recipes = {code: folder / f"{code}.andon" for code in ("3", "4")}
    with running(folder, recipes=recipes) as line:
        station = line.stations["press"]
        first, second = message("recipe", recipe="3"), message("recipe", recipe="4")
        for each in (first, second):
            commands = Commands("press", LineActs(line), steady=lambda: 10.0)
            code = json.loads(each.payload)["recipe"]
            assert commands.obey(each) == {
                "request_id": json.loads(each.payload)["request_id"],
                "accepted": True,
                "why": "",
                "recipe": code,
            }
            until(lambda: station.is_verified)
            assert station.recipe == code
        assert commands.obey(first)["accepted"] and station.recipe == "4"  # came again, late
        assert "no recipe '5'" in commands.obey(message("recipe", recipe="5"))["why"]
        assert "no camera" in commands.obey(message())["why"]
        audited = line.store.ask(lambda c: stored.find(c, "audit", action="recipe", who="mqtt"))
        assert len(audited) == 2 and audited[0]["reason"].startswith("command r")
        assert answer(station, 1).recipe == "4"


def test_commands_are_off_unless_the_settings_say_so(tmp_path):
    (tmp_path / "a.andon").touch()
    file = tmp_path / "line.toml"
    file.write_text('[mqtt]\nhost = "broker"\n[stations.s]\nmodel = "a.andon"')
    assert LineSettings.load(file).mqtt.commands is False
