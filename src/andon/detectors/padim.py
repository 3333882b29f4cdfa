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

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import Amount, Count, Share
from andon.core.errors import ConfigError, DataError
from andon.core.memory_budget import require_memory
from andon.detectors._base import Analysis
from andon.detectors._closed_form import ClosedForm
from andon.detectors._config import ClosedFormConfig
from andon.layers.centre_crop import crop_centre, paste_centre, resized_side
from andon.layers.gaussians import PositionGaussians, mahalanobis
from andon.layers.patches import ConcatEmbedding
from andon.layers.smoothing import Smoothing
from andon.nn.backbones import Backbone, BackboneConfig, weight_lines
from andon.nn.kept_features import KeptFeatures
from andon.nn.training import Trainer, seeded


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
        self.averages = ConcatEmbedding(self.extractor.shapes) if c.patches == "average" else None
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
        if self.averages is not None:
            joined: Tensor = self.averages(features)
        else:
            joined = torch.cat(
                [F.interpolate(x, size=self.grid, mode="nearest") for x in features.values()], 1
            )
        return joined[:, self.channels_].flatten(2).transpose(1, 2)

    def analyse_features(self, features: Tensor) -> Analysis:
        cells = mahalanobis(features, self.mean_, self.whitening_)  # (B, P)
        maps = self.quieted(paste_centre(self.smoothing(cells.view(-1, 1, *self.grid)), self.side))
        return Analysis(maps, maps.flatten(1).amax(1))
