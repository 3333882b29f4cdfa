"""Learning from a few labelled defects (spec 4, V5): cells that are known to be defective, and what to do with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HARDEST = 0.01
"""Share of an image's cells that count as defective where only the image is labelled: those that differ most."""
NORMAL_QUANTILE = 0.995
BOUNDARY_QUANTILE = 0.95
BOUNDARY_MARGIN = 0.1
NEWTON_STEPS = 100


def defect_cells(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) masks, NaN throughout where an image has none, to (N, h, w): share of each cell that is defective."""
    return F.adaptive_avg_pool2d(masks, grid)[:, 0]


def chosen_cells(defective: Tensor, difference: Tensor) -> Tensor:
    """(N, h, w) bool: the cells to learn from, from `defect_cells` and a difference map (N, h, w).

    Cells that are defective by half, else the most defective one; where only the image is labelled the hardest 1 %.
    """
    flat, by_mask = difference.flatten(1), defective.flatten(1)
    count = max(1, round(HARDEST * flat.shape[1]))
    hardest = flat >= flat.topk(count, dim=1).values[:, -1:]
    marked = (by_mask >= 0.5) | (by_mask == by_mask.amax(1, keepdim=True))
    return torch.where(by_mask.isnan(), hardest, marked & (by_mask > 0)).reshape(difference.shape)


def margin_loss(normal: Tensor, defective: Tensor, cells: Tensor) -> Tensor:
    """Mean of max(0, m - D) over defective cells, m twice the 0.995 quantile of the difference D of good cells."""
    margin = 2 * normal.detach().float().flatten().quantile(NORMAL_QUANTILE)
    return F.relu(margin - defective[cells]).mean()


def boundary_loss(normal: Tensor, defective: Tensor, cells: Tensor) -> Tensor:
    """Hinge that keeps the negative log-likelihood of defective cells a tenth above the 0.95 quantile of good ones."""
    boundary = normal.detach().float().flatten().quantile(BOUNDARY_QUANTILE)
    return F.relu(boundary + BOUNDARY_MARGIN * boundary.abs() - defective[cells]).mean()


class CalibratedHead(nn.Module):
    """(B, K, h, w) maps to the log-odds of a defect (B, 1, h, w): logistic regression on the maps and their 3 x 3 means."""

    weight_: Tensor
    scale_: Tensor

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.register_buffer("weight_", torch.zeros(2 * maps + 1))  # the last is the intercept
        self.register_buffer("scale_", torch.tensor([[0.0, 1.0]] * (2 * maps)))

    def forward(self, maps: Tensor) -> Tensor:
        x = self._inputs(maps)
        standard = (x - self.scale_[:, 0, None, None]) / self.scale_[:, 1, None, None]
        return (standard * self.weight_[:-1, None, None]).sum(1, keepdim=True) + self.weight_[-1]

    def fit(self, maps: Tensor, cells: Tensor, known: Tensor) -> None:
        """Learn from (N, K, h, w) maps: `cells` (N, h, w) are defective; `known` says which cells count at all.

        Both classes weigh the same; half the squared length of the standardised weights is added to the loss, which keeps
        separable classes finite (Newton's method, as the loss is convex).
        """
        x = self._inputs(maps).transpose(0, 1).flatten(1)[:, known.flatten()].T.double()  # (n, 2 K)
        y = cells.flatten()[known.flatten()].double()
        deviation, mean = torch.std_mean(x, dim=0, correction=0)
        self.scale_ = torch.stack([mean, deviation.clamp_min(1e-9)], 1).to(self.scale_)
        standard = (x - mean) / deviation.clamp_min(1e-9)
        share = y.mean().clamp(1e-9, 1 - 1e-9)
        each = torch.where(y > 0, 0.5 / share, 0.5 / (1 - share))
        design = torch.cat([standard, torch.ones_like(y)[:, None]], 1)
        ridge = torch.ones(design.shape[1], dtype=y.dtype, device=y.device)
        ridge[-1] = 1e-9  # the intercept is free
        weight = torch.zeros_like(ridge)
        for _ in range(NEWTON_STEPS):
            p = torch.sigmoid(design @ weight)
            gradient = design.T @ (each * (p - y)) + ridge * weight
            curvature = (design.T * (each * (p * (1 - p)).clamp_min(1e-9))) @ design + torch.diag(ridge)
            step = torch.linalg.solve(curvature, gradient)
            weight = weight - step / max(1.0, float(step.abs().max()))  # long steps overshoot
        self.weight_ = weight.to(self.weight_)

    @staticmethod
    def _inputs(maps: Tensor) -> Tensor:
        return torch.cat([maps, F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)], 1)
