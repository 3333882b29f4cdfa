"""An archive of many small pictures, answered by `andon predict --out`, killed by SIGKILL at times and continued.

    python benchmarks/archive.py [--pictures 20000] [--side 64] [--kills 4] [--folder /tmp/archive]

Pictures are noisy cloth, every fiftieth with a stain; the detector is padim/starter, learned from 60 of them at 64 px. The same
command is started again after each kill, at moments spread evenly over the archive. Prints Markdown: what the table held after
each call, seconds, the resident memory as it grew, and whether every picture has exactly one line at the end.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

MIB = 2**20
SAMPLES = 5
"""Points of the memory's course that are printed for each call."""


def draw(folder: Path, count: int, side: int, *, stains: bool) -> None:
    """`count` pictures in sub-folders of a thousand; those that are there stay."""
    rows, columns = np.mgrid[0:side, 0:side]
    for k in range(count):
        path = folder / f"{k // 1000:03d}" / f"{k:06d}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng((side, k, stains))
        grey = 120 + 40 * np.sin(columns / 3 + rng.uniform(0, 6.28)) * np.cos(rows / 4)
        pixels = (grey + rng.normal(0, 5, (side, side)))[:, :, None] * np.array([1.0, 0.9, 0.8])
        if stains and k % 50 == 0:
            pixels[side // 4 : side // 2, side // 4 : side // 2] = (230, 20, 20)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def fit(run: Path, data: Path, side: int) -> None:
    """Learn from good pictures at their own size."""
    options = ["--detector", "padim", "--recipe", "starter", "--set", f"extractor.image_size={side}"]
    subprocess.run(
        [sys.executable, "-m", "andon", "fit", str(data), *options, "--out", str(run), "--overwrite"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def lines(table: Path) -> int:
    """Whole lines of the table without its header."""
    if not table.exists():
        return 0
    with table.open("rb") as stream:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) - 1)


def resident(process: int) -> float:
    """Resident memory of a process in MiB (Linux)."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):  # ended
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def call(command: list[str], table: Path, stop_at: int | None) -> tuple[float, list[tuple[int, float]], bool]:
    """Run the command, killed once the table has `stop_at` lines; seconds, (lines, MiB) over time, whether it was killed."""
    began, course = time.perf_counter(), []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(0.2)
        done = lines(table)
        course.append((done, resident(process.pid)))
        if stop_at is not None and done >= stop_at:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return time.perf_counter() - began, course, True
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return time.perf_counter() - began, [point for point in course if point[1]], False


def course_of(points: list[tuple[int, float]], before: int) -> str:
    """`SAMPLES` points of the memory at even numbers of lines, from the first new line on."""
    answering = [point for point in points if point[0] > before] or points
    chosen = [answering[round(k * (len(answering) - 1) / (SAMPLES - 1))] for k in range(SAMPLES)]
    return ", ".join(f"{done}: {mib:.0f}" for done, mib in chosen)


def measure(pictures: Path, run: Path, table: Path, count: int, kills: int) -> None:
    """Print the table of calls and the verdict."""
    table.unlink(missing_ok=True)
    command = [sys.executable, "-m", "andon", "predict", str(run), str(pictures), "--out", str(table)]
    print(
        "| call | ended by | lines before | lines after | bytes of a torn line | seconds | peak MiB | MiB at line |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for number in range(1, kills + 2):
        before = lines(table)
        stop_at = round(count * number / (kills + 1)) if number <= kills else None
        seconds, course, killed = call(command, table, stop_at)
        tail = len(table.read_bytes().rpartition(b"\n")[2])
        peak = max(mib for _, mib in course)
        print(
            f"| {number} | {'SIGKILL' if killed else 'itself'} | {before} | {lines(table)} | {tail} | {seconds:.1f} | "
            f"{peak:.0f} | {course_of(course, before)} |",
            flush=True,
        )
    with table.open(newline="") as stream:
        found = list(csv.DictReader(stream))
    expected = {str(path) for path in pictures.rglob("*.png")}
    paths = Counter(row["path"] for row in found)
    print(
        f"\n{len(found)} lines, {len(expected)} pictures: {len(expected - paths.keys())} without a line, "
        f"{sum(n > 1 for n in paths.values())} with more than one, {len(paths.keys() - expected)} lines of no picture."
    )
    stained = [row for row in found if int(Path(row["path"]).stem) % 50 == 0]
    print(f"NG: {sum(row['verdict'] == 'NG' for row in found)}, of {len(stained)} stained ones "
          f"{sum(row['verdict'] == 'NG' for row in stained)}. The table has {table.stat().st_size / MIB:.1f} MiB.")  # fmt: skip
    untouched = table.read_bytes()
    seconds, _, _ = call(command, table, None)
    same = "the same bytes" if table.read_bytes() == untouched else "OTHER BYTES"
    print(f"Called once more when complete: {seconds:.1f} s, {same}.")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="Keep pictures, run and table there.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        draw(folder / "good", 60, options.side, stains=False)
        began = time.perf_counter()
        draw(folder / "pictures", options.pictures, options.side, stains=True)
        print(
            f"{options.pictures} pictures of {options.side} px ({time.perf_counter() - began:.0f} s to draw)\n"
        )
        fit(folder / "run", folder / "good", options.side)
        measure(folder / "pictures", folder / "run", folder / "table.csv", options.pictures, options.kills)


if __name__ == "__main__":
    main()
