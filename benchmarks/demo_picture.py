"""The picture of the README, from a run: picture, heat map, what the detector marks, what is really wrong.

    andon demo && python benchmarks/demo_picture.py runs/demo docs/images/demo.png

For each defect type the picture with the median score is shown, so none is chosen for its looks.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from andon.core.image_files import decode
from andon.datasets import open_dataset
from andon.datasets.masks import load_ground_truth
from andon.report.maps import FOUND, TRUTH, marked
from andon.runs.folder import read_recipe

SIDE, GAP, TYPES = 192, 6, 3


def main(run: Path, target: Path) -> None:
    """Draw the rows and save them."""
    data = read_recipe(run)["data"]
    records = {record.id: record for record in open_dataset(data["path"], data["category"]).test}
    rows: dict[str, list[tuple[float, str]]] = {}
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            record = records[line["id"]]
            if record.label == 1:
                rows.setdefault(record.defect_type, []).append((float(line["raw_score"]), record.id))
    sheet = Image.new("RGB", (4 * SIDE + 3 * GAP, TYPES * SIDE + (TYPES - 1) * GAP), "white")
    for k, (_, scored) in enumerate(sorted(rows.items())[:TYPES]):
        record = records[sorted(scored)[len(scored) // 2][1]]
        pixels = (decode(record.image).pixels * 255).round().astype(np.uint8)
        truth = marked(pixels, load_ground_truth(record, pixels.shape[:2]).union, TRUTH)
        place = Path(record.defect_type) / f"{Path(record.id).name}.png"
        found = np.asarray(Image.open(run / "masks" / place).convert("L")) > 0
        panels = [
            Image.fromarray(pixels),
            Image.open(run / "heatmaps" / place).convert("RGB"),
            Image.fromarray(marked(pixels, found, FOUND)),
            Image.fromarray(truth),
        ]
        for column, panel in enumerate(panels):
            sheet.paste(panel.resize((SIDE, SIDE)), (column * (SIDE + GAP), k * (SIDE + GAP)))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
