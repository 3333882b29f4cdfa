"""The two functions of the public surface that start from a name or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from andon.detector import Detector


def create(detector: str, recipe: str | None = None, **settings: Any) -> Detector:
    """An untrained detector, by name and recipe (default: the one that needs no weights beyond the package's).

    `settings` change single values, groups with a double underscore: `create("efficientad_ast", teacher__epochs=24)`.
    Raises `ConfigError` for an unknown name or setting, `WeightsError` when weights are missing.
    """
    from andon import runs
    from andon.registry import default_recipe, detector_class, load_recipe

    detector_class(detector)
    chosen = load_recipe(recipe or default_recipe(detector), detector)
    return runs.create(chosen, {key.replace("__", "."): value for key, value in settings.items()})


def load(folder: str | Path) -> Detector:
    """A fitted detector from the folder it was saved to, or from a run folder."""
    from andon.detector import load_detector

    return load_detector(folder)
