"""EAST step by step, with few training images, and on disturbed images.

    python benchmarks/east.py ladder DATA... [--seeds 3] [--rows ROW...] [--out DIR]
    python benchmarks/east.py curve DATA... [--seeds 3] [--out DIR]
    python benchmarks/east.py disturbed DATA... [--sessions PATTERN]

`ladder` fits every row of ROWS on every data set with several seeds, and prints image AUROC, pixel AUROC and AUPRO by set
and in the mean, and the change of the image AUROC from one row to another with its paired bootstrap interval over the
images of all sets. `curve` does the same for EAST and PatchCore with 5, 10, 20 and 40 training images, drawn with the seed.
`disturbed` fits EAST once on each set and scores its good test images again after each change of DISTURBANCES: shares of
kept verdicts and changes of the score. Features of an image are extracted once for all rows that share a network input.
One JSON file for each fit is written to `--out`; fits whose file is there are not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import andon
from andon.core.config import parse_assignments
from andon.core.files import write_json
from andon.core.records import Record
from andon.detectors._recipes import create, load_recipe, resolve
from andon.metrics import auroc
from andon.metrics.bootstrap import DRAWS, percentile_interval, wins
from andon.nn.training import Trainer, derive_seed

SIZES = (5, 10, 20, 40)
MEASURES = ("image_auroc", "pixel_auroc", "aupro_0.30")


@dataclass(frozen=True)
class Row:
    """One row of the ladder: a recipe with changed settings."""

    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    """Row whose image AUROC is taken away from this one's."""


PLAIN: Mapping[str, Any] = {"copies": False, "composition": False}
ROWS = {
    "one covariance for all places, 256 px": Row(
        "east/lite0-256", {**PLAIN, "score": "gaussian", "common": 1.0}
    ),
    "a covariance of each block": Row(
        "east/lite0-256", {**PLAIN, "score": "gaussian"}, "one covariance for all places, 256 px"
    ),
    "nearest patch of a coreset added": Row("east/lite0-256", PLAIN, "a covariance of each block"),
    "384 px": Row("east/lite0", PLAIN, "nearest patch of a coreset added"),
    "disturbed copies": Row("east/lite0", {"composition": False}, "384 px"),
    "composition (EAST)": Row("east/lite0", {}, "disturbed copies"),
    "EAST at 256 px": Row("east/lite0-256", {}, "nearest patch of a coreset added"),
    "the Gaussian alone": Row("east/lite0", {"score": "gaussian"}, "composition (EAST)"),
    "the neighbour alone": Row("east/lite0", {"score": "neighbour"}, "composition (EAST)"),
    "PatchCore 1 %, 256 px": Row("patchcore/lite0", {}, "composition (EAST)"),
    "PaDiM, regularised, 256 px": Row("padim/lite0", {}, "composition (EAST)"),
}
CURVE = {"EAST": Row("east/lite0"), "PatchCore 1 %, 256 px": Row("patchcore/lite0", {}, "EAST")}


class Features:
    """Taps of images that were seen before, by the content of the network's input."""

    def __init__(self) -> None:
        self.known: dict[bytes, dict[str, Tensor]] = {}

    def serve(self, extractor: Any) -> None:
        """Let the extractor look here first."""
        forward = extractor.forward
        kind = extractor.config.model_dump_json().encode()

        def remembered(images: Tensor) -> dict[str, Tensor]:
            rows = []
            for image in images:
                key = hashlib.blake2b(image.contiguous().numpy().tobytes() + kind).digest()
                if key not in self.known:
                    self.known[key] = forward(image[None])
                rows.append(self.known[key])
            return {tap: torch.cat([row[tap] for row in rows]) for tap in rows[0]}

        extractor.forward = remembered


def fitted(row: Row, data: andon.Dataset, train: Sequence[Record], seed: int, features: Features) -> Any:
    """A detector that learned from the training images."""
    recipe = resolve(load_recipe(row.recipe), {**row.settings, "seed": seed})
    detector = create(recipe)
    features.serve(detector.extractor)
    detector.fit(train, data.validation, trainer=Trainer(seed=seed, device="cpu"))
    return detector


def measured(
    row: Row, data: andon.Dataset, train: Sequence[Record], seed: int, features: Features
) -> dict[str, Any]:
    """Scores and metrics of one fit."""
    began = time.perf_counter()
    detector = fitted(row, data, train, seed, features)
    seconds = time.perf_counter() - began
    report = andon.evaluate(detector, data.test)
    names = sorted((case.record.id, case.record.label, case.raw_score) for case in report.cases)
    return {
        "images": len(train),
        "seconds": seconds,
        "labels": [label for _, label, _ in names],
        "scores": [score for _, _, score in names],
        "metrics": {name: metric.to_json()["value"] for name, metric in report.metrics.items()},
    }


def ranked(
    row: Row, data: andon.Dataset, train: Sequence[Record], seed: int, features: Features
) -> dict[str, Any]:
    """Scores and image AUROC of one fit, without maps."""
    began = time.perf_counter()
    detector = fitted(row, data, train, seed, features)
    seconds = time.perf_counter() - began
    raw = zip(data.test, detector.scan(data.test), strict=True)
    found = sorted((record.id, record.label, one.raw_score) for record, one in raw)
    labels, scores = [label for _, label, _ in found], [score for _, _, score in found]
    metrics = {"image_auroc": auroc(np.array(scores), np.array(labels) == 1)}
    return {"images": len(train), "seconds": seconds, "labels": labels, "scores": scores, "metrics": metrics}


def good_images(data: andon.Dataset) -> list[Record]:
    """All good images that a fit may learn from: closed-form detectors are fitted on both parts."""
    return [*data.train, *data.validation]


def run(
    name: str, row: Row, data: str, seed: int, size: int | None, out: Path, features: Features
) -> dict[str, Any]:
    """The result of one fit, from its file where there is one."""
    parts = [
        Path(data).name.replace("embedded:", ""),
        name,
        f"seed {seed}",
        *([f"{size} images"] if size else []),
    ]
    path = out / (" - ".join(parts).replace("/", "-") + ".json")
    if not path.is_file():
        opened = andon.open_dataset(data, seed=seed)
        train: Sequence[Record] = opened.train
        if size is not None:
            every = good_images(opened)
            generator = torch.Generator().manual_seed(derive_seed(seed, "few"))
            train = [every[k] for k in torch.randperm(len(every), generator=generator)[:size].tolist()]
            opened = replace(opened, validation=andon.datasets.Records(()))
        measure = measured if size is None else ranked
        write_json(path, measure(row, opened, train, seed, features))
        print(path.stem, flush=True)
    return dict(json.loads(path.read_text()))


def won(results: Sequence[dict[str, Any]]) -> np.ndarray:
    """(bad, good), mean over the seeds of [bad higher] + ½ [equal]."""
    return wins(np.array([result["scores"] for result in results]), np.array(results[0]["labels"]) == 1)


def mean_of_pairs(pairs: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(DRAWS,) means of a number for each pair (P, N), its P anomalous and N good images resampled separately."""
    bad, good = (random.multinomial(n, np.full(n, 1 / n), DRAWS) for n in pairs.shape)
    return np.asarray(((bad @ pairs) * good).sum(1) / pairs.size)


def change(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> str:
    """Mean over the sets of the image AUROC of `second` minus that of `first`, in points, with its 95 % interval.

    The images of each set are resampled, good and anomalous ones separately; the sets are not.
    """
    random = np.random.default_rng(0)
    draws = np.zeros(DRAWS)
    centre = 0.0
    for name in first:
        difference = second[name] - first[name]
        draws += mean_of_pairs(difference, random)
        centre += difference.mean()
    low, high = percentile_interval(100 * draws / len(first)) or (np.nan, np.nan)
    return f"{100 * centre / len(first):+.1f} ({low:+.1f} to {high:+.1f})"


def tables(
    title: str, rows: Mapping[str, Row], results: Mapping[str, Mapping[str, list[dict[str, Any]]]]
) -> None:
    """Print a table for each measure: row by data set, and their mean."""
    sets = list(next(iter(results.values())))
    compared = {
        name: {data: won(found) for data, found in by_set.items()} for name, by_set in results.items()
    }
    some = next(iter(next(iter(results.values())).values()))
    for measure in (m for m in MEASURES if m in some[0]["metrics"]):
        print(
            f"\n{title}, {measure} (%)\n\n| | {' | '.join(Path(s).name.replace('embedded:', '') for s in sets)} | mean | change |"
        )
        print("|---" * (len(sets) + 3) + "|")
        for name, by_set in results.items():
            values = {}
            for data, found in by_set.items():
                runs = [r["metrics"].get(measure) for r in found]
                values[data] = np.nan if None in runs else 100 * float(np.mean(runs))
            against = rows[name].against
            note = (
                change(compared[against], compared[name])
                if against in compared and measure == "image_auroc"
                else "–"
            )
            cells = ["–" if np.isnan(v) else f"{v:.1f}" for v in values.values()]
            print(f"| {name} | {' | '.join(cells)} | {np.nanmean(list(values.values())):.1f} | {note} |")


def ladder(options: argparse.Namespace) -> None:
    """Fit every row on every set."""
    rows = {name: row for name, row in ROWS.items() if name in (options.rows or ROWS)}
    results: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in rows}
    for data in options.data:
        features = Features()
        for name, row in rows.items():
            seeds = range(options.seeds)
            results[name][data] = [run(name, row, data, seed, None, options.out, features) for seed in seeds]
    tables("Ladder", rows, results)


def curve(options: argparse.Namespace) -> None:
    """Fit EAST and PatchCore on few images."""
    results: dict[int, dict[str, dict[str, list[dict[str, Any]]]]] = {
        n: {name: {} for name in CURVE} for n in SIZES
    }
    for data in options.data:
        features = Features()
        for size in SIZES:
            for name, row in CURVE.items():
                results[size][name][data] = [
                    run(name, row, data, seed, size, options.out, features) for seed in range(options.seeds)
                ]
    for size in SIZES:
        tables(f"{size} training images", CURVE, results[size])


def shifted(image: Image.Image) -> Image.Image:
    """Three pixels to the right and down; the edge is mirrored."""
    pixels = np.asarray(image)
    padded = np.pad(pixels, ((3, 0), (3, 0), (0, 0)), mode="reflect")
    return Image.fromarray(padded[: pixels.shape[0], : pixels.shape[1]])


def compressed(image: Image.Image) -> Image.Image:
    """Through a JPEG of quality 75."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return Image.open(io.BytesIO(stream.getvalue()))


DISTURBANCES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda image: image,
    "light x 0.9": lambda image: image.point(lambda v: round(0.9 * v)),
    "light x 1.1": lambda image: image.point(lambda v: min(255, round(1.1 * v))),
    "shifted by 3 pixels": shifted,
    "JPEG, quality 75": compressed,
}


def disturbed(options: argparse.Namespace) -> None:
    """Score good test images again after each disturbance."""
    columns = ["data", "disturbance", "good images", "verdict kept (%)", "to NG", "to OK"]
    columns += ["median change of the score", "largest"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for data in options.data:
        opened = andon.open_dataset(data, seed=0, sessions=options.sessions)
        row = Row(options.recipe, parse_assignments(options.set))
        detector = fitted(row, opened, opened.train, 0, Features())
        scores: dict[str, np.ndarray] = {}
        for name, disturb in DISTURBANCES.items():
            images = []
            for record in opened.test:
                if record.label == 0:
                    with Image.open(record.image) as image:
                        images.append(disturb(image.convert("RGB")))
            scores[name] = np.array([prediction.score for prediction in detector.predict(images)])
        before = scores["none"]
        for name, after in list(scores.items())[1:]:
            kept = ((before >= 1) == (after >= 1)).mean()
            to_bad, to_good = ((before < 1) & (after >= 1)).sum(), ((before >= 1) & (after < 1)).sum()
            shift = after - before
            cells = [Path(data).name, name, len(before), f"{100 * kept:.1f}", to_bad, to_good]
            print(
                "| "
                + " | ".join(map(str, [*cells, f"{np.median(shift):+.3f}", f"{abs(shift).max():.3f}"]))
                + " |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("ladder", "curve", "disturbed"))
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="rows of `ladder`; all by default")
    parser.add_argument("--recipe", default="east/lite0", help="recipe of `disturbed`")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, settings of `disturbed`")
    parser.add_argument(
        "--sessions", default="auto", help="how `disturbed` tells sessions apart, as `andon fit`"
    )
    parser.add_argument("--out", type=Path, default=Path("east_runs"))
    options = parser.parse_args()
    {"ladder": ladder, "curve": curve, "disturbed": disturbed}[options.what](options)


if __name__ == "__main__":
    main()
