"""SPADE: nearest-neighbour retrieval of good images, then nearest neighbours of each pixel among theirs.

Paper: Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020, arXiv 2005.02357. Image score:
mean distance to the K nearest good images in globally averaged features (Eq. 2). Pixel score: mean distance to the kappa nearest
pixel features of these K images, over a pyramid of layers (Eq. 4).

The paper concatenates the layers and squares the distances (`pyramid: concat`, `distance: squared`). The re-implementation whose
numbers are usually quoted (byungjae89/SPADE-pytorch) uses K = 5, plain distances and one map per layer. It omits some pixels of
the gallery, which is not reproduced. The features of all good images are stored: 5.6 MB per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import Amount, Count
from andon.core.errors import ConfigError
from andon.core.errors import nearest as nearest_name
from andon.core.memory_budget import require_memory
from andon.core.records import Record
from andon.detectors._base import Analysis
from andon.detectors._closed_form import ClosedForm
from andon.detectors._config import ClosedFormConfig
from andon.layers.centre_crop import crop_centre, paste_centre, resized_side
from andon.layers.neighbours import Neighbours, merged, nearest
from andon.layers.patches import to_grid
from andon.layers.smoothing import Smoothing
from andon.nn.backbones import Backbone, BackboneConfig, weight_lines
from andon.nn.kept_features import ROOM, KeptFeatures
from andon.nn.training import Trainer


class SPADEConfig(ClosedFormConfig):
    """Settings of SPADE; the defaults are those of byungjae89/SPADE-pytorch."""

    extractor: BackboneConfig = BackboneConfig(
        network="wide_resnet50_2",
        weights="wide_resnet50_2.tv_in1k",
        taps=("layer1", "layer2", "layer3", "layer4"),
        image_size=224,
    )
    resize: Count | None = 256
    """Images are resized to this side, then their centre of extractor.image_size is cropped; null = no crop."""
    image_tap: str = "layer4"
    """Tap whose global average retrieves similar images."""
    pixel_taps: tuple[str, ...] = ("layer1", "layer2", "layer3")
    """Taps of the pixel features, finest first."""
    neighbours: Count = 5
    """Retrieved images K; all of them where there are fewer."""
    pixel_neighbours: Count = 1
    """Nearest pixel features whose distances are averaged (kappa)."""
    distance: Literal["euclidean", "squared"] = "euclidean"
    """Distance of images and of pixels."""
    pyramid: Literal["per_layer", "concat"] = "per_layer"
    """`concat`: taps concatenated on the finest grid (the paper); `per_layer`: mean of one map per tap."""
    smoothing: Amount = 4.0
    """Sigma of the Gaussian filter on the anomaly map, in pixels of the network's input."""
    memory_gib: Amount = 8.0
    """Memory that the gallery may take, in GiB; one that needs more, or more than the machine has, is refused before fitting."""


class SPADE(ClosedForm):
    """Gallery of good images; see the module's docstring."""

    Config = SPADEConfig
    config: SPADEConfig
    sized_by_learning = frozenset({"globals_", "gallery_"})
    one_at_a_time = True
    globals_: Tensor
    """(N, C) globally averaged features of the good images."""
    gallery_: Tensor
    """(N, F) flattened features of the good images, tap after tap."""

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
        self.register_buffer("gallery_", torch.empty(0, self._values_per_image()))
        self.leave_own_out = False
        """Whether queries are images of the gallery, so that the nearest image is the query itself and is skipped."""
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

    def _values_per_image(self) -> int:
        """Pixel features of one image, as a number of values."""
        return sum(channels * height * width for channels, height, width in self.shapes.values())

    # Learning ------------------------------------------------------------------------------------------------------

    def begin(self, images: int, trainer: Trainer) -> None:
        """Refuse a gallery that does not fit into memory."""
        gallery = 4 * images * (self._values_per_image() + self.globals_.shape[1])
        require_memory(
            gallery + (min(gallery, ROOM) if self.cross_fitted else 0),
            self.config.memory_gib,
            f"a gallery of {images} pictures",
            "use fewer training pictures, fewer pixel_taps or a smaller extractor.image_size",
        )

    def estimate(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> None:
        averages = torch.empty(len(chosen), self.globals_.shape[1], device=trainer.device)
        gallery = torch.empty(len(chosen), self._values_per_image(), device=trainer.device)
        done = 0
        with trainer.timed("features"):
            for batch in features.batches(chosen, "collecting the gallery"):
                rows = slice(done, done + len(batch))
                averages[rows], gallery[rows] = self._split(batch)
                done += len(batch)
        self.globals_, self.gallery_ = averages, gallery

    def calibrate(
        self, good: Sequence[Record], *, source: str = "validation", labelled: Sequence[Record] = ()
    ) -> None:
        """As for every detector; without held-out images each training image is compared with all others (leave one out)."""
        self.leave_own_out = source == "train"
        try:
            super().calibrate(good, source=source, labelled=labelled)
        finally:
            self.leave_own_out = False

    # Inference -----------------------------------------------------------------------------------------------------

    def extract(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to the global averages and the flattened pixel features (B, C + F) of their centre crop."""
        taps: dict[str, Tensor] = self.extractor(crop_centre(images, self.config.extractor.image_size))
        averages = taps[self.config.image_tap].mean((2, 3))
        return torch.cat([averages, *(taps[tap].flatten(1) for tap in self.shapes)], 1)

    def _split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C + F) features to global averages (B, C) and pixel features (B, F)."""
        channels = self.globals_.shape[1]
        return features[:, :channels], features[:, channels:]

    def analyse_features(self, features: Tensor) -> Analysis:
        averages, pixels = self._split(features)
        retrieved = self.retrieve(averages)
        score = self.mean_distance(retrieved.distance)
        single = [self.pixel_map(pixels[k], retrieved.index[k]) for k in range(len(features))]
        maps = self.quieted(paste_centre(self.smoothing(torch.stack(single)), self.side))
        return Analysis(maps, score, {"map_max": maps.flatten(1).amax(1)})

    def retrieve(self, averages: Tensor) -> Neighbours:
        """The K nearest good images of globally averaged features (B, C), without the query itself (`leave_own_out`)."""
        own = int(self.leave_own_out and len(self.globals_) > 1)
        found = nearest(averages, self.globals_, self.config.neighbours + own)
        return Neighbours(found.distance[:, own:], found.index[:, own:])

    def mean_distance(self, distance: Tensor) -> Tensor:
        """(n, k) distances to their means (n,); squared first with `distance: squared`."""
        return (distance.square() if self.config.distance == "squared" else distance).mean(1)

    def pixel_map(self, pixels: Tensor, images: Tensor) -> Tensor:
        """Map (1, size, size) of one image from its pixel features (F,) and the gallery indices (K,) of retrieved images.

        The gallery is searched image by image, which bounds the memory.
        """
        k, size = self.config.pixel_neighbours, (self.smoothing.size, self.smoothing.size)
        queries = self.pixel_features(pixels)
        found: list[Neighbours] = []
        for image in images:
            gallery = self.pixel_features(self.gallery_[image])
            new = [nearest(q, g, k) for q, g in zip(queries, gallery, strict=True)]
            found = [merged(a, b, k) for a, b in zip(found, new, strict=True)] if found else new
        cells = [
            self.mean_distance(f.distance).view(1, 1, *grid)
            for f, grid in zip(found, self.grids, strict=True)
        ]
        return torch.cat([F.interpolate(x, size=size, mode="bilinear") for x in cells], 1).mean(1)

    def pixel_features(self, pixels: Tensor) -> list[Tensor]:
        """[(h·w, C)] from the flattened features (F,) of an image: one per tap, or all taps on the finest grid."""
        parts = torch.split(pixels, [c * h * w for c, h, w in self.shapes.values()])
        taps = [x.view(shape) for x, shape in zip(parts, self.shapes.values(), strict=True)]
        if self.config.pyramid == "concat":
            taps = [torch.cat([to_grid(x[None], self.grids[0]) for x in taps], 1)[0]]
        return [x.flatten(1).T for x in taps]
