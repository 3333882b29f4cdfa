"""Results of a sweep with chosen numbers, without a run."""

from __future__ import annotations

import math

from andon.experiments.sweep import Job, Result


def make_result(
    recipe: str = "padim/starter",
    category: str = "fabric",
    seed: int = 0,
    *,
    auroc: float = 0.9,
    dataset: str = "embedded",
    selected: bool = False,
    data: str = "data",
    target: str = "",
    **metrics: float,
) -> Result:
    values = {"image_auroc": auroc, "pixel_auroc": 0.95, "aupro_0.30": 0.8} | metrics
    values = {"image_recall": 0.8, "image_fpr": 0.05} | values
    report = {
        "detector": recipe.split("/")[0],
        "dataset": dataset,
        "metrics": {name: {"value": None if math.isnan(v) else v} for name, v in values.items()},
        "time": {"fit_seconds": 12.4},
        "latency_ms": {"p50": 20.0},
        "teacher": {},
        "protocol": {"selected_on_test_labels": selected},
        "weights": [{"name": "starter"}],
        "machine": "a machine",
    }
    return Result(Job(recipe, data, category, "auto", seed, told_apart=target), report, 2_000_000_000)
