"""How hard the embedded data sets are for methods that learn nothing, or almost nothing.

    python benchmarks/embedded_difficulty.py [--root data] [--categories fabric,pcb]

Without `--root` the small profile is generated into a temporary folder. Prints a Markdown table and the acceptance rules
that are not met; exits with 1 when there are any.

Naive scores must not solve the task: B0 |x - mean|, B1 |x - mean| / (std + 0.02), B2 difference from the nearest training
picture, B3 as B1 after dividing each picture by its mean, B4 largest |z| of seven statistics of the whole picture.
Proxies without learned weights should solve what local methods can: M1 nearest neighbour of hand-made patch features in a
bank of all places, M2 the same within 16 px of the place (for parts that lie where they always lie).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from andon.core.image_files import decode, read_mask
from andon.core.records import Record
from andon.datasets import Dataset, open_dataset
from andon.datasets.embedded import CATEGORIES, generate
from andon.datasets.embedded.generation import loco_defects
from andon.metrics import auroc

Floats = npt.NDArray[np.float32]

TEXTURES = ("fabric", "brushed_metal")
ALIGNED = ("pcb",)
"""Parts that lie the same way in every picture: the proxy is M2."""
GRID = 4
"""Pixels between two patches."""
MARGIN = 10
"""Pixels from the border to the centre of the first patch, whose filters would reach beyond it otherwise."""
REACH = 16
"""Pixels around a place within which M2 looks for neighbours."""
BANK = 20_000
"""Patches in the bank of M1."""
PERCENTILES = (1, 5, 50, 95, 99)


@dataclass(frozen=True, slots=True)
class Difficulty:
    """AUROCs of one category; NaN where something is not defined."""

    category: str
    naive: dict[str, float]
    """B0 to B4, image level."""
    proxy: str
    """M1 or M2."""
    image: float
    """Image AUROC of the proxy."""
    pixel: float
    by_type: dict[str, float]
    """Image AUROC of the proxy, one defect type or group against the good pictures."""
    seconds: float = field(default=0.0, compare=False)

    @property
    def best_naive(self) -> float:
        """Best of B0 to B3."""
        return max(self.naive[name] for name in ("B0", "B1", "B2", "B3"))


# Pictures and naive scores ------------------------------------------------------------------------------------------


def pictures(records: Sequence[Record]) -> Floats:
    """(N, C, H, W) in [0, 1]; grey pictures have one channel."""
    decoded = [decode(record.image) for record in records]
    stack = np.stack([one.pixels for one in decoded]).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stack[:, :1] if decoded[0].mode == "L" else stack)


def naive_scores(train: Floats, test: Floats) -> dict[str, Floats]:
    """Image scores (N,) of B0 to B4."""
    mean = train.mean(axis=0)
    relative_train, relative_test = (x / x.mean(axis=(1, 2, 3), keepdims=True) for x in (train, test))
    flat = train.reshape(len(train), -1)
    nearest = [np.argmin(((flat - picture.ravel()) ** 2).sum(axis=1)) for picture in test]
    relative_mean, relative_std = relative_train.mean(axis=0), relative_train.std(axis=0)
    seven_train, seven_test = global_statistics(train), global_statistics(test)
    z = np.abs(seven_test - seven_train.mean(axis=0)) / seven_train.std(axis=0)
    return {
        "B0": peaks(np.abs(test - mean)),
        "B1": peaks(np.abs(test - mean) / (train.std(axis=0) + 0.02)),
        "B2": peaks(np.abs(test - train[nearest])),
        "B3": peaks(np.abs(relative_test - relative_mean) / (relative_std + 0.03)),
        "B4": z.max(axis=1),
    }


def peaks(differences: Floats) -> Floats:
    """Maximum (N,) of maps (N, C, H, W), averaged over channels and smoothed with sigma 1.5."""
    maps = ndimage.gaussian_filter(differences.mean(axis=1), (0, 1.5, 1.5))
    return np.asarray(maps.max(axis=(1, 2)), np.float32)


def global_statistics(images: Floats) -> Floats:
    """(N, 7): mean, standard deviation, five percentiles."""
    flat = images.reshape(len(images), -1)
    columns = [flat.mean(axis=1), flat.std(axis=1), *np.percentile(flat, PERCENTILES, axis=1)]
    return np.stack(columns, axis=1).astype(np.float32)


# Proxies ------------------------------------------------------------------------------------------------------------


def patch_features(image: Floats) -> Floats:
    """(h, w, D) hand-made features of a picture (C, H, W) on a grid of 4 px inside a margin."""
    image = image / image.mean()
    maps: list[Floats] = []
    for sigma in (1.0, 2.0, 4.0):
        smooth = ndimage.gaussian_filter(image, (0, sigma, sigma))
        grey = smooth.mean(axis=0)
        gx, gy = ndimage.sobel(grey, axis=1) / 8, ndimage.sobel(grey, axis=0) / 8
        laplacian, mixed, norm = (
            np.abs(ndimage.laplace(grey)),
            np.abs(ndimage.sobel(gx, axis=0)),
            np.hypot(gx, gy),
        )
        means = (np.abs(gx), np.abs(gy), laplacian, mixed, norm)
        maps += [*smooth, *(ndimage.uniform_filter(one, 7) for one in means)]
        maps += [ndimage.maximum_filter(one, 7) for one in (laplacian, norm)]
    return np.stack(maps, axis=-1)[MARGIN:-MARGIN:GRID, MARGIN:-MARGIN:GRID].astype(np.float32)


def global_neighbours(train: Floats, test: Floats, rng: np.random.Generator) -> Floats:
    """M1: distance (N, h, w) of every patch to the nearest in a random bank of training patches.

    `train` is standardised. A patch is drawn in proportion to its squared distance from the mean patch, since
    a plain draw from pictures of a small part would be nearly all background.
    """
    patches = train.reshape(-1, train.shape[-1])
    weights = (patches.astype(np.float64) ** 2).sum(axis=1)
    chosen = rng.choice(len(patches), min(BANK, len(patches)), replace=False, p=weights / weights.sum())
    bank = patches[chosen]
    return np.stack(
        [nearest_distance(one.reshape(-1, one.shape[-1]), bank).reshape(one.shape[:2]) for one in test]
    )


def local_neighbours(train: Floats, test: Floats) -> Floats:
    """M2: distance (N, h, w) of every patch to the nearest training patch at most 16 px away."""
    distances = np.empty(test.shape[:3], np.float32)
    reach = REACH // GRID
    for row, column in np.ndindex(*test.shape[1:3]):
        near = train[:, max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        bank = np.ascontiguousarray(near).reshape(-1, train.shape[-1])
        distances[:, row, column] = nearest_distance(test[:, row, column], bank)
    return distances


def nearest_distance(queries: Floats, bank: Floats) -> Floats:
    """Euclidean distance (N,) of (N, D) to the nearest of (M, D)."""
    squares = (bank**2).sum(axis=1) - 2 * (queries @ bank.T)
    nearest = bank[squares.argmin(axis=1)]
    return np.asarray(np.sqrt(((queries - nearest) ** 2).sum(axis=1)), np.float32)


def proxy_maps(train: Floats, test: Floats, proxy: str) -> Floats:
    """Anomaly maps (N, h, w) on the patch grid, smoothed with sigma 1."""
    train_features, test_features = (np.stack([patch_features(one) for one in x]) for x in (train, test))
    flat = train_features.reshape(-1, train_features.shape[-1])
    mean, std = flat.mean(axis=0), flat.std(axis=0) + 1e-6
    train_features, test_features = (train_features - mean) / std, (test_features - mean) / std
    if proxy == "M1":
        maps = global_neighbours(train_features, test_features, np.random.default_rng(0))
    else:
        maps = local_neighbours(train_features, test_features)
    return np.asarray(ndimage.gaussian_filter(maps, (0, 1, 1)), np.float32)


# One category, all categories ---------------------------------------------------------------------------------------


def measure(data: Dataset) -> Difficulty:
    """Naive scores and proxy of a category. Training pictures are all good ones outside test."""
    start = time.perf_counter()
    records = list(data.test)
    train, test = pictures([*data.train, *data.validation]), pictures(records)
    labels = np.array([record.label for record in records])
    naive = {name: auroc(scores, labels) for name, scores in naive_scores(train, test).items()}
    proxy = "M2" if data.category in ALIGNED else "M1"
    maps = proxy_maps(train, test, proxy)
    scores = maps.max(axis=(1, 2))
    kinds = np.array([kind_of(record) for record in records])
    groups = np.array([record.group for record in records])
    by_type = {}
    for names in (kinds, groups) if loco_defects(data.category) else (kinds,):
        for kind in dict.fromkeys(names[labels == 1]):
            chosen = (labels == 0) | (names == kind)
            by_type[str(kind)] = auroc(scores[chosen], labels[chosen])
    return Difficulty(
        data.category,
        naive,
        proxy,
        auroc(scores, labels),
        pixel_auroc(maps, records, test.shape[2:]),
        by_type,
        time.perf_counter() - start,
    )


def kind_of(record: Record) -> str:
    """Defect type; where folders are groups of types, by the values of the masks."""
    rows = loco_defects(record.category) if record.label else ()
    if not rows:
        return record.defect_type
    values = {int(read_mask(path).max()) for path in record.masks}
    names = [row.name for row in rows if row.pixel_value in values]
    return names[0] if len(names) == 1 else next(row.name for row in rows if row.pixel_value is None)


def pixel_auroc(maps: Floats, records: Sequence[Record], shape: tuple[int, ...]) -> float:
    """AUROC of all pixels of all test pictures, maps enlarged bilinearly."""
    places = np.meshgrid(*((np.arange(side) - MARGIN) / GRID for side in shape), indexing="ij")
    scores, truth = [], []
    for one, record in zip(maps, records, strict=True):
        scores.append(ndimage.map_coordinates(one, places, order=1, mode="nearest").ravel())
        mask = np.zeros(shape, np.bool_)
        for path in record.masks:
            mask |= read_mask(path) != 0
        truth.append(mask.ravel())
    return auroc(np.concatenate(scores), np.concatenate(truth))


def complaints(found: Sequence[Difficulty]) -> list[str]:
    """Acceptance rules that are not met, one line each."""
    lines = []
    for one in found:
        name, best = one.category, one.best_naive
        if best > 0.85:
            lines.append(f"{name}: best naive score {best:.3f}, must be at most 0.85")
        if one.naive["B4"] > 0.70:
            lines.append(f"{name}: global statistics reach {one.naive['B4']:.3f}, must be at most 0.70")
        if name in TEXTURES and one.image < 0.95:
            lines.append(f"{name}: proxy {one.image:.3f}, must be at least 0.95")
        if not loco_defects(name) and one.image - best < 0.10:
            lines.append(
                f"{name}: proxy {one.image:.3f} less than 0.10 above the best naive score {best:.3f}"
            )
        if loco_defects(name):
            logical, structural = one.by_type["logical"], one.by_type["structural"]
            if structural < logical + 0.15:
                lines.append(
                    f"{name}: structural {structural:.3f} less than 0.15 above logical {logical:.3f}"
                )
            if logical > 0.70:
                lines.append(f"{name}: local proxy solves the logical part ({logical:.3f}), at most 0.70")
    average = float(np.mean([one.best_naive for one in found]))
    if average > 0.75 and len(found) == len(CATEGORIES):
        lines.append(f"average of the best naive scores {average:.3f}, must be at most 0.75")
    return lines


def table(found: Sequence[Difficulty]) -> str:
    """Markdown table, one row per category."""
    lines = ["| category | B0 | B1 | B2 | B3 | B4 | proxy | image | pixel | by type |", "|" + "---|" * 10]
    for one in found:
        naive = " | ".join(f"{one.naive[name]:.2f}" for name in ("B0", "B1", "B2", "B3", "B4"))
        types = ", ".join(f"{kind} {value:.2f}" for kind, value in one.by_type.items())
        lines.append(
            f"| {one.category} | {naive} | {one.proxy} | {one.image:.3f} | {one.pixel:.3f} | {types} |"
        )
    average = np.mean([one.best_naive for one in found])
    return "\n".join([*lines, "", f"Average of the best of B0 to B3: {average:.3f}"])


def measure_all(root: Path, categories: Sequence[str]) -> list[Difficulty]:
    """Measure generated data below `root`."""
    folders = [next(root.glob(f"embedded_*/{name}")) for name in categories]
    return [measure(open_dataset(folder)) for folder in folders]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder that `andon data generate` has filled")
    parser.add_argument("--categories", default=",".join(CATEGORIES), help="comma-separated")
    parser.add_argument("--seed", type=int, default=0, help="of the data that is generated without --root")
    arguments = parser.parse_args()
    categories = arguments.categories.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.root
        if root is None:
            root = generate(temporary, seed=arguments.seed, categories=categories)
        found = measure_all(root, categories)
    print(table(found))
    print(f"{sum(one.seconds for one in found):.0f} s")
    lines = complaints(found)
    print("\n".join(lines), file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
