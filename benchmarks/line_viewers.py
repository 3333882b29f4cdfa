"""Whether people who look at the line page slow the line down: the same parts without and with viewers, in turns.

    python benchmarks/line_viewers.py FOLDER part.andon photos --rate 5 --seconds 20 --turns 4 --viewers 10

A real `andon serve` gets parts by REST; each viewer is a connection that reads the events of the page. Sender and viewers are on
the same machine. Prints the table of docs/results/line.md, "Viewers".
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import httpx
import numpy as np
from serving_line import serving, wait_until_ready

from andon.client import Client
from andon.line.simulate import images


def main() -> None:
    """Measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="new, or empty")
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--viewers", type=int, default=10)
    asked = parser.parse_args()
    photos = cycle(images(asked.photos))
    found: dict[int, list[tuple[float, float]]] = {0: [], asked.viewers: []}
    used = dict.fromkeys(found, 0.0)
    asked.folder.mkdir(parents=True, exist_ok=True)
    options = ("--station", f"press={asked.model.resolve()}", "--data", "data")
    with serving(asked.folder, *options) as server, Client(server.url) as client:
        wait_until_ready(client)
        measure(client, photos, asked.rate, 5.0)
        for _ in range(asked.turns):
            for viewers, times in found.items():
                with watched(server.url, viewers):
                    before = server.processor_seconds()
                    times += measure(client, photos, asked.rate, asked.seconds)
                    used[viewers] += server.processor_seconds() - before
    print("| viewers | parts | judging p50 ms | p99 ms | answer p50 ms | p99 ms | processor ms a part |")
    print("|---|---|---|---|---|---|---|")
    for viewers, times in found.items():
        judging, answers = (np.percentile(column, (50, 99)) for column in np.array(times).T)
        numbers = " | ".join(f"{value:.1f}" for value in (*judging, *answers))
        print(f"| {viewers} | {len(times)} | {numbers} | {1e3 * used[viewers] / len(times):.1f} |")


def measure(client: Client, photos: Iterator[Path], rate: float, seconds: float) -> list[tuple[float, float]]:
    """Milliseconds of judging, and from request to answer, of each part."""
    begin, found = time.monotonic(), []
    for number in range(round(rate * seconds)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        sent = time.perf_counter()
        answer = client.inspect("press", next(photos))
        found.append((answer.data["ms"].get("judge", 0.0), (time.perf_counter() - sent) * 1e3))
    return found


@contextlib.contextmanager
def watched(url: str, viewers: int) -> Iterator[None]:
    """`viewers` connections that read events, from after the first one on."""
    begun, ended = threading.Barrier(viewers + 1), threading.Event()
    threads = [threading.Thread(target=watch, args=(url, begun, ended)) for _ in range(viewers)]
    for thread in threads:
        thread.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def watch(url: str, begun: threading.Barrier, ended: threading.Event) -> None:
    """Open the page, then read its events; there is one each second."""
    with httpx.Client(base_url=url, timeout=30.0, trust_env=False) as http:
        http.get("/stations/press").raise_for_status()
        with http.stream("GET", "/api/v1/events", params={"station": "press"}) as response:
            events = response.iter_raw()
            next(events)
            begun.wait()
            for _ in events:
                if ended.is_set():
                    return


if __name__ == "__main__":
    main()
