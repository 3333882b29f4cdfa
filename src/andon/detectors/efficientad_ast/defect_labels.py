"""Learning from a few labelled defects (variant V5): which cells are defective, and the losses and the map made from them.

docs/reference/models.md, "Variants".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.image_files import read_size
from andon.core.records import Record
from andon.datasets.masks import load_ground_truth
from andon.nn.training import Draw

HARDEST = 0.01
"""Share of an image's cells taken as defective where only the image is labelled: those of the largest difference."""
NORMAL_QUANTILE = 0.995
BOUNDARY_QUANTILE = 0.95
BOUNDARY_MARGIN = 0.1
NEWTON_STEPS = 100


@dataclass(frozen=True, slots=True)
class LabelledDefects:
    """Anomalous images to learn from."""

    f: Tensor
    """(N, C, h, w) features."""
    share: Tensor
    """(N, h, w) defective share of each cell, in [0, 1]; NaN in images without a mask."""

    def some(self, count: int, draw: Draw) -> LabelledDefects:
        """At most `count` of them, drawn with replacement from the step's generator."""
        chosen = torch.randint(len(self.f), (min(count, len(self.f)),), generator=draw.generator)
        chosen = chosen.to(self.f.device)
        return LabelledDefects(self.f[chosen], self.share[chosen])


def defect_shares(records: Sequence[Record], grid: tuple[int, int]) -> Tensor:
    """(N, h, w): defective share of each cell of a grid (h, w), from the masks; NaN in images without a mask."""
    return torch.cat([defect_cells(_mask(record), grid) for record in records])


def _mask(record: Record) -> Tensor:
    """(1, 1, H, W): 1 on the defect; NaN everywhere where the image has no mask."""
    truth = load_ground_truth(record, read_size(record.image))
    union = torch.from_numpy(np.asarray(truth.union, np.float32))[None, None]
    return union if truth.defects else torch.full_like(union, torch.nan)


def defect_cells(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) masks to the defective share of each cell (N, h, w); NaN stays NaN."""
    return F.adaptive_avg_pool2d(masks, grid)[:, 0]


def chosen_cells(defective: Tensor, difference: Tensor) -> Tensor:
    """(N, h, w) bool: the cells taken as defective, from `defect_cells` and a difference map (N, h, w).

    With a mask: cells defective by at least half, and the most defective one. Without: the 1 % of largest difference.
    """
    flat, by_mask = difference.flatten(1), defective.flatten(1)
    count = max(1, round(HARDEST * flat.shape[1]))
    hardest = flat >= flat.topk(count, dim=1).values[:, -1:]
    marked = (by_mask >= 0.5) | (by_mask == by_mask.amax(1, keepdim=True))
    return torch.where(by_mask.isnan(), hardest, marked & (by_mask > 0)).reshape(difference.shape)


def margin_loss(normal: Tensor, defective: Tensor, cells: Tensor) -> Tensor:
    """Mean of max(0, m - D) over the `cells` of defective images; m is twice the 0.995 quantile of D on good images."""
    margin = 2 * normal.detach().float().flatten().quantile(NORMAL_QUANTILE)
    return F.relu(margin - defective[cells]).mean()


def boundary_loss(normal: Tensor, defective: Tensor, cells: Tensor) -> Tensor:
    """Mean of max(0, b + 0.1 |b| - NLL) over the defective `cells`; b is the 0.95 quantile of the NLL on good images."""
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
        """Fit to maps (N, K, h, w); `cells` (N, h, w) are defective, `known` (N, h, w) selects the cells that are used.

        Both classes have the same total weight. Half the squared norm of the standardised weights is added to the loss, so
        that the weights stay finite where the classes are separable. The loss is convex; Newton's method minimises it.
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
            weight = weight - step / max(1.0, float(step.abs().max()))  # damped: long steps overshoot
        self.weight_ = weight.to(self.weight_)

    @staticmethod
    def _inputs(maps: Tensor) -> Tensor:
        return torch.cat([maps, F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)], 1)
