"""Large pictures in tiles: seconds and memory for 8000 x 2000 pixels, and what a shift of the picture changes.

    python benchmarks/large_pictures.py [--threads 1] [--size 8000x2000] [--detectors east,patchcore]

Pictures are a procedural rolled strip (streaks along the width, grain), some with one scratch two pixels wide. Learning,
answering and shifting run in processes of their own, so that each has its own peak of memory. Seconds are the processor's, so
that other work on the machine does not count. Prints Markdown tables.

Shifts by a multiple of the network's stride change nothing but where the seams lie. Other shifts also change which pixels the
network's strides fall on, with tiles or without: the last column is the scratch in the middle of a single tile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter1d

TILE = 256
STRIDED, ANY = (16, 32, 48, 64), (1, 5, 13, 23, 37)
"""Shifts in pixels: multiples of the network's stride, and others."""
OVERLAPS = (0.5, 0.25)
EDGE = 128
"""Pixels at the left and right of a shifted picture that are not compared: there the picture itself changes."""
SETTINGS: dict[str, dict[str, Any]] = {
    "east": {},
    "east-mirror": {"extractor.edges": "mirror"},
    "patchcore": {},
    "patchcore-mirror": {"extractor.edges": "mirror"},
}
"""Beside the recipe of `RECIPES`."""
RECIPES = {"east": "east/lite0-256", "patchcore": "patchcore/lite0"}
SCRATCH = 0.06
"""How much brighter a scratch is."""
Colours = npt.NDArray[np.uint8]


def detector_name(name: str) -> str:
    return name.split("-")[0]


def strip(seed: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """(H, W) brightness of a rolled strip."""
    rng = np.random.default_rng(seed)
    grey = np.full((height, width), 0.5, np.float32)
    for along, amount in ((30, 0.05), (5, 0.025)):
        noise = rng.standard_normal((height, width), dtype=np.float32)
        noise = gaussian_filter1d(
            gaussian_filter1d(noise, along, axis=1, mode="wrap"), 0.7, axis=0, mode="wrap"
        )
        grey += amount * noise / noise.std()
    return grey + 0.012 * rng.standard_normal((height, width), dtype=np.float32)


def scratched(grey: npt.NDArray[np.float32], top: int, left: int, amount: float) -> npt.NDArray[np.float32]:
    """A copy with a scratch of 60 x 2 pixels."""
    out = grey.copy()
    for k in range(60):
        row, column = top + int(0.9 * k), left + int(0.5 * k)
        out[row : row + 2, column : column + 2] += amount
    return out


def colours(grey: npt.NDArray[np.float32]) -> Colours:
    tints = (1.0, 0.99, 0.97)
    return np.stack([np.round(np.clip(grey * tint, 0, 1) * 255).astype(np.uint8) for tint in tints], axis=2)


def write(folder: Path, name: str, grey: npt.NDArray[np.float32]) -> Path:
    path = folder / f"{name}.png"
    Image.fromarray(colours(grey)).save(path, compress_level=1)
    return path


def peak() -> float:
    """Largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def learn(folder: Path, name: str, threads: int, learned: int) -> dict[str, Any]:
    import torch

    from andon.core.records import Record
    from andon.detectors._recipes import create, load_recipe, resolve
    from andon.nn.training import Trainer

    torch.set_num_threads(threads)
    good = [Record(write(folder, f"train{k}", strip(k, 1000, 2000)), f"train{k}", label=0) for k in range(6)]
    held = [
        Record(write(folder, f"held{k}", strip(100 + k, 384, 640)), f"held{k}", label=0) for k in range(8)
    ]
    settings = {"tile.size": TILE, "tile.learn": learned, **SETTINGS[name]}
    detector = create(resolve(load_recipe(RECIPES[detector_name(name)]), settings))
    before, start = peak(), time.process_time()
    detector.fit(good, held, trainer=Trainer(seed=0, device="cpu"))
    seconds = time.process_time() - start
    detector.save(folder / name)
    return {"seconds": seconds, "before": before, "peak": peak(), "tiles": learned}


def answer(folder: Path, name: str, threads: int, size: tuple[int, int], overlap: float) -> dict[str, Any]:
    """Predict one picture of `size` = (W, H) that has one scratch."""
    import torch

    from andon.core.image_files import decode
    from andon.core.tiling import lines
    from andon.detectors._saving import load_detector

    torch.set_num_threads(threads)
    path = folder / "large.png"
    detector = load_detector(folder / name)
    detector.config = detector.config.updated({"tile.overlap": overlap})
    tiling = detector.tiling
    assert tiling is not None
    detector.predict(colours(strip(1, TILE, TILE)))
    before, start = peak(), time.process_time()
    decode(path)
    decoding, decoded = time.process_time() - start, peak()
    start = time.process_time()
    found = detector.predict(path)
    rows, columns = lines((size[1], size[0]), tiling)
    return {
        "seconds": time.process_time() - start,
        "decoding": decoding,
        "before": before,
        "decoded": decoded,
        "peak": peak(),
        "tiles": len(rows.begins) * len(columns.begins),
        "score": found.score,
        "marked": int(found.mask.sum()),
        "hit": bool(found.mask[size[1] // 2 : size[1] // 2 + 60, size[0] // 2 : size[0] // 2 + 40].any()),
    }


def shift(folder: Path, name: str, threads: int, overlap: float) -> list[dict[str, Any]]:
    """Score and map of strips cut from a wider one, good and scratched, where all of them show the same."""
    import torch

    from andon.core.tiling import CELLS
    from andon.detectors._saving import load_detector

    torch.set_num_threads(threads)
    detector = load_detector(folder / name)
    detector.config = detector.config.updated({"tile.overlap": overlap})
    tiling, limits = detector.tiling, detector.fitted()
    assert tiling is not None
    wide, pitch = strip(777, TILE, 1024), TILE // CELLS
    width = wide.shape[1] - STRIDED[-1]

    def looked(picture: Colours, by: int) -> npt.NDArray[np.float32]:
        """The map of columns `by` to `by + width`, where pictures shifted by anything show the same."""
        blended = next(detector.scan([np.ascontiguousarray(picture[:, by : by + width])])).cells
        skipped = EDGE + STRIDED[-1]
        first = (skipped - by) // pitch
        return np.asarray(blended[:, first : first + (width - 2 * skipped) // pitch])

    rows = []
    for kind, left in (("good", None), ("scratch", 440), ("scratch", 300)):
        grey = wide if left is None else scratched(wide, 90, left, SCRATCH)
        picture = colours(grey)
        parts = {by: looked(picture, by) for by in (0, *STRIDED, *ANY)}
        scores = {by: float(limits.score_display(tiling.score(part))) for by, part in parts.items()}
        first, scale = scores[0], max(1.0, abs(scores[0]))
        alone = None
        if left is not None:
            around = [detector.predict(picture[:, left - 110 + by :][:, :TILE]).score for by in (0, *ANY)]
            alone = max(abs(x - around[0]) for x in around) / max(1.0, abs(around[0]))
        maps = [np.abs(parts[by] - parts[0]) / limits.pixel_display.span for by in STRIDED]
        largest = max(1.0, float(limits.pixel_display(parts[0].max())))
        rows.append(
            {
                "kind": kind,
                "score": first,
                "seams": max(abs(scores[by] - first) for by in STRIDED) / scale,
                "map": max(float(m.max()) for m in maps) / largest,
                "any": max(abs(scores[by] - first) for by in ANY) / scale,
                "alone": alone,
            }
        )
    return rows


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `work` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def say(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_answers(
    folder: Path, name: str, threads: int, size: tuple[int, int], found: dict[str, Any]
) -> None:
    say("detector", "work", "tiles", "CPU s", "decoding s", "MB before", "MB decoded", "MB peak", "found")
    say(*["---"] * 9)
    memory = [f"{found[key]:.0f}" for key in ("before", "peak")]
    say(name, "fit", found["tiles"], f"{found['seconds']:.0f}", "", memory[0], "", memory[1], "")
    for overlap in OVERLAPS:
        row = alone(answer, folder, name, threads, size, overlap)
        say(
            name,
            f"predict, overlap {overlap:g}",
            row["tiles"],
            f"{row['seconds']:.1f}",
            f"{row['decoding']:.2f}",
            *(f"{row[key]:.0f}" for key in ("before", "decoded", "peak")),
            f"score {row['score']:.2f}, {row['marked']} pixels marked, {'on' if row['hit'] else 'not on'} the scratch",
        )
    print()


def print_shifts(folder: Path, name: str, threads: int) -> None:
    say("detector", "overlap", "picture", "score", "seams", "map, largest", "any shift", "one tile")
    say(*["---"] * 8)
    for overlap in OVERLAPS:
        for row in alone(shift, folder, name, threads, overlap):
            values = [f"{100 * row[key]:.2f} %" for key in ("seams", "map", "any")]
            last = "" if row["alone"] is None else f"{100 * row['alone']:.2f} %"
            say(name, overlap, row["kind"], f"{row['score']:.2f}", *values, last)
    print()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--size", default="8000x2000", help="Width and height of the large picture.")
    options.add_argument("--detectors", default="east,patchcore", help=f"Some of {', '.join(SETTINGS)}.")
    options.add_argument("--learn", type=int, default=80, help="Tiles that are learned from.")
    options.add_argument("--shifts", action="store_true", help="Leave the large picture out.")
    chosen = options.parse_args()
    width, height = (int(side) for side in chosen.size.split("x"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    print(
        f"    {' '.join(['python', *sys.argv])}\n\nCommit {commit.stdout.strip()}, {time.strftime('%F')}.\n"
    )
    with tempfile.TemporaryDirectory(prefix="andon-large-") as scratch:
        folder = Path(scratch)
        for name in chosen.detectors.split(","):
            found = alone(learn, folder, name, chosen.threads, chosen.learn)
            if not chosen.shifts:
                grey = scratched(strip(5000, height, width), height // 2, width // 2, SCRATCH)
                write(folder, "large", grey)
                print_answers(folder, name, chosen.threads, (width, height), found)
            print_shifts(folder, name, chosen.threads)


if __name__ == "__main__":
    main()
