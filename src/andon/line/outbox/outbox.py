"""The outbox of a line: one courier for each station at the broker, each webhook, and the mail server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from andon.core.errors import ConfigError
from andon.line.clock import Clock
from andon.line.drift.view import DriftView
from andon.line.follower import Follower
from andon.line.outbox.commands import Acts
from andon.line.outbox.courier import Courier, Figures
from andon.line.outbox.email import EmailSink, Mailer
from andon.line.outbox.reports import Sink
from andon.line.outbox.settings import MqttSettings, SecretSettings, WebhookSettings
from andon.line.outbox.tls import context
from andon.line.settings import LineSettings
from andon.line.store import Inspection, Store
from andon.line.views import AlarmView, StationView

LOG = logging.getLogger(__name__)
LAST_SECONDS = 2.0
"""Longest time in which the last reports are told at the end."""


class Views(NamedTuple):
    """What sinks ask the line."""

    station: Callable[[str], StationView]
    """A station now."""
    alarms: Callable[[str], list[AlarmView]]
    """Alarms of a station that are not over."""
    drift: Callable[[str], DriftView | None] = lambda station: None
    """The drift watch of a station; None where it is switched off."""


class Outbox(Follower):
    """Tells other machines what is committed. Nothing waits for it."""

    def __init__(self, settings: LineSettings, store: Store, views: Views, clock: Clock, acts: Acts) -> None:
        """`acts`: what commands do. Raises `ConfigError` for secrets, certificates and libraries that are missing."""
        self.mailer = _mailer(settings)
        """For reports to people; None where no mail server is set up."""
        sinks = _sinks(settings, views, clock, acts, self.mailer)
        self._couriers = [Courier(sink, store, clock) for sink in sinks]

    def start(self) -> None:
        """Tell from now on."""
        for courier in self._couriers:
            courier.start()

    def part(self, row: Inspection) -> None:
        """A part was committed."""
        for courier in self._couriers:
            if courier.sink.station in (None, row.station):
                courier.wake()

    def tick(self) -> None:
        """Alarms, states and counts may have changed."""
        for courier in self._couriers:
            courier.wake()

    def stop(self, timeout: float) -> None:
        """Tell what waits where that works, and say goodbye."""
        end = time.monotonic() + min(timeout, LAST_SECONDS)
        for courier in self._couriers:
            courier.close()
        for courier in self._couriers:
            courier.join(max(0.0, end - time.monotonic()))

    def figures(self) -> list[Figures]:
        """How each sink does."""
        return [courier.figures() for courier in self._couriers]


def _sinks(
    settings: LineSettings, views: Views, clock: Clock, acts: Acts, mailer: Mailer | None
) -> Iterator[Sink]:
    if settings.mqtt is not None:
        yield from _mqtt(settings, settings.mqtt, views, acts)
    for webhook in settings.webhooks:
        yield _webhook(settings, webhook, clock)
    if mailer is not None and settings.email is not None and settings.email.alarms != "none":
        yield EmailSink(mailer, settings.name, stops_only=settings.email.alarms == "stops")


def _mqtt(settings: LineSettings, mqtt: MqttSettings, views: Views, acts: Acts) -> Iterator[Sink]:
    try:
        from andon.line.outbox.mqtt import MqttSink
    except ImportError:
        raise ConfigError(
            "[mqtt] needs paho-mqtt, which is not installed: pip install 'andon[mqtt]'"
        ) from None
    encryption = context("[mqtt]", mqtt.ca_file, mqtt.certificate_file, mqtt.key_file) if mqtt.tls else None
    password = _read(mqtt.password, "[mqtt] password")
    if password and encryption is None:
        LOG.warning("the password for the broker %s is sent without encryption: set tls = true", mqtt.host)
    for station in settings.stations:
        yield MqttSink(
            mqtt,
            settings.name,
            station.name,
            partial(views.station, station.name),
            partial(views.alarms, station.name),
            partial(views.drift, station.name),
            acts if mqtt.commands else None,
            password=password,
            encryption=encryption,
        )


def _webhook(settings: LineSettings, webhook: WebhookSettings, clock: Clock) -> Sink:
    from andon.line.outbox.webhook import WebhookSink, key_of

    what = f"webhook {webhook.name}"
    secret = _read(webhook.secret, what)
    encryption = context(what, webhook.ca_file) if webhook.ca_file else None
    return WebhookSink(webhook, settings.name, clock, key=key_of(secret, what), encryption=encryption)


def _mailer(settings: LineSettings) -> Mailer | None:
    email = settings.email
    if email is None:
        return None
    return Mailer(email, _read(email.password, "[email] password"), context("[email]", email.ca_file))


def _read(secret: SecretSettings | None, what: str) -> str:
    return "" if secret is None else secret.read(what)
