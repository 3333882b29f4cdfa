"""andon: visual anomaly detection for production lines.

    data = andon.open_dataset("data/mvtec_ad", category="bottle")
    detector = andon.create("efficientad_ast", recipe="starter")
    detector.fit(data.train, validation=data.validation)
    prediction = detector.predict("photos/0001.png")        # prediction.score: 1.0 is the threshold
    report = andon.evaluate(detector, data.test)

Names are imported when they are first used: `import andon` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from andon.api import create
    from andon.core.errors import AndonError, UsageError
    from andon.core.records import Batch, Prediction, Record, Region, Regions
    from andon.datasets import Dataset, Records, check_dataset, open_dataset
    from andon.detectors._base import Detector, DetectorConfig
    from andon.nn.training import Trainer
    from andon.report.evaluation import Report, evaluate
    from andon.runs.loading import load

_HOMES = {
    "AndonError": "andon.core.errors",
    "Batch": "andon.core.records",
    "Dataset": "andon.datasets",
    "Detector": "andon.detectors._base",
    "DetectorConfig": "andon.detectors._base",
    "Prediction": "andon.core.records",
    "Record": "andon.core.records",
    "Records": "andon.datasets",
    "Region": "andon.core.records",
    "Regions": "andon.core.records",
    "Report": "andon.report.evaluation",
    "Trainer": "andon.nn.training",
    "UsageError": "andon.core.errors",
    "check_dataset": "andon.datasets",
    "create": "andon.api",
    "evaluate": "andon.report.evaluation",
    "load": "andon.runs.loading",
    "open_dataset": "andon.datasets",
}

__all__ = [
    "AndonError",
    "Batch",
    "Dataset",
    "Detector",
    "DetectorConfig",
    "Prediction",
    "Record",
    "Records",
    "Region",
    "Regions",
    "Report",
    "Trainer",
    "UsageError",
    "check_dataset",
    "create",
    "evaluate",
    "load",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("andon")
    if name not in _HOMES:
        raise AttributeError(f"module 'andon' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
