"""Time and memory of the pixel metrics, exact and from bins, and their differences from independent implementations.

    python benchmarks/pixel_metrics.py [--images 160] [--size 1024] [--check-images 8] [--check-size 512]

The large runs measure `PixelRanking` and `PixelHistogram`, each in a process of its own, over the memory held before
the first map, and compare their results. The small run compares both with scikit-learn and with a plain loop over
thresholds. All print rows of Markdown tables.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from andon.core.records import Defect
from andon.metrics import PixelHistogram, PixelRanking, PixelSummary

PixelScores = PixelRanking | PixelHistogram
THRESHOLD = 3.0
"""A pixel threshold that is known before the first map, as that of a fitted detector is."""
MODES: dict[str, Callable[[], PixelScores]] = {
    "exact": PixelRanking,
    "histogram": lambda: PixelHistogram(thresholds=[THRESHOLD]),
}
TYPES = ("crack", "cut", "hole", "print", "stain")
Picture = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], str]


def pictures(count: int, size: int, seed: int = 0) -> Iterator[Picture]:
    """Maps (size, size) of log-normal noise; one third good, the others with three discs of about 1 %."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[:size, :size]
    for index in range(count):
        anomaly_map = np.exp(rng.standard_normal((size, size), dtype=np.float32))
        mask = np.zeros((size, size), dtype=np.bool_)
        if index % 3:
            for row, column in rng.uniform(0.2, 0.8, (3, 2)) * size:
                mask |= (rows - row) ** 2 + (columns - column) ** 2 < (0.056 * size) ** 2
            anomaly_map[mask] *= 3.0
        yield anomaly_map, mask, TYPES[index % len(TYPES)]


def peak_bytes() -> int:
    """Peak resident set of this process so far (Linux reports KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = function()
    return time.perf_counter() - start, value


def add(ranking: PixelScores, picture: Picture) -> None:
    """One picture; its mask is one defect that counts as found from half of its pixels on."""
    anomaly_map, mask, tag = picture
    area = int(np.count_nonzero(mask))
    channels = [Defect(mask, tag, 255, max(1, area // 2))] if area else []
    ranking.add(anomaly_map, mask, label=int(area > 0), tags=[tag], channels=channels)


def large_run(mode: str, count: int, size: int, results: Any) -> None:
    """Seconds and peak memory of one mode on maps that are made one at a time; puts the results into a queue."""
    warm = MODES[mode]()  # pages in code and one picture's working memory
    for picture in pictures(2, size):
        add(warm, picture)
    del warm
    baseline = peak_bytes()
    ranking = MODES[mode]()
    adding = sum(timed(lambda p=picture: add(ranking, p))[0] for picture in pictures(count, size))
    pooled, summary = timed(ranking.summary)
    subsets, _ = timed(lambda: [ranking.summary(tag) for tag in ranking.tags])
    pimo_seconds, pimo = timed(ranking.aupimo)
    at, _ = timed(lambda: ranking.confusion(THRESHOLD))
    curve, _ = timed(ranking.curve)
    memory = (peak_bytes() - baseline) / 2**20
    pixels = summary.n_pos + summary.n_neg
    case = f"{count} x {size}^2 ({pixels / 1e6:.0f} Mpx, {100 * summary.n_pos / pixels:.1f} % positive)"
    row(case, f"{mode}: add all pictures", adding, memory)
    what = "AUROC + AP + F1-max + AU-PRO (2 limits) + AU-sPRO (5 limits)"
    row(case, f"{mode}: {what}", pooled, memory)
    row(case, f"{mode}: the same for {len(TYPES)} defect types", subsets, memory)
    row(case, f"{mode}: AUPIMO", pimo_seconds, memory)
    row(case, f"{mode}: counts at one threshold", at, memory)
    row(case, f"{mode}: ROC and PR curve, 1000 points", curve, memory)
    bounds = summary.bounds | ({} if pimo.bound is None else {"aupimo": pimo.bound})
    results.put((values(summary) | {"aupimo": pimo.mean}, bounds))


def values(summary: PixelSummary) -> dict[str, float]:
    """Scalar results under the names of `PixelSummary.bounds`."""
    areas = {f"aupro_{limit:.2f}": value for limit, value in summary.aupro.items()}
    areas |= {f"auspro_{limit:.2f}": value for limit, value in summary.auspro.items()}
    return {
        "auroc": summary.auroc,
        "average_precision": summary.average_precision,
        "f1_max": summary.f1_max.f1,
        **areas,
    }


def compare(exact: dict[str, float], binned: dict[str, float], bounds: dict[str, float]) -> None:
    """A second table: what bins change, and the bound that is printed for it."""
    print("\n| result | exact | histogram - exact | printed bound |\n|---|---|---|---|")
    for name, value in exact.items():
        print(
            f"| {name} | {value:.9f} | {binned[name] - value:+.1e} | {bounds.get(name, float('nan')):.1e} |",
            flush=True,
        )


def small_run(count: int, size: int) -> None:
    """Values and seconds beside scikit-learn and a plain AU-PRO loop."""
    data = list(pictures(count, size))
    case = f"{count} x {size}^2"

    def measured(mode: str) -> PixelSummary:
        ranking = MODES[mode]()
        for picture in data:
            add(ranking, picture)
        return ranking.summary()

    seconds, ours = timed(lambda: measured("exact"))
    row(case, "exact: all ten metrics", seconds)
    seconds, binned = timed(lambda: measured("histogram"))
    row(case, "histogram: all ten metrics; AUROC", seconds, difference=abs(binned.auroc - ours.auroc))
    scores = np.concatenate([anomaly_map.ravel() for anomaly_map, _, _ in data])
    labels = np.concatenate([mask.ravel() for _, mask, _ in data])
    seconds, theirs = timed(lambda: roc_auc_score(labels, scores))
    row(case, "scikit-learn roc_auc_score", seconds, difference=abs(theirs - ours.auroc))
    seconds, theirs = timed(lambda: average_precision_score(labels, scores))
    row(
        case, "scikit-learn average_precision_score", seconds, difference=abs(theirs - ours.average_precision)
    )
    for thresholds in (200, 2000):
        seconds, theirs = timed(lambda n=thresholds: aupro_loop(data, 0.30, n))
        name = f"AU-PRO 0.30, loop over {thresholds} uniform thresholds"
        row(case, name, seconds, difference=abs(theirs - ours.aupro[0.30]))


def aupro_loop(data: list[Picture], limit: float, thresholds: int) -> float:
    """AU-PRO as often written: PRO and FPR at uniform thresholds, then the trapezoid rule."""
    regions = []
    for anomaly_map, mask, _ in data:
        components, n = ndimage.label(mask, np.ones((3, 3)))
        regions += [np.sort(anomaly_map[components == k]) for k in range(1, n + 1)]
    negatives = np.sort(np.concatenate([anomaly_map[~mask] for anomaly_map, mask, _ in data]))
    highest = max(negatives[-1], max(region[-1] for region in regions))
    at = np.linspace(highest, negatives[0], thresholds, dtype=np.float32)
    fpr = 1 - np.searchsorted(negatives, at) / negatives.size
    pro = np.mean([1 - np.searchsorted(region, at) / region.size for region in regions], axis=0)
    inside = fpr <= limit
    end = np.interp(limit, fpr, pro)
    return float(np.trapezoid(np.append(pro[inside], end), np.append(fpr[inside], limit)) / limit)


def row(
    case: str, what: str, seconds: float, memory: float | None = None, difference: float | None = None
) -> None:
    cells = [f"{seconds:.2f}", "" if memory is None else f"{memory:.0f}"]
    print(
        "|",
        " | ".join([case, what, *cells, "" if difference is None else f"{difference:.1e}"]),
        "|",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--check-images", type=int, default=8)
    parser.add_argument("--check-size", type=int, default=512)
    args = parser.parse_args()
    header = (
        "| case | what | seconds | peak MiB over baseline | difference from exact |\n|---|---|---|---|---|"
    )
    print(header, flush=True)
    context = multiprocessing.get_context("spawn")
    found = {}
    for mode in MODES:
        results = context.SimpleQueue()
        process = context.Process(target=large_run, args=(mode, args.images, args.size, results))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"the {mode} run ended with {process.exitcode}")
        found[mode] = results.get()
    compare(found["exact"][0], *found["histogram"])
    print(f"\n{header}", flush=True)
    small_run(args.check_images, args.check_size)


if __name__ == "__main__":
    main()
