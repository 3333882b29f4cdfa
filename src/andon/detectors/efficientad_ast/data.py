"""What EfficientAD-AST learns from: good images, out-of-class images of the penalty, and labelled defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from andon.core.images import View, load_batch
from andon.core.records import Record
from andon.datasets.penalty_images import penalty_records
from andon.detectors._depth import Inputs
from andon.detectors.efficientad_ast.defect_labels import LabelledDefects
from andon.detectors.efficientad_ast.settings import PenaltyConfig
from andon.layers.adapter import FeatureAdapter
from andon.nn.backbones import Backbone
from andon.nn.feature_cache import FeatureCache
from andon.nn.training import Draw, EpochSampler, Trainer, derive_seed


@dataclass(frozen=True, slots=True)
class PenaltySet:
    """Out-of-class images P, on which the student must not imitate the teacher."""

    records: Sequence[Record]
    config: PenaltyConfig
    order: EpochSampler | None
    """D15, D19: each image once per epoch; None: drawn with replacement."""
    features: Tensor | None = None
    """(N, C, h, w) as the student sees them, on the CPU; None where its extractor runs in train mode (D1)."""

    @classmethod
    def choose(cls, c: PenaltyConfig, train_size: int, batch_size: int, trainer: Trainer) -> PenaltySet:
        """All images in a seeded order, or a subset of at most `train_size` (D15)."""
        records = penalty_records(c.folder)
        seed = derive_seed(trainer.seed, "penalty")
        order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed)).tolist()
        if c.draw == "each_step":
            return cls([records[k] for k in order], c, None)
        subset = [records[k] for k in order[:train_size]]
        return cls(subset, c, trainer.sampler("penalty", len(subset), batch_size, drop_last=True))

    def extracted(
        self, extractor: Backbone, adapter: FeatureAdapter, channels: int, trainer: Trainer
    ) -> PenaltySet:
        """With the features of all images, computed once; the first `grey_share` of the images has no colour (D15).

        The features are filled up to `channels` with zeros: the depth of an empty cell.
        """
        cache = FeatureCache(extractor)
        grey = round(self.config.grey_share * len(self.records))
        parts = [
            cache.load(chosen, view=self._view(without), progress=trainer.progress, what="penalty features")
            for chosen, without in ((self.records[:grey], True), (self.records[grey:], False))
            if chosen
        ]
        f = adapter.transform({tap: torch.cat([part[tap] for part in parts]) for tap in parts[0]})
        flat = f.new_zeros(len(f), channels - f.shape[1], *f.shape[2:])
        return replace(self, features=torch.cat([f, flat], 1))

    def positions(self, count: int, draw: Draw) -> Tensor:
        """(B,) images of this step."""
        if self.order is not None:
            return self.order(draw.step)
        return torch.randint(len(self.records), (count,), generator=draw.generator)

    def images(self, positions: Tensor, size: tuple[int, int], draw: Draw) -> Tensor:
        """(B, 3, h, w) images; each loses its colour with probability `grey_share`, drawn anew at each step."""
        grey = torch.rand(len(positions), generator=draw.generator) < self.config.grey_share
        views = [self._view(bool(without)) for without in grey]
        chosen = [self.records[int(k)] for k in positions]
        return torch.cat([load_batch([r], size, view).image for r, view in zip(chosen, views, strict=True)])

    def _view(self, grey: bool) -> View:
        return View(self.config.zoom, self.config.colour if grey else "keep")

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, slots=True)
class Views:
    """Features (B, C, h, w) of the same images as each network sees them, and the weight of each cell."""

    teacher: Tensor
    student: Tensor
    autoencoder: Tensor
    mask: Tensor
    """(B, 1, h, w) in [0, 1]; 1 where there is no depth."""
    flow: tuple[Tensor, Tensor] | None = None
    """z and log|det| of `teacher`, where they were computed."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything `EfficientADAST.learn` uses; features are on the CPU."""

    train: Sequence[Record]
    good: Inputs
    """Features of the training images, then of their copies at each further brightness."""
    as_student: Tensor
    """(N, C, h, w) `good.f` as the student sees it."""
    held_out: Inputs
    """Features of the held-out good images; may be empty."""
    reference: tuple[Sequence[Record], Inputs]
    """Good images whose maps are the reference: the held-out ones, or those of training where none are held out."""
    penalty: PenaltySet | None
    defects: LabelledDefects | None = None
    """Labelled defects, where a variant learns from them (V5)."""

    def student_batch(self, draw: Draw, inputs: Inputs) -> Tensor:
        """(B, C, h, w) of the step's images, whose `inputs` are on the device already."""
        if self.as_student is self.good.f:
            return inputs.f
        return self.as_student[draw.indices].to(inputs.f.device)
