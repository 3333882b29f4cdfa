"""The two functions of the public surface that start from a name or a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from andon.detectors._base import Detector


def create(detector: str, recipe: str | None = None, **settings: Any) -> Detector:
    """An untrained detector, by name and recipe (default: the one that needs no weights beyond the package's).

    `settings` change single values, groups with a double underscore: `create("efficientad_ast", teacher__epochs=24)`.
    Raises `ConfigError` for an unknown name or setting, `WeightsError` when weights are missing.
    """
    from andon.detectors._recipes import create as create_from_recipe
    from andon.detectors._recipes import default_recipe, load_recipe, resolve
    from andon.detectors._registry import detector_class

    detector_class(detector)
    chosen = load_recipe(recipe or default_recipe(detector), detector)
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return create_from_recipe(resolve(chosen, changes))
