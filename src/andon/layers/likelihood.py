"""How unlikely each cell of a picture is, in deviations from good pictures that were not learned from.

Whitened features, a mixture of Gaussians over them, the map relative to its own median, and the standard scores of the map
and of its largest cells. Several of these that look at different taps can be compared: all speak in the same unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from andon.layers.mixture import SAMPLE, ClusterSums, GaussianMixture, clusters, sample
from andon.layers.whitening import WhitenedFeatures


class Likelihood(nn.Module):
    """(B, C, H, W) whitened features to the unusualness of each cell (B, 1, H, W) and of the picture (B,)."""

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
        relative: bool,
    ) -> None:
        """`shapes` {tap: (C, h, w)} are brought to `grid`; the mean of the `share` of the cells with the largest values counts.

        `relative` takes the median of a picture's map as its zero, as far as good pictures differ in it.
        """
        super().__init__()
        self.features = WhitenedFeatures(shapes, grid)
        self.mixture = GaussianMixture(self.features.channels, components=components, axes=axes)
        self.share, self.relative = share, relative
        self.register_buffer("most_", torch.zeros(()))  # the largest median of a good picture's map
        # Mean and deviation on good pictures of a cell of the map, and of the mean of its largest cells.
        self.register_buffer("ordinary_", torch.tensor([[0.0, 1.0]] * 2))

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        relative = self._relative(self.mixture(f))
        return self._unusual(relative, 0), self._unusual(self._peak(relative), 1)

    def whiten(self, pictures: Tensor) -> None:
        """Learn the whitening of (N, lights, C, H, W) joined features and apply it to them in place."""
        self.features.fit(pictures)
        for picture in pictures:
            picture.copy_(self.features(picture))

    def fit(
        self, pictures: Tensor, fold_of: Tensor, generator: torch.Generator, advance: Callable[[], object]
    ) -> None:
        """Learn from whitened (N, lights, C, H, W); what is ordinary from those in true light, `pictures[:, 0]`.

        Pictures of each fold, named in `fold_of` (N,), are scored by what the others taught. Clusters are found once, and what
        was learned without a fold is a difference of sums. `advance` is called for each picture and each component fitted.
        """
        vectors = sample(pictures.flatten(0, 1), SAMPLE, generator)
        cells = pictures.shape[:2].numel() * pictures.shape[3:].numel()
        found = clusters(vectors, len(self.mixture.means_), cells, generator)
        sums = [ClusterSums(found, pictures.shape[2]) for _ in range(int(fold_of.max()) + 1)]
        for picture, fold in zip(pictures, fold_of.tolist(), strict=True):
            sums[fold].add(picture)
            advance()
        maps = []
        for fold in range(len(sums)):
            self._fit_mixture([s for k, s in enumerate(sums) if k != fold], advance)
            maps += [self.mixture(picture[None]) for picture in pictures[fold_of == fold, 0]]
        self._learn_ordinary(torch.cat(maps))
        self._fit_mixture(sums, advance)

    def _fit_mixture(self, sums: Sequence[ClusterSums], advance: Callable[[], object]) -> None:
        self.mixture.fit(reduce(add, sums), advance=advance)

    def _learn_ordinary(self, nll: Tensor) -> None:
        self.most_.copy_(medians(nll).max())
        relative = self._relative(nll)
        for row, values in enumerate((relative, self._peak(relative))):
            deviation, mean = torch.std_mean(values, correction=0)
            self.ordinary_[row] = torch.stack([mean, deviation.clamp_min(1e-6)])

    def _relative(self, nll: Tensor) -> Tensor:
        """The map less its own median: light and focus change the whole picture. Never less more than good pictures need."""
        if not self.relative:
            return nll
        return nll - torch.minimum(medians(nll), self.most_)[:, None, None, None]

    def _peak(self, maps: Tensor) -> Tensor:
        """(B, 1, H, W) to (B,): the mean of the largest cells."""
        flat = maps.flatten(1)
        return flat.topk(max(1, round(self.share * flat.shape[1])), dim=1).values.mean(1)

    def _unusual(self, x: Tensor, row: int) -> Tensor:
        """Deviations above the mean of good pictures."""
        return (x - self.ordinary_[row, 0]) / self.ordinary_[row, 1]


def medians(maps: Tensor) -> Tensor:
    """(B, 1, H, W) to the median of each map (B,), the lower of two middle values; by an operator that can be exported."""
    flat = maps.flatten(1)
    cells = flat.shape[1]
    return flat.topk(cells - (cells - 1) // 2, dim=1).values[:, -1]
