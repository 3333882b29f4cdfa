"""Recipes: everything needed to repeat a run, apart from the data. A recipe is a YAML file in `andon/recipes`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny

from andon.core.config import Amount, Config, Seed, from_yaml
from andon.core.errors import ConfigError, nearest
from andon.detectors._config import DetectorConfig
from andon.detectors._registry import (
    DEFAULT,
    detector_class,
    is_known,
    known_detector,
    recipe_text,
    recipes_of,
    summary,
    usable_detectors,
)

if TYPE_CHECKING:
    from andon.detectors._base import Detector

PIXEL_MEMORY = 2.0
"""Default of `RecipeSettings.pixel_memory`, and of an evaluation without a recipe."""


class RecipeSettings(Config):
    """What every recipe says beside the settings of its detector."""

    detector: str
    """Name of the detector."""
    name: str = ""
    """`detector/variant`."""
    summary: str = ""
    """One sentence for `andon recipes`."""
    seed: Seed = 0
    """Seeds the split, the initialisation, the order and every draw."""
    hold_out: bool = True
    """Hold 10 % of the good images out for validation where the data set has no validation images of its own."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Arithmetic of training: `auto` takes bfloat16 autocast where the hardware has it."""
    labelled: Annotated[int, Field(ge=0, strict=True)] | Literal["half"] = 0
    """Anomalous test images that are learned from instead, and taken out of the test; the seed chooses them."""
    region: str | None = None
    """File that says which part of the images is inspected: a mask (white = inspected) or JSON with polygons."""
    sessions: str = "auto"
    """How sessions of good images are told apart: `auto`, `exif`, `none`, or a pattern with one group for file names."""
    exclude: tuple[str, ...] = ()
    """Good images that are left out, each by id, file name or path."""
    good: tuple[str, ...] = ()
    """Names of folders of good images, where their names do not say so."""
    bad: tuple[str, ...] = ()
    """Names of folders of anomalous images, where their names do not say so."""
    gate: bool = False
    """Also evaluate behind SPADE's gate: pixels count only in images that are flagged as a whole."""
    pixel_metrics: Literal["auto", "exact", "histogram"] = "auto"
    """How pixel metrics are computed: from all scores, in bins with a bound of the error, or `auto` by `pixel_memory`."""
    pixel_memory: Amount = PIXEL_MEMORY
    """Gigabytes that the scores of all test pixels may take before `auto` counts them in bins."""


class RecipeFile(RecipeSettings):
    """A recipe as its YAML file says it; read without PyTorch."""

    config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the detector, not checked yet; those not named keep their defaults."""


class Recipe(RecipeSettings):
    """Everything needed to repeat a run, apart from the data. Made by `resolve`."""

    config: SerializeAsAny[DetectorConfig]
    """All settings of the detector."""


OWN_SETTINGS = tuple(
    name for name in RecipeSettings.model_fields if name not in {"detector", "name", "summary"}
)
"""Settings of the recipe itself; all others are the detector's."""


def recipe_names() -> list[str]:
    """Names of all recipes, `detector/variant`."""
    return sorted(recipe for detector in usable_detectors() for recipe in recipes_of(detector))


def load_recipe(name: str, detector: str | None = None) -> RecipeFile:
    """Read a recipe by name (`detector/variant`, or `variant` when the detector is given) or from a YAML file.

    Raises `ConfigError` when it is unknown, unreadable, or for another detector.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(
                f"recipe file {name} does not exist: check the path, or take one of `andon recipes`"
            )
        recipe = parse_recipe(_read_text(path), name, where=name)
    else:
        full = name if "/" in name or detector is None else f"{detector}/{name}"
        owner = full.partition("/")[0]
        if not is_known(owner) or full not in recipes_of(owner):
            raise ConfigError(f"unknown recipe {full!r}; {nearest(full, recipe_names())}")
        recipe = parse_recipe(recipe_text(full), full, where=f"recipe {full}")
    if detector is not None and recipe.detector != detector:
        raise ConfigError(
            f"recipe {name!r} is for {recipe.detector}, not for {detector}: choose another (`andon recipes`)"
        )
    return recipe


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe file {path} is not UTF-8 text: save it as such") from error


def parse_recipe(text: str, name: str, *, where: str) -> RecipeFile:
    """YAML text to a recipe; `name` is used where the text has none."""
    values = {"name": name, **from_yaml(text, where=where)}
    return RecipeFile.parse(values, where=where)


PREFERRED = ("lite0", "starter")
"""Variants that need no network, the better one first."""


def default_recipe(detector: str) -> str:
    """The recipe a detector is used with when none is named: the first of `PREFERRED` that it has, else its first."""
    names = recipes_of(detector)
    wanted = (f"{detector}/{variant}" for variant in PREFERRED)
    return next((name for name in wanted if name in names), names[0] if names else "")


def choose_recipe(detector: str | None, recipe: str | None) -> RecipeFile:
    """The recipe that a user named: `recipe` of `detector`, either of them by default; needs no PyTorch.

    A full name (`padim/lite0`) or a file also names the detector. Raises `ConfigError` for unknown names.
    """
    if detector is None and recipe is not None and ("/" in recipe or recipe.endswith((".yaml", ".yml"))):
        return load_recipe(recipe)
    if detector is not None and "/" in detector:
        raise ConfigError(f"{detector!r} names a recipe, not a detector: use --recipe {detector}")
    name = known_detector(detector or DEFAULT)
    return load_recipe(recipe or default_recipe(name), name)


def weight_names(recipe: RecipeFile) -> list[str]:
    """Names of the weights that a recipe's own settings name; empty for a recipe that leaves them at their defaults."""
    return list(dict.fromkeys(_values(recipe.config, "weights")))


def _values(settings: Mapping[str, Any], name: str) -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _values(value, name)
        elif key == name:
            yield str(value)


def with_own_changes(recipe: RecipeFile, changes: Mapping[str, Any]) -> tuple[RecipeFile, dict[str, Any]]:
    """The recipe with those changes that name its own fields (seed, ...), and the other changes; needs no PyTorch."""
    own = {key: value for key, value in changes.items() if key in OWN_SETTINGS}
    left = {key: value for key, value in changes.items() if key not in OWN_SETTINGS}
    return (recipe.updated(own, where="--set") if own else recipe), left


def resolve(recipe: RecipeFile, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with all settings of its detector, parsed: defaults, then what the recipe says, then `changes`.

    Changes go to the recipe's own fields by their name, to the detector's settings otherwise. Raises `ConfigError` for an
    unknown name or an impossible value.
    """
    recipe, changes = with_own_changes(recipe, changes)
    cls = detector_class(recipe.detector).Config
    values = copy.deepcopy(_merged(_defaults(cls), recipe.config))
    cls.apply_changes(values, changes, also=OWN_SETTINGS)
    where = f"recipe {recipe.name}" if recipe.name else ""
    try:
        config = cls.parse(values, where="--set" if changes else where)
    except ConfigError:
        if changes:  # a fault of the recipe itself is said first
            cls.parse(_merged(_defaults(cls), recipe.config), where=where)
        raise
    own = {name: getattr(recipe, name) for name in RecipeSettings.model_fields}
    return Recipe(**own, config=config)


@cache
def _defaults(cls: type[DetectorConfig]) -> dict[str, Any]:
    """Default settings as plain values; not to be changed."""
    return cls().model_dump(mode="python")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, group by group: a recipe names only what differs from the defaults."""
    out = dict(base)
    for key, value in changes.items():
        inside = out.get(key)
        out[key] = (
            _merged(inside, value) if isinstance(inside, Mapping) and isinstance(value, Mapping) else value
        )
    return out


def create(recipe: Recipe) -> Detector:
    """Build the detector of a recipe, untrained, initialised from the recipe's seed."""
    return detector_class(recipe.detector).seeded(recipe.config, recipe.seed)


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """One line of `andon detectors`."""

    name: str
    summary: str
    recipes: tuple[str, ...]


def detectors() -> list[DetectorInfo]:
    """All detectors that can be imported, with a summary and their recipes."""
    return [DetectorInfo(name, summary(name), tuple(recipes_of(name))) for name in usable_detectors()]
