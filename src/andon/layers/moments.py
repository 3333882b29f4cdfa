"""Channel statistics over a stream of feature maps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def channel_statistics(maps: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each channel over all positions of (B, C, h, w) maps: (1, C, 1, 1) float32.

    Deviations are at least 1e-6. Sums are in double precision, around the first map's mean.
    """
    shift, count = torch.zeros(()), 0
    total, squares = torch.zeros(()), torch.zeros(())
    with torch.inference_mode():
        for m in maps:
            values = m.float().cpu().double()
            if count == 0:
                shift = values.mean((0, 2, 3), keepdim=True)
                total, squares = torch.zeros_like(shift), torch.zeros_like(shift)
            count += values.shape[0] * values.shape[2] * values.shape[3]
            total += (values - shift).sum((0, 2, 3), keepdim=True)
            squares += (values - shift).square().sum((0, 2, 3), keepdim=True)
        variance = squares / count - (total / count).square()
    mean, std = shift + total / count, variance.clamp_min(0.0).sqrt().clamp_min(1e-6)
    return mean.float().clone(), std.float().clone()
