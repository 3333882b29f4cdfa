"""Whether a station disturbs another: times of one beside the other idle and at full load.

Judging and time to the committed answer.

    python benchmarks/line_stations.py part.andon photos --rate 2 --seconds 40
    python benchmarks/line_stations.py part.andon photos --rate 2 --seconds 40 --recipe other.andon

The quiet station gets `--rate` parts a second in both runs. The busy one gets a part as soon as it has answered the last one;
with `--recipe` it changes between its model and the recipe each two seconds as well. Prints the table of docs/results/line.md,
"Two stations".
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path

import numpy as np

from andon.line.line import Line
from andon.line.settings import LineSettings, StationSettings
from andon.line.simulate import images
from andon.line.station import NotReady, Part, Station

CHANGE_SECONDS = 2.0


def main() -> None:
    """Measure both runs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--recipe", type=Path)
    asked = parser.parse_args()
    recipes = {} if asked.recipe is None else {"first": asked.model, "second": asked.recipe}
    stations = tuple(
        StationSettings(name=name, model=asked.model, rules=(), keep_images=("NG",), recipes=recipes)
        for name in ("quiet", "busy")
    )
    contents = cycle([path.read_bytes() for path in images(asked.images)])
    print(
        "| the other station | parts | judging p50 ms | p99 ms | answer p50 ms | p99 ms | parts of the other |"
    )
    print("|---|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        Line(LineSettings(data=Path(folder), stations=stations)) as line,
    ):
        quiet, busy = line.stations["quiet"], line.stations["busy"]
        while not (quiet.is_verified and busy.is_verified):
            time.sleep(0.05)
        for name, loads in (("idle", False), ("at full load", True)):
            ended, sent = threading.Event(), count()
            threads = [threading.Thread(target=_load, args=(busy, contents, ended, sent))] if loads else []
            if loads and recipes:
                threads.append(threading.Thread(target=_change, args=(line, ended)))
            for thread in threads:
                thread.start()
            found = _measure(quiet, contents, asked.rate, asked.seconds, name)
            ended.set()
            for thread in threads:
                thread.join()
            judging, answers = (np.percentile(column, (50, 99)) for column in np.array(found).T)
            numbers = " | ".join(f"{value:.0f}" for value in (*judging, *answers))
            print(f"| {name} | {len(found)} | {numbers} | {next(sent)} |", flush=True)


def _measure(
    station: Station, contents: Iterator[bytes], rate: float, seconds: float, name: str
) -> list[tuple[float, float]]:
    """Milliseconds of judging and up to the committed answer, of each part."""
    begin, found = time.monotonic(), []
    for number in range(round(rate * seconds)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        answer = station.submit(Part(next(contents), f"quiet-{name}-{number}")).result()
        found.append((answer.recorded.row.ms["judge"], answer.ms))
    return found


def _load(station: Station, contents: Iterator[bytes], ended: threading.Event, sent: Iterator[int]) -> None:
    while not ended.is_set():
        try:
            station.submit(Part(next(contents), f"busy-{next(sent)}")).result()
        except NotReady:  # a recipe is being prepared
            time.sleep(0.01)


def _change(line: Line, ended: threading.Event) -> None:
    for code in cycle(("second", "first")):
        if ended.wait(CHANGE_SECONDS):
            return
        line.set_recipe("busy", code, who="benchmark")


if __name__ == "__main__":
    main()
