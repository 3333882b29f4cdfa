"""Time and memory of the memory banks: each shared block beside its textbook form, and the papers' full settings.

    python benchmarks/memory_banks.py [--threads 2] [--only coreset,neighbours,covariance,gallery]
    python benchmarks/memory_banks.py --only paper-coreset,paper-covariance     (the blocks at the papers' sizes)
    python benchmarks/memory_banks.py --papers padim,patchcore-1,patchcore-10,spade [--pictures 209]
    python benchmarks/memory_banks.py --selection DATA --pictures 288 --threads 1     (recipe patchcore/lite0 on real pictures)

Every row is measured in a process of its own: seconds, and peak memory over that held before (inputs included there). The
papers' settings run WideResNet-50-2 with untrained weights, so they tell what it costs and nothing about accuracy. Prints
Markdown tables.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from andon.detectors.padim import PositionGaussians
from andon.layers.coreset import greedy_centres
from andon.layers.neighbours import merged, nearest

MIB = 2**20
Work = Callable[[], Any]


def random(*shape: int, seed: int = 0) -> Tensor:
    """Non-negative features, as after a ReLU."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu_()


# The blocks, ours and textbook; each builds its inputs and returns the work to be measured ----------------------------


def coreset_ours(n: int, count: int) -> Work:
    x = random(n, 128)
    return lambda: greedy_centres(x, count)


def coreset_textbook(n: int, count: int) -> Work:
    """All distances at once, then one row per selection."""
    x = random(n, 128)

    def work() -> Tensor:
        distances = torch.cdist(x, x)
        closest, chosen = distances[0], [0]
        while len(chosen) < count:
            chosen.append(int(closest.argmax()))
            closest = torch.minimum(closest, distances[chosen[-1]])
        return torch.tensor(chosen)

    return work


def coreset_differences(n: int, count: int) -> Work:
    """The differences to the vector selected last, written out."""
    x = random(n, 128)

    def work() -> Tensor:
        closest, chosen = (x - x[0]).square().sum(1).sqrt(), [0]
        while len(chosen) < count:
            chosen.append(int(closest.argmax()))
            closest = torch.minimum(closest, (x - x[chosen[-1]]).square().sum(1).sqrt())
        return torch.tensor(chosen)

    return work


def neighbours_ours(queries: int, bank: int, size: int) -> Work:
    q, b = random(queries, size), random(bank, size, seed=1)
    return lambda: nearest(q, b).distance


def neighbours_textbook(queries: int, bank: int, size: int, mode: str = "use_mm_for_euclid_dist") -> Work:
    q, b = random(queries, size), random(bank, size, seed=1)
    return lambda: torch.cdist(q, b, compute_mode=mode).min(1).values[:, None]


def covariance_ours(pictures: int, positions: int, size: int) -> Work:
    x = random(pictures, positions, size)

    def work() -> Tensor:
        gaussians = PositionGaussians(positions, size, torch.device("cpu"))
        for batch in torch.split(x, 8):
            gaussians.add(batch)
        return gaussians.whitening(0.01)

    return work


def covariance_textbook(pictures: int, positions: int, size: int) -> Work:
    """NumPy's covariance and inverse, position by position, of all features at once."""
    x = random(pictures, positions, size)

    def work() -> np.ndarray:
        out = np.empty((positions, size, size), np.float32)
        for p in range(positions):
            out[p] = np.linalg.inv(np.cov(x[:, p].numpy(), rowvar=False) + 0.01 * np.eye(size))
        return out

    return work


def gallery_ours(similar: int, positions: int, size: int) -> Work:
    q, gallery = random(positions, size), random(similar, positions, size, seed=1)
    return lambda: functools.reduce(lambda a, b: merged(a, b, 1), (nearest(q, g) for g in gallery)).distance


def gallery_textbook(similar: int, positions: int, size: int) -> Work:
    q, gallery = random(positions, size), random(similar, positions, size, seed=1)
    return lambda: torch.cdist(q, gallery.flatten(0, 1)).min(1).values[:, None]


BLOCKS: dict[str, tuple[str, tuple[int, ...], dict[str, Callable[..., Work]]]] = {
    "coreset": (
        "1,000 of 20,000 vectors of 128",
        (20_000, 1_000),
        {"ours": coreset_ours, "all distances": coreset_textbook, "differences": coreset_differences},
    ),
    "paper-coreset": (
        "PatchCore 1 %: 1,638 of 163,856 vectors of 128",
        (163_856, 1_638),
        {"ours": coreset_ours, "differences": coreset_differences},
    ),
    "paper-covariance": (
        "PaDiM: 209 pictures, 3,136 positions, 550 channels",
        (209, 3136, 550),
        {"ours": covariance_ours, "np.cov and inv": covariance_textbook},
    ),
    "neighbours": (
        "784 queries, bank of 16,385, 1,024 numbers",
        (784, 16_385, 1024),
        {
            "ours": neighbours_ours,
            "cdist, fast form": neighbours_textbook,
            "cdist, exact form": functools.partial(neighbours_textbook, mode="donot_use_mm_for_euclid_dist"),
        },
    ),
    "covariance": (
        "200 pictures, 784 positions, 100 channels",
        (200, 784, 100),
        {"ours": covariance_ours, "np.cov and inv": covariance_textbook},
    ),
    "gallery": (
        "5 pictures of 3,136 positions, 1,792 numbers",
        (5, 3136, 1792),
        {"ours": gallery_ours, "cdist at once": gallery_textbook},
    ),
}


# The papers' settings -------------------------------------------------------------------------------------------------


def paper(name: str, pictures: int, folder: str) -> Work:
    """Learning and asking one picture, at the settings of a paper recipe with untrained weights."""
    import andon.detectors._base  # noqa: F401 (the memory of imports is not counted)
    from andon.core.records import Record
    from andon.detectors._recipes import load_recipe
    from andon.detectors._registry import detector_class
    from andon.nn.training import Trainer

    recipes = {
        "padim": "padim/paper-wrn50",
        "padim-r18": "padim/paper-r18",
        "spade": "spade/repository",
        "spade-paper": "spade/paper",
        **{f"patchcore-{share}": f"patchcore/paper-{share}" for share in (1, 10, 25)},
    }
    recipe = load_recipe(recipes[name])
    cls = detector_class(recipe.detector)
    config = cls.Config.parse(recipe.config).updated({"extractor.weights": "random"})
    records = [
        Record(image=Path(folder) / f"{k % 32}.png", id=str(k))
        for k in range(pictures)  # 32 files
    ]

    def work() -> dict[str, float]:
        trainer = Trainer(seed=0, device="cpu")
        detector = cls(config)
        detector.learn(records, [], trainer)
        image = torch.rand(1, 3, *detector.input_size)
        times = []
        with torch.inference_mode():
            for _ in range(3):
                start = time.perf_counter()
                detector.analyse(image)
                times.append(time.perf_counter() - start)
        return {stage: s.seconds for stage, s in trainer.stages.items()} | {"one picture": min(times)}

    return work


# Measuring ------------------------------------------------------------------------------------------------------------


def peak_bytes() -> int:
    """Peak resident set of this process so far (Linux reports KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measure(pipe: Any, build: Callable[..., Work], arguments: tuple[Any, ...], threads: int) -> None:
    torch.set_num_threads(threads)
    torch.randn(64, 64) @ torch.randn(64, 64)  # the libraries' own memory
    work = build(*arguments)
    before, start = peak_bytes(), time.perf_counter()
    value = work()
    pipe.send(
        (
            time.perf_counter() - start,
            (peak_bytes() - before) / MIB,
            value if isinstance(value, dict) else None,
        )
    )


def measured(
    build: Callable[..., Work], arguments: tuple[Any, ...], threads: int
) -> tuple[float, float, Any]:
    """Seconds, MiB and what the work says, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, build, arguments, threads))
    process.start()
    theirs.close()
    result: tuple[float, float, Any] = ours.recv()
    process.join()
    return result


def blocks(names: list[str], threads: int) -> None:
    print("| block | size | form | s | peak MiB | time of ours / this | memory of ours / this |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        size, arguments, forms = BLOCKS[name]
        own = (0.0, 0.0)
        for form, build in forms.items():
            seconds, memory, _ = measured(build, arguments, threads)
            own = (seconds, memory) if form == "ours" else own
            ratios = "| |" if form == "ours" else f"{own[0] / seconds:.2f} | {own[1] / max(memory, 1):.2f} |"
            print(f"| {name} | {size} | {form} | {seconds:.2f} | {memory:.0f} | {ratios}", flush=True)


def papers(names: list[str], pictures: int, threads: int) -> None:
    print(
        f"\nLearning from {pictures} pictures, WideResNet-50-2 (padim-r18: ResNet-18) with untrained weights"
    )
    print("| setting | learning s | peak MiB | stages s |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for k in range(32):
            noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((256, 256)).save(Path(folder) / f"{k}.png")
        for name in names:
            _, memory, stages = measured(paper, (name, pictures, folder), threads)
            parts = ", ".join(f"{stage} {s:.2f}" for stage, s in stages.items())
            learning = sum(s for stage, s in stages.items() if stage != "one picture")
            print(f"| {name} | {learning:.1f} | {memory:.0f} | {parts} |", flush=True)


def selection(data: str, pictures: int, threads: int) -> None:
    """Seconds of the features and of the selection of 1 % and 10 % of the patches of real pictures, recipe patchcore/lite0."""
    import andon
    from andon.nn.training import Trainer

    torch.set_num_threads(threads)
    found = andon.open_dataset(data)
    records = [*found.train, *found.validation][:pictures]
    print("| share | vectors | kept | features s | selection s |")
    print("|---|---|---|---|---|")
    for share in (0.01, 0.1):
        detector, trainer = andon.create("patchcore", "lite0", coreset=share), Trainer(seed=0, device="cpu")
        start = time.perf_counter()
        patches = detector._collect(records, trainer)
        middle = time.perf_counter()
        kept = len(detector._select(patches, trainer))
        seconds = f"{middle - start:.1f} | {time.perf_counter() - middle:.1f}"
        print(f"| {share:.0%} | {len(patches)} | {kept} | {seconds} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    small = [name for name in BLOCKS if not name.startswith("paper-")]
    parser.add_argument("--only", default=",".join(small), help=f"blocks to measure, of {', '.join(BLOCKS)}")
    parser.add_argument("--papers", default="", help="settings to measure instead")
    parser.add_argument("--selection", default="", help="data set whose coreset is selected instead")
    parser.add_argument("--pictures", type=int, default=209, help="209 as in MVTec AD's bottle")
    given = parser.parse_args()
    if given.selection:
        selection(given.selection, given.pictures, given.threads)
    elif given.papers:
        papers(given.papers.split(","), given.pictures, given.threads)
    else:
        blocks(given.only.split(","), given.threads)
