"""The picture of the README, from a run of the demo: image, heat map, what the detector marks, annotated defect.

    andon demo && python benchmarks/demo_picture.py runs/demo docs/images/demo.png

Shown are the good image with the median score and the anomalous ones at the quartiles, so none is chosen for its looks.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from andon.core.image_files import decode
from andon.core.records import Record
from andon.datasets import open_dataset
from andon.datasets.masks import load_ground_truth
from andon.report.maps import FOUND, TRUTH, marked
from andon.runs.folder import read_recipe

WIDTH, GAP = 220, 6
QUANTILES = {0: (0.5,), 1: (0.25, 0.5, 0.75)}
"""Quantiles of the scores that are shown, by label."""


def main(run: Path, target: Path) -> None:
    """Draw the rows and save them."""
    data = read_recipe(run)["data"]
    records = {record.id: record for record in open_dataset(data["path"], data["category"]).test}
    scored: dict[int, list[tuple[float, str]]] = {0: [], 1: []}
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            scored[int(line["label"])].append((float(line["raw_score"]), line["id"]))
    chosen = [
        records[sorted(scored[label])[int(quantile * len(scored[label]))][1]]
        for label, quantiles in QUANTILES.items()
        for quantile in quantiles
    ]
    rows = [row(run, record) for record in chosen]
    height = max(panel.height for panels in rows for panel in panels)
    sheet = Image.new("RGB", (4 * WIDTH + 3 * GAP, len(rows) * height + (len(rows) - 1) * GAP), "white")
    for k, panels in enumerate(rows):
        for column, panel in enumerate(panels):
            sheet.paste(panel, (column * (WIDTH + GAP), k * (height + GAP)))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256).save(target, optimize=True)


def row(run: Path, record: Record) -> list[Image.Image]:
    """Image, heat map, marked region, annotated defect, each `WIDTH` pixels wide."""
    pixels = (decode(record.image).pixels * 255).round().astype(np.uint8)
    place = Path(record.defect_type) / f"{Path(record.id).name}.png"
    found = np.asarray(Image.open(run / "masks" / place).convert("L")) > 0
    truth = load_ground_truth(record, pixels.shape[:2]).union
    panels = (
        Image.fromarray(pixels),
        Image.open(run / "heatmaps" / place).convert("RGB"),
        Image.fromarray(marked(pixels, found, FOUND)),
        Image.fromarray(marked(pixels, truth, TRUTH)),
    )
    size = (WIDTH, round(WIDTH * pixels.shape[0] / pixels.shape[1]))
    return [panel.resize(size, Image.Resampling.LANCZOS) for panel in panels]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
