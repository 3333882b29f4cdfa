"""Nearest good features of each cell from a memory bank, as input of a student (variant V7).

The bank is PatchCore's (arXiv 2106.08265): a coreset of the cells of all good images. In training an image's own entries
are excluded: they would be at distance 0, which never happens on new images. docs/reference/models.md, "Variants".
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from andon.layers.coreset import greedy_centres, random_projection
from andon.layers.neighbours import nearest

BankInput = Literal["residual", "distances", "neighbours"]
NEAREST = 3
CANDIDATES = 20_000
"""Most cells the coreset is chosen from; a random subset of all cells where there are more."""
PROJECTED = 128
"""Dimensions of the random projection in which the coreset is chosen."""


def extra_channels(kind: BankInput, channels: int) -> int:
    """Number of channels that `BankInputs` adds to `channels`."""
    return {"residual": channels, "distances": NEAREST, "neighbours": 0}[kind]


class BankInputs(nn.Module):
    """(B, C, H, W) features to (B, C + `extra_channels`, H, W).

    With the three nearest entries b1, b2, b3 of a cell f at distances d1, d2, d3:

    - residual: [f, f - b1]
    - distances: [f, d1, d2, d3], distances standardised over good images
    - neighbours: the mean of b1, b2, b3 weighted by softmax(-d²), in place of f
    """

    bank_: Tensor
    owner_: Tensor
    scale_: Tensor

    def __init__(self, kind: BankInput, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("bank_", torch.zeros(0, channels))
        self.register_buffer("owner_", torch.zeros(0, dtype=torch.long))
        # mean, deviation of each distance
        self.register_buffer("scale_", torch.tensor([[0.0, 1.0]] * NEAREST))

    def fit(self, features: Tensor, owners: Tensor, share: float, generator: torch.Generator) -> None:
        """Choose `share` of the cells of (N, C, H, W) good features as bank; `owners` (N,) is the image each row belongs to."""
        cells = features.flatten(2).transpose(1, 2)  # (N, H W, C), a view
        per_image = cells.shape[1]
        count = min(len(features) * per_image, CANDIDATES)
        chosen = torch.randperm(len(features) * per_image, generator=generator)[:count]
        candidates = cells[chosen // per_image, chosen % per_image]
        projected = candidates
        if candidates.shape[1] > PROJECTED:
            projected = candidates @ random_projection(candidates.shape[1], PROJECTED, generator)
        kept = greedy_centres(projected, max(NEAREST + 1, min(count, round(share * count))))
        self.bank_ = candidates[kept].clone()
        self.owner_ = owners[chosen[kept] // per_image].clone()
        if self.kind == "distances":
            distances = [
                self._search(f[None], o[None])[0] for f, o in zip(features[:64], owners[:64], strict=True)
            ]
            deviation, mean = torch.std_mean(torch.cat(distances), dim=0, correction=0)
            self.scale_ = torch.stack([mean, deviation.clamp_min(1e-6)], 1)

    def forward(self, f: Tensor, owners: Tensor | None = None) -> Tensor:
        """`owners` (B,) are the images of the bank whose own entries are excluded; None: new images."""
        distance, index = self._search(f, owners)
        near = self.bank_[index]  # (B H W, NEAREST, C)
        if self.kind == "residual":
            return torch.cat([f, f - self._on_grid(near[:, 0], f)], 1)
        if self.kind == "distances":
            standard = (distance - self.scale_[:, 0]) / self.scale_[:, 1]
            return torch.cat([f, self._on_grid(standard, f)], 1)
        weights = (-distance.square()).softmax(1)
        return self._on_grid((weights[:, :, None] * near).sum(1), f)

    def _search(self, f: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distances and positions (B H W, NEAREST) of the nearest entries, of images (B, C, H, W)."""
        if owners is None:
            found = nearest(f.flatten(2).transpose(1, 2).flatten(0, 1), self.bank_, NEAREST)
            return found.distance, found.index
        distances, indices = [], []
        for image, owner in zip(f, owners, strict=True):
            others = (self.owner_ != owner).nonzero()[:, 0]
            if len(others) < NEAREST:  # a single image: only its own entries exist
                others = torch.arange(len(self.bank_), device=f.device)
            found = nearest(image.flatten(1).T, self.bank_[others], NEAREST)
            distances.append(found.distance)
            indices.append(others[found.index])
        return torch.cat(distances), torch.cat(indices)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        """PyTorch's own, after the bank was resized to the saved one."""
        for name in ("bank_", "owner_"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @staticmethod
    def _on_grid(cells: Tensor, like: Tensor) -> Tensor:
        """(B H W, D) back to (B, D, H, W)."""
        b, _, h, w = like.shape
        return cells.reshape(b, h, w, -1).permute(0, 3, 1, 2)
