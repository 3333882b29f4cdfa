"""What each part of the score of EfficientAD-AST (or AST) is worth, all parts measured on one fit.

    python benchmarks/score_parts.py DATA... [--recipes efficientad_ast/lite0,...] [--set KEY=VALUE] [--train 120]
        [--test 60] [--out DIR]

Parts: L, the flow's negative log-likelihood; Z, the mean square of the latent, which is the distance to a student that
always answers 0; S, the distance of the student to the teacher; A, the distance of the student's second half to the
autoencoder. Each is rescaled by the 0.9 and 0.995 quantiles of its cells on held-out good images (EfficientAD, arXiv
2303.14535, Sec. 3.4); combinations are means of rescaled maps. `recipe` is the score and the map of the detector itself.
The epoch is never chosen on test labels. With `--train` and `--test` only so many good images to learn from, and so many
test images of either kind, are used (seeded). One JSON file for each data set and recipe is written to `--out`, results
there are not measured again; prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import parse_assignments
from andon.core.files import write_json
from andon.core.image_files import read_size
from andon.core.images import batches
from andon.core.records import Record
from andon.datasets import open_dataset
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.detectors._recipes import create, load_recipe, resolve
from andon.detectors.ast import AST
from andon.detectors.efficientad_ast import EfficientADASTVariants
from andon.detectors.efficientad_ast.maps import image_score, quantile_range, rescaled
from andon.layers.flow import negative_log_likelihood
from andon.metrics import auroc
from andon.nn.training import Trainer, derive_seed

PIXELS = 128
"""Side of the grid on which pixel AUROC is computed."""
BATCH = 8
PAIRS = (
    ("L+S", "L"),
    ("L+A", "L"),
    ("L+S+A", "L"),
    ("L+S+A", "L+A"),
    ("L+S+A", "L+S"),
    ("L+S+A", "S+A"),
    ("S+A", "S"),
    ("S", "L"),
    ("S", "Z"),
)
"""Scores that are compared: with a part and without it."""
Learned = AST | EfficientADASTVariants


def some(records: Sequence[Record], most: int | None, seed: int) -> list[Record]:
    """At most `most` of the records, drawn with a seed, in their order."""
    if most is None or len(records) <= most:
        return list(records)
    generator = torch.Generator().manual_seed(derive_seed(seed, "subset"))
    return [records[k] for k in sorted(torch.randperm(len(records), generator=generator)[:most].tolist())]


def part_maps(detector: Learned, images: Tensor) -> dict[str, Tensor]:
    """{part: (B, h, w)}, not rescaled."""
    if isinstance(detector, AST):
        f = detector.inputs(images).f
        z, log_det = detector.flow(f)
        found = {"S": detector.distance(z, f)[:, 0]}
    else:
        views = detector.extract(images)
        s1, s2 = detector.student_outputs(views)
        found = {"S": detector.student_map(views, s1), "A": detector.autoencoder_map(views, s2)}
        z, log_det = detector.flow(views.teacher)
    likelihood = negative_log_likelihood(z, log_det)
    return {"L": likelihood, "Z": z.square().mean(1)} | {name: m.float() for name, m in found.items()}


def stacked(detector: Learned, records: Sequence[Record]) -> tuple[Tensor, Tensor, Tensor]:
    """(N, parts, h, w) maps of the parts, (N, 1, h, w) maps and (N,) scores of the detector itself."""
    parts, own, scores = [], [], []
    for batch in batches(records, detector.input_size, BATCH):
        with torch.inference_mode():
            parts.append(torch.stack(list(part_maps(detector, batch.image).values()), 1))
            analysis = detector.analyse(batch.image)
        own.append(analysis.anomaly_map)
        scores.append(analysis.score)
    return torch.cat(parts), torch.cat(own), torch.cat(scores)


def truth_grid(record: Record) -> Tensor | None:
    """(PIXELS, PIXELS) mask; None for an anomalous image without one."""
    truth = load_ground_truth(record, read_size(record.image))
    if not has_pixel_truth(record, truth):
        return None
    mask = torch.from_numpy(truth.union)[None, None].float()
    return F.adaptive_max_pool2d(mask, PIXELS)[0, 0] > 0


def pixel_auroc(maps: Tensor, truths: Sequence[Tensor | None]) -> float:
    """Pixel AUROC of (N, 1, h, w) maps; NaN without masks."""
    known = [k for k, truth in enumerate(truths) if truth is not None]
    marked = torch.stack([truths[k] for k in known])  # type: ignore[misc]
    if not marked.any():
        return float("nan")
    enlarged = F.interpolate(maps[known], size=(PIXELS, PIXELS), mode="bilinear", align_corners=False)
    return auroc(enlarged.flatten().numpy(), marked.flatten().numpy())


def measure(data: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fit a recipe once and measure every part and combination of parts."""
    changes = {"selection": "budget"} | parse_assignments(options.set)
    recipe = resolve(load_recipe(name), changes)
    dataset = open_dataset(data, seed=recipe.seed)
    train = some(dataset.train, options.train, recipe.seed)
    kinds = [[r for r in dataset.test if r.label == label] for label in (0, 1)]
    test = [r for kind in kinds for r in some(kind, options.test, recipe.seed)]
    trainer = Trainer(seed=recipe.seed, device="cpu")
    detector = create(recipe)
    assert isinstance(detector, Learned)
    began, cpu = time.perf_counter(), time.process_time()
    detector.fit(train, dataset.validation, trainer=trainer)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu

    good, _, _ = stacked(detector, dataset.validation)
    maps, own, scores = stacked(detector, test)
    names = list(part_maps(detector, torch.rand(1, 3, *detector.input_size)))
    maps = rescaled(maps, quantile_range(good.transpose(0, 1).flatten(1)))
    rule = detector.config.score if isinstance(detector, AST) else detector.config.maps.score
    truths = [truth_grid(r) for r in test]
    rows = {"recipe": values(scores.numpy(), own, test, truths)}
    for chosen in subsets(names):
        joined = maps[:, [names.index(part) for part in chosen]].mean(1, keepdim=True)
        found = image_score(joined, rule, detector.input_size).numpy()
        rows["+".join(chosen)] = values(found, joined, test, truths)
    return {
        "data": data,
        "recipe": name,
        "changes": changes,
        "train": len(train),
        "good": len(kinds[0][: options.test]),
        "bad": len(kinds[1][: options.test]),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "rows": rows,
        "checks": {c["name"]: c["value"] for s in trainer.stages.values() for c in s.sanity_checks},
        "curves": {stage: s.curve for stage, s in trainer.stages.items() if s.curve},
    }


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every part alone, and every combination of two or more parts without Z."""
    joined = [name for name in names if name != "Z"]
    more = [c for n in range(2, len(joined) + 1) for c in combinations(joined, n)]
    return [*((name,) for name in names), *more]


def values(
    scores: np.ndarray, maps: Tensor, test: Sequence[Record], truths: Sequence[Tensor | None]
) -> dict[str, float]:
    """Image AUROC, of logical and of structural anomalies alone where there are logical ones, and pixel AUROC."""
    labels = np.array([r.label == 1 for r in test])
    logical = np.array([r.defect_type.startswith("logical") for r in test])
    found = {"image": auroc(scores, labels)}
    if logical.any():
        found["logical"] = auroc(scores[~labels | logical], labels[~labels | logical])
        found["structural"] = auroc(scores[~logical], labels[~logical])
    return found | {"pixel": pixel_auroc(maps, truths)}


def percent(results: Sequence[dict[str, Any]], part: str, measure: str) -> np.ndarray:
    """One number for each result, NaN where the measure is not defined."""
    found = [r["rows"].get(part, {}).get(measure) for r in results]
    return 100 * np.array([np.nan if v is None else v for v in found], dtype=float)


def table(results: Sequence[dict[str, Any]], title: str) -> str:
    """Image AUROC by part and data set, its mean, mean pixel AUROC, and logical and structural anomalies apart."""
    apart = [name for name in ("logical", "structural") if any(name in r["rows"]["L"] for r in results)]
    sets = [Path(r["data"]).name.removeprefix("embedded:") for r in results]
    lines = [f"| {' | '.join([title, *sets, 'mean', 'pixel, mean', *apart])} |"]
    lines.append("|---" * (len(sets) + 3 + len(apart)) + "|")
    for part in results[0]["rows"]:
        image = percent(results, part, "image")
        means = [np.nanmean(percent(results, part, name)) for name in ("pixel", *apart)]
        cells = [f"{v:.1f}" for v in (*image, image.mean(), *means)]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(results: Sequence[dict[str, Any]], title: str) -> str:
    """Mean over the data sets of one score minus another, with its standard error, and on how many sets it is better."""
    lines = [f"| {title} | image | sets better, worse | pixel | sets better, worse |", "|---" * 5 + "|"]
    for more, less in PAIRS:
        if more not in results[0]["rows"] or less not in results[0]["rows"]:
            continue
        cells = [f"{more} − {less}"]
        for name in ("image", "pixel"):
            change = percent(results, more, name) - percent(results, less, name)
            change = change[np.isfinite(change)]
            error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else float("nan")
            up, down = (int((sign * change > 0.05).sum()) for sign in (1, -1))
            cells += [f"{change.mean():+.1f} ± {error:.1f}", f"{up}, {down}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--recipes", default="efficientad_ast/lite0,efficientad_ast/published-lite0")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--train", type=int)
    parser.add_argument("--test", type=int)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    results = []
    for data in options.data:
        for name in options.recipes.split(","):
            file = options.out / f"{Path(data).name.replace(':', '-')}-{name.replace('/', '-')}.json"
            if not file.is_file():
                write_json(file, measure(data, name, options))
            results.append(json.loads(file.read_text(encoding="utf-8")))
    for name in options.recipes.split(","):
        mine = [r for r in results if r["recipe"] == name]
        print(f"{table(mine, f'`{name}`')}\n\n{differences(mine, f'`{name}`')}\n")


if __name__ == "__main__":
    main()
