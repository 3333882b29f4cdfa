"""EAST: a regularised Gaussian at each place of the image, and the nearest neighbour among patches of good images.

The successor of EfficientAD-AST: its idea, the likelihood of features under a density of good images, in closed form, without
student, flow and epochs. Two distances of each cell of the feature map are added, and a third may raise the sum:

- *Gaussian*: the Mahalanobis distance from what good images show at this place, as in PaDiM (arXiv 2011.08785). Neighbouring
  cells share a covariance, which is drawn towards the common one of all cells (Friedman, JASA 84, 1989). How far is chosen by
  the likelihood of held-out good images.
- *neighbour*: the distance to the nearest patch of a coreset of good images, wherever in the image it was, as in PatchCore (arXiv
  2106.08265), relative to how far that patch lies from the others, and averaged over 3 x 3 cells. It counts double.
- *composition*: what a linear autoencoder of whole images, in the place of EfficientAD's autoencoder, cannot rebuild: parts that
  are missing or in the wrong combination.

Each distance is standardised by its mean and deviation over cells of good images. Each training image is read twice, as it is and
in other light, shifted by a few pixels and compressed, since a line changes so too. Formulas: ``docs/reference/models/east.md``;
what was tried: ``docs/results/east.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.errors import ConfigError, DataError
from andon.core.memory_budget import require_memory
from andon.core.records import Record
from andon.detectors._base import Analysis
from andon.detectors._closed_form import ClosedForm
from andon.detectors.east.blocks import Blocks
from andon.detectors.east.linear_autoencoder import FEWEST, WholeImages
from andon.detectors.east.patch_bank import PatchBank
from andon.detectors.east.settings import EASTConfig
from andon.layers.augment import disturbed
from andon.layers.gaussians import PositionGaussians, mahalanobis
from andon.layers.patches import ConcatEmbedding
from andon.nn.backbones import Backbone, weight_lines
from andon.nn.kept_features import ROOM, KeptFeatures
from andon.nn.training import Trainer, seeded

SHARES = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
"""Shares of the common covariance to choose from; the likelihood has one maximum."""
SOME_BLOCKS = 4
"""That likelihood is computed in every fourth block."""
EVERY = 5
"""Every fifth image is left out for that choice."""
CANDIDATES = 50_000
"""Patches of good images that the coreset is selected from, the same number of each image."""
SAMPLE = 5_000
"""Of these, patches that standardise the neighbour distance."""
LEAST_DEVIATION = (0.1, 0.01)
"""Of the Gaussian and of the neighbour distance, where good cells hardly differ; of photographs it is about 1 to 5 and 0.07."""
DOUBLE = 2.0
"""Weight of the neighbour distance beside the Gaussian one."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read of the images that are learned from."""

    gaussians: PositionGaussians | None
    """Sums over all of them; None where the score needs no Gaussian."""
    patches: Mapping[int, Tensor]
    """(n, d) patches drawn from each image and its copy, by its position."""
    wholes: Mapping[int, Tensor]
    """(V, D) of each image and its copy, by its position; empty where the score needs none."""


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """Cells of images that the share was not learned from, in some blocks."""

    images: Sequence[int]
    """Their n positions."""
    blocks: Tensor
    """Positions of the blocks."""
    gaussian: Tensor
    """(n, p) Gaussian distance of the cells by what the other images teach."""
    inspected: Tensor
    """(n, p)"""


class EAST(ClosedForm):
    """Regularised Gaussians by place and a coreset of patches; see the module's docstring."""

    Config = EASTConfig
    config: EASTConfig
    mean_: Tensor
    """(P, d) means μ of the cells, in the order of `Blocks`."""
    whitening_: Tensor
    """(P / block², d, d) lower triangular W with WᵀW = Σ⁻¹ of the blocks."""
    statistics_: Tensor
    """(2, 2) mean and deviation of the Gaussian and of the neighbour distance on good images."""
    common_: Tensor
    """Share of the common covariance in use."""
    sized_by_learning = frozenset({"mean_", "whitening_"})
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "high-resolution": {"extractor.image_size": 512},
        "structural": {"composition": False},
        "neighbour": {"score": "neighbour"},
    }
    fewest_images = 3
    reads_again = True

    def __init__(self, config: EASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        self.embedding = ConcatEmbedding(self.extractor.shapes)
        size, height, width = self.embedding.shape
        if height % c.block or width % c.block:
            raise ConfigError(
                f"block={c.block} does not divide the {height} x {width} cells of the feature map: choose another block or "
                "extractor.image_size"
            )
        self.blocks = Blocks(height, width, c.block)
        self.register_buffer("mean_", torch.empty(0, size))
        self.register_buffer("whitening_", torch.empty(0, size, size))
        self.register_buffer("statistics_", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        self.register_buffer("common_", torch.tensor(c.common or 0.0))
        self.bank = PatchBank(size, c.bank)
        self.composition = self._whole_images()
        self._composes = False
        self.used_weights = weight_lines(self.extractor)
        self.eval()

    def _whole_images(self) -> WholeImages | None:
        """The linear autoencoder, where the settings have one."""
        c = self.config
        _, height, width = self.embedding.shape
        fits = c.scored == "both" and not height % (2 * c.block) and not width % (2 * c.block)
        return WholeImages(self.embedding.shape, c.block) if c.composition and fits else None

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.extractor.image_size, self.config.extractor.image_size

    @property
    def untiled(self) -> str:
        reason = "since it learns what belongs to each place of the picture (score=neighbour does not)"
        return "" if self.config.scored == "neighbour" else reason

    @property
    def score_rule(self) -> str:
        gaussian, neighbour = "Mahalanobis distance by place", "distance to the nearest patch of good images"
        of = {
            "both": f"sum of the standardised {gaussian} and {neighbour}",
            "gaussian": f"standardised {gaussian}",
            "neighbour": f"standardised {neighbour}",
        }
        whole = ", or distance from what the whole image makes likely" if self.composes else ""
        return f"largest cell of: {of[self.config.scored]}{whole}"

    @property
    def composes(self) -> bool:
        """Whether composition was learned."""
        return self.composition is not None and self.composition.is_learned

    # Learning ------------------------------------------------------------------------------------------------------

    def begin(self, images: int, trainer: Trainer) -> None:
        """Refuse too few images, and what does not fit into memory; say whether composition takes part in all folds."""
        size, height, width = self.embedding.shape
        self._composes = self.composition is not None and images >= FEWEST
        if self.composition is not None:
            self.composition.forget()
        if images < self.fewest_images:
            raise DataError(
                f"east needs at least {self.fewest_images} training pictures, since it compares good pictures with each other; "
                f"there is {images}: add good pictures"
            )
        covariances = PositionGaussians.bytes_needed(
            height * width // self.config.block**2, size, copied=True
        )
        features = min(4 * (1 + self.config.copies) * images * size * height * width, ROOM)
        require_memory(
            covariances * (self.config.scored != "neighbour") + features + 12 * CANDIDATES * size,
            self.config.memory_gib,
            f"fitting on {images} pictures with {size} features of {height * width} cells",
            "use a smaller extractor.image_size",
        )

    def estimate(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> None:
        seen = self._read(features, chosen, trainer)
        self._learn_from(features, seen, chosen, trainer)

    def estimate_without(
        self, features: KeptFeatures, folds: Sequence[Sequence[int]], trainer: Trainer
    ) -> Iterator[None]:
        """The sums of each fold are taken away from those of all images."""
        everything = range(len(features))
        seen = self._read(features, everything, trainer)
        for fold in folds:
            left_out = set(fold)
            rest = [k for k in everything if k not in left_out]
            cells = (batch.flatten(0, 1) for batch in features.batches(fold))
            sums = None if seen.gaussians is None else seen.gaussians.without(cells)
            self._learn_from(features, replace(seen, gaussians=sums), rest, trainer)
            yield
        self._learn_from(features, seen, everything, trainer)

    def _read(self, features: KeptFeatures, chosen: Sequence[int], trainer: Trainer) -> _Seen:
        """Sums and patches of the chosen images."""
        size, height, width = self.embedding.shape
        gaussians = (
            PositionGaussians(height * width, size, trainer.device, group=self.config.block**2)
            if self.config.scored != "neighbour"
            else None
        )
        drawn = -(-CANDIDATES // len(chosen))
        patches: dict[int, Tensor] = {}
        wholes: dict[int, Tensor] = {}
        with trainer.timed("features"):
            for batch in features.batches(chosen, "reading features"):
                if gaussians is not None:
                    gaussians.add(batch.flatten(0, 1))
                for row in batch:  # (V, P, d)
                    k = chosen[len(patches)]
                    if self.composition is not None and self._composes:
                        wholes[k] = self.composition.whole(row)
                    inspected = row[:, self.blocks.inspected(features.records[k], 1).to(row.device)].flatten(
                        0, 1
                    )
                    if drawn < len(inspected):
                        order = torch.randperm(len(inspected), generator=seeded(trainer.seed, "patches", k))
                        inspected = inspected[order[:drawn].to(row.device)]
                    patches[k] = inspected
        return _Seen(gaussians, patches, wholes)

    def _learn_from(
        self,
        features: KeptFeatures,
        seen: _Seen,
        chosen: Sequence[int],
        trainer: Trainer,
    ) -> None:
        """Learn from the chosen images, of which `seen` has the sums; float32 sums cannot be used afterwards."""
        held_out = None
        if seen.gaussians is not None:
            with trainer.timed("covariances"):
                held_out = self._choose_share(features, seen.gaussians, chosen)
                self.mean_ = seen.gaussians.mean.float()
                self.whitening_ = seen.gaussians.whitening(self.config.regularisation, float(self.common_))
        if self.config.scored != "gaussian":
            with trainer.timed("coreset"):
                candidates = torch.cat([seen.patches[k] for k in chosen])
                others = self.bank.learn(candidates)  # those of the coreset are at no distance from it
                self._standardise(1, self.bank(candidates[others[:: -(-len(others) // SAMPLE)]]))
        if self.composition is not None and held_out is not None and self._composes:
            with trainer.timed("composition"):
                self.composition.learn(
                    torch.stack([seen.wholes[k] for k in chosen]), self._largest_sums(features, held_out)
                )

    def _choose_share(
        self, features: KeptFeatures, gaussians: PositionGaussians, chosen: Sequence[int]
    ) -> _HeldOut:
        """Choose the share of the common covariance at which images that are left out have the largest likelihood.

        Mean and deviation of the Gaussian distance are those of their cells.
        """
        held = chosen[EVERY // 2 :: EVERY] or chosen[-1:]
        blocks = self._some_blocks(features.records[held[0]])
        batches = [self.blocks.chosen(blocks, batch) for batch in features.batches(held)]
        rest = gaussians.only(blocks).without(batch.flatten(0, 1) for batch in batches)
        cells = torch.cat([self.as_extracted(batch) for batch in batches])
        seen = torch.stack([self.blocks.inspected(features.records[k]) for k in held]).to(cells.device)
        seen = self.blocks.chosen(blocks, seen[..., None])[..., 0]
        mean = rest.mean.float()
        best, kept = torch.inf, cells.new_zeros(cells.shape[:2])
        for share in SHARES if self.config.common is None else (self.config.common,):
            whitening = rest.whitening(self.config.regularisation, share, in_place=False)
            distances = mahalanobis(cells, mean, whitening)
            log_determinant = -whitening.diagonal(dim1=1, dim2=2).log().sum(1).mean()
            loss = float(0.5 * distances[seen].square().mean() + log_determinant)
            if loss >= best:
                break
            best, kept = loss, distances
            self.common_.fill_(share)
            self._standardise(0, distances[seen])
        return _HeldOut(held, blocks, kept, seen)

    def _some_blocks(self, record: Record) -> Tensor:
        """(n,) positions of every `SOME_BLOCKS`-th block of those with an inspected cell."""
        inspected = self.blocks.inspected(record).view(-1, self.config.block**2).any(1)
        return inspected.nonzero()[::SOME_BLOCKS, 0]

    def _largest_sums(self, features: KeptFeatures, held_out: _HeldOut) -> Tensor:
        """(n,) largest sum of both distances of each image that was left out."""
        batches = features.batches(held_out.images)
        near = torch.cat([self.neighbour_distance(self.as_extracted(batch)) for batch in batches])
        gaussian, neighbour = self._standardised(
            held_out.gaussian, self.blocks.chosen(held_out.blocks, near[..., None])[..., 0]
        )
        largest = (gaussian + DOUBLE * neighbour).masked_fill(~held_out.inspected, -torch.inf).amax(1)
        return largest[largest.isfinite()]

    def _standardise(self, kind: int, distances: Tensor) -> None:
        """Keep mean and deviation of the Gaussian (0) or neighbour (1) distances of good cells."""
        deviation, mean = torch.std_mean(distances, correction=0)
        self.statistics_[kind, 0], self.statistics_[kind, 1] = (
            mean,
            deviation.clamp_min(LEAST_DEVIATION[kind]),
        )

    # Inference -----------------------------------------------------------------------------------------------------

    def extract(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to the vectors of their cells (B, P, d), block by block."""
        return self.blocks.in_order(self.embedding(self.extractor(images)))

    def extract_good(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) training images to the cells (B, V, P, d) of each and of its copy."""
        views = [images, disturbed(images)] if self.config.copies else [images]
        return torch.stack([self.extract(view) for view in views], 1)

    def as_extracted(self, features: Tensor) -> Tensor:
        return features[:, 0]

    def distances(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P) distances of cells (B, P, d) from their Gaussian, and from the nearest patch; zeros where not in use."""
        unused = features.new_zeros(features.shape[:2])
        gaussian = neighbour = unused
        if self.config.scored != "neighbour":
            gaussian = mahalanobis(features, self.mean_, self.whitening_)
        if self.config.scored != "gaussian":
            neighbour = self.neighbour_distance(features)
        return gaussian, neighbour

    def neighbour_distance(self, features: Tensor) -> Tensor:
        """(B, P) relative distances of cells (B, P, d) from the nearest patch, averaged over 3 x 3 cells."""
        maps = F.avg_pool2d(self.blocks.in_place(self.bank(features)), 3, 1, 1, count_include_pad=False)
        return self.blocks.in_order(maps)[..., 0]

    def analyse_features(self, features: Tensor) -> Analysis:
        gaussian, neighbour = self._standardised(*self.distances(features))
        both = gaussian + DOUBLE * neighbour
        cells = {"both": both, "gaussian": gaussian, "neighbour": neighbour}[self.config.scored]
        others = {"gaussian": gaussian, "neighbour": neighbour}
        if self.composition is not None and self.composition.is_learned:
            others["composition"] = self.composition(features)
            cells = torch.maximum(cells, others["composition"])
        maps, extras = self._inspected_map(cells), {}
        if self.config.scored == "both":
            extras = {name: self._inspected_map(values).flatten(1).amax(1) for name, values in others.items()}
        return Analysis(maps, maps.flatten(1).amax(1), extras)

    def _inspected_map(self, cells: Tensor) -> Tensor:
        """(B, P) values of cells, block by block, to the map (B, 1, h, w) of which scores are taken."""
        return self.quieted(self.blocks.in_place(cells))

    def _standardised(self, gaussian: Tensor, neighbour: Tensor) -> tuple[Tensor, Tensor]:
        """Both distances, each less its mean on good images and over its deviation."""
        mean, deviation = self.statistics_.unbind(1)
        return (gaussian - mean[0]) / deviation[0], (neighbour - mean[1]) / deviation[1]
