"""PaDiM: one Gaussian per patch position over features of several depths.

Paper: Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", 2020, arXiv
2011.08785. Features of three layers are joined on the finest grid and a fixed random part of their channels is kept (Sec. III-A).
Mean and covariance of each position over the good images (Eq. 1) give a Mahalanobis distance (Eq. 2).

The covariances are summed in one pass over the images. With the paper's large setting (56 x 56 positions, 550 channels) the
result is 3.8 GB; learning takes that and one batch of features, see `layers/gaussian.py`. The authors scale scores over the
test set; that is left out: it would look at test images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import Amount, Count
from andon.core.errors import ConfigError, DataError
from andon.core.images import batches
from andon.core.memory_budget import require_memory
from andon.core.progress import track
from andon.core.records import Record
from andon.detectors._base import Analysis, Detector, DetectorConfig, weight_lines
from andon.layers.framing import crop_centre, fill_border, frame_side
from andon.layers.gaussian import PositionGaussians, mahalanobis
from andon.layers.smoothing import Smoothing
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.training import Trainer, seeded

BATCH = 8
"""Images whose features are computed at a time."""


class PaDiMConfig(DetectorConfig):
    """Settings of PaDiM; the defaults are the paper's with ResNet-18."""

    extractor: BackboneConfig = BackboneConfig(
        network="resnet18",
        weights="resnet18.tv_in1k",
        taps=("layer1", "layer2", "layer3"),
        image_size=224,
    )
    resize: Count | None = 256
    """Images are resized to this side and their centre of extractor.image_size is looked at; null = all of the image."""
    channels: Count = 100
    """Channels kept, drawn at random once, the same at all positions."""
    regularisation: Amount = 0.01
    """Added to the variances (epsilon of Eq. 1)."""
    smoothing: Amount = 4.0
    """Sigma of the Gaussian over the map, in pixels of the network's image."""
    memory_gib: Amount = 8.0
    """Memory that learning may take, in GiB; more, or more than the machine has, is refused before it starts."""


class PaDiM(Detector):
    """Position-wise Gaussians; see the module's docstring."""

    Config = PaDiMConfig
    config: PaDiMConfig
    channels_: Tensor
    """(d,) channels kept, ascending."""
    mean_: Tensor
    """(P, d)."""
    whitening_: Tensor
    """(P, d, d) lower triangles W with WᵀW = Σ⁻¹."""
    sized_by_learning = frozenset({"mean_", "whitening_"})

    def __init__(self, config: PaDiMConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        self.side = frame_side(c.resize, c.extractor.image_size)
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        shapes = list(self.extractor.shapes.values())
        self.grid = shapes[0][1:]
        self.available = sum(channels for channels, _, _ in shapes)
        if c.channels > self.available:
            raise ConfigError(
                f"channels={c.channels} are more than the {self.available} of the taps: keep fewer, or add taps"
            )
        self.smoothing = Smoothing(c.extractor.image_size, c.smoothing)
        self.register_buffer("channels_", torch.arange(c.channels))
        self.register_buffer("mean_", torch.empty(0, c.channels))
        self.register_buffer("whitening_", torch.empty(0, c.channels, c.channels))
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

    @torch.no_grad()
    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        c = self.config
        positions = self.grid[0] * self.grid[1]
        if len(train) < 2:
            raise DataError(
                f"padim needs at least 2 training pictures for a covariance, there is {len(train)}: add good pictures"
            )
        require_memory(
            PositionGaussians.bytes_needed(positions, c.channels),
            c.memory_gib,
            f"{positions} covariances of {c.channels} channels",
            "keep fewer channels or use a smaller extractor.image_size",
        )
        order = torch.randperm(self.available, generator=seeded(trainer.seed, "channels"))
        self.channels_ = order[: c.channels].sort().values.to(trainer.device)
        gaussians = PositionGaussians(positions, c.channels, trainer.device)
        with trainer.timed("features"):
            stream = batches(train, self.input_size, BATCH)
            for batch in track(trainer.progress, stream, "summing covariances", -(-len(train) // BATCH)):
                gaussians.add(self.embed(batch.image.to(trainer.device)))
        with trainer.timed("covariances"):
            self.mean_ = gaussians.mean.float()
            self.whitening_ = gaussians.whitening(c.regularisation)

    # Answering -----------------------------------------------------------------------------------------------------

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to (B, P, d): the taps on the finest grid (nearest neighbour), the kept channels of them."""
        features = self.extractor(crop_centre(images, self.config.extractor.image_size))
        levels = [F.interpolate(x, size=self.grid, mode="nearest") for x in features.values()]
        return torch.cat(levels, 1)[:, self.channels_].flatten(2).transpose(1, 2)

    def analyse(self, images: Tensor) -> Analysis:
        cells = mahalanobis(self.embed(images), self.mean_, self.whitening_)  # (B, P)
        maps = self.smoothing(cells.view(-1, 1, *self.grid))
        return Analysis(fill_border(maps, self.side), maps.flatten(1).amax(1))
