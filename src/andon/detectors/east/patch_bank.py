"""A coreset of good patches, and how far other patches lie from it (PatchCore, arXiv 2106.08265), relative to how apart it is.

Where good patches are rare, those of the coreset lie far from each other, and so do good patches that come later. A distance
is therefore divided by how far the nearest patch of the coreset lies from its own neighbours, as in the local outlier factor
(Breunig et al., SIGMOD 2000).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from andon.layers.coreset import greedy_centres
from andon.layers.neighbours import nearest

AXES = 96
"""Principal axes in which patches are compared, at most."""
AROUND = 3
"""Neighbours in the coreset."""


class PatchBank(nn.Module):
    """Relative distance to the nearest of at most `count` good patches: |A(x - b)| / (r_b + r).

    A are the principal axes of good patches, r_b is the mean distance of b to its nearest in the coreset, r the mean of r_b.
    """

    axes_: Tensor
    """(K, d) orthonormal rows."""
    patches_: Tensor
    """(M, K) the coreset in these axes."""
    apart_: Tensor
    """(M,) r_b + r."""

    def __init__(self, size: int, count: int) -> None:
        """`size` is d, the length of patches."""
        super().__init__()
        self.size, self.count = size, count
        self.register_buffer("axes_", torch.empty(0, size))
        self.register_buffer("patches_", torch.empty(0, 0))
        self.register_buffer("apart_", torch.empty(0))

    def learn(self, patches: Tensor) -> Tensor:
        """Select the coreset of good patches (n, d), at most half of them; returns the positions of the others."""
        self.axes_ = principal_axes(patches, min(AXES, self.size))
        candidates = patches @ self.axes_.T
        chosen = greedy_centres(candidates, max(1, min(self.count, len(candidates) // 2)))
        self.patches_ = candidates[chosen]
        around = nearest(self.patches_, self.patches_, AROUND + 1).distance[
            :, 1:
        ]  # the first is the patch itself
        apart = around.mean(1) if around.shape[1] else around.new_ones(len(around))
        self.apart_ = (apart + apart.mean()).clamp_min(1e-6)
        others = torch.ones(len(patches), dtype=torch.bool, device=patches.device)
        others[chosen] = False
        return others.nonzero()[:, 0]

    def forward(self, cells: Tensor) -> Tensor:
        """(..., d) to relative distances (...)."""
        found = nearest(cells.flatten(0, -2) @ self.axes_.T, self.patches_)
        return (found.distance[:, 0] / self.apart_[found.index[:, 0]]).view(cells.shape[:-1])

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        """PyTorch's own, after the buffers were given the size of what is loaded."""
        for name in ("axes_", "patches_", "apart_"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.apart_.device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def principal_axes(vectors: Tensor, count: int) -> Tensor:
    """(count, d) orthonormal rows, the axes of largest variance of (n, d) vectors about their mean."""
    centred = (vectors - vectors.mean(0)).double()
    axes: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -count:].flip(1).T.to(vectors.dtype)
    return axes
