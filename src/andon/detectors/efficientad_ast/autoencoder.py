"""Autoencoders over features: that of the thesis, and one with a bottleneck (docs/reference/models.md, "EfficientAD-AST")."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.errors import ConfigError
from andon.detectors.efficientad_ast.settings import AutoencoderConfig


class BottleneckAutoencoder(nn.Module):
    """(B, in_channels, grid, grid) to (B, out_channels, grid, grid) through a vector of `bottleneck` numbers.

    EfficientAD's autoencoder (Table 8), shortened to the grid of the features. Raises `ConfigError` unless 8 divides `grid`.
    """

    def __init__(self, in_channels: int, out_channels: int, grid: int, bottleneck: int, head: str) -> None:
        super().__init__()
        if grid % 8:
            raise ConfigError(
                f"the bottleneck needs a feature grid divisible by 8, this one is {grid} x {grid}; change extractor.image_size"
            )
        self.sizes = (grid // 8, grid // 4, grid // 2, grid)
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, bottleneck, grid // 4),
        )
        self.decoder = nn.ModuleList(
            [
                nn.Conv2d(bottleneck, 64, 4, padding=2),
                nn.Conv2d(64, 64, 4, padding=2),
                nn.Conv2d(64, 64, 4, padding=2),
            ]
        )
        self.refine = nn.Conv2d(64, 64, 3, padding=1)
        self.head = nn.Sequential(nn.Conv2d(64, out_channels, 3, padding=1))
        if head == "relu_dropout":
            self.head.extend([nn.ReLU(), nn.Dropout(0.2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)  # (B, bottleneck, 1, 1)
        for size, conv in zip(self.sizes, self.decoder, strict=False):
            x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
            x = F.dropout(torch.relu(conv(x)), 0.2, self.training)
        x = F.interpolate(x, size=(self.sizes[-1],) * 2, mode="bilinear", align_corners=False)
        out: Tensor = self.head(torch.relu(self.refine(x)))
        return out


class PublishedAutoencoder(nn.Module):
    """The autoencoder of the thesis: no bottleneck, an eightfold grid that is averaged back (D5, D6)."""

    def __init__(self, in_channels: int, out_channels: int, head: str) -> None:
        super().__init__()
        widths = [in_channels, 32, 32, 64, 64, 64, 64]
        self.encoder = nn.Sequential(
            *(layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU()))
        )
        scales = (1, 2, 2, 1, 2)  # before each decoder convolution
        self.decoder = nn.Sequential()
        for scale in scales:
            if scale > 1:
                self.decoder.append(nn.Upsample(scale_factor=scale, mode="nearest"))
            self.decoder.extend([nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Dropout(0.2)])
        self.head = nn.Sequential(nn.Conv2d(64, out_channels, 3, padding=1))
        if head == "relu_dropout":
            self.head.extend([nn.ReLU(), nn.Dropout(0.2)])

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.head(self.decoder(self.encoder(x))), 8)


def create_autoencoder(c: AutoencoderConfig, in_channels: int, out_channels: int, grid: int) -> nn.Module:
    """The autoencoder that the settings name, (B, in_channels, grid, grid) to (B, out_channels, grid, grid)."""
    if c.layout == "published":
        return PublishedAutoencoder(in_channels, out_channels, c.head)
    return BottleneckAutoencoder(in_channels, out_channels, grid, c.bottleneck, c.head)
