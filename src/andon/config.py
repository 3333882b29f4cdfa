"""Typed configuration: one frozen object is YAML, command-line override, saved file and schema.

pydantic and PyYAML live here. Unknown keys are errors that offer the nearest names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, get_origin

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict

from andon.errors import ConfigError, nearest


class Config(BaseModel):
    """Base of all settings: frozen, no unknown keys, every field with a default and a docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str = "") -> Self:
        """Build from plain values. Raises `ConfigError` with the first problem in one line."""
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise ConfigError(_explain(cls, error, where)) from None

    def updated(self, changes: Mapping[str, Any], *, where: str = "") -> Self:
        """Return a copy with dotted `changes` applied, e.g. `{"teacher.epochs": 24}`."""
        values = self.model_dump(mode="python")
        for key, value in changes.items():
            _set_dotted(type(self), values, key, value)
        return type(self).parse(values, where=where)

    def settings(self) -> list[tuple[str, Any, str]]:
        """All settings as (dotted name, value, meaning)."""
        rows: list[tuple[str, Any, str]] = []
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Config):
                rows += [(f"{name}.{key}", v, text) for key, v, text in value.settings()]
            else:
                rows.append((name, value, " ".join((info.description or "").split())))
        return rows


def _set_dotted(cls: type[BaseModel], values: dict[str, Any], key: str, value: Any) -> None:
    """Set `a.b.c` in nested plain values; the name is checked against the model."""
    head, _, rest = key.partition(".")
    if head not in cls.model_fields:
        known = _dotted_names(cls)
        leaf = key.rsplit(".", 1)[-1]
        same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == leaf]
        hint = f"did you mean {' or '.join(same_leaf)}?" if same_leaf else nearest(key, known)
        raise ConfigError(f"unknown setting {key!r}; {hint}")
    if not rest:
        values[head] = value
        return
    inner = cls.model_fields[head].annotation
    if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
        raise ConfigError(f"setting {head!r} has no part {rest!r}; set {head} itself")
    _set_dotted(inner, values[head], rest, value)


def _dotted_names(cls: type[BaseModel]) -> list[str]:
    names: list[str] = []
    for name, info in cls.model_fields.items():
        inner = info.annotation
        if get_origin(inner) is None and isinstance(inner, type) and issubclass(inner, BaseModel):
            names += [f"{name}.{sub}" for sub in _dotted_names(inner)]
        else:
            names.append(name)
    return names


def _explain(cls: type[BaseModel], error: pydantic.ValidationError, where: str) -> str:
    """One line for the first problem of a validation error."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    place = f" in {where}" if where else ""
    if first["type"] == "extra_forbidden":
        return f"unknown setting {name!r}{place}; {nearest(name, _dotted_names(cls))}"
    if not name:
        return f"{first['msg'].removeprefix('Value error, ')}{place}"
    return f"setting {name}={first['input']!r}{place}: {first['msg'].removeprefix('Value error, ')}; see `andon recipes NAME`"


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["teacher.epochs=24", "taps=[layer2, layer3]"]` to a mapping; values are read as YAML scalars or lists."""
    out: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r} is not of the form key=value, e.g. --set seed=1")
        try:
            out[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment!r}: the value is not valid YAML; quote it") from error
    return out


def to_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, keys in the order given."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=110)


def from_yaml(text: str, *, where: str) -> dict[str, Any]:
    """YAML text to a mapping. Raises `ConfigError` when it is not one."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"{where} is not valid YAML ({line}): correct it") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where} holds no settings (a mapping of names to values is needed)")
    return values
