"""A mixture of Gaussians over whitened features, fitted in closed form; its likelihood is one convolution.

Good features do not form one cloud: background, edges and every kind of part have their own centre and their own
directions of variation. Each component keeps the few axes along which it differs most from a ball (Tipping and Bishop,
Mixtures of probabilistic principal component analysers, 1999, with axes of small as well as of large variance), and how
often it is found.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

SAMPLE = 8000
"""Vectors that k-means sees."""
ITERATIONS = 15
FLOOR = 1e-3
"""Added to every variance (the features are whitened: 1 is ordinary)."""
FEWEST = 20
"""There are never so many components that they would have fewer than twice this many vectors on average."""
LEADING = 32
"""Leading channels by which vectors are assigned to components."""
TOGETHER = 16
"""Components computed at a time."""


def centres(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, d) means of the k-means clusters of (N, d) vectors; Lloyd's iteration from a random start."""
    found = vectors[torch.randperm(len(vectors), generator=generator)[:count]].clone()
    for _ in range(ITERATIONS):
        nearest = torch.cdist(vectors, found).argmin(1)
        sums = torch.zeros_like(found).index_add_(0, nearest, vectors)
        sizes = torch.bincount(nearest, minlength=len(found))[:, None]
        found = torch.where(sizes > 0, sums / sizes.clamp_min(1), found)
    return found


class ClusterSums:
    """Number, sum and sum of products of the vectors of each cluster.

    Sums of different images add up, so what was learned without some of them is a difference. Vectors belong to the nearest
    of `centres` (k, d) in their first d channels.
    """

    def __init__(self, centres: Tensor, channels: int) -> None:
        k = len(centres)
        self.centres = centres
        self.count = centres.new_zeros(k, dtype=torch.float64)
        self.total = centres.new_zeros(k, channels, dtype=torch.float64)
        self.products = centres.new_zeros(k, channels, channels)

    def add(self, features: Tensor) -> None:
        """Take in (B, C, H, W) features; centred vectors lose nothing in single precision, whitened ones are centred."""
        vectors = features.flatten(2).transpose(1, 2).flatten(0, 1)  # (B H W, C)
        labels = torch.cdist(vectors[:, : self.centres.shape[1]], self.centres).argmin(1)
        for j in set(labels.tolist()):
            members = vectors[labels == j]
            self.count[j] += len(members)
            self.total[j] += members.double().sum(0)
            self.products[j].addmm_(members.T, members)

    def __add__(self, other: ClusterSums) -> ClusterSums:
        """Of the images of both."""
        both = ClusterSums(self.centres, self.total.shape[1])
        for name in ("count", "total", "products"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def moments(self, j: int) -> tuple[float, Tensor, Tensor]:
        """Number of vectors, mean (C,) and covariance (C, C) of a cluster, in double precision."""
        n = float(self.count[j])
        mean = self.total[j] / max(n, 1.0)
        covariance = (self.products[j].double() - n * torch.outer(mean, mean)) / max(n - 1.0, 1.0)
        return n, mean, covariance

    def log_frequency(self) -> Tensor:
        """(k,) logarithm of the share of the vectors in each cluster."""
        return (self.count / self.count.sum()).float().clamp_min(1e-12).log()


def sample(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(n, C) vectors of at most `count` random cells of (N, C, H, W) features."""
    n, _, height, width = features.shape
    chosen = torch.randperm(n * height * width, generator=generator)[:count]
    picture, cell = chosen // (height * width), chosen % (height * width)
    return features[picture, :, cell // width, cell % width]


def clusters(vectors: Tensor, count: int, total: int, generator: torch.Generator) -> Tensor:
    """(k, d) centres of at most `count` clusters of sampled (n, C) vectors, fewer where the `total` of vectors is small."""
    leading = vectors[:, : min(LEADING, vectors.shape[1])]
    return centres(leading, max(1, min(count, total // (2 * FEWEST))), generator)


class GaussianMixture(nn.Module):
    """(B, C, H, W) whitened features to the negative log-likelihood of each cell under each component, (B, k, H, W).

    -log p(f), without its constant: ½ Σ_i g_i (u_i·(f - m))² + ½ s |f - m|² + ½ log det - log frequency.
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
        self.register_buffer("means_", torch.zeros(k, channels))
        self.register_buffer("axes_", torch.zeros(k, r, channels))  # u_i, as long as the root of |g_i|
        self.register_buffer("signs_", torch.zeros(k, r))  # of g_i = 1 / variance along the axis - rest
        self.register_buffer("shifts_", torch.zeros(k, r))  # of the mean along the axes
        self.register_buffer("rest_", torch.ones(k))  # 1 / variance along every other direction
        self.register_buffer("log_det_", torch.zeros(k))
        self.register_buffer("log_frequency_", torch.zeros(k))

    def forward(self, f: Tensor) -> Tensor:
        b, _, height, width = f.shape
        x = f.transpose(0, 1).flatten(1)  # (C, B H W)
        distance = x.square().sum(0) - 2 * (self.means_ @ x) + self.means_.square().sum(1)[:, None]
        along = [self._along(x, j) for j in range(0, len(self.means_), TOGETHER)]
        quadratic = (torch.cat(along) + self.rest_[:, None] * distance).reshape(-1, b, height, width)
        nll = 0.5 * quadratic + (self.log_det_ - self.log_frequency_)[:, None, None, None]
        return nll.transpose(0, 1)

    def _along(self, x: Tensor, start: int) -> Tensor:
        """Σ_i g_i (u_i·(f - m))² of a few components, whose projections stay in the processor's cache: (n, B H W)."""
        some = slice(start, start + TOGETHER)
        axes, signs = self.axes_[some], self.signs_[some]
        projected = torch.addmm(self.shifts_[some].reshape(-1, 1), axes.flatten(0, 1), x)
        return torch.bmm(signs[:, None], projected.square_().reshape(*signs.shape, -1))[:, 0]

    def fit(self, sums: ClusterSums, *, advance: Callable[[], object] = bool) -> None:
        """One Gaussian for each cluster of good vectors.

        A covariance from few vectors is drawn towards a ball: n vectors count n, the ball counts C. `advance` is called
        after each component.
        """
        self.log_frequency_.copy_(sums.log_frequency())
        for j in range(len(self.means_)):
            self._fit_component(j, *sums.moments(j))
            advance()

    def _fit_component(self, j: int, n: float, mean: Tensor, covariance: Tensor) -> None:
        r, channels = self.axes_.shape[1:]
        if n < 2:
            self.log_frequency_[j] = -torch.inf
            return
        own = n / (n + channels)
        ball = covariance.diagonal().mean()
        values, vectors = torch.linalg.eigh(own * covariance)
        values = values.clamp_min(0) + (1 - own) * ball + FLOOR
        kept, rest = _most_unlike_a_ball(values, r)
        self.means_[j] = mean
        gains = 1 / values[kept] - 1 / rest
        axes = gains.abs().sqrt()[:, None] * vectors[:, kept].T
        self.axes_[j], self.signs_[j], self.shifts_[j] = axes, gains.sign(), -(axes @ mean)
        self.rest_[j] = 1 / rest
        self.log_det_[j] = 0.5 * (values[kept].log().sum() + (channels - r) * rest.log())


def _most_unlike_a_ball(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions of `count` of the ascending variances (C,) that are kept, and the one variance of all others.

    Some are taken from the small end and some from the large one, so that the likelihood lost by the others is least.
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
