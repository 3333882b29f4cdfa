"""MQTT with a real broker: order over an outage, last will, retained states, access."""

from __future__ import annotations

import pytest

from andon.line.outbox.mqtt import level
from andon.line.outbox.settings import MqttSettings
from line.broker import MOSQUITTO, broker, reading
from line.running import answer, running, until

NEEDS_BROKER = [
    pytest.mark.service,
    pytest.mark.skipif(
        MOSQUITTO is None, reason="mosquitto is not installed (Debian: apt-get install mosquitto)"
    ),
]
BASE = "andon/v1/site/hall-2/press"


def line_to(port: int, **changes) -> dict:
    """Settings of a line that tells this broker."""
    return {"name": "hall 2", "mqtt": MqttSettings(host="127.0.0.1", port=port, **changes)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hall 2", "hall-2"),
        ("3 NG in a row", "3-NG-in-a-row"),
        ("a/b+c#", "a-b-c"),
        ("ä.1", "ä.1"),
        ("/", "-"),
    ],
)
def test_names_as_levels_of_topics(name, expected):
    assert level(name) == expected


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A broker for tests that do not stop it."""
    with broker(tmp_path_factory.mktemp("broker")) as running_broker:
        yield running_broker


class TestBroker:
    pytestmark = NEEDS_BROKER

    def test_results_states_and_alarms(self, kept, tmp_path):
        with reading(kept.port) as reader, running(tmp_path, line=line_to(kept.port)) as line:
            press = line.stations["press"]
            rows = [answer(press, i, word) for i, word in enumerate(("OK", "NG", "NG", "NG"), start=1)]
            until(lambda: len(reader.payloads("/result")) == 4)
            results = reader.payloads(f"{BASE}/result")
            assert [(r["seq"], r["id"], r["verdict"]) for r in results] == [
                (i, row.id, row.verdict.name) for i, row in enumerate(rows, start=1)
            ]
            assert results[1]["regions"] == [{"x": 1, "y": 2, "w": 3, "h": 4, "peak": 2.0}]
            assert "links" not in results[0]
            until(lambda: reader.payloads(f"{BASE}/alarm/3-NG-in-a-row"))
            assert reader.payloads("/alarm/3-NG-in-a-row")[-1]["rule"] == "3 NG in a row"
            until(lambda: reader.payloads("/state")[-1]["wants_stop"])
            assert reader.payloads("/state")[-1]["reason"] == "3 parts in a row were rejected (NG)"
            until(lambda: reader.payloads("/counts")[-1]["parts"] == {"OK": 1, "NG": 3})
            with reading(kept.port) as late:  # what is retained
                until(lambda: len(late.messages) >= 3)
                assert {topic for topic, retained, _ in late.messages if retained} == {
                    f"{BASE}/state",
                    f"{BASE}/counts",
                    f"{BASE}/alarm/3-NG-in-a-row",
                }
            line.alarms.give_cause("press", "product", "", "eva")
            until(lambda: reader.payloads("/alarm/3-NG-in-a-row")[-1] is None)
        with reading(kept.port) as late:
            until(lambda: late.payloads("/state"))
            assert late.payloads("/state") == [{"online": False}]
