"""A broker from Debian's package mosquitto on a free port, and a client that notes what it gets."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from line.running import PATIENCE, until

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Broker:
    """A mosquitto process; `settings` are lines of its configuration."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._file = folder / "mosquitto.conf"
        kept = f"persistence true\npersistence_location {folder}/"
        self._file.write_text(f"listener {self.port} 127.0.0.1\nuser root\n{kept}\n{settings}\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([str(MOSQUITTO), "-c", str(self._file)], stderr=subprocess.DEVNULL)
        until(self._answers)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it. It stores sessions and retained messages before; what it knew is gone after SIGKILL."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def broker(folder: Path, settings: str = "allow_anonymous true") -> Iterator[Broker]:
    """A running broker."""
    started = Broker(folder, settings)
    try:
        yield started
    finally:
        started.stop(signal.SIGKILL)


class Reader:
    """Notes all messages, and connects again when the broker comes back, which keeps what comes meanwhile."""

    def __init__(self, port: int, topics: str = "andon/#") -> None:
        self.messages: list[tuple[str, bool, Any]] = []
        """Topic, whether it was retained before, and payload (None: empty)."""
        self._topics, self._ready = topics, threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, f"reader-{uuid.uuid4().hex}", protocol=MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(topics, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._note
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        self._client.loop_start()
        assert self._ready.wait(PATIENCE)

    def _note(self, _client: Client, _data: Any, message: Any) -> None:
        payload = json.loads(message.payload) if message.payload else None
        self.messages.append((message.topic, message.retain, payload))

    def payloads(self, end: str) -> list[Any]:
        """Of the topics that end so, in the order in which they came."""
        return [payload for topic, _, payload in tuple(self.messages) if topic.endswith(end)]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def reading(port: int, topics: str = "andon/#") -> Iterator[Reader]:
    """A client that reads."""
    reader = Reader(port, topics)
    try:
        yield reader
    finally:
        reader.close()


def send(port: int, topic: str, payload: str, *, retain: bool = False, **properties: Any) -> None:
    """Publish one message with QoS 1; `properties` as MQTT 5 names them."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    said = Properties(PacketTypes.PUBLISH)
    for name, value in properties.items():
        setattr(said, name, value)
    client.publish(topic, payload, 1, retain, said).wait_for_publish(PATIENCE)
    client.disconnect()
    client.loop_stop()
