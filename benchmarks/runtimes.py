"""One run folder per line, every runtime: largest difference of a score, verdicts changed, latency, file size.

python benchmarks/runtimes.py RUN... [--pictures 200] [--more embedded:fabric,seed=1] [--threads 2] > docs/results/runtimes.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from andon.core.errors import AndonError
from andon.core.images import as_uint8, read_image
from andon.datasets import open_dataset
from andon.detectors._base import Detector
from andon.detectors._saving import load_detector
from andon.exporting.int8 import export_int8
from andon.exporting.latency import Effort, describe_machine, measure
from andon.exporting.network import export
from andon.runs.loading import load
from andon.runs.source import run_data
from andon.runtime import Model, open_model

EFFORT = Effort(warmup_calls=5, warmup_seconds=0.5, calls=60, seconds=2.0, most_seconds=20.0)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--pictures", type=int, default=200)
    options.add_argument(
        "--more", help="Data whose test pictures follow those of the run, where it has too few."
    )
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    print("# One detector, every runtime\n")
    print(f"    {' '.join(['python', *sys.argv])}\n")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(
        f"Commit {commit}; {describe_machine()}; batch 1, decoded picture in memory to score, verdict and map."
    )
    print(
        "Differences are in display units (0 = typical good, 1 = threshold), against torch, beyond 1 relative.\n"
    )
    print(
        "| run | runtime | largest difference | verdicts changed | image AUROC | p50 ms | p99 ms | MB |\n"
        + "|---" * 8
        + "|",
        flush=True,
    )
    for run in chosen.runs:
        for line in compare(run, chosen.pictures, chosen.more, chosen.threads):
            print("| " + " | ".join(line) + " |", flush=True)


def compare(run: Path, count: int, more: str | None, threads: int):
    """Lines of the table for one run."""
    import torch

    from andon.metrics import auroc

    torch.set_num_threads(threads)
    detector, dataset = load_detector(run), run_data(run)
    further = open_dataset(more).test if more else []
    records = [*dataset.test, *dataset.validation, *dataset.train, *further][:count]
    pictures = [as_uint8(read_image(record)) for record in records]
    labels = [record.label for record in dataset.test]
    expected = [detector.predict(picture) for picture in pictures]

    def line(name: str, judge: Detector | Model, size: float) -> list[str]:
        found = [judge.predict(picture) for picture in pictures]
        difference = max(
            abs(a.score - b.score) / max(1.0, abs(b.score)) for a, b in zip(found, expected, strict=True)
        )
        changed = sum(a.is_anomalous != b.is_anomalous for a, b in zip(found, expected, strict=True))
        ranked = auroc(np.array([p.raw_score for p in found[: len(labels)]], np.float32), labels)
        took = measure(lambda k: judge.predict(pictures[k % 8]), scope="predict", effort=EFFORT)
        return [
            detector.name,
            name,
            f"{difference:.1e}",
            f"{changed} of {len(found)}",
            f"{ranked:.3f}",
            f"{took.p50:.1f}",
            f"{took.p99:.1f}",
            f"{size / 1e6:.1f}",
        ]

    state = run / "detector" / "state.safetensors"
    yield line("torch", load(run), state.stat().st_size)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        export(detector, path)
        for runtime in ("onnx", "openvino"):
            yield line(runtime, open_model(path, runtime, threads=threads), path.stat().st_size)
        small = Path(scratch) / "int8.onnx"
        try:
            export_int8(detector, small, dataset, limit=0.01)
        except AndonError as error:
            reason = str(error).split(":")[1].split(", and")[0].strip()
            yield [detector.name, "int8", "refused", reason, "", "", "", ""]
            return
        for runtime in ("onnx", "openvino"):
            yield line(f"int8 {runtime}", open_model(small, runtime, threads=threads), small.stat().st_size)


if __name__ == "__main__":
    main()
