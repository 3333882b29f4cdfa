"""What an image is made of and roughly where: how much of each kind of appearance every part of it holds.

A missing, surplus or swapped part looks ordinary cell by cell; the amounts give it away (cf. the counted components of
ComAD, arXiv 2305.08509, and PSAD, arXiv 2312.13783). Here: soft counts of appearance clusters, and one Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.detectors.east.mixture import centres

SOFTNESS = 4.0
"""Squared distance by which a nearer cluster is e times as likely."""


class Composition(nn.Module):
    """(B, C, H, W) whitened features to the Mahalanobis distance of the image's amounts from those of good ones, (B,)."""

    words_: Tensor
    mean_: Tensor
    whitening_: Tensor

    def __init__(self, words: int, channels: int, parts: Sequence[int]) -> None:
        """`words` clusters of the `channels` leading channels, counted in p x p equal parts of the image for each p of `parts`.

        Two numbers without a common factor have no common border, on which a thing would be counted half here, half there.
        """
        super().__init__()
        self.parts = tuple(parts)
        size = words * sum(p**2 for p in parts)
        self.register_buffer("words_", torch.zeros(words, channels))
        self.register_buffer("mean_", torch.zeros(size))
        self.register_buffer("whitening_", torch.eye(size))

    def amounts(self, f: Tensor) -> Tensor:
        """(B, words · Σ p²): the mean share of each cluster in each part."""
        x = f[:, : self.words_.shape[1]]
        towards = F.conv2d(x, self.words_[:, :, None, None])
        closeness = (2 * towards - self.words_.square().sum(1)[:, None, None]) / SOFTNESS  # |x|² cancels
        shares = closeness.softmax(1)
        height, width = f.shape[2:]
        means = [_shares(p, height).to(f) @ shares @ _shares(p, width).to(f).T for p in self.parts]
        return torch.cat([mean.flatten(1) for mean in means], 1)

    def forward(self, f: Tensor) -> Tensor:
        return self.distance(self.amounts(f))

    def distance(self, amounts: Tensor) -> Tensor:
        """(B, words · Σ p²) as `amounts` gives them to (B,)."""
        return ((amounts - self.mean_) @ self.whitening_.T).square().sum(1).sqrt()

    def choose_words(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Clusters of sampled good vectors (n, C)."""
        words, channels = self.words_.shape
        self.words_.copy_(centres(vectors[:, :channels], words, generator))

    def fit(self, amounts: Tensor) -> None:
        """Learn which amounts (N, words · Σ p²) good images have."""
        x = amounts.double()
        self.mean_.copy_(x.mean(0))
        covariance = shrunk_covariance(x)
        covariance.diagonal().add_(1e-8)
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(len(factor), dtype=torch.float64, device=x.device)
        self.whitening_.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))


def _shares(parts: int, cells: int) -> Tensor:
    """(parts, cells): what each cell contributes to the mean of each of `parts` equal parts of a side; rows add up to 1."""
    side = cells / parts
    begin = side * torch.arange(parts)[:, None]
    cell = torch.arange(cells)[None]
    overlap = torch.minimum(begin + side, cell + 1) - torch.maximum(begin, cell)
    return overlap.clamp_min(0) / side


def shrunk_covariance(x: Tensor) -> Tensor:
    """Covariance of (N, d) vectors, drawn towards a ball as far as their number asks for (Ledoit and Wolf 2004, Theorem 3)."""
    n, d = x.shape
    centred = x - x.mean(0)
    empirical = centred.T @ centred / n
    ball = empirical.diagonal().mean()
    distance = (empirical - ball * torch.eye(d, dtype=x.dtype, device=x.device)).square().sum() / d
    noise = ((centred.square().T @ centred.square()).sum() / n - empirical.square().sum()) / (n * d)
    share = float((noise / distance).clamp(0, 1)) if distance > 0 else 1.0
    return (1 - share) * empirical + share * ball * torch.eye(d, dtype=x.dtype, device=x.device)


def with_moved_block(f: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, C, H, W) features in which one block, `share` of each side, was overwritten by another block of the same image.

    A made-up logical anomaly: every cell is one of a good image, what the image is made of has changed.
    """
    out = f.clone()
    height, width = f.shape[2:]
    h, w = max(1, round(share * height)), max(1, round(share * width))
    for k in range(len(f)):
        to_row, row = torch.randint(height - h + 1, (2,), generator=generator).tolist()
        to_column, column = torch.randint(width - w + 1, (2,), generator=generator).tolist()
        out[k, :, to_row : to_row + h, to_column : to_column + w] = f[
            k, :, row : row + h, column : column + w
        ]
    return out
