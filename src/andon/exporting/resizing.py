"""Resizing inside exported networks: bilinear, antialiased, half-pixel centres, as `andon.core.images.resize`.

Runtimes disagree about antialiased resizing as an operator; about products of matrices they agree. A new row depends on a few old
ones, so a block of new rows is one small product with the window of old rows it covers, not with all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 16
"""New rows or columns that share a window, at most."""
FEW_CELLS = 64
"""Maps of at most so many cells a side are enlarged by products of matrices, which runtimes compute faster than interpolation."""


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, h, w) in [0, 1]."""
    (height, width), (h, w) = images.shape[1:3], size
    rows = shrunk(images.flatten(2), height, h)  # (B, h, W·3)
    # Transposing matrices is many times faster than moving the three colours of single pixels.
    columns = shrunk(rows.transpose(1, 2).reshape(-1, width, 3 * h), width, w, unit=255.0)  # (B, w, 3·h)
    return columns.transpose(1, 2).reshape(-1, 3, h, w)


def shrunk(x: Tensor, before: int, after: int, *, unit: float = 1.0) -> Tensor:
    """(B, before, K) of any type to (B, after, K) float32, divided by `unit`."""
    places, weights = windows(before, after, x.device)
    block = x.index_select(1, places.flatten()).float().reshape(-1, *places.shape, x.shape[2])
    return ((weights / unit) @ block).flatten(1, 2)


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


def enlarged(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) to (B, H, W): bilinear, half-pixel centres, as `torch.nn.functional.interpolate`."""
    if max(cells.shape[1:]) > FEW_CELLS:
        return F.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    rows, columns = (
        lines(before, after, cells.device) for before, after in zip(cells.shape[1:], size, strict=True)
    )
    return rows @ cells @ columns.T


def lines(before: int, after: int, device: torch.device) -> Tensor:
    """(after, before) weights of linear interpolation: two in a row."""
    scale = torch.scalar_tensor(before, dtype=torch.float32, device=device) / after
    centres = (torch.arange(after, dtype=torch.float32, device=device) + 0.5) * scale - 0.5
    places = torch.arange(before, dtype=torch.float32, device=device)
    return (1 - (centres.clamp(0, before - 1)[:, None] - places).abs()).clamp_min(0)
