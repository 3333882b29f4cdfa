"""Conditional normalizing flow of the AST teacher (Rudolph et al., arXiv 2210.07829, Sec. 3.1).

Each block permutes the channels and applies a two-way affine coupling with softly clamped scales. FrEIA 0.2, which the authors
use, sums the log-determinant over positions and seeds NumPy's global generator; here it is per position, as the masked loss and
the map of likelihoods need it. The tests compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class CouplingNetwork(nn.Module):
    """Conv k, ReLU, Conv k with replicate padding, times a learned scalar initialised to 0: the coupling starts as identity."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        pad = kernel // 2
        self.conv1 = nn.Conv2d(in_channels, hidden, kernel, padding=pad, padding_mode="replicate")
        self.conv2 = nn.Conv2d(hidden, out_channels, kernel, padding=pad, padding_mode="replicate")
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(torch.relu(self.conv1(x))) * self.gamma
        return out


class CouplingBlock(nn.Module):
    """Fixed channel permutation followed by a two-way conditional affine coupling.

    x = [x1, x2];  y1 = x1 · exp(σ(s2)) + t2 with (s2, t2) = r2(x2, c);  y2 = x2 · exp(σ(s1)) + t1 with (s1, t1) = r1(y1, c);
    σ(s) = 0.636 α atan(s / α), so a log-scale stays within ± 0.99903 α.
    """

    permutation: Tensor
    inverse_permutation: Tensor

    def __init__(
        self, channels: int, condition: int, hidden: int, kernel: int, clamp: float, seed: int
    ) -> None:
        super().__init__()
        self.n1 = channels // 2
        self.n2 = channels - self.n1
        self.clamp = clamp
        # The generator of the authors' code, as a local instance.
        order = torch.from_numpy(np.random.RandomState(seed).permutation(channels))
        self.register_buffer("permutation", order)
        self.register_buffer("inverse_permutation", torch.argsort(order))
        self.r1 = CouplingNetwork(self.n1 + condition, hidden, 2 * self.n2, kernel)
        self.r2 = CouplingNetwork(self.n2 + condition, hidden, 2 * self.n1, kernel)

    def _scale_shift(self, network: CouplingNetwork, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        s, t = (
            network(torch.cat([x, condition], 1)).to(x.dtype).chunk(2, dim=1)
        )  # exp and sums in the precision of x
        return 0.636 * self.clamp * torch.atan(s / self.clamp), t

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, H, W) and condition (B, D, H, W) to transformed features and log|det| per position (B, H, W)."""
        x1, x2 = torch.split(x[:, self.permutation], [self.n1, self.n2], dim=1)
        s2, t2 = self._scale_shift(self.r2, x2, condition)
        y1 = x1 * torch.exp(s2) + t2
        s1, t1 = self._scale_shift(self.r1, y1, condition)
        y2 = x2 * torch.exp(s1) + t1
        return torch.cat([y1, y2], 1).clamp(-1e6, 1e6), s1.sum(1) + s2.sum(1)

    def inverse(self, y: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse of `forward`; its log-determinant is the negative one."""
        y1, y2 = torch.split(y, [self.n1, self.n2], dim=1)
        s1, t1 = self._scale_shift(self.r1, y1, condition)
        x2 = (y2 - t1) * torch.exp(-s1)
        s2, t2 = self._scale_shift(self.r2, x2, condition)
        x1 = (y1 - t2) * torch.exp(-s2)
        return torch.cat([x1, x2], 1)[:, self.inverse_permutation], -(s1.sum(1) + s2.sum(1))


class Flow(nn.Module):
    """Sequence of coupling blocks; block k permutes with seed k. Initially a permutation with log-determinant 0."""

    def __init__(
        self, channels: int, condition: int, hidden: int, kernels: Sequence[int], clamp: float
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            CouplingBlock(channels, condition, hidden, kernel, clamp, seed=k)
            for k, kernel in enumerate(kernels)
        )

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) features and (B, D, H, W) condition to latent z (B, C, H, W) and log|det| (B, H, W)."""
        log_det = x.new_zeros(x.shape[0], *x.shape[2:])
        for block in self.blocks:
            x, block_log_det = block(x, condition)
            log_det = log_det + block_log_det
        return x, log_det

    def inverse(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Latent (B, C, H, W) to features, and the log-determinant of that direction (B, H, W)."""
        log_det = z.new_zeros(z.shape[0], *z.shape[2:])
        for block in reversed(self.blocks):
            assert isinstance(block, CouplingBlock)
            z, block_log_det = block.inverse(z, condition)
            log_det = log_det + block_log_det
        return z, log_det


def negative_log_likelihood(z: Tensor, log_det: Tensor) -> Tensor:
    """½ Σ_c z² - log|det| (AST Eq. 2, without its constant): (B, C, H, W) and (B, H, W) to (B, H, W)."""
    return 0.5 * z.square().sum(1) - log_det
