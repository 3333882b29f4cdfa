"""Typed settings: frozen pydantic models, read from YAML and from `--set`.

pydantic and PyYAML are imported here. An unknown key is a `ConfigError` that suggests similar names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self, get_origin

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from andon.core.errors import ConfigError, nearest
from andon.core.seeds import LARGEST_SEED

Count = Annotated[int, Field(ge=1, strict=True)]
"""An integer, at least 1."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""A whole number, at least 0, that seeds random draws."""
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
"""A fraction in [0, 1)."""
SMALLEST_RATE = 1e-9
"""The smallest rate that a threshold can be asked for: a billion images would show it."""
Rate = Annotated[float, Field(ge=SMALLEST_RATE, lt=1.0)]
"""A fraction above 0 and below 1."""
Amount = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
"""A finite number, at least 0."""


DEEPEST = 50
"""Levels to which YAML may be nested."""


class Config(BaseModel):
    """Base of all settings: frozen, no unknown keys, every field with a default and a docstring."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )
    remedy: ClassVar[str] = "see `andon recipes NAME`"
    """End of the message about a value that a setting cannot have."""
    missing: ClassVar[str] = "add it"
    """End of the message about a setting that is not there."""

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str = "") -> Self:
        """Build from plain values. Raises `ConfigError` with the first problem in one line."""
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise ConfigError(_explain(cls, error, where)) from None

    def updated(self, changes: Mapping[str, Any], *, where: str = "", also: Iterable[str] = ()) -> Self:
        """Return a copy with dotted `changes` applied, e.g. `{"teacher.epochs": 24}`.

        `also` lists settings of other classes that are suggested too when a name is unknown.
        """
        values = self.model_dump(mode="python")
        type(self).apply_changes(values, changes, also=also)
        return type(self).parse(values, where=where)

    @classmethod
    def apply_changes(
        cls, values: dict[str, Any], changes: Mapping[str, Any], *, also: Iterable[str] = ()
    ) -> None:
        """Set dotted `changes` in plain `values` of these settings; raises `ConfigError` for an unknown name."""
        for key, value in changes.items():
            _set_dotted(cls, values, key, value, [*also])

    def settings(self) -> list[tuple[str, Any, str]]:
        """All settings as (dotted name, value, docstring)."""
        rows: list[tuple[str, Any, str]] = []
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Config):
                rows += [(f"{name}.{key}", v, text) for key, v, text in value.settings()]
            else:
                rows.append((name, value, " ".join((info.description or "").split())))
        return rows


def _set_dotted(
    cls: type[BaseModel], values: dict[str, Any], key: str, value: Any, also: Sequence[str]
) -> None:
    """Set `a.b.c` in nested dictionaries. Raises `ConfigError` for a name that the model does not have."""
    *groups, leaf = key.split(".")
    inner: type[BaseModel] = cls
    for depth, name in enumerate(groups):
        if name not in inner.model_fields:
            raise _unknown_setting(cls, key, also)
        group = _group(inner, name)
        if group is None:
            whole = ".".join(groups[: depth + 1])
            raise ConfigError(
                f"setting {whole!r} has no part {key.removeprefix(whole + '.')!r}; set {whole} itself"
            )
        inner, values = group, values[name]
        if not isinstance(values, dict):
            raise ConfigError(
                f"setting {key!r} cannot be changed in a group that was set as a whole; set one of the two"
            )
    if leaf not in inner.model_fields:
        raise _unknown_setting(cls, key, also)
    values[leaf] = value


def _unknown_setting(cls: type[BaseModel], key: str, also: Sequence[str], place: str = "") -> ConfigError:
    """Error for an unknown name. Suggests dotted names with the same last part, otherwise similar ones."""
    known = [*_dotted_names(cls), *also]
    leaf = key.rsplit(".", 1)[-1]
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == leaf]
    hint = f"did you mean {' or '.join(same_leaf)}?" if same_leaf else nearest(key, known)
    return ConfigError(f"unknown setting {key!r}{place}; {hint}")


def _group(cls: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The class of field `name` where that is a group of settings, otherwise None."""
    inner = cls.model_fields[name].annotation
    return (
        inner
        if get_origin(inner) is None and isinstance(inner, type) and issubclass(inner, BaseModel)
        else None
    )


def _dotted_names(cls: type[BaseModel]) -> list[str]:
    names: list[str] = []
    for name in cls.model_fields:
        inner = _group(cls, name)
        names += [name] if inner is None else [f"{name}.{sub}" for sub in _dotted_names(inner)]
    return names


def _explain(cls: type[Config], error: pydantic.ValidationError, where: str) -> str:
    """The first problem of a validation error in one line."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    place = f" in {where}" if where else ""
    if first["type"] == "extra_forbidden":
        return str(_unknown_setting(cls, name, (), place))
    if first["type"] == "missing":
        return f"setting {name!r} is missing{place}: {cls.missing}"
    if not name:
        return f"{first['msg'].removeprefix('Value error, ')}{place}"
    return f"setting {name}={first['input']!r}{place}: {first['msg'].removeprefix('Value error, ')}; {cls.remedy}"


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses what is nested more than `DEEPEST` levels, or inside itself by an alias."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        return super().construct_object(node, deep=True)  # the parts first, so that an endless loop shows


def _load(text: str) -> Any:
    """Plain values of a YAML text. Raises `yaml.YAMLError` or `ValueError`."""
    return yaml.load(text, _Loader)


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["teacher.epochs=24", "taps=[layer2, layer3]"]` as a mapping; values are YAML scalars or lists."""
    out: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r} is not of the form key=value, e.g. --set seed=1")
        try:
            out[key.strip()] = _load(text)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
            raise ConfigError(f"--set {assignment[:80]!r}: the value is not valid YAML; quote it") from error
    return out


def to_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, keys in the order given."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=110)


def from_yaml(text: str, *, where: str) -> dict[str, Any]:
    """YAML text to a mapping. Raises `ConfigError` when it is not one."""
    try:
        values = _load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        line = str(error).splitlines()[0]
        raise ConfigError(f"{where} is not valid YAML ({line}): correct it") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where} holds no settings (a mapping of names to values is needed)")
    return values
