"""What the nearest good features say about a cell, as a further input of a student (spec 4, V7).

The bank is PatchCore's (arXiv 2106.08265): a coreset of the cells of all good images. An image that is learned from would
find its own cells at distance 0, as no new image ever does: its own entries are left out for it.
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
"""Cells the coreset is chosen from, at most: a random subset of all cells where there are more."""
PROJECTED = 128
"""Channels in which the coreset is chosen."""


def extra_channels(kind: BankInput, channels: int) -> int:
    """How many channels `BankInputs` adds to `channels`."""
    return {"residual": channels, "distances": NEAREST, "neighbours": 0}[kind]


class BankInputs(nn.Module):
    """(B, C, H, W) features to (B, C + `extra_channels`, H, W).

    - residual: [f, f - nearest]
    - distances: [f, the three distances], these standardised over good images
    - neighbours: the mean of the three nearest, weighted by the softmax of their negative squared distances, in place of f
    """

    bank_: Tensor
    owner_: Tensor
    scale_: Tensor

    def __init__(self, kind: BankInput, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("bank_", torch.zeros(0, channels))
        self.register_buffer("owner_", torch.zeros(0, dtype=torch.long))
        self.register_buffer(
            "scale_", torch.tensor([[0.0, 1.0]] * NEAREST)
        )  # mean, deviation of each distance

    def fit(self, features: Tensor, owners: Tensor, share: float, generator: torch.Generator) -> None:
        """Choose the bank from (N, C, H, W) good features; `owners` (N,) names the image each belongs to."""
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
        """`owners` (B,) are images the bank was made from, whose own cells do not count; None: new images."""
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
        """Distances and positions (B H W, NEAREST) of the nearest entries."""
        if owners is None:
            found = nearest(f.flatten(2).transpose(1, 2).flatten(0, 1), self.bank_, NEAREST)
            return found.distance, found.index
        distances, indices = [], []
        for picture, owner in zip(f, owners, strict=True):
            others = (self.owner_ != owner).nonzero()[:, 0]
            if len(others) < NEAREST:  # a single image: nothing but its own
                others = torch.arange(len(self.bank_), device=f.device)
            found = nearest(picture.flatten(1).T, self.bank_[others], NEAREST)
            distances.append(found.distance)
            indices.append(others[found.index])
        return torch.cat(distances), torch.cat(indices)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        """PyTorch's own, after the bank was given the size of what is loaded."""
        for name in ("bank_", "owner_"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @staticmethod
    def _on_grid(cells: Tensor, like: Tensor) -> Tensor:
        """(B H W, D) back to (B, D, H, W)."""
        b, _, h, w = like.shape
        return cells.reshape(b, h, w, -1).permute(0, 3, 1, 2)
