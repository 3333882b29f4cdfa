"""File format of a flow teacher shared by all products, in the weight store (``docs/reference/models/variants.md``).

A file holds the flow, the channel statistics that standardise its input, and the settings that flow and input depend on, which
are compared when it is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from andon.core.errors import ConfigError, WeightsError
from andon.core.files import from_json
from andon.nn.weights import FLOW_NETWORK, WeightFile, locate

MEAN, STD, SETTINGS, PART = "features.mean", "features.std", "settings", "flow."
"""Names in the file; `settings` is JSON as bytes, since the store holds tensors only."""


@dataclass(frozen=True, slots=True)
class FlowTeacher:
    """A flow teacher from the store."""

    weights: WeightFile
    flow: Mapping[str, Tensor]
    """State of `layers.flow.Flow`."""
    mean: Tensor
    """(1, C, 1, 1) means of the features over its training images."""
    std: Tensor
    """(1, C, 1, 1) deviations."""


def flow_interface(
    extractor: Mapping[str, Any], project: int | None, flow: Mapping[str, Any], position: int
) -> dict[str, Any]:
    """The settings that flow and input depend on, by dotted name; pretraining and detector must agree on them.

    `extractor` holds the fields of `BackboneConfig`, `flow` hidden, kernels and clamp; `position` is the number of channels of
    the positional encoding.
    """
    own = {f"extractor.{name}": value for name, value in extractor.items()} | {"extractor.project": project}
    return (
        own
        | {f"teacher.{name}": flow[name] for name in ("hidden", "kernels", "clamp")}
        | {"position": position}
    )


def flow_teacher_state(
    flow: Mapping[str, Tensor], mean: Tensor, std: Tensor, settings: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The tensors of the file; `settings` come from `flow_interface`."""
    text = torch.frombuffer(bytearray(json.dumps(dict(settings), sort_keys=True).encode()), dtype=torch.uint8)
    return {MEAN: mean, STD: std, SETTINGS: text} | {PART + name: value for name, value in flow.items()}


def locate_flow(name: str, settings: Mapping[str, Any]) -> FlowTeacher:
    """Load the flow teacher `name` for a detector with the given `settings` (`flow_interface`).

    Raises `WeightsError` if it is unknown, damaged or no flow teacher, `ConfigError` if it was made for other settings.
    """
    weights = locate(name, FLOW_NETWORK)
    state = dict(weights.state or {})
    try:
        mean, std = state.pop(MEAN), state.pop(STD)
        made_for = from_json(bytes(state.pop(SETTINGS).tolist()))
        flow = {key.removeprefix(PART): value for key, value in state.items()}
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"weights {name!r} are no flow teacher: make one with `andon pretrain flow --name {name}`"
        ) from error
    for key, wanted in json.loads(json.dumps(dict(settings))).items():
        if made_for.get(key) != wanted:
            raise ConfigError(
                f"the flow teacher {name!r} was made for {key}={made_for.get(key)!r}, this recipe has {wanted!r}: set one "
                "to the other, or make another with `andon pretrain flow`"
            )
    return FlowTeacher(weights, flow, mean, std)
