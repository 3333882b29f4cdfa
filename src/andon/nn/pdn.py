"""Patch description network of EfficientAD (Batzner et al., arXiv 2303.14535, Tables 6 and 7).

Receptive field 33 x 33 pixels, stride 4. The same weights work with padding (64 x 64 outputs for 256 pixels) and without (56
x 56). The layers are an `nn.Sequential`, so that state dicts have the names of the common public files: `0.weight`, `0.bias`,
`3.weight`, ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from andon.core.errors import WeightsError

Size = Literal["small", "medium"]
WIDTHS: Mapping[Size, int] = {"small": 128, "medium": 256}
"""Channels of the first layer in the paper; later layers have twice as many."""
STRIDE = 4
"""Pixels between neighbouring outputs."""
LOST_CELLS = 4
"""Outputs missing on each side of the map without padding."""


def pdn(size: Size, width: int | None, channels: int, *, padding: bool) -> nn.Sequential:
    """(B, 3, H, W) ImageNet-normalised images to (B, channels, h, w), h = `grid(H, padding)`.

    `width` None is the paper's. Average pooling counts padded zeros.
    """
    w, p = width or WIDTHS[size], int(padding)
    layers: list[nn.Module] = [
        nn.Conv2d(3, w, 4, padding=3 * p),
        nn.ReLU(),
        nn.AvgPool2d(2, padding=p),
        nn.Conv2d(w, 2 * w, 4, padding=3 * p),
        nn.ReLU(),
        nn.AvgPool2d(2, padding=p),
    ]
    if size == "medium":
        layers += [nn.Conv2d(2 * w, 2 * w, 1), nn.ReLU()]
    layers += [nn.Conv2d(2 * w, 2 * w, 3, padding=p), nn.ReLU(), nn.Conv2d(2 * w, channels, 4)]
    if size == "medium":
        layers += [nn.ReLU(), nn.Conv2d(channels, channels, 1)]
    # Channels last: the wide layers are about twice as fast on CPUs, whatever the layout of the input.
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def grid(side: int, padding: bool) -> int:
    """Outputs along a side of `side` pixels."""
    return -(-side // STRIDE) - (0 if padding else 2 * LOST_CELLS)


def teacher_state(state: Mapping[str, Tensor], network: str, *, what: str) -> dict[str, Tensor]:
    """Check the state dict of a teacher of any width and return it under the names of `pdn`.

    `network` is `pdn_small` or `pdn_medium`. The names `conv1.weight`, `conv2.weight`, ... of other implementations are
    translated. Raises `WeightsError`, which names `what`, if names or shapes are those of another network.
    """
    size: Size = "medium" if network == "pdn_medium" else "small"
    with torch.device("meta"):
        names = [
            f"{k}." for k, layer in enumerate(pdn(size, 8, 8, padding=False)) if hasattr(layer, "weight")
        ]
    if "conv1.weight" in state:
        renamed = {f"conv{k}.": name for k, name in enumerate(names, start=1)}
        state = {renamed.get(key[:6], key[:6]) + key[6:]: value for key, value in state.items()}
    first, last = state.get("0.weight"), state.get(f"{names[-1]}weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        raise WeightsError(
            f"{what} is no {network} teacher: it has no layers 0 and {names[-1][:-1]} of a patch description network; "
            "give the state dict of one"
        )
    with torch.device("meta"):
        wanted = pdn(size, len(first), len(last), padding=False).state_dict()
    for key in wanted | dict(state):
        found, needed = (tuple(d[key].shape) if key in d else None for d in (state, wanted))
        if found != needed:
            raise WeightsError(
                f"{what} is no {network} teacher: {key} is {found or 'missing'}, must be {needed or 'absent'}; "
                "give another file, or --network pdn_small or pdn_medium as it is"
            )
    return {key: state[key] for key in wanted}
