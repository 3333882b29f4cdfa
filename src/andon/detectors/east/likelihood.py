"""Standardised anomaly scores from the likelihood of a mixture of Gaussians over whitened features.

1. Scale: the negative log-likelihood of the best component, less its mean on good cells, divided by the standard deviation of
   that component on good cells.
2. Illumination and focus: the 80th percentile of the map is subtracted, capped at the largest one of a good image.
3. Standardisation: (x - mean) / deviation on good images, for each cell and for the image score (mean of the largest cells).

All statistics come from good images that the scored mixture was not fitted to (cross-fitting). Scores of several such modules
are comparable, since all are in standard deviations of good images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from andon.detectors.east.mixture import (
    SAMPLE,
    ClusterSums,
    GaussianMixture,
    cluster_centres,
    sample_cells,
)
from andon.detectors.east.whitening import WhitenedFeatures

PERCENTILE = 0.8
"""Quantile of a map that is subtracted from it."""
PRIOR_CELLS = 100
"""Number of cells by which a component's variance is shrunk to the one of all components."""


class Likelihood(nn.Module):
    """(B, C, H, W) whitened features to the standardised anomaly scores of cells (B, 1, H, W) and images (B,)."""

    nll_mean_: Tensor
    scale_: Tensor
    max_percentile_: Tensor
    score_statistics_: Tensor

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int, int]],
        grid: tuple[int, int],
        *,
        components: int,
        axes: int,
        share: float,
        scaled: bool,
        relative: bool,
    ) -> None:
        """`shapes` {tap: (C, h, w)} are resized to `grid`; the image score is the mean of the largest `share` of the cells.

        `scaled` divides by each component's own deviation (step 1 of the module's docstring), `relative` subtracts the
        percentile (step 2).
        """
        super().__init__()
        self.features = WhitenedFeatures(shapes, grid)
        self.mixture = GaussianMixture(self.features.channels, components=components, axes=axes)
        self.share, self.scaled, self.relative = share, scaled, relative
        self.register_buffer("nll_mean_", torch.zeros(()))
        self.register_buffer("scale_", torch.ones(components))  # 1 / deviation of each component
        self.register_buffer("max_percentile_", torch.zeros(()))
        # Mean and deviation on good images, of cells and of image scores.
        self.register_buffer("score_statistics_", torch.tensor([[0.0, 1.0]] * 2))

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        return self._scores(self.mixture(f))

    def whiten(self, features: Tensor) -> None:
        """Fit the whitening to joined features (N, V, C, H, W) of N images in V brightnesses and apply it in place."""
        self.features.fit(features)
        for image in features:
            image.copy_(self.features(image))

    def fit(
        self,
        features: Tensor,
        fold_of: Tensor,
        generator: torch.Generator,
        advance: Callable[[], object],
        *,
        synthetic: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """Fit mixture and statistics to whitened features (N, V, C, H, W); statistics use the original brightness alone.

        Images of each fold, given by `fold_of` (N,), are scored by the mixture of the other folds. The clusters are the same for
        all folds. `advance` is called for each image and each component fitted.

        `synthetic` are the features (M, C, H, W) of synthetic anomalies, one tensor per fold. Returns the cross-fitted image
        scores of the good images (N,) and of the synthetic anomalies.
        """
        vectors = sample_cells(features.flatten(0, 1), SAMPLE, generator)
        cells = features.shape[:2].numel() * features.shape[3:].numel()
        centres = cluster_centres(vectors, len(self.mixture.means_), cells, generator)
        sums = [ClusterSums(centres, features.shape[2]) for _ in range(int(fold_of.max()) + 1)]
        for image, fold in zip(features, fold_of.tolist(), strict=True):
            sums[fold].add(image)
            advance()
        good, anomalous = [], []
        for fold in range(len(sums)):
            self._fit_mixture([s for k, s in enumerate(sums) if k != fold], advance)
            good += [self.mixture(image[None]) for image in features[fold_of == fold, 0]]
            anomalous += [self.mixture(image[None]) for image in (synthetic[fold] if synthetic else ())]
        good_scores = self._fit_statistics(torch.cat(good))
        anomalous_scores = [self._scores(nll)[1] for nll in anomalous]
        self._fit_mixture(sums, advance)
        return good_scores, torch.cat([good_scores[:0], *anomalous_scores])

    def _fit_mixture(self, sums: Sequence[ClusterSums], advance: Callable[[], object]) -> None:
        self.mixture.fit(reduce(add, sums), advance=advance)

    def _fit_statistics(self, nll: Tensor) -> Tensor:
        """Learn scale and standardisation from cross-fitted nll (N, k, H, W) of good images; returns their scores (N,)."""
        least, component = nll.min(1)
        self.nll_mean_.copy_(least.mean())
        if self.scaled:
            deviations = _component_deviations(least.flatten(), component.flatten(), len(self.scale_))
            self.scale_.copy_(1 / deviations)
        scaled = self._scale(nll)
        self.max_percentile_.copy_(upper_percentile(scaled).max())
        maps = self._subtract_percentile(scaled)
        image_scores = self._mean_of_largest(maps)
        for row, values in enumerate((maps, image_scores)):
            deviation, mean = torch.std_mean(values, correction=0)
            self.score_statistics_[row] = torch.stack([mean, deviation.clamp_min(1e-6)])
        return self._standardise(image_scores, 1)

    def _scale(self, nll: Tensor) -> Tensor:
        """Step 1: (B, k, H, W) to (B, 1, H, W).

        The deviation differs between components: edges of a part vary more between images than its surface. It is averaged
        over the posterior of the components, so that rounding does not decide between equally likely ones.
        """
        scale = ((-nll).softmax(1) * self.scale_[:, None, None]).sum(1, keepdim=True)
        return (nll.amin(1, keepdim=True) - self.nll_mean_) * scale

    def _subtract_percentile(self, scaled: Tensor) -> Tensor:
        """Step 2; the cap keeps images that are anomalous as a whole from hiding their own anomaly."""
        if not self.relative:
            return scaled
        return scaled - torch.minimum(upper_percentile(scaled), self.max_percentile_)[:, None, None, None]

    def _scores(self, nll: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised anomaly scores of cells and images from (B, k, H, W)."""
        maps = self._subtract_percentile(self._scale(nll))
        return self._standardise(maps, 0), self._standardise(self._mean_of_largest(maps), 1)

    def _mean_of_largest(self, maps: Tensor) -> Tensor:
        """(B, 1, H, W) to (B,): the mean of the largest `share` of the cells."""
        flat = maps.flatten(1)
        return flat.topk(max(1, round(self.share * flat.shape[1])), dim=1).values.mean(1)

    def _standardise(self, x: Tensor, row: int) -> Tensor:
        """Step 3; row 0 for cells, 1 for image scores."""
        return (x - self.score_statistics_[row, 0]) / self.score_statistics_[row, 1]


def _component_deviations(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(groups,) standard deviations of (n,) values within their group, shrunk to the common one by `PRIOR_CELLS`."""
    values = values.double()
    count = torch.bincount(group, minlength=groups).double()
    mean = torch.bincount(group, values, minlength=groups) / count.clamp_min(1)
    squares = torch.bincount(group, (values - mean[group]).square(), minlength=groups)
    common = squares.sum() / len(values)
    return ((squares + PRIOR_CELLS * common) / (count + PRIOR_CELLS)).sqrt().clamp_min(1e-6).float()


def upper_percentile(maps: Tensor) -> Tensor:
    """(B,) 80th percentile of maps (B, 1, H, W), by `topk`, which exports to ONNX."""
    flat = maps.flatten(1)
    return flat.topk(max(1, round((1 - PERCENTILE) * flat.shape[1])), dim=1).values[:, -1]
