"""Locally aware patch features: PatchCore's embedding (arXiv 2106.08265, Sec. 3.1) and EfficientAD's distillation target.

The authors' code unfolds each tap into 3 x 3 neighbourhoods, flattens them to (channel, row, column), applies adaptive average
pooling, concatenates the taps and pools again. All of it is linear, and pooling of channels commutes with resizing, so the same
values come from a grouped convolution, a resize and a matrix product, without the unfolded tensor of nine times the size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 3
"""Side of the neighbourhoods."""


def pooling_window(entries: int, outputs: int) -> Tensor:
    """(outputs, entries) matrix of adaptive average pooling.

    Output i averages the entries floor(i·entries/outputs) to ceil((i+1)·entries/outputs) - 1.
    """
    window = torch.zeros(outputs, entries)
    for i in range(outputs):
        start, stop = i * entries // outputs, -(-(i + 1) * entries // outputs)
        window[i, start:stop] = 1.0 / (stop - start)
    return window


def pooling_kernel(channels: int, outputs: int) -> tuple[Tensor, int]:
    """Adaptive average pooling of flattened 3 x 3 neighbourhoods to `outputs` values, as a grouped convolution.

    Returns its weight (outputs, channels / groups, 3, 3) and groups = gcd(channels, outputs), whose borders no window crosses.
    """
    groups = math.gcd(channels, outputs)
    window = pooling_window(channels // groups * PATCH**2, outputs // groups)
    return window.view(-1, channels // groups, PATCH, PATCH).repeat(groups, 1, 1, 1), groups


class PatchEmbedding(nn.Module):
    """{tap: (B, C, h, w)} to (B, size, H, W) patch features on the grid of the first tap.

    Has no parameters and no saved state. With two taps, the first half of the channels depends on the first tap alone.
    """

    join: Tensor

    def __init__(
        self, shapes: Mapping[str, tuple[int, int, int]], *, size: int = 1024, tap_size: int = 1024
    ) -> None:
        """`shapes` holds (C, H, W) by tap, finest first; each tap is pooled to `tap_size` before they are joined."""
        super().__init__()
        self.taps = tuple(shapes)
        self.grid = shapes[self.taps[0]][1:]
        self.shape = (size, *self.grid)
        """(C, H, W) of the result."""
        self.groups: list[int] = []
        for k, (channels, _, _) in enumerate(shapes.values()):
            weight, groups = pooling_kernel(channels, tap_size)
            self.register_buffer(f"kernel{k}", weight, persistent=False)
            self.groups.append(groups)
        joined = len(shapes) * tap_size
        self.join_groups = math.gcd(joined, size)
        window = pooling_window(joined // self.join_groups, size // self.join_groups)
        self.register_buffer("join", window, persistent=False)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """{tap: (B, C, h, w)} to (B, size, H, W)."""
        parts = []
        for k, tap in enumerate(self.taps):
            kernel: Tensor = self.get_buffer(f"kernel{k}")
            pooled = F.conv2d(features[tap], kernel, padding=PATCH // 2, groups=self.groups[k])
            parts.append(to_grid(pooled, self.grid))
        x = torch.cat(parts, 1)
        grouped = x.view(
            x.shape[0] * self.join_groups, -1, x.shape[2] * x.shape[3]
        )  # (B*groups, entries, H*W)
        return (self.join @ grouped).view(x.shape[0], *self.shape)


class ConcatEmbedding(nn.Module):
    """{tap: (B, C, h, w)} to (B, sum of C, H, W): 3 x 3 averages of the taps, bilinear on the first tap's grid.

    anomalib's embedding of PatchCore; has no parameters.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int, int]]) -> None:
        """`shapes` holds (C, H, W) by tap, finest first."""
        super().__init__()
        self.taps = tuple(shapes)
        self.grid = shapes[self.taps[0]][1:]
        self.shape = (sum(shape[0] for shape in shapes.values()), *self.grid)
        """(C, H, W) of the result."""

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """{tap: (B, C, h, w)} to (B, sum of C, H, W)."""
        pooled = (F.avg_pool2d(features[tap], PATCH, stride=1, padding=PATCH // 2) for tap in self.taps)
        return torch.cat([to_grid(x, self.grid) for x in pooled], 1)


def to_grid(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """(B, C, h, w) to (B, C, H, W), bilinear with half-pixel centres."""
    if tuple(x.shape[2:]) == tuple(grid):
        return x
    return F.interpolate(x, size=tuple(grid), mode="bilinear", align_corners=False)
