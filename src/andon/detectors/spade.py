"""SPADE: the most similar good images, and each pixel's distance to the nearest of their pixels.

Paper: Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020, arXiv 2005.02357. An image is as
anomalous as its K nearest good images are far, in globally averaged features (Eq. 2); a pixel as anomalous as the nearest
pixels of these K images are far, in features of several depths (Eq. 4).

The authors join the depths and square the distances (`pyramid: concat`, `distance: squared`). The re-implementation whose numbers
are usually quoted (byungjae89/SPADE-pytorch) takes K = 5, plain distances, and each depth for itself; it also leaves some pixels
of the gallery out, which is not repeated here. All good features are kept: 5.6 MB an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import Amount, Count
from andon.core.errors import ConfigError
from andon.core.errors import nearest as nearest_name
from andon.core.images import batches
from andon.core.memory_budget import require_memory
from andon.core.progress import track
from andon.core.records import Record
from andon.detectors._base import Analysis, Detector, DetectorConfig, weight_lines
from andon.layers.centre_crop import crop_centre, paste_centre, resized_side
from andon.layers.neighbours import Neighbours, merged, nearest
from andon.layers.patches import to_grid
from andon.layers.smoothing import Smoothing
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.training import Trainer

BATCH = 8
"""Images whose features are computed at a time."""


class SPADEConfig(DetectorConfig):
    """Settings of SPADE; the defaults are those whose numbers are usually quoted."""

    extractor: BackboneConfig = BackboneConfig(
        network="wide_resnet50_2",
        weights="wide_resnet50_2.tv_in1k",
        taps=("layer1", "layer2", "layer3", "layer4"),
        image_size=224,
    )
    resize: Count | None = 256
    """Images are resized to this side and their centre of extractor.image_size is looked at; null = all of the image."""
    image_tap: str = "layer4"
    """Tap whose average over all positions finds similar images."""
    pixel_taps: tuple[str, ...] = ("layer1", "layer2", "layer3")
    """Taps that are compared pixel by pixel, finest first."""
    neighbours: Count = 5
    """Similar images (K); all of them where there are fewer."""
    pixel_neighbours: Count = 1
    """Nearest pixels whose distances are averaged (kappa)."""
    distance: Literal["euclidean", "squared"] = "euclidean"
    """Measure of both comparisons."""
    pyramid: Literal["per_layer", "concat"] = "per_layer"
    """`concat` compares the joined taps on the finest grid (the paper); `per_layer` averages the maps of single taps."""
    smoothing: Amount = 4.0
    """Sigma of the Gaussian over the map, in pixels of the network's image."""
    memory_gib: Amount = 8.0
    """Memory that the gallery may take, in GiB; more, or more than the machine has, is refused before learning starts."""


class SPADE(Detector):
    """Gallery of good images; see the module's docstring."""

    Config = SPADEConfig
    config: SPADEConfig
    sized_by_learning = frozenset({"globals_", "gallery_"})
    one_at_a_time = True
    globals_: Tensor
    """(N, C) averaged features of each good image."""
    gallery_: Tensor
    """(N, F) features of each good image, the taps one after another."""

    def __init__(self, config: SPADEConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        self.side = resized_side(c.resize, c.extractor.image_size)
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        for name, tap in (("image_tap", c.image_tap), *(("pixel_taps", tap) for tap in c.pixel_taps)):
            if tap not in c.extractor.taps:
                raise ConfigError(
                    f"{name}: {tap!r} is not among extractor.taps; {nearest_name(tap, c.extractor.taps)}"
                )
        if not c.pixel_taps:
            raise ConfigError("pixel_taps is empty: name at least one of extractor.taps")
        self.shapes = {tap: self.extractor.shapes[tap] for tap in c.pixel_taps}
        grids = [shape[1:] for shape in self.shapes.values()]
        self.grids = grids if c.pyramid == "per_layer" else grids[:1]
        self.smoothing = Smoothing(c.extractor.image_size, c.smoothing)
        self.register_buffer("globals_", torch.empty(0, self.extractor.shapes[c.image_tap][0]))
        self.register_buffer("gallery_", torch.empty(0, self._numbers()))
        self.leave_own_out = False
        """Whether the images asked about are those of the gallery, so that the most similar one is the image itself."""
        self.used_weights = weight_lines(self.extractor)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.side, self.side

    @property
    def score_rule(self) -> str:
        return (
            f"mean {self.config.distance} distance to the {self.config.neighbours} most similar good pictures"
        )

    def _numbers(self) -> int:
        """Numbers kept of an image for the comparison of pixels."""
        return sum(channels * height * width for channels, height, width in self.shapes.values())

    # Learning ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        require_memory(
            4 * len(train) * (self._numbers() + self.globals_.shape[1]),
            self.config.memory_gib,
            f"a gallery of {len(train)} pictures",
            "use fewer training pictures, fewer pixel_taps or a smaller extractor.image_size",
        )
        averages = torch.empty(len(train), self.globals_.shape[1], device=trainer.device)
        gallery = torch.empty(len(train), self._numbers(), device=trainer.device)
        done = 0
        with trainer.timed("features"):
            stream = batches(train, self.input_size, BATCH)
            for batch in track(trainer.progress, stream, "collecting the gallery", -(-len(train) // BATCH)):
                features = self.extract(batch.image.to(trainer.device))
                rows = slice(done, done + len(batch.image))
                averages[rows] = features[self.config.image_tap].mean((2, 3))
                gallery[rows] = torch.cat([features[tap].flatten(1) for tap in self.shapes], 1)
                done += len(batch.image)
        self.globals_, self.gallery_ = averages, gallery

    def calibrate(
        self, good: Sequence[Record], *, source: str = "validation", labelled: Sequence[Record] = ()
    ) -> None:
        """As for every detector; where nothing was held out, each image is compared with all the others."""
        self.leave_own_out = source == "train"
        try:
            super().calibrate(good, source=source, labelled=labelled)
        finally:
            self.leave_own_out = False

    # Answering -----------------------------------------------------------------------------------------------------

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) images to their features {tap: (B, C, h, w)}."""
        features: dict[str, Tensor] = self.extractor(crop_centre(images, self.config.extractor.image_size))
        return features

    def analyse(self, images: Tensor) -> Analysis:
        features = self.extract(images)
        similar = self.similar(features[self.config.image_tap].mean((2, 3)))
        score = self.measure(similar.distance)
        single = [
            self.pixel_map({tap: features[tap][k] for tap in self.shapes}, similar.index[k])
            for k in range(len(images))
        ]
        maps = self.smoothing(torch.stack(single))
        return Analysis(paste_centre(maps, self.side), score, {"map_max": maps.flatten(1).amax(1)})

    def similar(self, averages: Tensor) -> Neighbours:
        """The K nearest good images of (B, C) averaged features; without the nearest where that is the image itself."""
        own = int(self.leave_own_out and len(self.globals_) > 1)
        found = nearest(averages, self.globals_, self.config.neighbours + own)
        return Neighbours(found.distance[:, own:], found.index[:, own:])

    def measure(self, distance: Tensor) -> Tensor:
        """(n, k) distances to their means (n,), squared before where the recipe says so."""
        return (distance.square() if self.config.distance == "squared" else distance).mean(1)

    def pixel_map(self, features: Mapping[str, Tensor], similar: Tensor) -> Tensor:
        """Features {tap: (C, h, w)} of one image and the positions of similar ones (K,) to its map (1, size, size).

        The gallery is searched image by image, so nothing larger than one image's comparison is ever held.
        """
        k, size = self.config.pixel_neighbours, (self.smoothing.size, self.smoothing.size)
        queries = self.levels(features)
        found: list[Neighbours] = []
        for picture in similar:
            new = [nearest(q, g, k) for q, g in zip(queries, self.recall(picture), strict=True)]
            found = [merged(a, b, k) for a, b in zip(found, new, strict=True)] if found else new
        cells = [
            self.measure(f.distance).view(1, 1, *grid) for f, grid in zip(found, self.grids, strict=True)
        ]
        return torch.cat([F.interpolate(x, size=size, mode="bilinear") for x in cells], 1).mean(1)

    def levels(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """What is compared, [(h·w, C)]: each tap for itself, or all of them joined on the finest grid."""
        taps = [features[tap] for tap in self.shapes]
        if self.config.pyramid == "concat":
            taps = [torch.cat([to_grid(x[None], self.grids[0]) for x in taps], 1)[0]]
        return [x.flatten(1).T for x in taps]

    def recall(self, picture: Tensor) -> list[Tensor]:
        """The levels of an image of the gallery, by its position."""
        parts = torch.split(self.gallery_[picture], [c * h * w for c, h, w in self.shapes.values()])
        taps = {tap: x.view(shape) for (tap, shape), x in zip(self.shapes.items(), parts, strict=True)}
        return self.levels(taps)
