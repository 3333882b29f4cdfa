"""Webhooks: signature, statuses, redirects, addresses that stay secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading

import httpx
import pytest

from andon.core.errors import ConfigError
from andon.line.clock import SECOND
from andon.line.outbox.reports import Refused, Undelivered, alarm_report, result_report
from andon.line.outbox.settings import WebhookSettings
from andon.line.outbox.webhook import WebhookSink, key_of, signed
from andon.line.store.outbox import AlarmNews
from line.storing import NOON, part

URL = "https://mes.plant:8443/andon?token=hunter2"
KEY = b"key of a test"


class Receiver:
    """Answers with a status and notes the requests."""

    def __init__(self, status: int = 204, **headers: str) -> None:
        self.status, self.headers = status, headers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, headers=self.headers)


@pytest.fixture
def report(sqlite_store):
    return result_report(sqlite_store.record(part(1)).result().row, 7)


def sink_to(receiver, key: bytes = KEY, **changes) -> WebhookSink:
    settings = WebhookSettings(name="mes", url=URL, **changes)
    transport = httpx.MockTransport(receiver)
    return WebhookSink(settings, "hall 2", lambda: NOON + 3 * SECOND, key=key, transport=transport)


def deliver(sink, *reports):
    return [*sink.deliver(reports, threading.Event())]


def test_a_signed_request(report, caplog):
    caplog.set_level("INFO")
    receiver = Receiver()
    assert deliver(sink_to(receiver), report, report) == [report, report]
    request = receiver.requests[0]
    document = json.loads(request.content)
    assert (document["type"], document["line"]) == ("result", "hall 2")
    assert (document["data"]["seq"], document["data"]["verdict"]) == (7, "OK")
    assert document["timestamp"] == "2027-01-15T08:00:01.040+00:00"
    headers = request.headers
    assert headers["webhook-id"] == receiver.requests[1].headers["webhook-id"] == "result_1"
    content = f"result_1.{NOON // SECOND + 3}.".encode() + request.content
    digest = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    assert "hunter2" not in caplog.text


def test_the_signature_of_the_standard():
    """The example of the specification of Standard Webhooks."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "mes")
    headers = signed(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert "webhook-signature" not in signed(b"", "x", 1, b"")
    assert key_of("plain", "mes") == b"plain"
    with pytest.raises(ConfigError, match="not Base64"):
        key_of("whsec_?", "mes")


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (500, Undelivered, "answers 500"),
        (401, Undelivered, "answers 401"),
        (429, Undelivered, "answers 429"),
        (422, Refused, "answers 422"),
        (307, Undelivered, "redirect, which is not followed"),
    ],
)
def test_answers_that_are_not_taken(report, status, error, says):
    receiver = Receiver(status, location="https://elsewhere.example/")
    with pytest.raises(error) as caught:
        deliver(sink_to(receiver), report)
    assert type(caught.value) is error and says in str(caught.value) and "mes.plant:8443" in str(caught.value)
    assert len(receiver.requests) == 1 and "hunter2" not in str(caught.value)


def test_a_receiver_that_is_gone(report):
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    with pytest.raises(
        Undelivered, match=r"^mes.plant:8443 cannot be reached \(ConnectError: Connection refused\)$"
    ):
        deliver(sink_to(gone), report)


def test_alarms_and_what_is_chosen():
    news = AlarmNews(
        9, NOON, "press", 4, "3 NG in a row", True, "raise", "normal", "active_unack", "", "", "why", 1, 17
    )
    receiver = Receiver(200)
    deliver(sink_to(receiver, b""), alarm_report(news, 2))
    document = json.loads(receiver.requests[0].content)
    assert document["type"] == "alarm" and "webhook-signature" not in receiver.requests[0].headers
    assert document["data"] == {
        "seq": 2,
        "id": 9,
        "at": NOON,
        "station": "press",
        "alarm_id": 4,
        "rule": "3 NG in a row",
        "stops": True,
        "event": "raise",
        "old": "normal",
        "new": "active_unack",
        "who": "",
        "cause": "",
        "note": "why",
        "count": 1,
        "inspection_id": 17,
    }
    assert [*sink_to(receiver, results=False).streams] == ["alarm"]
