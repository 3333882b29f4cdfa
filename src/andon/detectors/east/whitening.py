"""Whitened features: all taps on one grid, with covariance about the identity (Rippel et al., arXiv 2005.14140)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-3
"""Added to every eigenvalue, as a share of their mean, so that directions without variation are not amplified."""


class WhitenedFeatures(nn.Module):
    """{tap: (B, C_t, h_t, w_t)} to (B, C, H, W) on `grid`: principal components of good features, each with deviation 1.

    Each tap is resized to the grid (averaged where it is finer, bilinear where it is coarser) and averaged over 3 x 3 cells. All
    principal components are kept, strongest first: anomalies show in directions along which good features hardly vary.
    """

    mean_: Tensor
    matrix_: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, int, int]], grid: tuple[int, int]) -> None:
        super().__init__()
        self.taps, self.grid = tuple(shapes), grid
        self.channels = sum(shape[0] for shape in shapes.values())
        self.register_buffer("mean_", torch.zeros(self.channels))
        self.register_buffer("matrix_", torch.eye(self.channels))

    def join(self, features: Mapping[str, Tensor]) -> Tensor:
        """All taps on the grid, concatenated, not yet whitened: (B, C, H, W)."""
        return torch.cat([self._to_grid(features[tap]) for tap in self.taps], 1)

    def forward(self, joined: Tensor) -> Tensor:
        """Whiten (B, C, H, W) features as `join` returns them."""
        return F.conv2d(joined, self.matrix_[:, :, None, None], -(self.matrix_ @ self.mean_))

    def fit(self, joined: Iterable[Tensor]) -> None:
        """Learn mean and whitening matrix from batches (B, C, H, W) of good features; sums are in double precision.

        Channels are scaled to deviation 1 before the eigendecomposition, so that no tap dominates by its scale.
        """
        count, shift, total, products = 0, torch.zeros(()), torch.zeros(()).double(), torch.zeros(()).double()
        for batch in joined:
            cells = batch.transpose(0, 1).flatten(1)  # (C, n)
            if count == 0:
                shift = cells.mean(1, keepdim=True)  # small values lose less precision in the products
            cells = cells - shift
            count += cells.shape[1]
            total = total + cells.double().sum(1)
            products = products + (cells @ cells.T).double()
        mean = total / count
        covariance = products / count - torch.outer(mean, mean)
        scale = covariance.diagonal().clamp_min(0).sqrt().clamp_min(1e-3)
        values, axes = torch.linalg.eigh(covariance / torch.outer(scale, scale))
        values, axes = values.flip(0).clamp_min(0), axes.flip(1)
        whiten = (axes / (values + EPSILON * values.mean()).sqrt()).T / scale
        self.mean_.copy_(mean + shift[:, 0])
        self.matrix_.copy_(whiten)

    def _to_grid(self, x: Tensor) -> Tensor:
        if x.shape[2] > self.grid[0]:
            x = F.adaptive_avg_pool2d(x, self.grid)
        elif x.shape[2] < self.grid[0]:
            x = F.interpolate(x, size=self.grid, mode="bilinear", align_corners=False)
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
