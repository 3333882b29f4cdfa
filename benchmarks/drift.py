"""Drift watch: false alarms on stationary lines, delay after a step, and whether the cause is named.

    python benchmarks/drift.py                 # simulated lines
    python benchmarks/drift.py DATA            # and real images: a folder of data sets with train/good and test/good

The lines are streams of normal deviates with autocorrelation, each number on a scale of its own. Each line is held against a
reference learned from its own parts.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy.signal import lfilter

from andon.line.drift.cause import Cause
from andon.line.drift.charts import LAMBDA, Floats, ewma_limit, to_normal
from andon.line.drift.numbers import CELLS, SIDE, Reduced, Template, measure, reduce
from andon.line.drift.reference import LEVELS, NAMES, Reference
from andon.line.drift.watch import CLEARED, Watch

STEP = 0.5
"""Of the brightness, standard deviations."""
WITHIN = 150
"""Parts in which it is to be found."""


def series(rng: np.random.Generator, rho: float, *shape: int) -> Floats:
    """Stationary AR(1) series of standard normal deviates along the first axis."""
    noise = rng.standard_normal(shape)
    noise[1:] *= np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], noise, axis=0))


def reference_of(values: Floats) -> Reference:
    """The reference of simulated numbers (N, `NAMES`)."""
    template = Template(np.zeros((SIDE, SIDE)), False)
    return Reference.of(template, values, np.zeros((len(values), CELLS, CELLS)), np.zeros((len(values), 2)))


def averages(reference: Reference, values: Floats) -> Floats:
    """Moving averages (N, `NAMES`) over their limits, as the watch of a station computes them part by part."""
    found = lfilter([LAMBDA], [1.0, LAMBDA - 1.0], reference.deviates(values), axis=0)
    return np.asarray(np.abs(found) / reference.limits)


def false_alarms(lines: int, parts: int, count: int, rho: float, seed: int = 2) -> int:
    """Alarms of so many stationary lines; the numbers are skewed, as brightness and contrast are."""
    rng, alarms = np.random.default_rng(seed), 0
    for _ in range(lines):
        values = np.exp(0.3 * series(rng, rho, count + parts, len(NAMES)))
        share = averages(reference_of(values[:count]), values[count:]).max(1)
        state = np.where(share > 1, 1, np.where(share <= CLEARED, 0, -1))
        alarms += int(np.count_nonzero(np.diff(state[state >= 0], prepend=0) == 1))
    return alarms


def check() -> None:
    """The watch of a station gives the same averages."""
    values = series(np.random.default_rng(1), 0.3, 1200, len(NAMES))
    watch, reference = Watch(), reference_of(values[:800])
    watch.begin(reference)
    for k, row in enumerate(values[800:]):
        watch.compare(row, np.ones((CELLS, CELLS)), k)
    assert np.allclose(watch.shares, averages(reference, values[800:])[-1])


def delays(runs: int, count: int, rho: float, seed: int = 3) -> Floats:
    """Parts from a step of `STEP` standard deviations in one number up to the alarm; infinite beyond 2,000."""
    rng, found = np.random.default_rng(seed), []
    before = 300
    for _ in range(runs):
        values = series(rng, rho, count + before + 2000)
        levels = np.quantile(values[:count], np.linspace(0, 1, LEVELS))
        reference = to_normal(values[:count], levels, count)
        rho_found = max(0.0, float((reference[1:] * reference[:-1]).sum() / (reference**2).sum()))
        moved = values[count:] + np.where(np.arange(before + 2000) < before, 0.0, STEP)
        average = lfilter([LAMBDA], [1.0, LAMBDA - 1.0], to_normal(moved, levels, count))
        out = np.flatnonzero(np.abs(average[before:]) > ewma_limit(rho_found, count))
        found.append(out[0] + 1 if out.size else np.inf)
    return np.array(found)


# Real images ---------------------------------------------------------------------------------------------------------


def dimmed(image: Image.Image) -> Image.Image:
    """A lamp with 15 % less light."""
    return image.point(lambda value: int(value * 0.85))


def shaded(image: Image.Image) -> Image.Image:
    """30 % less light in the upper left corner, falling off towards the middle."""
    pixels = np.asarray(image, np.float64)
    down, right = (np.linspace(0, 1, side) for side in pixels.shape[:2])
    distance = np.hypot(down[:, None], right[None])
    light = 1 - 0.3 * np.clip(1 - distance / 0.8, 0, 1)
    return Image.fromarray((pixels * light[..., None]).astype(np.uint8))


def blurred(image: Image.Image) -> Image.Image:
    """Out of focus by 0.3 % of the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(0.003 * min(image.size)))


def view(image: Image.Image, to_the_right: float = 0.0) -> Image.Image:
    """What a camera sees of the inner 88 %, with parts moved by a share of the width."""
    width, height = image.size
    left = width * (0.06 - to_the_right)
    return image.crop((round(left), round(height * 0.06), round(left + 0.88 * width), round(height * 0.94)))


def tinted(image: Image.Image) -> Image.Image:
    """Warmer: red + 6 %, blue - 10 %."""
    pixels = np.asarray(image, np.float64) * (1.06, 1.0, 0.9)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


INJECTED: dict[str, tuple[Cause, Callable[[Image.Image], Image.Image]]] = {
    "light": (Cause.LIGHT, lambda image: dimmed(view(image))),
    "light in a corner": (Cause.LIGHT, lambda image: shaded(view(image))),
    "blur": (Cause.BLUR, lambda image: blurred(view(image))),
    "shift": (Cause.SHIFT, lambda image: view(image, to_the_right=0.06)),
    "colour": (Cause.COLOUR, lambda image: tinted(view(image))),
}


INJECTED_CAUSES = [cause for cause in Cause if cause is not Cause.UNKNOWN]


def small(image: Image.Image) -> Reduced:
    """As the line reduces it."""
    return reduce(np.asarray(image))


def loaded(folder: Path, split: str) -> list[Image.Image]:
    """Good images of a data set."""
    return [Image.open(file).convert("RGB") for file in sorted((folder / split / "good").iterdir())]


def named(
    reference: Reference, images: list[Reduced], others: list[Reduced], rng: np.random.Generator
) -> str:
    """Cause and place that a line names that runs 100 good parts, then 300 of `others`; `no alarm` where it calls nobody."""
    watch = Watch()
    watch.begin(reference)
    drawn = [images[k] for k in rng.integers(len(images), size=100)]
    drawn += [others[k] for k in rng.integers(len(others), size=300)]
    for k, image in enumerate(drawn):
        score = float(reference.levels[-1, rng.integers(LEVELS)])
        watch.compare(np.array([*measure(image, reference.template), score]), image.cells, k)
        if watch.drift is not None:
            found = watch.drift.named
            return ", ".join(filter(None, (found.cause, found.place)))
    return "no alarm"


def real(data: Path, runs: int, seed: int = 4) -> None:
    """Print how often each cause was named: data set, what was injected, what was said."""
    rng = np.random.default_rng(seed)
    sets = {folder.name: folder for folder in sorted(data.iterdir()) if (folder / "train" / "good").is_dir()}
    images = {name: loaded(folder, "train") for name, folder in sets.items()}
    right: dict[Cause, list[bool]] = {cause: [] for cause in Cause}
    for name, good in images.items():
        order = rng.permutation(len(good))
        half = [good[k] for k in order[: len(good) // 2]], [good[k] for k in order[len(good) // 2 :]]
        learned, kept = ([small(view(image)) for image in part] for part in half)
        reference = reference_of_line(learned, kept, rng)
        others = {
            text: (cause, [small(change(image)) for image in half[1]])
            for text, (cause, change) in INJECTED.items()
        }
        for other in images:
            if other != name:
                others[f"product {other}"] = Cause.NEW_PRODUCT, [small(i) for i in images[other][:40]]
        for text, (cause, changed) in {"nothing": (Cause.UNKNOWN, kept), **others}.items():
            said = Counter(named(reference, kept, changed, rng) for _ in range(runs))
            right[cause] += [each.startswith(cause) for each in said.elements()]
            print(f"{name:12} {text:20} {dict(said)}", flush=True)
    for cause in INJECTED_CAUSES:
        print(f"{cause.value}: {np.mean(right[cause]):.1%} of {len(right[cause])} runs")


def reference_of_line(learned: list[Reduced], kept: list[Reduced], rng: np.random.Generator) -> Reference:
    """Of a line that repeats the images `kept`; `learned` give the mean good image."""
    template = Template.of([image.luma for image in learned])
    numbers = [[*measure(image, template)] for image in kept]
    drawn = rng.integers(len(kept), size=2000)
    values = np.array([[*numbers[k], rng.standard_normal()] for k in drawn])
    cells = np.array([kept[k].cells for k in drawn])
    return Reference.of(template, values, cells, np.zeros((len(drawn), 2)))


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder of data sets; each has train/good")
    parser.add_argument("--runs", type=int, default=10, help="runs for each data set and cause")
    parser.add_argument("--lines", type=int, default=20, help="simulated lines")
    parser.add_argument("--steps", type=int, default=400, help="simulated steps")
    parser.add_argument("--only-real", action="store_true", help="leave the simulated lines out")
    options = parser.parse_args()
    if not options.only_real:
        check()
        for rho, count in ((0.0, 2000), (0.3, 2000), (0.0, 1000), (0.3, 1000), (0.0, 200), (0.3, 200)):
            alarms = false_alarms(options.lines, 10_000, count, rho)
            found = delays(options.steps, count, rho)
            most = np.quantile(found, 0.95, method="higher")
            print(
                f"autocorrelation {rho}, reference of {count}: {alarms} false alarms on {options.lines} lines of 10,000 parts; "
                f"step of {STEP} sigma: median {np.median(found):g}, 95 % within {most:g}, "
                f"within {WITHIN} in {np.mean(found <= WITHIN):.1%} of {options.steps}",
                flush=True,
            )
    if options.data is not None:
        real(options.data, options.runs)


if __name__ == "__main__":
    main()
