"""Two-dimensional sinusoidal positional encoding (condition of the AST flow, arXiv 2210.07829)."""

from __future__ import annotations

import torch
from torch import Tensor


def positional_encoding(channels: int, height: int, width: int) -> Tensor:
    """(channels, height, width) float32; the first half of the channels encodes the column, the second the row.

    `channels` must be divisible by 4. Within a half, channel 2i is sin and 2i+1 is cos of position · ω_i with
    ω_i = 10000^(-2i / (channels / 2)).
    """
    if channels % 4:
        raise ValueError(f"positional encoding needs channels divisible by 4, got {channels}")
    half = channels // 2
    omega = torch.pow(10_000.0, -torch.arange(0, half, 2, dtype=torch.float64) / half)  # (half / 2,)
    out = torch.empty(channels, height, width, dtype=torch.float64)
    column = torch.outer(omega, torch.arange(width, dtype=torch.float64))  # (half / 2, width)
    row = torch.outer(omega, torch.arange(height, dtype=torch.float64))  # (half / 2, height)
    out[0:half:2] = column.sin()[:, None, :]
    out[1:half:2] = column.cos()[:, None, :]
    out[half::2] = row.sin()[:, :, None]
    out[half + 1 :: 2] = row.cos()[:, :, None]
    return out.float()
