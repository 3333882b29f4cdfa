"""`andon benchmark --ray` on a Ray cluster of three nodes on this machine, one of which is killed while it makes a run.

    python benchmarks/cluster.py [--folder /tmp/cluster] > docs/results/cluster.md

The same command is then run without Ray, and both tables are compared cell by cell. Prints Markdown. Measured times are left
out of the comparison: several nodes on one machine are in each other's way.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MEASURED = ("seconds", "latency", "memory")
"""Columns of times and memory contain one of these."""


def start_cluster() -> Any:
    """A head without cores and three nodes of one core each."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 100_000_000}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small}
    )
    nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(3)]
    return cluster, nodes


def benchmark(out: Path, detectors: str, categories: str, *more: str) -> list[str]:
    """The command."""
    options = ["--detectors", detectors, "--categories", categories, "--out", str(out), *more]
    return [sys.executable, "-m", "andon", "benchmark", "embedded:", *options]


def begun(out: Path) -> int:
    """Runs that were started."""
    return len(list(out.glob("runs/*/*/seed-*/recipe.yaml")))


def finished(out: Path) -> int:
    """Runs that are complete."""
    return len(list(out.glob("runs/*/*/seed-*/result.json")))


def table(out: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows of results.csv by detector, category and seed, without what is measured in seconds and bytes."""
    with (out / "results.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    keys = ("recipe", "category", "seed")
    return {
        tuple(row[name] for name in keys): {
            name: value for name, value in row.items() if not any(word in name.lower() for word in MEASURED)
        }
        for row in rows
    }


def largest_difference(ours: dict[str, str], theirs: dict[str, str]) -> tuple[float, list[str]]:
    """Of the numbers of two rows; and the names of the columns whose words differ."""
    largest, words = 0.0, []
    for name, value in ours.items():
        try:
            largest = max(largest, abs(float(value) - float(theirs[name])))
        except ValueError:
            if value != theirs[name]:
                words.append(name)
    return largest, words


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--detectors", default="padim,patchcore,east")
    parser.add_argument("--categories", default="fabric,brushed_metal,bolt,pcb,pin_tray")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    cluster, nodes = start_cluster()
    out = folder / "cluster"
    command = benchmark(
        out, options.detectors, options.categories, "--ray", str(cluster.address), "--cores", "1"
    )
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)
    while finished(out) < 2 or begun(out) == finished(out):
        time.sleep(0.5)
        if process.poll() is not None:
            raise SystemExit("the benchmark ended before a node could be killed")
    before = finished(out)
    cluster.remove_node(nodes[0], allow_graceful=False)
    code = process.wait()
    seconds = time.monotonic() - start
    cluster.shutdown()

    here = folder / "here"
    start = time.monotonic()
    subprocess.run(
        benchmark(here, options.detectors, options.categories), check=True, stdout=subprocess.DEVNULL
    )
    alone = time.monotonic() - start

    ours, theirs = table(out), table(here)
    differences = {key: largest_difference(row, theirs[key]) for key, row in ours.items()}
    largest = max(value for value, _ in differences.values())
    print("# A sweep on a cluster that loses a node\n")
    print(
        f"`python benchmarks/cluster.py`, {platform.platform()}, {os.cpu_count()} cores, starter weights.\n"
    )
    print(
        f"- `andon benchmark embedded: --detectors {options.detectors} --ray ADDRESS --cores 1`: three nodes of one core on this "
        f"machine; one killed after {before} finished runs, while it made another. Exit code {code}, {finished(out)} of "
        f"{len(theirs)} runs finished, {seconds:.0f} s."
    )
    print(f"- The same command without Ray: {finished(here)} runs, {alone:.0f} s.")
    print(
        f"- Rows: {len(ours)} and {len(theirs)}, the same runs: {set(ours) == set(theirs)}. Largest difference of any metric of "
        f"any run: {largest:.2g}; rows whose words differ: {sum(bool(words) for _, words in differences.values())}."
    )


if __name__ == "__main__":
    main()
