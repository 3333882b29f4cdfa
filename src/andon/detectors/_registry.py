"""Finds detectors and their recipes: those of andon, and those of other packages (plug-ins).

A detector of andon is a file or folder in `andon/detectors`, its recipes are the YAML files in `andon/recipes/NAME`. Another
package registers a detector by an entry point of the group `andon.detectors`, `NAME = "package.module:Class"`; its recipes
are the YAML files in `recipes/NAME` beside that module. A plug-in without recipes has one, `NAME/default`: all settings at
their defaults.

No name stands here but that of the default. Entry points are read only where a name is not one of andon's, or where all
names are asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from andon.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from andon.detectors._base import Detector

GROUP = "andon.detectors"
"""Entry point group of plug-ins."""
OWN = "andon.detectors"
"""Package with andon's own detectors."""
DEFAULT = "east"
"""The detector that is used where none is named."""


class PluginWarning(UserWarning):
    """A detector of another package is left out, and why."""


def detector_names() -> list[str]:
    """Names of all detectors, those of other packages included; none is imported."""
    return sorted([*own_names(), *plugins()])


def usable_detectors() -> list[str]:
    """Names of all detectors that can be imported; each other one is named once in a `PluginWarning`."""
    return sorted([*own_names(), *(name for name in plugins() if _is_usable(name))])


def is_known(name: str) -> bool:
    """Whether a detector has that name; it is not imported."""
    return name in own_names() or name in plugins()


def known_detector(name: str) -> str:
    """Return `name`. Raises `ConfigError` when no detector has it."""
    if not is_known(name):
        raise ConfigError(f"unknown detector {name!r}; {nearest(name, detector_names())}")
    return name


def detector_class(name: str) -> type[Detector]:
    """Import the detector `name`. Raises `ConfigError` when there is none, or when it cannot be imported."""
    known_detector(name)
    if name not in own_names():
        return _plugin_class(plugins()[name])
    from andon.detectors._base import Detector

    module = importlib.import_module(f"{OWN}.{name}")
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


def name_of(cls: type[Detector]) -> str:
    """The name a detector class is registered under, or its own in lower case where it is not."""
    if cls.__module__.startswith(f"{OWN}."):
        return cls.__module__.removeprefix(f"{OWN}.").split(".")[0]
    for name, point in plugins().items():
        if point.value.replace(" ", "") == f"{cls.__module__}:{cls.__qualname__}":
            return name
        module = sys.modules.get(point.module)
        if (
            module is not None and getattr(module, point.attr, None) is cls
        ):  # imported there from another module
            return name
    return cls.__name__.lower()


def summary(name: str) -> str:
    """First line of the docstring of a detector's module (of its class, where the module has none)."""
    if name in own_names():
        text = importlib.import_module(f"{OWN}.{name}").__doc__
    else:
        cls = detector_class(name)
        text = sys.modules[cls.__module__].__doc__ or cls.__doc__
    return (text or name).strip().splitlines()[0]


# Recipes -------------------------------------------------------------------------------------------------------------


def recipes_of(name: str) -> list[str]:
    """Names of a detector's recipes, `NAME/variant`. Raises `ConfigError` for a plug-in that cannot be imported."""
    folder = _recipe_folder(name)
    files = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    found = sorted(f"{name}/{file.removesuffix('.yaml')}" for file in files if file.endswith(".yaml"))
    return found or ([] if name in own_names() else [f"{name}/default"])


def recipe_text(recipe: str) -> str:
    """The YAML text of a recipe that `recipes_of` names."""
    name, _, variant = recipe.partition("/")
    file = _recipe_folder(name).joinpath(f"{variant}.yaml")
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return f"detector: {name}\nsummary: All settings at their defaults.\n"


def _recipe_folder(name: str) -> Traversable:
    if name in own_names():
        return resources.files("andon").joinpath("recipes", name)
    detector_class(name)
    module = sys.modules[plugins()[name].module]
    return Path(str(module.__file__)).parent / "recipes" / name


# Detectors of other packages -----------------------------------------------------------------------------------------


@cache
def own_names() -> tuple[str, ...]:
    """Names of andon's own detectors: files and folders of `andon/detectors`."""
    folder = Path(str(resources.files("andon").joinpath("detectors")))
    modules = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


def plugins() -> Mapping[str, EntryPoint]:
    """Detectors of other packages, by name; none is imported."""
    return _plugins(tuple(sys.path))


@lru_cache(maxsize=1)
def _plugins(_search_path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        if point.name in own_names():
            _warn_once(
                f"{_origin(point)} is left out: andon has a detector of that name, its entry point needs another"
            )
        elif not point.name.isidentifier():
            _warn_once(f"{_origin(point)} is left out: its name must consist of letters, digits and _")
        elif point.name in found:
            if point.value != found[point.name].value:
                _warn_once(f"{_origin(point)} is left out: {_origin(found[point.name])} has the same name")
        else:
            found[point.name] = point
    return found


def _plugin_class(point: EntryPoint) -> type[Detector]:
    from andon.detectors._base import Detector

    try:
        found = point.load()
    except Exception as error:  # whatever its module raises
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ConfigError(
            f"{_origin(point)} cannot be imported ({type(error).__name__}: {reason}): repair or uninstall that package"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Detector)):
        raise ConfigError(
            f"{_origin(point)} is no andon.Detector: its entry point must name a class derived from it"
        )
    return found


def _is_usable(name: str) -> bool:
    try:
        detector_class(name)
    except ConfigError as error:
        _warn_once(str(error))
        return False
    return True


def _origin(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else point.module
    return f"detector {point.name!r} of the package {package}"


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, PluginWarning, stacklevel=2)
