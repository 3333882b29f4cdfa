"""andon: visual anomaly detection for production lines.

    data = andon.open_dataset("data/mvtec_ad", category="bottle")
    detector = andon.create()
    detector.fit(data.train, validation=data.validation)
    prediction = detector.predict("photos/0001.png")        # prediction.score: 1.0 is the threshold
    report = andon.evaluate(detector, data.test)

Names are imported when they are first used: `import andon` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the table below for type checkers, which do not run `__getattr__`
    from andon.api import create as create
    from andon.api import export as export
    from andon.api import pack as pack
    from andon.core.errors import AndonError as AndonError
    from andon.core.errors import UsageError as UsageError
    from andon.core.records import Batch as Batch
    from andon.core.records import Defect as Defect
    from andon.core.records import GroundTruth as GroundTruth
    from andon.core.records import Prediction as Prediction
    from andon.core.records import Record as Record
    from andon.core.region import InspectionRegion as InspectionRegion
    from andon.datasets import Dataset as Dataset
    from andon.datasets import Records as Records
    from andon.datasets import check_dataset as check_dataset
    from andon.datasets import open_dataset as open_dataset
    from andon.detectors._base import Analysis as Analysis
    from andon.detectors._base import Detector as Detector
    from andon.detectors._base import DetectorConfig as DetectorConfig
    from andon.nn.training import Trainer as Trainer
    from andon.report.evaluation import Report as Report
    from andon.report.evaluation import evaluate as evaluate
    from andon.runs.loading import load as load
    from andon.runtime.predictor import Predictor as Predictor

_HOMES = {
    "Analysis": "andon.detectors._base",
    "AndonError": "andon.core.errors",
    "Batch": "andon.core.records",
    "Dataset": "andon.datasets",
    "Defect": "andon.core.records",
    "Detector": "andon.detectors._base",
    "DetectorConfig": "andon.detectors._base",
    "GroundTruth": "andon.core.records",
    "InspectionRegion": "andon.core.region",
    "Prediction": "andon.core.records",
    "Predictor": "andon.runtime.predictor",
    "Record": "andon.core.records",
    "Records": "andon.datasets",
    "Report": "andon.report.evaluation",
    "Trainer": "andon.nn.training",
    "UsageError": "andon.core.errors",
    "check_dataset": "andon.datasets",
    "create": "andon.api",
    "evaluate": "andon.report.evaluation",
    "export": "andon.api",
    "load": "andon.runs.loading",
    "open_dataset": "andon.datasets",
    "pack": "andon.api",
}
"""The public names and the modules that define them."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from andon.core.version import VERSION

        return VERSION
    if name not in _HOMES:
        raise AttributeError(f"module 'andon' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
