"""Gaussian smoothing of anomaly maps, as the papers on memory banks do it (sigma 4 at the input size)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TRUNCATE = 4.0
"""The kernel ends at this many sigmas."""


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """(size, size) matrix that smooths a line: a Gaussian, the line continued by reflection about its edges (d c b a | a b c d).

    The same as `scipy.ndimage.gaussian_filter1d`; rows sum to 1.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma).square()) if sigma > 0 else torch.ones(1).double()
    source = (torch.arange(size)[:, None] + offsets) % (2 * size)
    source = torch.where(source < size, source, 2 * size - 1 - source)  # (size, taps)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, source, (kernel / kernel.sum()).expand(size, -1)).float()


class Smoothing(nn.Module):
    """Cells enlarged to a square map (bilinear, half-pixel centres), then smoothed; nothing is learned or saved."""

    matrix: Tensor

    def __init__(self, size: int, sigma: float) -> None:
        """`size` is the side of the maps, `sigma` the Gaussian's in their pixels (0: no smoothing)."""
        super().__init__()
        self.size, self.sigma = size, sigma
        self.register_buffer("matrix", gaussian_matrix(size, sigma), persistent=False)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, 1, h, w) to (B, 1, size, size)."""
        maps = F.interpolate(cells, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return self.matrix @ maps @ self.matrix.T if self.sigma > 0 else maps
