"""A mixture of Gaussians over whitened features, fitted in closed form; its likelihood is one convolution.

Good features do not form one cloud: background, edges and every kind of part have their own centre and their own
directions of variation. Each component keeps the few axes along which it differs most from a ball (Tipping and Bishop,
Mixtures of probabilistic principal component analysers, 1999, with axes of small as well as of large variance), and how
often it is found at each place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLE = 8000
"""Vectors that k-means sees."""
ITERATIONS = 15
FLOOR = 1e-3
"""Added to every variance (the features are whitened: 1 is ordinary)."""
FEWEST = 20
"""There are never so many components that they would have fewer than twice this many vectors on average."""
LEADING = 32
"""Leading channels by which vectors are assigned to components."""
SPREAD = 5
"""Side of the neighbourhood, in cells, over which the frequency of a component is averaged."""


def centres(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, d) means of the k-means clusters of (N, d) vectors; Lloyd's iteration from a random start."""
    found = vectors[torch.randperm(len(vectors), generator=generator)[:count]].clone()
    for _ in range(ITERATIONS):
        nearest = torch.cdist(vectors, found).argmin(1)
        sums = torch.zeros_like(found).index_add_(0, nearest, vectors)
        sizes = torch.bincount(nearest, minlength=len(found))[:, None]
        found = torch.where(sizes > 0, sums / sizes.clamp_min(1), found)
    return found


def sample(features: Tensor, channels: int, generator: torch.Generator) -> Tensor:
    """(n, channels) leading channels of at most `SAMPLE` random cells of (N, C, H, W) features."""
    n, _, height, width = features.shape
    chosen = torch.randperm(n * height * width, generator=generator)[:SAMPLE]
    picture, cell = chosen // (height * width), chosen % (height * width)
    return features[picture, :channels, cell // width, cell % width]


class GaussianMixture(nn.Module):
    """(B, C, H, W) whitened features to the negative log-likelihood of each cell (B, 1, H, W), without its constant.

    -log p(f, place) of the best component: ½ Σ_i g_i (u_i·(f - m))² + ½ s |f - m|² + ½ log det - log frequency(place).
    """

    means_: Tensor
    axes_: Tensor
    gains_: Tensor
    rest_: Tensor
    log_det_: Tensor
    log_frequency_: Tensor

    def __init__(self, channels: int, grid: tuple[int, int], *, components: int, axes: int) -> None:
        super().__init__()
        k, r = components, min(axes, channels)
        self.register_buffer("means_", torch.zeros(k, channels))
        self.register_buffer("axes_", torch.zeros(k, r, channels))
        self.register_buffer("gains_", torch.zeros(k, r))  # 1 / variance along an axis - rest
        self.register_buffer("rest_", torch.ones(k))  # 1 / variance along every other direction
        self.register_buffer("log_det_", torch.zeros(k))
        self.register_buffer("log_frequency_", torch.zeros(k, *grid))

    def forward(self, f: Tensor) -> Tensor:
        k, r = self.gains_.shape
        weights = torch.cat([self.axes_.flatten(0, 1), self.means_])  # (k r + k, C)
        shifts = -(self.axes_ @ self.means_[:, :, None]).flatten()
        projected, towards = torch.split(F.conv2d(f, weights[:, :, None, None]), [k * r, k], dim=1)
        along = (projected + shifts[:, None, None]).square().reshape(len(f), k, r, *f.shape[2:])
        distance = f.square().sum(1, keepdim=True) - 2 * towards + self.means_.square().sum(1)[:, None, None]
        quadratic = (self.gains_[:, :, None, None] * along).sum(2) + self.rest_[:, None, None] * distance
        nll = 0.5 * quadratic + self.log_det_[:, None, None] - self.log_frequency_
        best: Tensor = nll.amin(1, keepdim=True)
        return best

    def fit(
        self,
        features: Tensor,
        generator: torch.Generator,
        *,
        by_place: bool = True,
        advance: Callable[[], object] = lambda: None,
    ) -> None:
        """Learn from (N, C, H, W) good features: clusters by k-means on the leading channels, one Gaussian for each.

        A covariance from few vectors is drawn towards a ball: n vectors count n, the ball counts C. `by_place=False` takes
        each component's frequency as the same everywhere. `advance` is called after each component.
        """
        k, _, channels = self.axes_.shape
        leading = min(LEADING, channels)
        vectors = len(features) * math.prod(features.shape[2:])
        found = centres(
            sample(features, leading, generator), max(1, min(k, vectors // (2 * FEWEST))), generator
        )
        labels = torch.stack([torch.cdist(f[:leading].flatten(1).T, found).argmin(1) for f in features])
        self.log_frequency_.copy_(self._log_frequency(labels, by_place))
        rows = features.flatten(2).transpose(1, 2)  # (N, H W, C), a view
        for j in range(k):
            self._fit_component(j, rows[labels == j].double())
            advance()

    def _fit_component(self, j: int, members: Tensor) -> None:
        r, channels = self.axes_.shape[1:]
        if len(members) < 2:
            self.log_frequency_[j] = -torch.inf
            return
        mean = members.mean(0)
        covariance = torch.cov((members - mean).T)
        own = len(members) / (len(members) + channels)
        ball = covariance.diagonal().mean()
        values, vectors = torch.linalg.eigh(own * covariance)
        values = values.clamp_min(0) + (1 - own) * ball + FLOOR
        kept, rest = _most_unlike_a_ball(values, r)
        self.means_[j] = mean
        self.axes_[j] = vectors[:, kept].T
        self.gains_[j] = 1 / values[kept] - 1 / rest
        self.rest_[j] = 1 / rest
        self.log_det_[j] = 0.5 * (values[kept].log().sum() + (channels - r) * rest.log())

    def _log_frequency(self, labels: Tensor, by_place: bool) -> Tensor:
        """(k, H, W) logarithm of how often each component was found near a place; its overall frequency counts as one picture."""
        k, (height, width) = len(self.means_), self.log_frequency_.shape[1:]
        seen = F.one_hot(labels, k).float().mean(0).T.reshape(1, k, height, width)
        overall = seen.mean((2, 3), keepdim=True)
        if not by_place:
            return overall.expand_as(seen)[0].clamp_min(1e-12).log()
        near = F.avg_pool2d(seen, SPREAD, stride=1, padding=SPREAD // 2, count_include_pad=False)
        n = len(labels)
        return ((n * near + overall) / (n + 1))[0].clamp_min(1e-12).log()


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
