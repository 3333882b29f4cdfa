"""Images per second of `andon predict RUN FOLDER`, beside what the network alone allows.

    python benchmarks/throughput.py RUN PICTURES [--count 1000] [--rounds 3] [--threads N]

The run's kept network answers (`andon predict RUN` makes it). Its session alone, on decoded pictures, and the whole path from
files to verdicts take turns, COUNT pictures each (those of the folder, repeated). Printed are wall and CPU milliseconds a picture
of the fastest round, and which share of the network's throughput the whole path reaches, by both; on a machine with other work,
the CPU says more. Decoded pictures are held in memory, 50 of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

from andon.core.images import as_uint8, read_image
from andon.runs.inputs import list_inputs
from andon.runs.kept import kept_model
from andon.runs.predict import predict_files

HELD = 50
"""Decoded pictures that the network alone is timed on, in turn."""


def timed(call: Callable[[], object], count: int) -> tuple[float, float]:
    """Wall and CPU milliseconds a picture."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return 1000 * (time.perf_counter() - wall) / count, 1000 * (time.process_time() - cpu) / count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the network; without: all")
    options = parser.parse_args()
    model = kept_model(options.run, threads=options.threads)
    if model is None:
        parser.error(f"{options.run} has no kept network: `andon predict` makes it")
    files = list(islice(cycle(list_inputs([options.pictures])), options.count))
    decoded = [as_uint8(read_image(record))[None] for record in files[:HELD]]

    def network() -> None:
        for pixels in islice(cycle(decoded), options.count):
            model.session(pixels)

    calls = {"network alone": network, "files to verdicts": lambda: predict_files(model, files)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(options.rounds):
        for name, call in calls.items():
            found[name].append(timed(call, options.count))
    fastest = {name: [min(values) for values in zip(*rounds, strict=True)] for name, rounds in found.items()}
    print(f"{model.runtime}, {options.count} pictures of {decoded[0].shape[2]} x {decoded[0].shape[1]} px")
    for name, (wall, cpu) in fastest.items():
        print(f"{name}: {wall:.1f} ms wall, {cpu:.1f} ms CPU a picture")
    shares = [
        100 * alone / whole
        for alone, whole in zip(fastest["network alone"], fastest["files to verdicts"], strict=True)
    ]
    print(f"share of the network's throughput: {shares[0]:.0f} % by wall, {shares[1]:.0f} % by CPU")


if __name__ == "__main__":
    main()
