"""Crops and losses of the teacher's distillation (Uninformed Students, arXiv 1911.02357, Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.layers.augment import luma, uniform

NOISE = 0.1
"""Standard deviation of the noise on the positive crop p⁺ of a triplet."""


def random_windows(
    images: Sequence[Tensor],
    patch: int,
    generator: torch.Generator,
    *,
    border: int = 0,
    zoom: tuple[float, float] = (4.0, 16.0),
    grey_share: float = 0.1,
) -> Tensor:
    """One random crop of each (3, S, S) uint8 image: (B, 3, w, w) in [0, 1], w = patch + 2 * border.

    The crop is as large as in an image resized to a random side between `zoom[0]` and `zoom[1]` patches; only the crop is
    resized. A window is converted to grey with probability `grey_share`. The generator is on the CPU.
    """
    side = patch + 2 * border
    windows = []
    for image in images:
        whole = image.shape[-1]
        zoomed = patch * uniform(generator, *zoom)
        extent = min(whole, max(2, round(side * whole / zoomed)))
        top, left = (int(torch.randint(whole - extent + 1, (), generator=generator)) for _ in range(2))
        cut = image[None, :, top : top + extent, left : left + extent].float() / 255
        window = F.interpolate(cut, size=(side, side), mode="bilinear", align_corners=False, antialias=True)[
            0
        ]
        grey = float(torch.rand((), generator=generator)) < grey_share
        windows.append(luma(window).expand(3, -1, -1) if grey else window)
    return torch.stack(windows)


def shifted_crops(windows: Tensor, patch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """p, the central crops (B, 3, patch, patch) of windows, and p⁺, the same shifted by up to the border and with noise."""
    border = (windows.shape[-1] - patch) // 2
    centre = windows[:, :, border : border + patch, border : border + patch]
    shifted = []
    for window in windows:
        top, left = (int(torch.randint(2 * border + 1, (), generator=generator)) for _ in range(2))
        shifted.append(window[:, top : top + patch, left : left + patch])
    moved = torch.stack(shifted)
    return centre, moved + NOISE * torch.randn(moved.shape, generator=generator).to(moved.device)


def largest_shift(patch: int) -> int:
    """Largest shift of p⁺ in pixels: a quarter of the patch."""
    return (patch - 1) // 4


def knowledge_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """L_k: squared distance of decoded descriptors to the large network's features, both (B, n), averaged over the batch."""
    return (decoded - target).square().sum(1).mean()


def metric_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0) -> Tensor:
    """L_m: triplet loss of descriptors (B, d) with the nearer of the distances negative-anchor and negative-positive."""
    near = (anchor - positive).square().sum(1)
    far = torch.minimum((anchor - negative).square().sum(1), (positive - negative).square().sum(1))
    return (margin + near - far).clamp_min(0.0).mean()


def compactness_loss(descriptors: Tensor, between: Literal["dimensions", "samples"] = "dimensions") -> Tensor:
    """L_c: sum of the squared correlations between different dimensions (or samples) of a batch of descriptors (B, d).

    0 if all are uncorrelated, d (d - 1) if all are equal. The paper prints the sum of the correlations themselves, which rewards
    negative ones.
    """
    with torch.autocast(descriptors.device.type, enabled=False):
        rows = descriptors.float() if between == "samples" else descriptors.float().T
        centred = rows - rows.mean(1, keepdim=True)
        unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-12)
        correlation = unit @ unit.T
        total: Tensor = correlation.square().sum() - correlation.diagonal().square().sum()
        return total
