"""Measures the pages and answers of a line over a large store, in process.

    python benchmarks/inspection_store.py FOLDER --rows 1000000
    python benchmarks/line_pages.py FOLDER

Prints the table of docs/results/line.md, "Pages".
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from pathlib import Path

import httpx
import numpy as np

from andon.line.judge import Thresholds
from andon.line.line import Line
from andon.line.rest import create_app
from andon.line.rules import DEFAULT_RULES
from andon.line.settings import LineSettings, StationSettings


class NoJudge:
    """A model that judges nothing."""

    name, sha256, thresholds = "none", "0" * 64, Thresholds(1.0, 1.0)

    def __init__(self, _pack: Path, *, threads: int) -> None:
        """As a judge is opened."""


def addresses(rng: random.Random, rows: int, station: str) -> dict[str, list[str]]:
    """What is asked, 100 times each."""
    places = [rng.randrange(1000, rows) for _ in range(100)]
    return {
        "history, newest 50": ["/history"] * 100,
        "history, 50 from any place": [f"/history?before_id={place}" for place in places],
        "history, station and NG, 50 from any place": [
            f"/history?station={station}&verdict=NG&before_id={place}" for place in places
        ],
        "history, part id": [f"/history?part_id=part-{place}" for place in places],
        "one inspection": [f"/inspections/{place}" for place in places],
        "REST, 50 from any place": [f"/api/v1/inspections?before_id={place}" for place in places],
        "line page": [f"/stations/{station}"] * 100,
        "stop rules": ["/rules"] * 100,
    }


async def measure(line: Line, rows: int) -> None:
    """Print a row for each kind of question."""
    transport = httpx.ASGITransport(create_app(line))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for kind, asked in addresses(random.Random(0), rows, next(iter(line.stations))).items():
            took = []
            for address in asked:
                begin = time.perf_counter()
                (await client.get(address)).raise_for_status()
                took.append((time.perf_counter() - begin) * 1e3)
            print(
                f"| {kind} | {np.percentile(took, 50):.1f} | {np.percentile(took, 95):.1f} | {max(took):.1f} |",
                flush=True,
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of inspection_store.py")
    folder: Path = parser.parse_args().folder
    station = StationSettings(name="station-1", model=Path("none.andon"), rules=DEFAULT_RULES)
    line = Line(LineSettings(data=folder, stations=(station,)), open_judge=NoJudge)
    try:
        rows = line.store.inspections(limit=1)[0].id
        print(f"{rows} rows\n\n| question | p50 ms | p95 ms | largest ms |\n|---|---|---|---|")
        asyncio.run(measure(line, rows))
    finally:
        line.stop()


if __name__ == "__main__":
    main()
