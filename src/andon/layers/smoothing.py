"""Upsampling and Gaussian smoothing of anomaly maps (sigma 4 in the papers on memory banks)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TRUNCATE = 4.0
"""Radius of the kernel in sigmas."""


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """(size, size) matrix of a Gaussian filter with reflected borders (d c b a | a b c d), as `scipy.ndimage.gaussian_filter1d`.

    Rows sum to 1.
    """
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma).square()) if sigma > 0 else torch.ones(1).double()
    source = (torch.arange(size)[:, None] + offsets) % (2 * size)
    source = torch.where(source < size, source, 2 * size - 1 - source)  # (size, taps)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, source, (kernel / kernel.sum()).expand(size, -1)).float()


class Smoothing(nn.Module):
    """(B, 1, h, w) upsampled to a square map (bilinear, half-pixel centres) and smoothed; no parameters, no saved state."""

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
