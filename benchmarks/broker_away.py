"""Measures a broker (mosquitto) that is away for some minutes while parts come: what is told after, and how long parts take.

    python benchmarks/broker_away.py FOLDER --minutes 10 --rate 5

Prints the numbers of docs/results/line.md, "A broker that is away". The judge takes no time, so that the times are those of
queue, store and line.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from line.broker import broker, reading
from line.running import answer, running

from andon.line.outbox.settings import MqttSettings
from andon.line.station import Station

BEFORE_SECONDS, AFTER_SECONDS, CATCH_UP_SECONDS = 60.0, 90.0, 300.0


def send(station: Station, ids: list[int], seconds: float, rate: float) -> list[float]:
    """Send parts at `rate` a second, note their ids; milliseconds of each from submission to the committed answer."""
    begin, took = time.monotonic(), []
    while time.monotonic() - begin < seconds:
        sent = time.perf_counter()
        ids.append(answer(station, len(ids) + 1).id)
        took.append((time.perf_counter() - sent) * 1e3)
        time.sleep(max(0.0, begin + len(took) / rate - time.monotonic()))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=5.0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    ids: list[int] = []
    with broker(options.folder) as own:
        line_settings = {"mqtt": MqttSettings(host="127.0.0.1", port=own.port)}
        with running(options.folder / "data", line=line_settings) as line, reading(own.port) as reader:
            station = line.stations["press"]
            took = {"connected": send(station, ids, BEFORE_SECONDS, options.rate)}
            while len(reader.payloads("/result")) < len(ids):
                time.sleep(0.05)
            own.stop()
            took["away"] = send(station, ids, options.minutes * 60, options.rate)
            waiting = line.outbox.figures()[0].waiting
            own.start()
            took["back"] = send(station, ids, AFTER_SECONDS, options.rate)
            end = time.monotonic() + CATCH_UP_SECONDS
            while (
                len({each["id"] for each in reader.payloads("/result")}) < len(ids) and time.monotonic() < end
            ):
                time.sleep(0.1)
            told = [each["id"] for each in reader.payloads("/result")]
            lost = line.outbox.figures()[0].lost
    first = list(dict.fromkeys(told))
    print(
        f"{len(ids)} parts, {len(first)} told, in order: {first == ids}; {len(told) - len(first)} repeated, {lost} given up"
    )
    print(f"{waiting} waited at the end of the outage")
    for phase, ms in took.items():
        ms.sort()
        p99 = ms[int(0.99 * len(ms))]
        print(
            f"{phase}: {len(ms)} parts, p50 {statistics.median(ms):.1f}, p99 {p99:.1f}, largest {ms[-1]:.1f} ms"
        )


if __name__ == "__main__":
    main()
