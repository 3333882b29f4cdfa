"""From the two difference maps of EfficientAD-AST to one scale and to image scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

QUANTILES = (0.9, 0.995)
"""q_a and q_b (EfficientAD Sec. 3.4)."""
SCORE_RULES = {
    "mean": "mean of",
    "max": "maximum (after enlarging) of",
    "topk": "mean of the largest 1 % cells of",
}
"""Image scores, in words."""


def quantile_range(cells: Tensor) -> Tensor:
    """Values (K, n) of K maps to their q_a and q_b, (K, 2) float32 on the CPU."""
    quantiles = np.quantile(cells.cpu().numpy(), QUANTILES, axis=1).T
    return torch.from_numpy(quantiles.astype(np.float32))


def rescaled(maps: Tensor, quantiles: Tensor) -> Tensor:
    """(B, K, h, w) maps, affinely scaled so that q_a becomes 0 and q_b becomes 0.1 (EfficientAD Sec. 3.4)."""
    low, high = quantiles[:, 0].view(1, -1, 1, 1), quantiles[:, 1].view(1, -1, 1, 1)
    return 0.1 * (maps - low) / (high - low).clamp_min(1e-12)


def image_score(maps: Tensor, rule: str, size: tuple[int, int]) -> Tensor:
    """(B, 1, h, w) to (B,): mean, maximum after enlarging to `size`, or mean of the largest 1 % cells (D7)."""
    if rule == "max":
        enlarged = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        return enlarged.flatten(1).amax(1)
    flat = maps.flatten(1)
    if rule == "mean":
        return flat.mean(1)
    return flat.topk(max(1, round(0.01 * flat.shape[1])), dim=1).values.mean(1)
