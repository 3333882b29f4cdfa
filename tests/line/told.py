"""A line that judges a part each 0.05 s and tells a broker, until it is killed. Run by test_mqtt.py."""

from __future__ import annotations

import sys
import time
from itertools import count
from pathlib import Path

import pytest

from andon.line.outbox.settings import MqttSettings
from line.disk import with_room
from line.running import answer, running


def main(folder: Path, port: int, keepalive_s: int) -> None:
    mqtt = MqttSettings(host="127.0.0.1", port=port, keepalive_s=keepalive_s)
    with running(folder, line={"name": "hall 2", "mqtt": mqtt}) as line:
        for number in count(line.store.session):
            row = answer(line.stations["press"], number)
            print(row.id, flush=True)
            time.sleep(0.05)


if __name__ == "__main__":
    with_room(pytest.MonkeyPatch())
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
