"""A mixture of Gaussians over whitened features, fitted in closed form; its likelihood is one matrix product.

k-means clusters, one Gaussian per cluster. Each Gaussian keeps a variance of its own along a few axes and shares one variance
among all others (Tipping and Bishop, Mixtures of probabilistic principal component analysers, 1999; here the axes may be those
of the largest and of the smallest variances).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

SAMPLE = 8000
"""Vectors that k-means sees."""
ITERATIONS = 15
"""Of k-means."""
FLOOR = 1e-3
"""Added to every variance (whitened features have variance 1 on average)."""
MIN_VECTORS = 20
"""The number of clusters is limited so that each has at least twice this many vectors on average."""
LEADING = 32
"""Leading channels in which vectors are assigned to clusters."""
COMPONENT_BATCH = 16
"""Components evaluated at a time."""


def kmeans(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, d) cluster means of (N, d) vectors: Lloyd's algorithm from randomly chosen vectors."""
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:count]].clone()
    for _ in range(ITERATIONS):
        nearest = torch.cdist(vectors, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        sizes = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return centres


def sample_cells(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(n, C) vectors of at most `count` randomly chosen cells of (N, C, H, W) features."""
    n, _, height, width = features.shape
    chosen = torch.randperm(n * height * width, generator=generator)[:count]
    image, cell = chosen // (height * width), chosen % (height * width)
    return features[image, :, cell // width, cell % width]


def cluster_centres(vectors: Tensor, count: int, total: int, generator: torch.Generator) -> Tensor:
    """(k, d) centres of at most `count` clusters of a sample (n, C) out of `total` vectors, in the leading channels."""
    leading = vectors[:, : min(LEADING, vectors.shape[1])]
    return kmeans(leading, max(1, min(count, total // (2 * MIN_VECTORS))), generator)


class ClusterSums:
    """Sufficient statistics of each cluster: number, sum and sum of outer products of its vectors.

    They add up over images, so that the statistics without a fold are those of the other folds added. A vector belongs to the
    nearest of `centres` (k, d) in its first d channels.
    """

    def __init__(self, centres: Tensor, channels: int) -> None:
        k = len(centres)
        self.centres = centres
        self.count = centres.new_zeros(k, dtype=torch.float64)
        self.total = centres.new_zeros(k, channels, dtype=torch.float64)
        self.products = centres.new_zeros(k, channels, channels)

    def add(self, features: Tensor) -> None:
        """Add (B, C, H, W) whitened features. They are centred, so products lose little in single precision."""
        vectors = features.flatten(2).transpose(1, 2).flatten(0, 1)  # (B H W, C)
        labels = torch.cdist(vectors[:, : self.centres.shape[1]], self.centres).argmin(1)
        for j in set(labels.tolist()):
            members = vectors[labels == j]
            self.count[j] += len(members)
            self.total[j] += members.double().sum(0)
            self.products[j].addmm_(members.T, members)

    def __add__(self, other: ClusterSums) -> ClusterSums:
        """The statistics of the images of both."""
        both = ClusterSums(self.centres, self.total.shape[1])
        for name in ("count", "total", "products"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def moments(self, j: int) -> tuple[float, Tensor, Tensor]:
        """Number of vectors, mean (C,) and unbiased covariance (C, C) of cluster j, in double precision."""
        n = float(self.count[j])
        mean = self.total[j] / max(n, 1.0)
        covariance = (self.products[j].double() - n * torch.outer(mean, mean)) / max(n - 1.0, 1.0)
        return n, mean, covariance

    def log_frequency(self) -> Tensor:
        """(k,) logarithm of the share of all vectors that belong to each cluster."""
        return (self.count / self.count.sum()).float().clamp_min(1e-12).log()


class GaussianMixture(nn.Module):
    """(B, C, H, W) whitened features to the negative log-likelihood of each cell under each component, (B, k, H, W).

    Without its constant: ½ Σ_i g_i (u_i·(x - m))² + ½ |x - m|² / λ̄ + ½ log det Σ - log frequency, with eigenvectors u_i that keep
    their variance λ_i, the shared variance λ̄ of all other directions, and g_i = 1/λ_i - 1/λ̄.
    """

    means_: Tensor
    axes_: Tensor
    signs_: Tensor
    shifts_: Tensor
    rest_: Tensor
    log_det_: Tensor
    log_frequency_: Tensor

    def __init__(self, channels: int, *, components: int, axes: int) -> None:
        super().__init__()
        k, r = components, min(axes, channels)
        self.register_buffer("means_", torch.zeros(k, channels))  # m
        self.register_buffer("axes_", torch.zeros(k, r, channels))  # √|g_i| u_i
        self.register_buffer("signs_", torch.zeros(k, r))  # of g_i
        self.register_buffer("shifts_", torch.zeros(k, r))  # -√|g_i| u_i·m
        self.register_buffer("rest_", torch.ones(k))  # 1 / λ̄
        self.register_buffer("log_det_", torch.zeros(k))  # ½ log det Σ
        self.register_buffer("log_frequency_", torch.zeros(k))

    def forward(self, f: Tensor) -> Tensor:
        b, _, height, width = f.shape
        x = f.transpose(0, 1).flatten(1)  # (C, B H W)
        distance = x.square().sum(0) - 2 * (self.means_ @ x) + self.means_.square().sum(1)[:, None]
        along = [self._along_axes(x, j) for j in range(0, len(self.means_), COMPONENT_BATCH)]
        quadratic = (torch.cat(along) + self.rest_[:, None] * distance).reshape(-1, b, height, width)
        nll = 0.5 * quadratic + (self.log_det_ - self.log_frequency_)[:, None, None, None]
        return nll.transpose(0, 1)

    def _along_axes(self, x: Tensor, start: int) -> Tensor:
        """Σ_i g_i (u_i·(x - m))² of `COMPONENT_BATCH` components: few enough for the processor's cache; (n, B H W)."""
        some = slice(start, start + COMPONENT_BATCH)
        axes, signs = self.axes_[some], self.signs_[some]
        projected = torch.addmm(self.shifts_[some].reshape(-1, 1), axes.flatten(0, 1), x)
        return torch.bmm(signs[:, None], projected.square_().reshape(*signs.shape, -1))[:, 0]

    def fit(self, sums: ClusterSums, *, advance: Callable[[], object] = bool) -> None:
        """One Gaussian for each cluster; `advance` is called after each."""
        self.log_frequency_.copy_(sums.log_frequency())
        for j in range(len(self.means_)):
            self._fit_component(j, *sums.moments(j))
            advance()

    def _fit_component(self, j: int, n: float, mean: Tensor, covariance: Tensor) -> None:
        """Shrink the covariance towards the isotropic one with weight C / (n + C) and keep some of its axes."""
        r, channels = self.axes_.shape[1:]
        if n < 2:
            self.log_frequency_[j] = -torch.inf
            return
        own = n / (n + channels)
        isotropic = covariance.diagonal().mean()
        values, vectors = torch.linalg.eigh(own * covariance)
        values = values.clamp_min(0) + (1 - own) * isotropic + FLOOR
        kept, rest = _kept_axes(values, r)
        self.means_[j] = mean
        gains = 1 / values[kept] - 1 / rest
        axes = gains.abs().sqrt()[:, None] * vectors[:, kept].T
        self.axes_[j], self.signs_[j], self.shifts_[j] = axes, gains.sign(), -(axes @ mean)
        self.rest_[j] = 1 / rest
        self.log_det_[j] = 0.5 * (values[kept].log().sum() + (channels - r) * rest.log())


def _kept_axes(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices of the `count` of the ascending variances (C,) that are kept, and the mean variance of the others.

    The kept ones are some of the smallest and some of the largest, split so that the others lose least likelihood by sharing
    their mean.
    """
    total = len(values)
    if count >= total:
        return torch.arange(total), values.mean()
    best, answer = math.inf, (torch.arange(count), values.mean())
    for low in range(0, count + 1, max(1, count // 8)):
        others = values[low : total - (count - low)]
        lost = float(len(others) * others.mean().log() - others.log().sum())
        if lost < best:
            kept = torch.cat([torch.arange(low), torch.arange(total - (count - low), total)])
            best, answer = lost, (kept, others.mean())
    return answer
