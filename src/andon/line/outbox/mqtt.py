"""MQTT 5 (OASIS Standard, 2019): one connection for each station. paho-mqtt is imported here.

Topics below `andon/v1/SITE/LINE/STATION/`:

    state        retained, QoS 1; the last will of the connection is `{"online": false}` on the same topic
    result       QoS 1, each committed part in order
    alarm/RULE   retained, QoS 1, as long as the alarm is not over; then empty
    counts       retained, QoS 0
    drift        retained, QoS 0
    cmd/COMMAND  read where `commands` is set, QoS 1; answers go to the response topic of the message

A broken connection is replaced by a new one, on which state and alarms come first and then every result that was not
acknowledged: nothing old can overwrite a retained state, as the queue of a client that resends by itself could. A result may
come twice, with the same `id` and `seq`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from andon.line.drift.view import DriftView
from andon.line.outbox.commands import Acts, Commands, Message
from andon.line.outbox.reports import Report, Undelivered
from andon.line.outbox.settings import MqttSettings
from andon.line.store.outbox import Stream
from andon.line.views import AlarmView, StationView

LOG = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""Time in which the broker has to acknowledge."""
STEP_SECONDS = 0.25
"""Time between two looks whether the process ends."""
SESSION_SECONDS = 3600
"""Time for which the broker keeps the session of a line that is gone."""
WITH_WILL = ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")
LAST_SECONDS = 0.5
"""For the command that is being obeyed at the end."""
DRIFT_SECONDS = 60.0
OFFLINE = json.dumps({"online": False})


class Connection:
    """One connection to the broker, from CONNECT until it is broken or closed; never renewed."""

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        password: str,
        encryption: ssl.SSLContext | None,
        will: str,
        commands: tuple[str, Callable[[Message], None]] | None = None,
    ) -> None:
        """`will`: topic on which the broker says `OFFLINE` when the line is gone. Raises `Undelivered`.

        `commands`: topics to read, and what gets their messages, in the thread of the connection.
        """
        self._news = threading.Condition()
        self._answers: dict[int, ReasonCode] = {}
        self._connected: ReasonCode | None = None
        self._broken = ""
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5, reconnect_on_failure=False
        )
        self._client.on_connect = self._on_connect
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect
        if commands is not None:
            self._client.on_message = lambda _client, _data, found: commands[1](self._message(found))
            self._client.on_subscribe = self._on_subscribe
        self._client.connect_timeout = CONNECT_SECONDS
        self._client.will_set(will, OFFLINE, qos=1, retain=True)
        if settings.user:
            self._client.username_pw_set(settings.user, password or None)
        if encryption is not None:
            self._client.tls_set_context(encryption)
        self._open(settings)
        if commands is not None:  # retained ones come marked, and never at the subscription
            options = SubscribeOptions(1, noLocal=True, retainAsPublished=True, retainHandling=2)
            self._client.subscribe(commands[0], options=options)

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return not self._broken

    def publish(
        self,
        topic: str,
        payload: str,
        *,
        retain: bool = False,
        qos: int = 1,
        correlation: bytes | None = None,
    ) -> int:
        """Send a message without waiting. Returns its number for `acknowledged`. Raises `Undelivered`."""
        properties = None
        if correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        sent = self._client.publish(topic, payload, qos, retain, properties)
        if sent.rc != 0:
            raise Undelivered(self._broken or f"the broker cannot be reached ({sent.rc.name})")
        return sent.mid

    def acknowledged(self, message: int, ending: threading.Event | None = None) -> None:
        """Wait until the broker has a message of QoS 1. Raises `Undelivered`, also at `ending`."""
        with self._news:
            self._wait(lambda: message in self._answers, ending)
            answer = self._answers.pop(message)
        if answer.is_failure:
            raise Undelivered(f"the broker refuses messages ({answer}): check its access rules")

    def close(self, *, with_will: bool = True) -> None:
        """End it; the broker says `OFFLINE` then, unless that was done."""
        self._client.disconnect(WITH_WILL if with_will else None)
        self._client.loop_stop()

    def _open(self, settings: MqttSettings) -> None:
        place = f"{settings.host} port {settings.port_used}"
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_SECONDS
        try:
            self._client.connect(
                settings.host,
                settings.port_used,
                settings.keepalive_s,
                clean_start=False,
                properties=properties,
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise Undelivered(f"the broker {place} cannot be reached ({why})") from None
        self._client.loop_start()
        try:
            with self._news:
                self._wait(lambda: self._connected is not None)
                if self._connected is not None and self._connected.is_failure:
                    raise Undelivered(f"the broker {place} refuses the connection ({self._connected})")
        except Undelivered:
            self.close()
            raise

    def _wait(self, condition: Callable[[], bool], ending: threading.Event | None = None) -> None:
        """Wait for news, which the caller holds. Raises `Undelivered` where the connection breaks or time is up."""
        end = time.monotonic() + ANSWER_SECONDS
        while not condition():
            if not self._broken and (time.monotonic() > end or (ending is not None and ending.is_set())):
                self._broken = "the broker does not answer"
            if self._broken:
                raise Undelivered(self._broken)
            self._news.wait(STEP_SECONDS)

    def _message(self, found: MQTTMessage) -> Message:
        """A message as plain values."""
        said = found.properties
        topic: str = getattr(said, "ResponseTopic", "")
        return Message(
            command=found.topic.rpartition("/")[2],
            payload=bytes(found.payload),
            came=time.monotonic(),
            retained=found.retain,
            expiry_s=getattr(said, "MessageExpiryInterval", None),
            response_topic=topic,
            reply=partial(self._reply, topic, getattr(said, "CorrelationData", None)),
        )

    def _reply(self, topic: str, correlation: bytes | None, text: str) -> None:
        try:
            self.publish(topic, text, correlation=correlation)
        except (Undelivered, ValueError) as error:  # paho refuses topics with wildcards
            LOG.warning("the command is not answered: %s", error)

    def _on_subscribe(
        self, _client: Client, _data: Any, _message: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        if codes[0].is_failure:
            LOG.error("the broker refuses commands to this line (%s): check its access rules", codes[0])

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, _properties: Any
    ) -> None:
        with self._news:
            self._connected = code
            self._news.notify_all()

    def _on_publish(
        self, _client: Client, _data: Any, message: int, code: ReasonCode, _properties: Any
    ) -> None:
        with self._news:
            self._answers[message] = code
            self._news.notify_all()

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, code: ReasonCode, _properties: Any
    ) -> None:
        with self._news:
            self._broken = f"the connection to the broker is broken ({code})"
            self._news.notify_all()


class MqttSink:
    """Tells the broker about one station."""

    streams: Sequence[Stream] = (Stream.RESULT, Stream.ALARM)
    batch = 20

    def __init__(
        self,
        settings: MqttSettings,
        line: str,
        station: str,
        view: Callable[[], StationView],
        alarms: Callable[[], list[AlarmView]],
        drift: Callable[[], DriftView | None],
        acts: Acts | None = None,
        *,
        password: str = "",
        encryption: ssl.SSLContext | None = None,
    ) -> None:
        """`view`, `alarms`, `drift`: the station now, its alarms that are not over, its drift watch.

        `acts`: what commands do; None: commands are not read.
        """
        self.name, self.station = f"mqtt/{station}", station
        self._settings, self._password, self._encryption = settings, password, encryption
        self._view, self._alarms, self._drift = view, alarms, drift
        place = [level(settings.site), level(line), station]
        self.client_id = "-".join(["andon", *place])
        """The same after a restart: a second line of this name would push the first from the broker."""
        self.base = "/".join(["andon", "v1", *place])
        self._connection: Connection | None = None
        self._commands = None if acts is None else Commands(station, acts)
        self._state = self._counts = ""
        self._drifts, self._next_drift = "", 0.0

    def refresh(self) -> None:
        """Connect where needed, then say state and counts where they changed. Raises `Undelivered`."""
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = self._connected()
        view = self._view()
        state, counts = json.dumps(state_of(view)), json.dumps(counts_of(view))
        if state != self._state:
            connection.acknowledged(connection.publish(f"{self.base}/state", state, retain=True))
            self._state = state
        if counts != self._counts:
            connection.publish(f"{self.base}/counts", counts, retain=True, qos=0)
            self._counts = counts
        self._say_drift(connection)

    def deliver(self, reports: Sequence[Report], ending: threading.Event) -> Iterator[Report]:
        """Publish reports together; each is yielded once it is acknowledged. Raises `Undelivered`."""
        connection = self._connection
        if connection is None:
            raise Undelivered("there is no connection to the broker")
        alarms = {alarm.rule: alarm for alarm in self._alarms()}
        sent = [(report, self._send(connection, report, alarms)) for report in reports]
        for report, message in sent:
            if message is not None:
                connection.acknowledged(message, ending)
            yield report

    def close(self) -> None:
        """Say that the line is gone, and end the connection."""
        if self._commands is not None:
            self._commands.stop(LAST_SECONDS)
        connection, self._connection = self._connection, None
        if connection is not None:
            said = False
            with contextlib.suppress(Undelivered):
                connection.acknowledged(connection.publish(f"{self.base}/state", OFFLINE, retain=True))
                said = True
            connection.close(with_will=not said)

    def _say_drift(self, connection: Connection) -> None:
        """Say what drifts where that changed, and all numbers each `DRIFT_SECONDS`."""
        drift = self._drift()
        if drift is None or (drift.text == self._drifts and time.monotonic() < self._next_drift):
            return
        connection.publish(f"{self.base}/drift", json.dumps(drift_of(drift)), retain=True, qos=0)
        self._drifts, self._next_drift = drift.text, time.monotonic() + DRIFT_SECONDS

    def _connected(self) -> Connection:
        """A new connection on which all alarms that are not over, and then the state, have been said."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        commands = None
        if self._commands is not None:
            self._commands.start()
            commands = (f"{self.base}/cmd/+", self._commands.put)
        will = f"{self.base}/state"
        connection = Connection(
            self._settings, self.client_id, self._password, self._encryption, will, commands
        )
        self._connection, self._state, self._counts, self._next_drift = connection, "", "", 0.0
        for alarm in self._alarms():
            connection.acknowledged(
                connection.publish(self._alarm_topic(alarm.rule), json.dumps(alarm.to_json()), retain=True)
            )
        return connection

    def _send(self, connection: Connection, report: Report, alarms: dict[str, AlarmView]) -> int | None:
        """Number of the message; None where there is nothing to say: the state says what a station does."""
        if report.stream is Stream.RESULT:
            return connection.publish(f"{self.base}/result", json.dumps(report.to_json()))
        rule = report.data["rule"]
        if rule is None:
            return None
        alarm = alarms.get(rule)
        payload = "" if alarm is None else json.dumps(alarm.to_json())
        return connection.publish(self._alarm_topic(rule), payload, retain=True)

    def _alarm_topic(self, rule: str) -> str:
        return f"{self.base}/alarm/{level(rule)}"


def level(name: str) -> str:
    """A name as one level of a topic: letters, digits, `.`, `_`; everything else becomes `-`."""
    return re.sub(r"[^\w.]+", "-", name).strip("-") or "-"


def state_of(view: StationView) -> dict[str, Any]:
    """What `state` says."""
    return {
        "online": True,
        "state": view.state.value,
        "reason": view.reason,
        "since": view.since,
        "wants_stop": view.wants_stop,
        "cause": None if view.cause is None else view.cause.value,
        "is_ready": view.is_ready,
        "golden": view.golden.state,
        "faults": list(view.faults),
        "recipe": view.recipe,
        "model": {"name": view.model_name, "sha256": view.model_sha256},
        "thresholds": view.thresholds._asdict(),
    }


def counts_of(view: StationView) -> dict[str, Any]:
    """What `counts` says: parts of the shift."""
    return {
        "shift_since": view.shift_since,
        "per_minute": view.per_minute,
        "parts": {verdict.name: n for verdict, n in view.counts.items()},
    }


def drift_of(view: DriftView) -> dict[str, Any]:
    """What `drift` says: averages in standard deviations of the reference."""
    return {
        "text": view.text,
        "parts": view.parts,
        "numbers": {each.name: {"average": each.average, "limit": each.limit} for each in view.numbers},
    }
