"""Milliseconds of one picture of 256 px for several detectors, interleaved in one run.

    python benchmarks/latency.py [--threads 2] [--rounds 15] > docs/results/latency.md

Networks only, decoding and resizing excluded; float32; eager PyTorch. Weights do not change the cost, so those of recipes whose
weights are not at hand are random; the bank and the mixture of closed-form detectors are learned from a few generated pictures.
Prints Markdown: median and fastest milliseconds, how many times slower than EAST, multiply-adds, parameters.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Sequence

import torch

import andon
from andon.detectors._base import Detector
from andon.detectors._recipes import load_recipe
from andon.detectors._registry import detector_class
from andon.nn.backbones import count_parameters, multiply_adds

RECIPES = (
    "east/lite0",
    "east/lite0-256",
    "efficientad/paper-s",
    "efficientad/paper-m",
    "efficientad/starter",
    "efficientad_ast/published",
    "efficientad_ast/corrected",
    "efficientad_ast/starter",
    "ast/starter",
    "padim/lite0",
    "patchcore/lite0",
)
LEARNED = {"east", "padim", "patchcore"}


def network(recipe: str) -> Detector:
    """The detector, learned where its cost depends on that."""
    name = recipe.split("/")[0]
    if name in LEARNED:
        data = andon.open_dataset("embedded:fabric")
        detector = andon.create(name, recipe=recipe.split("/")[1])
        detector.fit(data.train, data.validation)
        return detector
    build = detector_class(name)
    return build(build.Config().updated(load_recipe(recipe).config), pretrained=False)


def time_all(detectors: Sequence[Detector], rounds: int) -> list[list[float]]:
    """Milliseconds of each detector in each round, after three that do not count."""
    found: list[list[float]] = [[] for _ in detectors]
    pictures = [torch.rand(1, 3, *detector.input_size) for detector in detectors]
    with torch.inference_mode():
        for turn in range(rounds + 3):
            for k, (detector, picture) in enumerate(zip(detectors, pictures, strict=True)):
                start = time.perf_counter()
                detector(picture)
                if turn >= 3:
                    found[k].append(1000 * (time.perf_counter() - start))
    return found


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    detectors = [network(recipe).eval() for recipe in RECIPES]
    found = time_all(detectors, options.rounds)
    first = statistics.median(found[0])
    print("| recipe | side | p50 ms | fastest ms | times EAST | G multiply-adds | M parameters |")
    print("|---|---|---|---|---|---|---|")
    for recipe, detector, times in zip(RECIPES, detectors, found, strict=True):
        work = multiply_adds(detector, torch.zeros(1, 3, *detector.input_size)) / 1e9
        p50, size, side = statistics.median(times), count_parameters(detector) / 1e6, detector.input_size[0]
        print(
            f"| {recipe} | {side} | {p50:.1f} | {min(times):.1f} | {p50 / first:.1f} | {work:.1f} | {size:.1f} |"
        )


if __name__ == "__main__":
    main()
