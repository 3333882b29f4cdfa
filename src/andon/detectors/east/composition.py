"""Composition of an image: histograms of visual words over regular grids, compared with those of good images.

Logical anomalies (missing, surplus or swapped parts) consist of cells that are normal in themselves; the histogram shows them.
Counting components is the idea of ComAD (arXiv 2305.08509) and PSAD (arXiv 2312.13783); here without segmentation: soft
assignment of each cell to k-means visual words, and one Gaussian over the histograms.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.detectors.east.mixture import kmeans

TEMPERATURE = 4.0
"""Difference of squared distances at which a nearer word gets e times the assignment."""


class Composition(nn.Module):
    """(B, C, H, W) whitened features to the Mahalanobis distance of each image's histogram to those of good images, (B,)."""

    words_: Tensor
    mean_: Tensor
    whitening_: Tensor

    def __init__(self, words: int, channels: int, grids: Sequence[int]) -> None:
        """`words` visual words in the leading `channels`; for each g of `grids` one histogram per region of a g x g grid.

        Grids without a common factor share no inner border: an object that one grid cuts in two is whole in another.
        """
        super().__init__()
        self.grids = tuple(grids)
        size = words * sum(g**2 for g in grids)
        self.register_buffer("words_", torch.zeros(words, channels))
        self.register_buffer("mean_", torch.zeros(size))
        self.register_buffer("whitening_", torch.eye(size))

    def histogram(self, f: Tensor) -> Tensor:
        """(B, words · Σ g²): the mean assignment to each word in each region."""
        x = f[:, : self.words_.shape[1]]
        products = F.conv2d(x, self.words_[:, :, None, None])
        logits = (2 * products - self.words_.square().sum(1)[:, None, None]) / TEMPERATURE  # |x|² cancels
        assignment = logits.softmax(1)
        height, width = f.shape[2:]
        means = [_pooling(g, height).to(f) @ assignment @ _pooling(g, width).to(f).T for g in self.grids]
        return torch.cat([mean.flatten(1) for mean in means], 1)

    def forward(self, f: Tensor) -> Tensor:
        return self.distance(self.histogram(f))

    def distance(self, histogram: Tensor) -> Tensor:
        """Mahalanobis distance (B,) of histograms (B, words · Σ g²)."""
        return ((histogram - self.mean_) @ self.whitening_.T).square().sum(1).sqrt()

    def fit_words(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Visual words: k-means centres of sampled good vectors (n, C)."""
        words, channels = self.words_.shape
        self.words_.copy_(kmeans(vectors[:, :channels], words, generator))

    def fit(self, histograms: Tensor) -> None:
        """Mean and shrunk covariance of the histograms (N, words · Σ g²) of good images."""
        x = histograms.double()
        self.mean_.copy_(x.mean(0))
        covariance = ledoit_wolf_covariance(x)
        covariance.diagonal().add_(1e-8)
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(len(factor), dtype=torch.float64, device=x.device)
        self.whitening_.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))


def _pooling(regions: int, cells: int) -> Tensor:
    """(regions, cells) average pooling of a side into equal regions, whose borders may cut cells; rows sum to 1."""
    side = cells / regions
    begin = side * torch.arange(regions)[:, None]
    cell = torch.arange(cells)[None]
    overlap = torch.minimum(begin + side, cell + 1) - torch.maximum(begin, cell)
    return overlap.clamp_min(0) / side


def ledoit_wolf_covariance(x: Tensor) -> Tensor:
    """(d, d) covariance of (N, d) vectors, shrunk towards an isotropic one (Ledoit and Wolf 2004, Theorem 3)."""
    n, d = x.shape
    centred = x - x.mean(0)
    empirical = centred.T @ centred / n
    isotropic = empirical.diagonal().mean()
    distance = (empirical - isotropic * torch.eye(d, dtype=x.dtype, device=x.device)).square().sum() / d
    noise = ((centred.square().T @ centred.square()).sum() / n - empirical.square().sum()) / (n * d)
    share = float((noise / distance).clamp(0, 1)) if distance > 0 else 1.0
    return (1 - share) * empirical + share * isotropic * torch.eye(d, dtype=x.dtype, device=x.device)


def with_moved_block(f: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, C, H, W) features in which one block, `share` of each side, is overwritten by another block of the same image.

    A synthetic logical anomaly: every cell is that of a good image, the composition is not.
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
