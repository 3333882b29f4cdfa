"""Resizing inside exported networks: bilinear, antialiased, half-pixel centres, as `andon.core.images.resize`.

Runtimes disagree about antialiased resizing as an operator; about products of matrices they agree. A new row depends on a few old
ones, so a block of new rows is one small product with the window of old rows it covers, not with all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16
"""New rows or columns that share a window, at most."""


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, h, w) in [0, 1]."""
    (height, width), (h, w) = images.shape[1:3], size
    rows = shrunk(images.flatten(2), height, h).reshape(-1, h, width, 3)
    columns = shrunk(rows.transpose(1, 2).flatten(2), width, w)  # (B, w, h·3)
    return columns.reshape(-1, w, h, 3).permute(0, 3, 2, 1) / 255


def shrunk(x: Tensor, before: int, after: int) -> Tensor:
    """(B, before, K) of any type to (B, after, K) float32."""
    places, weights = windows(before, after, x.device)
    block = x.index_select(1, places.flatten()).float().reshape(-1, *places.shape, x.shape[2])
    return (weights @ block).flatten(1, 2)


def windows(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, L) old places that each of N blocks of new ones looks at, and (N, after / N, L) their weights."""
    scale = torch.scalar_tensor(before, dtype=torch.float32, device=device) / after
    reach = scale.clamp_min(1.0)  # a new pixel looks at all the old ones it covers
    count = next(count for count in range(BLOCK, 0, -1) if after % count == 0)
    centres = (torch.arange(after, dtype=torch.float32, device=device) + 0.5).view(-1, count) * scale
    length = (count * before + 2 * (before + after)) // after + 3
    first = (centres[:, :1] - reach - 0.5).floor().long()
    places = first + torch.arange(length, device=device)  # (N, L), beyond the image at its edges
    weights = 1 - (places[:, None] + 0.5 - centres[:, :, None]).abs() / reach
    weights = weights.clamp_min(0) * ((places >= 0) & (places < before))[:, None]
    return places.clamp(0, before - 1), weights / weights.sum(2, keepdim=True)
