"""Tapped features of a backbone as one tensor on one grid."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.errors import ConfigError
from andon.layers.moments import channel_statistics


class FeatureAdapter(nn.Module):
    """Taps resized to the grid of the first one and concatenated, then optionally projected and standardised.

    The projection is a fixed random orthonormal matrix; `fit` learns the channel means and deviations.
    """

    mean_: Tensor
    std_: Tensor
    projection: Tensor

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int, int]],
        *,
        project: int | None = None,
        standardise: bool = False,
    ):
        super().__init__()
        self.taps = tuple(shapes)
        self.grid = shapes[self.taps[0]][1:]
        channels = sum(shape[0] for shape in shapes.values())
        if project is not None and not 0 < project <= channels:
            raise ConfigError(f"cannot project {channels} channels to {project}: choose at most {channels}")
        self.standardise = standardise
        self.shape = (project or channels, *self.grid)
        """(C, H, W) of the result."""
        if project is not None:
            noise = torch.randn(
                channels, project, generator=torch.Generator().manual_seed(0), dtype=torch.float64
            )
            self.register_buffer(
                "projection", torch.linalg.qr(noise).Q.T.float()[:, :, None, None].contiguous()
            )
        else:
            self.register_buffer("projection", None)
        self.register_buffer("mean_", torch.zeros(1, self.shape[0], 1, 1))
        self.register_buffer("std_", torch.ones(1, self.shape[0], 1, 1))

    def fit(self, features: Mapping[str, Tensor]) -> None:
        """Learn the channel statistics from {tap: (N, C, h, w)}, if the adapter standardises."""
        if not self.standardise:
            return
        self.mean_.zero_()
        self.std_.fill_(1.0)
        mean, std = channel_statistics(torch.split(self.transform(features), 8))
        self.mean_.copy_(mean)
        self.std_.copy_(std)

    def transform(self, features: Mapping[str, Tensor]) -> Tensor:
        """{tap: (B, C, h, w)} to (B, C', H, W), on the device of the features."""
        parts = [self._to_grid(features[tap]) for tap in self.taps]
        x = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        if self.projection is not None:
            x = F.conv2d(x, self.projection.to(x.device))
        return (x - self.mean_.to(x.device)) / self.std_.to(x.device) if self.standardise else x

    def _to_grid(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) == tuple(self.grid):
            return x
        if x.shape[2] > self.grid[0]:
            return F.adaptive_avg_pool2d(x, self.grid)
        return F.interpolate(x, size=self.grid, mode="bilinear", align_corners=False)
