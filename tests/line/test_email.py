"""E-mail: what is mailed, headers, and a mail server in a thread."""

from __future__ import annotations

import email
import socketserver
import threading
from collections.abc import Iterator
from email.policy import default

import pytest

from andon.core.errors import ConfigError
from andon.line.outbox import tls
from andon.line.outbox.email import EmailSink, Mailer, message
from andon.line.outbox.reports import Undelivered, alarm_report
from andon.line.outbox.settings import EmailSettings
from andon.line.store.outbox import AlarmNews
from line.storing import NOON


class MailServer(socketserver.ThreadingTCPServer):
    """Takes mail for addresses that do not begin with `no`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.mails: list[str] = []
        super().__init__(("127.0.0.1", 0), Session)


class Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.say("220 test")
        while line := self.rfile.readline().decode().strip():
            word = line.split(":")[0].upper()
            if word == "DATA":
                self.say("354 go on")
                lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                self.server.mails.append("\n".join(lines))
            self.say(
                "550 unknown"
                if word == "RCPT TO" and ":<no" in line
                else "221 bye"
                if word == "QUIT"
                else "250 yes"
            )
            if word == "QUIT":
                return

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as started:
        threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield started
        started.shutdown()


def settings(port: int = 1, **changes) -> EmailSettings:
    values = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "andon@plant.example",
        "to": ("a@x", "b@x"),
    }
    return EmailSettings(**{**values, **changes})


def mailer(port: int, **changes) -> Mailer:
    return Mailer(settings(port, **changes), "", tls.context("[email]"))


def test_alarms_that_concern_people_go_into_one_mail(server):
    def news(
        id: int, event: str, old: str, new: str, *, stops: bool = True, rule: str | None = "3 NG in a row"
    ):
        return alarm_report(
            AlarmNews(id, NOON, "press", 1, rule, stops, event, old, new, "", "", "three bad", 1, 9), id
        )

    reports = [
        news(1, "raise", "normal", "active_unack"),
        news(2, "stopped", "stop_requested", "stopped", rule=None),
        news(3, "escalate", "active_unack", "active_unack"),
        news(6, "raise", "rtn_unack", "active_unack"),
        news(7, "escalate", "active_unack", "active_unack"),
        news(4, "acknowledge", "active_unack", "active_ack"),
        news(5, "raise", "normal", "active_unack", stops=False, rule="disk\nfull"),
    ]
    now = [0.0]
    for stops_only, rules, subject in (
        (True, 1, "hall 2, station press: stop, 3 NG in a row"),
        (False, 2, "hall 2, station press: stop, 3 NG in a row and 1 more"),
    ):
        server_mailer = mailer(server.server_address[1])
        sink = EmailSink(server_mailer, "hall 2", stops_only=stops_only, monotonic=lambda: now[0])
        assert [*sink.deliver(reports, threading.Event())] == reports
        mail = email.message_from_string(server.mails[-1], policy=default)
        assert mail["Subject"] == subject
        assert mail["To"] == "a@x, b@x" and mail["Auto-Submitted"] == "auto-generated"
        text = mail.get_content()
        assert text.count("station press") == rules
        assert "The line stopped: three bad. Raised 2 times. Nobody has acknowledged it yet." in text
    assert [*sink.deliver(reports[1:2], threading.Event())] == reports[1:2]  # concerns nobody
    assert [*sink.deliver(reports, threading.Event())] == []  # waits for the end of the pause
    assert len(server.mails) == 2
    now[0] += 60.0
    assert [*sink.deliver(reports, threading.Event())] == reports
    assert len(server.mails) == 3


def test_a_report_as_text_and_page(server):
    mailer(server.server_address[1]).send("Shift\r\nBcc: x@y", "132 parts ä", "<p>132 parts</p>")
    mail = email.message_from_string(server.mails[0], policy=default)
    assert mail["Subject"] == "Shift Bcc: x@y" and mail["Bcc"] is None
    assert mail.get_body(("plain",)).get_content() == "132 parts ä\n"
    assert mail.get_body(("html",)).get_content() == "<p>132 parts</p>\n"
    assert message(settings(), "x" * 999, "")["Subject"] == "x" * 150


def test_certificates_that_cannot_be_used(tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for ca, certificate, says in (
        (wrong, None, "holds no certificates"),
        (tmp_path / "none.pem", None, "holds no certificates (No such file"),
        (None, wrong, "with its key cannot be used"),
    ):
        with pytest.raises(ConfigError) as caught:
            tls.context("[mqtt]", ca, certificate)
        assert str(caught.value).startswith("[mqtt]: ") and says in str(caught.value)


def test_what_a_server_does_not_take(server):
    port = server.server_address[1]
    with pytest.raises(Undelivered, match=r"^mail server 127.0.0.1 does not take mail for no@x$"):
        mailer(port, to=("no@x", "b@x")).send("s", "t")
    with pytest.raises(Undelivered, match="unknown"):
        mailer(port, to=("no@x",)).send("s", "t")
    with pytest.raises(Undelivered, match="STARTTLS extension not supported"):
        mailer(port, security="starttls").send("s", "t")
    server.shutdown()
    server.server_close()
    with pytest.raises(Undelivered, match="refused"):
        mailer(port).send("s", "t")
