"""How unlikely each cell of an image is, in deviations from good images that were not learned from.

Whitened features, a mixture of Gaussians over them, each Gaussian's likelihood in units of how much it varies on good
images, the map relative to its own level, and the standard scores of the map and of its largest cells. Several of these
that look at different taps can be compared: all speak in the same unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from andon.detectors.east.mixture import SAMPLE, ClusterSums, GaussianMixture, clusters, sample
from andon.detectors.east.whitening import WhitenedFeatures

BELOW = 0.8
"""Share of the cells of an image that stay below its level."""
PRIOR = 100
"""Cells that the spread common to all components counts for, beside a component's own."""


class Likelihood(nn.Module):
    """(B, C, H, W) whitened features to the unusualness of each cell (B, 1, H, W) and of the image (B,)."""

    centre_: Tensor
    units_: Tensor
    most_: Tensor
    ordinary_: Tensor

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
        """`shapes` {tap: (C, h, w)} are brought to `grid`; the mean of the `share` of the cells with the largest values counts.

        `scaled` takes each component's own deviation as its unit, `relative` the level of an image's map as its zero, as far
        as good images differ in it.
        """
        super().__init__()
        self.features = WhitenedFeatures(shapes, grid)
        self.mixture = GaussianMixture(self.features.channels, components=components, axes=axes)
        self.share, self.scaled, self.relative = share, scaled, relative
        # Of good cells: their mean negative log-likelihood, and one over its deviation within each component.
        self.register_buffer("centre_", torch.zeros(()))
        self.register_buffer("units_", torch.ones(components))
        self.register_buffer("most_", torch.zeros(()))  # the highest level of a good image's map
        # Mean and deviation on good images of a cell of the map, and of the mean of its largest cells.
        self.register_buffer("ordinary_", torch.tensor([[0.0, 1.0]] * 2))

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        return self._judge(self.mixture(f))

    def whiten(self, pictures: Tensor) -> None:
        """Learn the whitening of (N, lights, C, H, W) joined features and apply it to them in place."""
        self.features.fit(pictures)
        for picture in pictures:
            picture.copy_(self.features(picture))

    def fit(
        self,
        pictures: Tensor,
        fold_of: Tensor,
        generator: torch.Generator,
        advance: Callable[[], object],
        *,
        made_up: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """Learn from whitened (N, lights, C, H, W); what is ordinary from those in true light, `pictures[:, 0]`.

        Images of each fold, named in `fold_of` (N,), are scored by what the others taught. Clusters are found once, and what
        was learned without a fold is a difference of sums. `advance` is called for each image and each component fitted.

        `made_up` are images of each fold with a defect, (M, C, H, W). Returns the unusualness of the good images (N,) and of
        those, all scored by what the other folds taught.
        """
        vectors = sample(pictures.flatten(0, 1), SAMPLE, generator)
        cells = pictures.shape[:2].numel() * pictures.shape[3:].numel()
        found = clusters(vectors, len(self.mixture.means_), cells, generator)
        sums = [ClusterSums(found, pictures.shape[2]) for _ in range(int(fold_of.max()) + 1)]
        for picture, fold in zip(pictures, fold_of.tolist(), strict=True):
            sums[fold].add(picture)
            advance()
        good, wrong = [], []
        for fold in range(len(sums)):
            self._fit_mixture([s for k, s in enumerate(sums) if k != fold], advance)
            good += [self.mixture(picture[None]) for picture in pictures[fold_of == fold, 0]]
            wrong += [self.mixture(picture[None]) for picture in (made_up[fold] if made_up else ())]
        good_scores = self._learn_ordinary(torch.cat(good))
        wrong_scores = [self._judge(answer)[1] for answer in wrong]
        self._fit_mixture(sums, advance)
        return good_scores, torch.cat([good_scores[:0], *wrong_scores])

    def _fit_mixture(self, sums: Sequence[ClusterSums], advance: Callable[[], object]) -> None:
        self.mixture.fit(reduce(add, sums), advance=advance)

    def _learn_ordinary(self, nll: Tensor) -> Tensor:
        """From good images that were not learned from (N, k, H, W); returns their unusualness (N,)."""
        least, component = nll.min(1)
        self.centre_.copy_(least.mean())
        if self.scaled:
            self.units_.copy_(1 / _deviations(least.flatten(), component.flatten(), len(self.units_)))
        scaled = self._scaled(nll)
        self.most_.copy_(levels(scaled).max())
        relative = self._relative(scaled)
        peak = self._peak(relative)
        for row, values in enumerate((relative, peak)):
            deviation, mean = torch.std_mean(values, correction=0)
            self.ordinary_[row] = torch.stack([mean, deviation.clamp_min(1e-6)])
        return self._unusual(peak, 1)

    def _scaled(self, nll: Tensor) -> Tensor:
        """The likelihood of the best component, in units of what is common for it: (B, k, H, W) to (B, 1, H, W).

        The edge of a part differs more from image to image than its face. Where components are equally likely the unit
        lies between theirs, or rounding could decide.
        """
        unit = ((-nll).softmax(1) * self.units_[:, None, None]).sum(1, keepdim=True)
        return (nll.amin(1, keepdim=True) - self.centre_) * unit

    def _relative(self, scaled: Tensor) -> Tensor:
        """The map less its own level: light and focus change the whole image. Never less more than good images need."""
        if not self.relative:
            return scaled
        return scaled - torch.minimum(levels(scaled), self.most_)[:, None, None, None]

    def _judge(self, nll: Tensor) -> tuple[Tensor, Tensor]:
        """(B, k, H, W) as the mixture gives them to the unusualness of each cell and of the image."""
        relative = self._relative(self._scaled(nll))
        return self._unusual(relative, 0), self._unusual(self._peak(relative), 1)

    def _peak(self, maps: Tensor) -> Tensor:
        """(B, 1, H, W) to (B,): the mean of the largest cells."""
        flat = maps.flatten(1)
        return flat.topk(max(1, round(self.share * flat.shape[1])), dim=1).values.mean(1)

    def _unusual(self, x: Tensor, row: int) -> Tensor:
        """Deviations above the mean of good images."""
        return (x - self.ordinary_[row, 0]) / self.ordinary_[row, 1]


def _deviations(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(n,) values to the deviation within each of `groups` (groups,); small groups are drawn towards the common one."""
    values = values.double()
    count = torch.bincount(group, minlength=groups).double()
    mean = torch.bincount(group, values, minlength=groups) / count.clamp_min(1)
    squares = torch.bincount(group, (values - mean[group]).square(), minlength=groups)
    common = squares.sum() / len(values)
    return ((squares + PRIOR * common) / (count + PRIOR)).sqrt().clamp_min(1e-6).float()


def levels(maps: Tensor) -> Tensor:
    """(B, 1, H, W) to what `BELOW` of the cells of each map stay below (B,); by an operator that can be exported."""
    flat = maps.flatten(1)
    return flat.topk(max(1, round((1 - BELOW) * flat.shape[1])), dim=1).values[:, -1]
