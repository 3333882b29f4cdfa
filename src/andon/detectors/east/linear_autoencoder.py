"""A linear autoencoder of whole feature maps, fitted in closed form: what good images have in common from place to place.

Principal axes of the vectors of whole images (N, D), half as many as images. What remains of an image is what it shows at one
place against what its other places make likely: a part that is missing, twice or in the wrong combination. EfficientAD
(arXiv 2303.14535, Sec. 3.3) trains an autoencoder for that; a linear one has a solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEWEST = 25
"""Images to learn from, at least."""
MOST_AXES = 100
"""A model holds no more of them."""
FOLDS = 4
"""Of the images, to learn how much remains of an image that was left out."""
LEAST_DEVIATION = 0.05
"""Added to the deviation of each number, in units of the common one: numbers that never change have no say."""
LEAST_VARIANCE = 1e-6
"""Of what remains."""
MARGIN = 1.0
"""Deviations by which a whole image has to be rarer than its rarest cell to raise the score."""


class WholeImages(nn.Module):
    """How unlikely each place of an image is beside the rest of it, on the scale of another score of cells.

    Cells (B, P, d) come block by block, `block` x `block` cells each. A whole image is the means of squares of 2 x 2 blocks.
    """

    coder_: Tensor
    """(3, D) mean, scale and inverse spread of the coder."""
    axes_: Tensor
    """(K, D)"""
    level_: Tensor
    """(2,) what distances are multiplied by, and what is added."""

    def __init__(self, shape: tuple[int, int, int], block: int) -> None:
        """`shape` is that of the feature map, (d, height, width); the sides are multiples of 2 `block`."""
        super().__init__()
        size, height, width = shape
        self.size, self.block = size, block
        self.rows, self.columns = height // (2 * block), width // (2 * block)
        self.register_buffer("coder_", torch.zeros(3, size * self.rows * self.columns))
        self.register_buffer("axes_", torch.empty(0, size * self.rows * self.columns))
        self.register_buffer("level_", torch.zeros(2))

    @property
    def is_learned(self) -> bool:
        return len(self.axes_) > 0

    def forget(self) -> None:
        """Back to having learned none."""
        self.axes_ = self.axes_[:0]

    def whole(self, cells: Tensor) -> Tensor:
        """(B, P, d) cells to whole images (B, D)."""
        blocks = cells.view(-1, 2 * self.rows, 2 * self.columns, self.block**2, self.size).mean(3)
        return F.avg_pool2d(blocks.permute(0, 3, 1, 2), 2).flatten(1)

    def learn(self, wholes: Tensor, largest: Tensor) -> None:
        """Learn from whole images (N, V, D), and take the scale of another score.

        `largest` (n,) is that score of images that were left out, its largest cell. The largest distance of images that are
        left out gets its deviation, and its median less `MARGIN` deviations.
        """
        coder = fit_coder(wholes)
        self.coder_ = torch.stack([coder.mean, coder.scale, 1 / coder.spread])
        self.axes_ = coder.axes
        own = self._distances(coder.held_out).amax(1)
        slope = largest.std() / own.std().clamp_min(1e-6)
        self.level_ = torch.stack([slope, largest.median() - MARGIN * largest.std() - slope * own.median()])

    def forward(self, cells: Tensor) -> Tensor:
        """(B, P, d) cells to the level (B, P) of the square that each lies in."""
        mean, scale, inverse_spread = self.coder_
        remains = remainder((self.whole(cells) - mean) * scale, self.axes_) * inverse_spread
        squares = self._distances(remains) * self.level_[0] + self.level_[1]
        squares = squares.view(-1, self.rows, 1, self.columns, 1)
        blocks = squares.expand(-1, -1, 2, -1, 2).reshape(-1, 4 * self.rows * self.columns, 1)
        return blocks.expand(-1, -1, self.block**2).flatten(1)

    def _distances(self, remains: Tensor) -> Tensor:
        """(B, D) what remains of whole images to the root mean square of each square (B, squares)."""
        return remains.view(-1, self.size, self.rows * self.columns).square().mean(1).sqrt()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
        """PyTorch's own, with as many axes as there are in what is loaded; a state without them is one that has learned none."""
        axes = state_dict.get(f"{prefix}axes_", torch.empty(0, self.coder_.shape[1]))
        self.axes_ = torch.empty_like(axes, device=self.coder_.device)
        if f"{prefix}axes_" in state_dict:
            super()._load_from_state_dict(state_dict, prefix, *arguments)


@dataclass(frozen=True, slots=True)
class Coder:
    """Axes of standardised vectors, and how much of good images remains beside them."""

    mean: Tensor
    """(D,)"""
    scale: Tensor
    """(D,) what differences from the mean are multiplied by."""
    axes: Tensor
    """(K, D) orthonormal rows."""
    spread: Tensor
    """(D,) root mean square of what remains of images that were left out."""
    held_out: Tensor
    """(N, D) what remains of each image by the axes of the others, in units of `spread`."""


def fit_coder(x: Tensor) -> Coder:
    """The coder of (N, V, D) vectors: V views of each of N images, the first of which is the image as it is; N >= 2."""
    n, views, size = x.shape
    mean = x.flatten(0, 1).mean(0)
    deviation = (x - mean).square().flatten(0, 1).mean(0).sqrt()
    scale = 1 / (deviation + (LEAST_DEVIATION * deviation.square().mean().sqrt()).clamp_min(1e-6))
    x = ((x - mean) * scale).flatten(0, 1)
    products = x @ x.T
    count = min(n // 2, size // 2, MOST_AXES)
    left_out = torch.zeros(n, size, device=x.device)
    fold_of = torch.arange(n, device=x.device) % FOLDS
    for fold in range(min(FOLDS, n)):
        rest = (fold_of != fold).repeat_interleave(views)
        axes = principal_axes(x[rest], products[rest][:, rest], count)
        left_out[fold_of == fold] = remainder(x[::views][fold_of == fold], axes)
    spread = left_out.square().mean(0).clamp_min(LEAST_VARIANCE).sqrt()
    return Coder(mean, scale, principal_axes(x, products, count), spread, left_out / spread)


def principal_axes(x: Tensor, products: Tensor, count: int) -> Tensor:
    """(count, D) orthonormal rows, the axes of largest variance of (N, D) vectors around 0; N >= count.

    From the eigenvectors of their `products` (N, N), since images are fewer than numbers.
    """
    vectors = torch.linalg.eigh(products.double()).eigenvectors[:, -count:].flip(1).to(x.dtype)
    axes: Tensor = torch.linalg.qr(x.T @ vectors).Q.T
    return axes


def remainder(x: Tensor, axes: Tensor) -> Tensor:
    """(B, D) vectors without what the axes (K, D) hold of them."""
    return x - (x @ axes.T) @ axes
