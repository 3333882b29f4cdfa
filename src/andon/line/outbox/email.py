"""E-mail by SMTP: alarms when they are raised and when nobody comes, and any report that another module sends.

mailer = Mailer(settings, password, encryption)
mailer.send("Shift report", "132 parts", "<p>132 parts</p>")
"""

from __future__ import annotations

import smtplib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from andon.line.andon_states import AlarmState
from andon.line.board import ESCALATE
from andon.line.clock import SECOND
from andon.line.outbox.reports import Report, Undelivered
from andon.line.outbox.settings import EmailSettings
from andon.line.store.outbox import Stream

TIMEOUT_SECONDS = 20.0
PAUSE_SECONDS = 60.0
"""Shortest time between two mails about alarms."""
LONGEST_SUBJECT = 150


class Mailer:
    """Sends mail by one server."""

    def __init__(self, settings: EmailSettings, password: str, encryption: ssl.SSLContext) -> None:
        self._settings, self._password, self._encryption = settings, password, encryption

    def send(self, subject: str, text: str, html: str = "") -> None:
        """Send a mail to all addresses of the settings; waits for the server. Raises `Undelivered`."""
        mail = message(self._settings, subject, text, html)
        place = f"mail server {self._settings.host}"
        try:
            with self._connected() as server:
                if self._settings.user:
                    server.login(self._settings.user, self._password)
                refused = server.send_message(mail)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise Undelivered(f"{place}: {' '.join(str(error).split())}") from None
        if refused:
            raise Undelivered(f"{place} does not take mail for {', '.join(refused)}")

    def _connected(self) -> smtplib.SMTP:
        host, port = self._settings.host, self._settings.port_used
        if self._settings.security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=self._encryption)
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
        if self._settings.security == "starttls":
            try:
                server.starttls(context=self._encryption)
            except BaseException:
                server.close()
                raise
        return server


class EmailSink:
    """Mails alarms: all that wait in one mail, at most one in `PAUSE_SECONDS`."""

    name, station = "email", None
    streams: Sequence[Stream] = (Stream.ALARM,)
    batch = 1000

    def __init__(
        self,
        mailer: Mailer,
        line: str,
        *,
        stops_only: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mailer, self._line, self._stops_only = mailer, line, stops_only
        self._monotonic, self._next = monotonic, 0.0

    def refresh(self) -> None:
        """There is nothing to keep up."""

    def deliver(self, reports: Sequence[Report], ending: threading.Event) -> Iterator[Report]:
        """One mail about all reports that concern people. Raises `Undelivered`."""
        told = [report for report in reports if self._concerns(report)]
        if told:
            if self._monotonic() < self._next:
                return
            self._mailer.send(*alarm_mail(self._line, told))
            self._next = self._monotonic() + PAUSE_SECONDS
        yield from reports

    def close(self) -> None:
        """There is nothing to end."""

    def _concerns(self, report: Report) -> bool:
        data = report.data
        begins = data["new"] == AlarmState.ACTIVE_UNACK and data["old"] != data["new"]
        announced = data["rule"] and (begins or data["event"] == ESCALATE)
        return bool(announced and (data["stops"] or not self._stops_only))


def alarm_mail(line: str, reports: Sequence[Report]) -> tuple[str, str]:
    """Subject and text of a mail about alarms: one paragraph for each rule of a station, about its last report."""
    groups: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        groups.setdefault((report.station, report.data["rule"]), []).append(report)
    last = [group[-1] for group in groups.values()]
    stops = [report for report in last if report.data["stops"]]
    first = (stops or last)[0].data
    more = f" and {len(last) - 1} more" if len(last) > 1 else ""
    subject = (
        f"{line}, station {first['station']}: {'stop' if first['stops'] else 'call'}, {first['rule']}{more}"
    )
    return subject, "\n\n".join(_paragraph(group) for group in groups.values()) + "\n"


def _paragraph(reports: Sequence[Report]) -> str:
    report, data = reports[-1], reports[-1].data
    when = datetime.fromtimestamp(report.at / SECOND).astimezone().isoformat(" ", "seconds")
    raised = sum(each.data["event"] != ESCALATE for each in reports)
    often = f" Raised {raised} times." if raised > 1 else ""
    again = " Nobody has acknowledged it yet." if data["event"] == ESCALATE else ""
    what = "The line stopped" if data["stops"] else "A person is called"
    return f"{when}, station {report.station}: {data['rule']}\n{what}: {data['note'] or data['rule']}.{often}{again}"


def message(settings: EmailSettings, subject: str, text: str, html: str = "") -> EmailMessage:
    """A mail from the line to all addresses."""
    mail = EmailMessage()
    mail["From"], mail["To"] = settings.sender, ", ".join(settings.to)
    mail["Subject"] = " ".join(subject.split())[:LONGEST_SUBJECT]
    mail["Date"], mail["Message-ID"] = (
        formatdate(localtime=True),
        make_msgid("andon", settings.sender.rpartition("@")[2]),
    )
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence replies
    mail.set_content(text, cte="quoted-printable")  # any server takes 7 bits
    if html:
        mail.add_alternative(html, subtype="html", cte="quoted-printable")
    return mail
