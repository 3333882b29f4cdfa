"""Residual convolutional student (AST, arXiv 2210.07829) and hard feature loss (EfficientAD, arXiv 2303.14535, Eq. 1)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """(Conv 3, BatchNorm, LeakyReLU) twice plus the input; no activation after the addition."""

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(slope),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(slope),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class ResidualStudent(nn.Module):
    """(B, in_channels, H, W) to (B, out_channels, H, W): head, residual blocks, linear tail."""

    def __init__(
        self, in_channels: int, out_channels: int, *, width: int = 1024, blocks: int = 4, slope: float = 0.01
    ):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.LeakyReLU(slope))
        self.blocks = nn.Sequential(*(ResidualBlock(width, slope) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.tail(self.blocks(self.head(x)))
        return out


@contextlib.contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Context in which BatchNorm layers use their running statistics and do not update them."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


def hard_mean(difference: Tensor, share: float) -> Tensor:
    """Hard feature loss: mean of the elements at or above the `share` quantile of their image, averaged over the batch.

    `difference` is (B, ...), non-negative; `share` = 0 gives the mean of all, 0.999 of the largest 0.1 %. The quantile is
    per image (EfficientAD has batches of one), so that the loss does not depend on the batch size.
    """
    if share == 0.0:
        return difference.mean()
    flat = difference.flatten(1)  # (B, n)
    keep = flat.shape[1] - math.ceil(
        share * (flat.shape[1] - 1)
    )  # elements at or above the interpolated quantile
    return torch.topk(flat, keep, dim=1, sorted=False).values.mean()
