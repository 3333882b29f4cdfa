"""Cells of a feature map, block by block: the cells of a block are neighbours and share a covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.records import Record


@dataclass(frozen=True, slots=True)
class Blocks:
    """A feature map of P = `height` x `width` cells, divided into blocks of `side` x `side` cells."""

    height: int
    width: int
    side: int

    def in_order(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, P, C), block by block."""
        b, channels = self.side, maps.shape[1]
        cells = maps.permute(0, 2, 3, 1).flatten(1, 2)  # runtimes move one axis faster than three
        blocks = cells.reshape(-1, self.height // b, b, self.width // b, b, channels).transpose(2, 3)
        return blocks.reshape(-1, self.height * self.width, channels)

    def in_place(self, cells: Tensor) -> Tensor:
        """(B, P) values of cells, block by block, to the map (B, 1, H, W)."""
        b = self.side
        blocks = cells.view(-1, self.height // b, self.width // b, b, b).transpose(2, 3)
        return blocks.reshape(-1, 1, self.height, self.width)

    def chosen(self, blocks: Tensor, cells: Tensor) -> Tensor:
        """(..., P, d) to the cells (..., p, d) of some blocks, by their positions (n,)."""
        of_all = cells.reshape(*cells.shape[:-2], -1, self.side**2, cells.shape[-1])
        return of_all[..., blocks.to(cells.device), :, :].flatten(-3, -2)

    def inspected(self, record: Record, around: int = 0) -> Tensor:
        """(P,) which cells are inspected, or lie up to `around` cells beside them."""
        grid = torch.ones(self.height, self.width, dtype=torch.bool)
        if record.region is not None:
            grid = torch.from_numpy(record.region.cells((self.height, self.width)))
        grown = F.max_pool2d(grid[None, None].float(), 2 * around + 1, stride=1, padding=around) > 0
        return self.in_order(grown)[0, :, 0]
