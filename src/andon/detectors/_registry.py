"""Finds detectors and recipes. A detector is a file in `andon/detectors`, a recipe a YAML file in `andon/recipes`.

Nothing here knows a name: adding a file adds a detector.
"""

from __future__ import annotations

import importlib
import pkgutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from andon.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from andon.detectors._base import Detector


def detector_names() -> list[str]:
    """Names of all detectors (files of `andon/detectors`); nothing is imported."""
    folder = Path(str(resources.files("andon").joinpath("detectors")))
    return sorted(
        module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")
    )


def known_detector(name: str) -> str:
    """Return `name`. Raises `ConfigError` when no detector has it."""
    if name not in detector_names():
        raise ConfigError(f"unknown detector {name!r}; {nearest(name, detector_names())}")
    return name


def detector_class(name: str) -> type[Detector]:
    """Import the detector `name`. Raises `ConfigError` when there is none."""
    known_detector(name)
    from andon.detectors._base import Detector

    module = importlib.import_module(f"andon.detectors.{name}")
    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type)
        and issubclass(c, Detector)
        and f"{c.__module__}.".startswith(f"{module.__name__}.")
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"andon/detectors/{name}.py must define exactly one Detector, it defines {len(classes)}"
        )
    return classes[0]
