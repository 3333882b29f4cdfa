"""An evaluation report made without a detector: tiny images on disk, drawn defects, maps that find most of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from andon.core.records import Record
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.detectors._base import enlarge
from andon.exporting.latency import summarise
from andon.metrics import (
    Metric,
    PixelRanking,
    UndefinedMetricWarning,
    auroc,
    curve,
    image_metrics,
    pixel_metrics,
    record_tags,
)
from andon.nn.stage import Stage
from andon.report.evaluation import Case, Report
from andon.thresholds.calibration import Calibration
from andon.thresholds.display import AffineDisplay
from andon.thresholds.rules import conformal

TYPES = (("scratch", "structural"), ("hole", "structural"), ("missing", "logical"))


def make_records(
    root: Path, *, good: int = 5, bad: int = 6, side: int = 48, masks: bool = True, seed: int = 0
) -> list[Record]:
    """Images of a grey weave, every third one stored in grey; the bad ones have a bright square and a mask."""
    rng = np.random.default_rng(seed)
    records = []
    for k in range(good + bad):
        kind, group = ("good", "good") if k < good else TYPES[(k - good) % len(TYPES)]
        rows, columns = np.mgrid[0:side, 0:side]
        image = 105 + 25 * np.sin(columns / 2.5) * np.sin(rows / 2.5) + rng.normal(0, 5, (side, side))
        mask = np.zeros((side, side), np.uint8)
        if k >= good:
            top, left = rng.integers(side // 8, side - side // 3, 2)
            high, wide = {"scratch": (side // 16, side // 4)}.get(kind, (side // 6, side // 6))
            mask[top : top + high, left : left + wide] = 255
            image[mask > 0] += 70 if kind != "missing" else -60
        grey = np.clip(image, 0, 255).astype(np.uint8)
        path = root / "test" / kind / f"{k:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = np.stack([grey, grey, (grey * 0.85).astype(np.uint8)], axis=2)
        Image.fromarray(grey if k % 3 == 0 else colour).save(path)
        truth = root / "ground_truth" / kind / f"{k:03}.png"
        if k >= good and masks:
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(truth)
        records.append(
            Record(
                image=path,
                id=f"test/{kind}/{k:03}",
                label=int(k >= good),
                defect_type=kind,
                group=group,  # type: ignore[arg-type]
                masks=(truth,) if k >= good and masks else (),
                mask_kind="single" if k >= good and masks else "none",
            )
        )
    return records


def make_calibration(seed: int = 0) -> Calibration:
    """From 24 good scores about 1 and map maxima about 2."""
    rng = np.random.default_rng(seed + 1)
    scores = rng.normal(1.0, 0.15, 24).astype(np.float32)
    maxima = rng.normal(2.0, 0.2, 24).astype(np.float32)
    image, pixel = conformal(scores), conformal(maxima)
    pixels = rng.normal(0.5, 0.3, 1000).astype(np.float32)
    return Calibration(
        image=image,
        pixel=pixel,
        score_display=AffineDisplay.fit(scores, image.value),
        pixel_display=AffineDisplay.fit(pixels, pixel.value),
        scores=tuple(float(v) for v in scores),
        maxima=tuple(float(v) for v in maxima),
        source="validation",
    )


def make_cases(records: Sequence[Record], calibration: Calibration, *, seed: int = 0) -> list[Case]:
    """Maps at a quarter of the size that rise about each defect, by a different amount for each image."""
    import torch

    rng = np.random.default_rng(seed + 2)
    cases = []
    for record in records:
        with Image.open(record.image) as opened:
            size = (opened.height, opened.width)
        truth = load_ground_truth(record, size)
        cells = tuple(max(2, n // 4) for n in size)
        raw = rng.normal(0.5, 0.25, cells).astype(np.float32)
        if record.label:
            strength = rng.uniform(0.3, 4.0)
            near = enlarge(torch.from_numpy(truth.union.astype(np.float32))[None], cells)  # type: ignore[arg-type]
            raw += np.float32(strength) * near
            raw_score = float(np.float32(1.0 + strength * 0.4 + rng.normal(0, 0.15)))
        else:
            raw_score = float(np.float32(rng.normal(1.02, 0.18)))
        cases.append(
            Case(
                record=record,
                raw_score=raw_score,
                score=float(calibration.score_display(np.float32(raw_score))),
                is_anomalous=raw_score >= calibration.image.value,
                raw_map=raw,
                size=size,
                has_mask=has_pixel_truth(record, truth),
            )
        )
    return cases


def make_stages() -> dict[str, Stage]:
    """A flow whose loss goes below zero, a student whose terms differ in size, and a stage without a curve."""
    rng = np.random.default_rng(3)
    steps = np.arange(1, 201) * 10.0
    flow = 3 * np.exp(-steps / 200) - 1.2 + rng.normal(0, 0.02, 200)
    terms = {"student": 1.0, "autoencoder": 0.4, "student_autoencoder": 0.05}
    student = [
        {"step": float(s)}
        | {t: float(h * (0.03 + math.exp(-s / 300)) * rng.uniform(0.9, 1.1)) for t, h in terms.items()}
        for s in steps
    ]
    return {
        "features": Stage(seconds=4.2),
        "teacher": Stage(
            steps=2000,
            epochs=20,
            seconds=63.4,
            selection_seconds=3.0,
            kept_epoch=16,
            curve=[{"step": float(s), "flow": float(v)} for s, v in zip(steps, flow, strict=True)],
        ),
        "student": Stage(steps=2000, epochs=20, seconds=4210.0, curve=student),
        "calibration": Stage(seconds=0.8),
    }


def make_report(root: Path, records: Sequence[Record] | None = None, **changes: object) -> Report:
    """A whole report; `changes` replace its fields."""
    records = make_records(root) if records is None else records
    calibration = make_calibration()
    cases = make_cases(records, calibration)
    scores = np.array([case.raw_score for case in cases], np.float32)
    labels = [int(record.label or 0) for record in records]
    ranking = PixelRanking()
    import torch

    for case in cases:
        ranking.add(
            enlarge(torch.from_numpy(case.raw_map)[None], case.size),
            load_ground_truth(case.record, case.size).union,
            label=case.record.label or 0,
            tags=record_tags(case.record),
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        metrics = image_metrics(
            scores,
            labels,
            calibration.image.value,
            tags=[record_tags(record) for record in records],
            draws=200,
        )
        metrics |= pixel_metrics(ranking, calibration.pixel.value)
    both = 0 < sum(labels) < len(labels)
    reason = None if both else "no_negatives" if any(labels) else "no_positives"
    n_pos, n_neg = labels.count(1), labels.count(0)
    values: dict[str, object] = {
        "detector": "efficientad_ast",
        "recipe": "efficientad_ast/corrected",
        "dataset": "made",
        "category": "weave",
        "seed": 0,
        "selection": "budget",
        "score_rule": "mean of the largest 1 % cells of the combined map",
        "calibration": calibration,
        "metrics": metrics,
        "alternatives": {
            name: Metric(auroc(scores * factor, labels), n_pos, n_neg, reason)
            for name, factor in (("max_combined", 1), ("mean_student", -1), ("teacher_mean", 1))
        },
        "cases": cases,
        "image_curve": curve(scores, labels) if both else None,
        "pixel_curve": ranking.curve() if metrics["pixel_auroc"].reason is None else None,
        "stages": make_stages(),
        "weights": (
            {
                "name": "resnet18.a1_in1k",
                "origin": "timm, trained on ImageNet-1k",
                "licence": "Apache-2.0",
                "sha256": "0123456789abcdef" * 4,
            },
        ),
        "input_size": (256, 256),
        "evaluate_seconds": 3.2,
        "parameters": 24_812_340,
        "multiply_adds": 12_345_678_901,
        "machine": "Some Processor, 1 threads, torch 2.5, Linux x86_64",
        "latency": summarise([10.2, 9.8, 10.0, 10.4, 30.0] * 6, scope="predict", machine="m"),
    }
    return Report(**values | changes)  # type: ignore[arg-type]
