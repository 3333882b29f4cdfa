"""PatchCore: distance of patch features to a memory bank, subsampled by greedy coreset selection.

Paper: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", 2021, arXiv 2106.08265. Locally aware patch features
of the good images form a memory bank (Sec. 3.1), which is reduced to a coreset (Sec. 3.2, Algorithm 1). The anomaly score of a
patch is its distance to the nearest vector of the bank; the image score is the largest one, re-weighted (Sec. 3.3, Eq. 6, 7).

Not given in the paper and taken from code: dimensions of the embedding and of the random projection, and b of Eq. 7. The authors'
code uses squared distances and no re-weighting: `squared: true, reweight: 1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from andon.core.config import Amount, Count
from andon.core.memory_budget import require_memory
from andon.core.region import InspectionRegion
from andon.detectors._base import Analysis
from andon.detectors._closed_form import ClosedForm
from andon.detectors._config import ClosedFormConfig
from andon.layers.centre_crop import crop_centre, paste_centre, resized_side
from andon.layers.coreset import greedy_centres, random_projection
from andon.layers.neighbours import nearest
from andon.layers.patches import ConcatEmbedding, PatchEmbedding
from andon.layers.smoothing import Smoothing
from andon.nn.backbones import Backbone, BackboneConfig, weight_lines
from andon.nn.kept_features import ROOM, KeptFeatures
from andon.nn.training import Trainer, seeded


class PatchCoreConfig(ClosedFormConfig):
    """Settings of PatchCore; the defaults are the paper's."""

    extractor: BackboneConfig = BackboneConfig(
        network="wide_resnet50_2",
        weights="wide_resnet50_2.tv_in1k",
        taps=("layer2", "layer3"),
        image_size=224,
    )
    resize: Count | None = 256
    """Images are resized to this side, then their centre of extractor.image_size is cropped; null = no crop."""
    embedding: Literal["original", "concat"] = "original"
    """`original` pools each 3 x 3 neighbourhood to `size` dimensions; `concat` averages it and keeps all channels (anomalib)."""
    size: Count = 1024
    """Dimensions of a patch vector (embedding `original`)."""
    coreset: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of the patches that the coreset keeps; 1 keeps all."""
    projection: Count = 128
    """Dimensions of the random projection in which the coreset is selected."""
    neighbours: Count = 1
    """A patch's score is the mean distance to this many nearest vectors."""
    reweight: Count = 9
    """Neighbours of the nearest vector in the re-weighting of the image score (b of Eq. 7); 1 = no re-weighting."""
    squared: bool = False
    """Squared distances, as in the authors' code."""
    smoothing: Amount = 4.0
    """Sigma of the Gaussian filter on the anomaly map, in pixels of the network's input."""
    memory_gib: Amount = 8.0
    """Memory that fitting may take, in GiB; a fit that needs more, or more than the machine has, is refused before it starts."""


class PatchCore(ClosedForm):
    """Memory bank of patches; see the module's docstring."""

    Config = PatchCoreConfig
    config: PatchCoreConfig
    sized_by_learning = frozenset({"bank_"})
    bank_: Tensor
    """(M, D) memory bank of patch vectors."""

    def __init__(self, config: PatchCoreConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        self.side = resized_side(c.resize, c.extractor.image_size)
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        self.embedding: PatchEmbedding | ConcatEmbedding = (
            PatchEmbedding(self.extractor.shapes, size=c.size)
            if c.embedding == "original"
            else ConcatEmbedding(self.extractor.shapes)
        )
        self.smoothing = Smoothing(c.extractor.image_size, c.smoothing)
        self.register_buffer("bank_", torch.empty(0, self.embedding.shape[0]))
        self.used_weights = weight_lines(self.extractor)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.side, self.side

    @property
    def score_rule(self) -> str:
        weighed = (
            f", weighed by {self.config.reweight} neighbours (Eq. 7)" if self.config.reweight > 1 else ""
        )
        return f"largest patch distance{weighed}"

    # Learning ------------------------------------------------------------------------------------------------------

    def begin(self, images: int, trainer: Trainer) -> None:
        """Refuse a bank that does not fit into memory: all patches, their projections (raw and centred) and the coreset."""
        dims, height, width = self.embedding.shape
        patches = images * height * width
        target = min(self.config.projection, dims)
        thinning = patches * (2 * target + 6) + self.kept(patches) * dims if self.config.coreset < 1 else 0
        shared = min(4 * patches * dims, ROOM) if self.cross_fitted else 0  # features of all folds
        require_memory(
            4 * (patches * dims + thinning) + shared,
            self.config.memory_gib,
            f"a bank of {patches} patches of {dims} numbers",
            "use fewer training pictures, a smaller size (with embedding=original) or a smaller extractor.image_size",
        )

    def estimate(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> None:
        with trainer.timed("features"):
            patches = self._collect(features, chosen, trainer)
        with trainer.timed("coreset"):
            self.bank_ = patches[self._select(patches, trainer)] if self.config.coreset < 1 else patches

    def kept(self, patches: int) -> int:
        """Size of the coreset of N patches: int(p N), at least 1."""
        return max(1, int(self.config.coreset * patches))

    def _collect(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> Tensor:
        """(N, D) patch vectors of the chosen images."""
        dims, height, width = self.embedding.shape
        patches = torch.empty(len(chosen), height * width, dims, device=trainer.device)
        done = 0
        for found in features.batches(chosen, "collecting patches"):
            patches[done : done + len(found)] = found
            done += len(found)
        return patches.flatten(0, 1)

    def _select(self, patches: Tensor, trainer: Trainer) -> Tensor:
        """Indices of the coreset, selected in a random projection (Algorithm 1)."""
        generator = seeded(trainer.seed, "coreset")
        dims = patches.shape[1]
        reduced = patches
        if dims > self.config.projection:
            reduced = patches @ random_projection(dims, self.config.projection, generator).to(patches.device)
        start = int(torch.randint(len(patches), (), generator=generator))
        count = self.kept(len(patches))
        with trainer.progress.task("selecting patches", count) as bar:
            return greedy_centres(reduced, count, start, advance=bar.advance)

    # Inference -----------------------------------------------------------------------------------------------------

    def extract(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to patch vectors (B, h·w, D)."""
        centre = crop_centre(images, self.config.extractor.image_size)
        features: Tensor = self.embedding(self.extractor(centre))
        return features.flatten(2).transpose(1, 2)

    def analyse_features(self, features: Tensor) -> Analysis:
        c = self.config
        found = nearest(features.flatten(0, 1), self.bank_, c.neighbours)  # of all (B, P) patches
        distance = found.distance.square() if c.squared else found.distance
        cells = distance.mean(1).view(features.shape[0], -1)  # (B, P)
        inside = self._inspected_patches()
        largest, position = (cells if inside is None else cells.masked_fill(~inside, -torch.inf)).max(1)
        rows = torch.arange(features.shape[0], device=position.device)
        query = features[rows, position]
        neighbour = found.index.view(*cells.shape, -1)[rows, position, 0]
        score = largest * self.reweighting(query, neighbour) if c.reweight > 1 else largest
        maps = self.smoothing(cells.view(-1, 1, *self.embedding.grid))
        return Analysis(self.quieted(paste_centre(maps, self.side)), score, {"patch_max": largest})

    def _inspected_patches(self) -> Tensor | None:
        """(P,) which patches are inspected; None for all."""
        size = self.config.extractor.image_size
        centre = self.inspected_cells(size, size, (self.side - size) // 2)
        if centre is None:
            return None
        patches = InspectionRegion(centre).cells(self.embedding.grid)
        return torch.from_numpy(patches.ravel()).to(self.device())

    def reweighting(self, query: Tensor, neighbour: Tensor) -> Tensor:
        """Weight of Eq. 7: 1 - exp‖q - m‖ / Σ exp‖q - m'‖, m nearest to q, m' the b vectors of the bank nearest to m.

        `query` is (B, D), `neighbour` (B,) the index of m in the bank. In [1 - 1/b, 1): larger where m itself is far from its
        neighbours in the bank.
        """
        own = (query - self.bank_[neighbour]).norm(dim=1)
        around = nearest(
            self.bank_[neighbour], self.bank_, self.config.reweight
        ).index  # (B, b), m itself included
        distances = (query[:, None] - self.bank_[around]).norm(dim=2)
        return 1 - torch.exp(own - distances.logsumexp(1))
