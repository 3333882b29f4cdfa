"""What both sides of `peers.py` share: arguments, clock, memory and the file of a row. Standard library and NumPy only."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 5
SIDE = 256
"""Pixels of a side of the network's picture, for every detector of the comparison."""


def arguments(description: str | None) -> argparse.Namespace:
    """The command line of both sides."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, help="made by peers.py: train/good, validation/good, test/*")
    parser.add_argument("out", type=Path, help="the row: OUT.json and OUT.npz")
    parser.add_argument("--settings", type=json.loads, required=True, help="JSON written by peers.py")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    return parser.parse_args()


def pictures(folder: Path, part: str) -> list[Path]:
    """Pictures of one part (`train/good`, `test/defective`, ...), in order."""
    return sorted((folder / part).glob("*.png"))


def seconds(work: Callable[[], object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def p50(work: Callable[[Any], object], inputs: Sequence[Any], rounds: int) -> float:
    """Median milliseconds of `work` on the inputs in turn, warm."""
    times = [1000 * seconds(lambda k=k: work(inputs[k % len(inputs)])) for k in range(WARM_UP + rounds)]
    return statistics.median(times[WARM_UP:])


def peak_mib() -> float:
    """Largest resident memory of this process so far.

    From Linux' VmHWM: `ru_maxrss` of a started process begins at the memory of the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def versions(*names: str) -> dict[str, str]:
    """Installed versions."""
    return {name: version(name) for name in names}


def write(
    out: Path, facts: Mapping[str, Any], answers: Iterable[tuple[Path, float, np.ndarray]], **more: Any
) -> None:
    """Write OUT.npz (raw scores and maps by picture), then OUT.json, whose presence means that the row is complete."""
    names, scores, maps = zip(*answers, strict=True)
    ids = [f"{path.parent.name}/{path.name}" for path in names]
    each = {f"map_{k}": anomaly_map for k, anomaly_map in enumerate(maps)}
    np.savez(out.with_suffix(".npz"), ids=ids, scores=np.array(scores), **each, **more)
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
