"""A line that an OPC UA client watches: events of all parts, memory of the line, and the time of a read, for minutes.

    python benchmarks/opcua.py FOLDER --minutes 20 --rate 1000

The line and the client (asyncua) are two processes on one computer. A judge answers at once: every third part is NG. The client
is subscribed to the results of the vision system and to the parts of the flat folder, and reads all flat values in one request
ten times a second. Prints one line of JSON; exit code 1 where events and rows differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from andon.line.judge import Judgement, Thresholds
from andon.line.line import Line
from andon.line.opcua.server import OpcUaServer
from andon.line.opcua.settings import OpcUaSettings
from andon.line.opcua.values import VALUES
from andon.line.settings import LineSettings, StationSettings
from andon.line.station import Part
from andon.line.verdicts import Verdict
from andon.thresholds.evidence import Evidence

STATION = "press"
READ_SECONDS = 0.1
REQUEST_SECONDS = 60.0
"""Longest wait for an answer; asyncua ends the connection after it."""
LAST_SECONDS = 5.0
"""Wait for the last events."""


class QuickJudge:
    """Takes the verdict from the number that the image is."""

    thresholds, evidence = Thresholds(1.0, 1.0), Evidence()
    name, sha256 = "quick", "0" * 64

    def __init__(self, pack: Path, *, threads: int) -> None:
        """As `Judge`."""

    def self_check(self) -> None:
        """Nothing to check."""

    def judge(self, image: bytes, thresholds: Thresholds) -> Judgement:
        """NG or OK."""
        score = 0.5 if int(image) % 3 else 2.0
        return Judgement(Verdict.OK if score < 1 else Verdict.NG, score, score)


def main() -> None:
    """Run line or client."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the store, new")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="parts a minute")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        print(json.dumps(asyncio.run(watch(options.client))))
        return
    found = play(options.folder, options.minutes, options.rate)
    print(json.dumps(found))
    sys.exit(found["parts"] != found["results"] or found["parts"] != found["flat"] or found["lost"] > 0)


def play(folder: Path, minutes: float, rate: float) -> dict[str, Any]:
    """Parts at a rate (parts a minute) while a client watches; what both saw."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    station = StationSettings(
        name=STATION, model=folder / "none.andon", cycle_s=30.0, queue=1000, keep_images=()
    )
    settings = LineSettings(data=folder, stations=(station,), opcua=OpcUaSettings(port=port))
    with Line(settings, open_judge=QuickJudge) as line:
        server = next(each for each in line.followers if isinstance(each, OpcUaServer))
        begun = time.monotonic()
        server.listens.wait()
        loaded = time.monotonic() - begun
        command = [sys.executable, __file__, "-", "--client", f"opc.tcp://127.0.0.1:{port}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            client.stdout.readline()  # it listens
            memory, begin, parts = [rss_mb()], time.monotonic(), round(minutes * rate)
            processor = time.process_time()
            for number in range(parts):
                time.sleep(max(0.0, begin + number * 60 / rate - time.monotonic()))
                line.stations[STATION].submit(
                    Part(str(number).encode(), f"request-{number}", f"part-{number}")
                )
                if number % round(rate) == round(rate) - 1:
                    memory.append(rss_mb())
                    print(f"{number + 1} parts, {memory[-1]:.0f} MB", file=sys.stderr)
            seconds = time.monotonic() - begin
            time.sleep(LAST_SECONDS)
            seen = json.loads(client.communicate("stop\n")[0].splitlines()[-1])
        rows = sum(line.store.counts(STATION, since=0).values())
    return {
        "parts": rows,
        **seen,
        "lost": server.lost,
        "minutes": round(seconds / 60, 2),
        "parts_per_minute": round(rows / seconds * 60),
        "load_s": round(loaded, 1),
        "memory_mb": [round(each, 1) for each in memory],
        "processor_ms_per_part": round((time.process_time() - processor) / rows * 1e3, 1),
    }


async def watch(url: str) -> dict[str, Any]:
    """What a client sees until a line comes on standard input."""
    from asyncua import Client, ua

    results, flat = list[str](), list[int]()

    class Heard:
        def event_notification(self, event: Any) -> None:
            if hasattr(event, "ResultId"):
                results.append(event.ResultId.Id)
            else:
                flat.append(event.Inspection)

        def status_change_notification(self, status: Any) -> None:
            raise RuntimeError(f"the subscription ended: {status}")

    times: list[float] = []
    async with Client(url, timeout=REQUEST_SECONDS, watchdog_intervall=REQUEST_SECONDS) as client:
        await client.load_data_type_definitions()
        own = await client.get_namespace_index("urn:andon:line")
        vision = await client.get_namespace_index("http://opcfoundation.org/UA/MachineVision")
        station = client.get_node(ua.NodeId(STATION, own))
        system = client.get_node(ua.NodeId(f"{STATION}/VisionSystem", own))
        part = await client.nodes.base_event_type.get_child(f"{own}:PartEventType")
        subscription = await client.create_subscription(100, Heard())
        await subscription.subscribe_events(system, client.get_node(ua.NodeId(1024, vision)), queuesize=5000)
        await (await client.create_subscription(100, Heard())).subscribe_events(station, part, queuesize=5000)
        nodes = [client.get_node(ua.NodeId(f"{STATION}/{value.name}", own)) for value in VALUES]
        print("listens", flush=True)
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        while not ended.done():
            begin = time.perf_counter()
            await client.read_values(nodes)
            times.append((time.perf_counter() - begin) * 1e3)
            await asyncio.sleep(READ_SECONDS)
    times.sort()
    return {
        "results": len(set(results)),
        "repeated": len(results) - len(set(results)) + len(flat) - len(set(flat)),
        "flat": len(set(flat)),
        "reads": len(times),
        "read_ms_p50": round(times[len(times) // 2], 2),
        "read_ms_p99": round(times[len(times) * 99 // 100], 2),
        "read_ms_max": round(times[-1], 2),
        "client_mb": round(rss_mb(), 1),
    }


def rss_mb() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
