"""PaDiM: one Gaussian per position of the feature map.

Paper: Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", 2020, arXiv
2011.08785. Features of three layers are concatenated on the finest grid and a fixed random subset of the channels is kept
(Sec. III-A). Each position gets the mean and covariance of its feature vector over the training images (Eq. 1); the anomaly
score of a position is its Mahalanobis distance (Eq. 2).

The setting `common` draws each covariance towards the one of all positions, as regularised discriminant analysis does
(Friedman, JASA 84, 1989): with few images and all channels that is the better estimate. 0 is the paper.

Differs from the authors' code: scores are not scaled over the test set, which would use test images. Sums of products are
accumulated in one pass. With the paper's large setting (56 x 56 positions, 550 channels) the covariances take 3.8 GB;
fitting needs that and one batch of features.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import Amount, Count, Share
from andon.core.errors import ConfigError, DataError
from andon.core.memory_budget import require_memory
from andon.detectors._base import Analysis, weight_lines
from andon.detectors._closed_form import ClosedForm
from andon.detectors._config import ClosedFormConfig
from andon.layers.centre_crop import crop_centre, paste_centre, resized_side
from andon.layers.smoothing import Smoothing
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.kept_features import KeptFeatures
from andon.nn.training import Trainer, seeded

EXACT_BYTES = 2**30
"""Sums of products are float64 as long as they take no more than this, float32 beyond."""
BLOCK_NUMBERS = 2**21
"""Entries of the matrices that are factorised at a time (16 MiB in float64, which caches hold)."""


class PaDiMConfig(ClosedFormConfig):
    """Settings of PaDiM; the defaults are the paper's with ResNet-18."""

    extractor: BackboneConfig = BackboneConfig(
        network="resnet18",
        weights="resnet18.tv_in1k",
        taps=("layer1", "layer2", "layer3"),
        image_size=224,
    )
    resize: Count | None = 256
    """Images are resized to this side, then their centre of extractor.image_size is cropped; null = no crop."""
    channels: Count | None = 100
    """Channels kept: a random subset, drawn once, the same at all positions; null = all."""
    patches: Literal["cell", "average"] = "cell"
    """Features of a position: those of its cell, coarse taps enlarged by nearest neighbour (the authors' code), or averages
    over 3 x 3 cells, coarse taps enlarged bilinearly."""
    common: Share = 0.0
    """Share of the covariance common to all positions in that of each (Friedman 1989, Eq. 18): 0 = the paper's."""
    regularisation: Amount = 0.01
    """Added to the diagonal of each covariance (epsilon of Eq. 1); with `common`, in units of its mean variance."""
    smoothing: Amount = 4.0
    """Sigma of the Gaussian filter on the anomaly map, in pixels of the network's input."""
    memory_gib: Amount = 8.0
    """Memory that fitting may take, in GiB; a fit that needs more, or more than the machine has, is refused before it starts."""


class PositionGaussians:
    """Means and covariances (Eq. 1) of (N, P, d) vectors that arrive in batches.

    Products are summed around the running mean (Chan, Golub and LeVeque 1983), which keeps a relative error of about 1e-6 of
    a variance in float32. Float32 sums are overwritten by `whitening`, so that the peak is the result and one batch.
    """

    def __init__(self, positions: int, size: int, device: torch.device) -> None:
        dtype = torch.float64 if 8 * positions * size**2 <= EXACT_BYTES else torch.float32
        self.count = 0
        self.mean = torch.zeros(positions, size, dtype=torch.float64, device=device)
        self.products = torch.zeros(positions, size, size, dtype=dtype, device=device)

    @staticmethod
    def bytes_needed(positions: int, size: int, *, copied: bool = False) -> int:
        """Peak memory of the sums and the result, without batches; `copied`: with the copy that `without` makes."""
        exact = 8 * positions * size**2
        sums, result = (exact, exact // 2) if exact <= EXACT_BYTES else (exact // 2, 0)
        return sums * (1 + copied) + result

    def add(self, x: Tensor) -> None:
        """Add a batch of vectors (B, P, d)."""
        if x.dtype != self.products.dtype:
            x = x.to(self.products.dtype)
        batch = len(x)
        mean = x.mean(0)
        shift = mean - self.mean  # (P, d)
        joint = (self.count * batch / (self.count + batch)) ** 0.5
        rows = torch.cat([x - mean, (joint * shift).to(x.dtype)[None]]).transpose(0, 1)  # (P, B + 1, d)
        self.products.baddbmm_(rows.transpose(1, 2), rows)
        self.count += batch
        self.mean += shift * (batch / self.count)

    def without(self, batches: Iterable[Tensor]) -> PositionGaussians:
        """The sums without batches that were added before; these sums stay as they are."""
        rest = copy.copy(self)
        rest.mean, rest.products = self.mean.clone(), self.products.clone()
        for batch in batches:
            rest._remove(batch.to(rest.products.dtype))
        return rest

    def _remove(self, x: Tensor) -> None:
        """The inverse of `add`."""
        batch = len(x)
        mean = x.mean(0)
        shift = mean - self.mean  # (P, d), from the mean before
        joint = (self.count * batch / (self.count - batch)) ** 0.5
        rows = torch.cat([x - mean, (joint * shift).to(x.dtype)[None]]).transpose(0, 1)  # (P, B + 1, d)
        self.products.baddbmm_(rows.transpose(1, 2), rows, alpha=-1)
        self.count -= batch
        self.mean -= shift * (batch / self.count)

    def common(self) -> Tensor:
        """(d, d) float64: mean of the unbiased covariances of all positions."""
        return self.products.mean(0, dtype=torch.float64) / (self.count - 1)

    def covariance(
        self, positions: slice, regularisation: float, common: Tensor | None = None, share: float = 0.0
    ) -> Tensor:
        """(p, d, d) float64: the unbiased covariance, of which `share` is replaced by `common`, plus a multiple of the identity.

        The multiple is `regularisation`, in units of the mean variance of `common` where that is given. Raises `DataError`
        with fewer than two vectors.
        """
        if self.count < 2:
            raise DataError(
                f"a covariance needs at least 2 training pictures, there is {self.count}: add good pictures"
            )
        sigma = self.products[positions].double() / (self.count - 1)
        if common is not None:
            sigma = (1 - share) * sigma + share * common
            regularisation *= float(common.diagonal().mean())
        sigma.diagonal(dim1=1, dim2=2).add_(regularisation)
        return sigma

    def whitening(self, regularisation: float, share: float = 0.0) -> Tensor:
        """(P, d, d) float32 lower triangular W with WᵀW = Σ⁻¹; the sums cannot be used afterwards.

        `share` of each covariance is that of all positions together (Friedman 1989); 0 = each position's own alone.

        Raises `DataError` with fewer than two vectors, or where a covariance is singular in the precision it was summed in.
        """
        positions, size = self.mean.shape
        in_place = self.products.dtype == torch.float32
        out = self.products if in_place else torch.empty_like(self.products, dtype=torch.float32)
        identity = torch.eye(size, dtype=torch.float64, device=self.products.device)
        common = self.common() if share > 0 else None
        step = max(1, BLOCK_NUMBERS // size**2)
        for start in range(0, positions, step):
            block = slice(start, start + step)
            factor, failed = torch.linalg.cholesky_ex(self.covariance(block, regularisation, common, share))
            if bool(failed.any()):
                raise DataError(
                    f"a covariance of {size} features cannot be inverted at regularisation={regularisation:g}: raise it"
                )
            out[block] = torch.linalg.solve_triangular(factor, identity, upper=False).float()
        return out


def mahalanobis(x: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """(B, P) distances √((x-μ)ᵀ Σ⁻¹ (x-μ)) = ‖W (x-μ)‖ of vectors (B, P, d) (Eq. 2); means (P, d), W (P, d, d)."""
    centred = (x - mean).permute(1, 2, 0)  # (P, d, B)
    return (whitening @ centred).square().sum(1).sqrt().T


class PaDiM(ClosedForm):
    """One Gaussian per position; see the module's docstring."""

    Config = PaDiMConfig
    config: PaDiMConfig
    channels_: Tensor
    """(d,) indices of the kept channels, ascending."""
    mean_: Tensor
    """(P, d) means μ."""
    whitening_: Tensor
    """(P, d, d) lower triangular W with WᵀW = Σ⁻¹."""
    sized_by_learning = frozenset({"mean_", "whitening_"})
    fewest_images = 2

    def __init__(self, config: PaDiMConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        self.side = resized_side(c.resize, c.extractor.image_size)
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        shapes = list(self.extractor.shapes.values())
        self.grid = shapes[0][1:]
        self.available = sum(channels for channels, _, _ in shapes)
        kept = c.channels or self.available
        if kept > self.available:
            raise ConfigError(
                f"channels={kept} are more than the {self.available} of the taps: keep fewer, or add taps"
            )
        self.smoothing = Smoothing(c.extractor.image_size, c.smoothing)
        self.register_buffer("channels_", torch.arange(kept))
        self.register_buffer("mean_", torch.empty(0, kept))
        self.register_buffer("whitening_", torch.empty(0, kept, kept))
        self.used_weights = weight_lines(self.extractor)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.side, self.side

    @property
    def untiled(self) -> str:
        return "since it learns what belongs to each place of the picture"

    @property
    def score_rule(self) -> str:
        return "maximum of the smoothed map"

    # Learning ------------------------------------------------------------------------------------------------------

    def begin(self, images: int, trainer: Trainer) -> None:
        """Draw the channels; refuse too few images, and covariances that do not fit into memory."""
        positions, kept = self.grid[0] * self.grid[1], len(self.channels_)
        if images < self.fewest_images:
            raise DataError(
                f"padim needs at least 2 training pictures for a covariance, there is {images}: add good pictures"
            )
        require_memory(
            PositionGaussians.bytes_needed(positions, kept, copied=self.cross_fitted),
            self.config.memory_gib,
            f"{positions} covariances of {kept} channels",
            "keep fewer channels, use a smaller extractor.image_size"
            + (" or threshold_scores=held_out" if self.cross_fitted else ""),
        )
        order = torch.randperm(self.available, generator=seeded(trainer.seed, "channels"))
        self.channels_ = order[:kept].sort().values.to(trainer.device)

    def estimate(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> None:
        self._set(self._sums(features, chosen, trainer), trainer)

    def estimate_without(
        self, features: KeptFeatures, folds: Sequence[Sequence[int]], trainer: Trainer
    ) -> Iterator[None]:
        """The sums of each fold are taken away from those of all images."""
        total = self._sums(features, range(len(features)), trainer)
        for fold in folds:
            self._set(total.without(features.batches(fold)), trainer)
            yield
        self._set(total, trainer)

    def _sums(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> PositionGaussians:
        gaussians = PositionGaussians(self.grid[0] * self.grid[1], len(self.channels_), trainer.device)
        with trainer.timed("features"):
            for batch in features.batches(chosen, "summing covariances"):
                gaussians.add(batch)
        return gaussians

    def _set(self, gaussians: PositionGaussians, trainer: Trainer) -> None:
        """Means and covariances from their sums, which cannot be used afterwards."""
        with trainer.timed("covariances"):
            self.mean_ = gaussians.mean.float()
            self.whitening_ = gaussians.whitening(self.config.regularisation, self.config.common)

    # Inference -----------------------------------------------------------------------------------------------------

    def extract(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, P, d): the taps on the finest grid, restricted to the kept channels."""
        features = self.extractor(crop_centre(images, self.config.extractor.image_size))
        if self.config.patches == "average":
            averages = [F.avg_pool2d(x, 3, 1, 1) for x in features.values()]
            maps = [F.interpolate(x, size=self.grid, mode="bilinear", align_corners=False) for x in averages]
        else:
            maps = [F.interpolate(x, size=self.grid, mode="nearest") for x in features.values()]
        return torch.cat(maps, 1)[:, self.channels_].flatten(2).transpose(1, 2)

    def analyse_features(self, features: Tensor) -> Analysis:
        cells = mahalanobis(features, self.mean_, self.whitening_)  # (B, P)
        maps = self.smoothing(cells.view(-1, 1, *self.grid))
        return Analysis(paste_centre(maps, self.side), maps.flatten(1).amax(1))
