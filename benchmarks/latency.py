"""Milliseconds from a decoded picture to its verdict, for several detectors in three runtimes, interleaved in one run.

    python benchmarks/latency.py prepare FOLDER
    python benchmarks/latency.py measure FOLDER [--threads 2] [--rounds 15] [--recipes RECIPE...] > table.md

`prepare` writes detectors and exported networks into FOLDER, which takes minutes. `measure` times `predict` on a photograph,
batch 1, float32: resizing, network, map at the size of the picture, thresholds. Weights do not change the cost, so
those of recipes whose weights are not at hand are random; closed-form detectors are learned from photographs. Thresholds come
from a few of them. Prints Markdown: median and fastest milliseconds of each runtime, how many times slower than EAST at 256 px
the medians are, multiply-adds, parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import andon
from andon.core.images import as_uint8, read_image
from andon.detectors._base import Detector
from andon.detectors._recipes import load_recipe
from andon.detectors._registry import detector_class
from andon.exporting.network import write_network
from andon.nn.backbones import count_parameters, multiply_adds
from andon.runs.loading import load

DATA = "embedded:cookies"
RECIPES = (
    "east/lite0",
    "east/lite0-256",
    "padim/lite0",
    "patchcore/lite0",
    "efficientad/paper-s",
    "efficientad_ast/published",
)
REFERENCE = "east/lite0-256"
LEARNED = {"east", "padim", "patchcore"}
RUNTIMES = {"PyTorch, eager": None, "ONNX Runtime": "onnx", "OpenVINO": "openvino"}
JUDGED = 3
"""Photographs that thresholds come from, where nothing is learned."""
LONGEST = 14.0
"""Seconds after which a detector is timed no more in a runtime."""
Times = dict[tuple[str, str], list[float]]


def network(recipe: str) -> Detector:
    """The detector, learned where its cost depends on that."""
    name = recipe.split("/")[0]
    data = andon.open_dataset(DATA)
    if name in LEARNED:
        return andon.create(recipe=recipe).fit(data.train, data.validation)
    build = detector_class(name)
    detector = build(build.Config().updated(load_recipe(recipe).config), pretrained=False).eval()
    detector.calibrate(data.train[:JUDGED])
    return detector


def prepare(folder: Path) -> None:
    """Save detectors and networks that are not there yet."""
    for recipe in RECIPES:
        place = folder / recipe.replace("/", "-")
        if (place / "facts.json").is_file():
            continue
        detector = network(recipe)
        detector.save(place)
        write_network(detector, place / "model.onnx")
        picture = torch.zeros(1, 3, *detector.input_size)
        facts = {
            "side": detector.input_size[0],
            "work": multiply_adds(detector, picture) / 1e9,
            "size": count_parameters(detector) / 1e6,
        }
        (place / "facts.json").write_text(json.dumps(facts))
        print(recipe, facts, file=sys.stderr)


def measure(folder: Path, recipes: Sequence[str], threads: int, rounds: int) -> Times:
    """Milliseconds of each call, by recipe and runtime, after two that do not count."""
    record = andon.open_dataset(DATA).test[0]
    picture = as_uint8(read_image(record))
    found: Times = {}
    predictors = {}
    for recipe in recipes:
        place = folder / recipe.replace("/", "-")
        for label, runtime in RUNTIMES.items():
            source = place if runtime is None else place / "model.onnx"
            predictors[recipe, label] = load(source, runtime, threads=threads)
            found[recipe, label] = []
    spent = dict.fromkeys(found, 0.0)
    for turn in range(rounds + 2):
        for key, predictor in predictors.items():
            if spent[key] > LONGEST and len(found[key]) >= 3:
                continue
            start = time.perf_counter()
            predictor.predict(picture)
            seconds = time.perf_counter() - start
            spent[key] += seconds
            if turn >= 2:
                found[key].append(1000 * seconds)
    return found


def print_table(folder: Path, recipes: Sequence[str], found: Mapping[tuple[str, str], list[float]]) -> None:
    """Markdown, one line a recipe."""
    heads = [f"{label}: p50 (fastest) | times EAST" for label in RUNTIMES]
    print(f"| recipe | side | {' | '.join(heads)} | G multiply-adds | M parameters |")
    print("|" + "---|" * (4 + 2 * len(RUNTIMES)))
    for recipe in recipes:
        facts = json.loads((folder / recipe.replace("/", "-") / "facts.json").read_text())
        cells = []
        for label in RUNTIMES:
            p50 = statistics.median(found[recipe, label])
            times = p50 / statistics.median(found[REFERENCE, label])
            cells.append(f"{p50:.1f} ({min(found[recipe, label]):.1f}) | {times:.1f}")
        print(
            f"| {recipe} | {facts['side']} | {' | '.join(cells)} | {facts['work']:.1f} | {facts['size']:.1f} |"
        )


def main() -> None:
    """Prepare, or time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--recipes", nargs="*", default=RECIPES, help=f"with {REFERENCE} among them")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.step == "prepare":
        prepare(options.folder)
    else:
        found = measure(options.folder, options.recipes, options.threads, options.rounds)
        print_table(options.folder, options.recipes, found)


if __name__ == "__main__":
    main()
