"""Uninformed Students: the regression error and the disagreement of student ensembles that imitate a patch teacher.

Paper: Bergmann et al., CVPR 2020, arXiv 1911.02357. A teacher T̂ is distilled once, on unrelated images, from a large network and
describes patches of p x p pixels (Sec. 3.1; `distillation.py`). M students S_i of the same architecture regress its descriptors
ŷ on good images (Sec. 3.2). The anomaly map adds the regression error of their mean, e = ‖μ̄ - ŷ‖², and their variance,
v = mean ‖S_i - μ̄‖², both standardised on held-out good images, and averages over receptive fields p (Sec. 3.3, 3.4).

Differs from the paper: layer sizes are the consistent reading of its tables, and the compactness loss sums squared correlations
(``docs/reference/models/uninformed_students.md``). `grid: strided` computes a descriptor per 4 x 4 or 8 x 8 pixels instead of
per pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.errors import ConfigError
from andon.core.images import batches, load_batch
from andon.core.records import Record
from andon.detectors._base import PREDICT_BATCH, Analysis, Detector
from andon.detectors.uninformed_students.distillation import distil_teacher
from andon.detectors.uninformed_students.networks import pad_for
from andon.detectors.uninformed_students.receptive_field import ReceptiveField, normalise
from andon.detectors.uninformed_students.settings import UninformedStudentsConfig
from andon.layers.moments import channel_statistics
from andon.nn.backbones import Backbone
from andon.nn.stage import EarlyStopping
from andon.nn.training import Draw, Trainer
from andon.nn.weights import locate


class UninformedStudents(Detector):
    """Patch teachers and ensembles of students; see the module's docstring."""

    Config = UninformedStudentsConfig
    config: UninformedStudentsConfig

    def __init__(self, config: UninformedStudentsConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        if self.config.selection in {"synthetic", "labels", "test"}:
            raise ConfigError(
                "uninformed_students learns its fields one after the other, so no epoch can be chosen on labels: "
                "use selection=budget or selection=validation"
            )
        if len(set(self.config.fields)) < len(self.config.fields):
            raise ConfigError(f"fields={list(self.config.fields)} names a patch size twice: name each once")
        self.fields = nn.ModuleList(ReceptiveField(patch, self.config) for patch in self.config.fields)
        if pretrained:
            extractor = self.config.extractor  # needed for learning alone, so it is no part of the detector
            self.used_weights = (locate(extractor.weights, extractor.network).describe(),)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.image_size, self.config.image_size

    @property
    def score_rule(self) -> str:
        return "maximum of the map (standardised error plus standardised spread, mean over receptive fields)"

    def receptive_fields(self) -> Iterator[ReceptiveField]:
        """The receptive fields, in the order of the setting."""
        return (cast("ReceptiveField", field) for field in self.fields)

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        extractor = Backbone.create(self.config.extractor).to(trainer.device)
        for field in self.receptive_fields():
            distilled = distil_teacher(field.patch, self.config, extractor, trainer, unseen=train)
            field.teacher.load_state_dict(distilled.state_dict())
            with trainer.timed("statistics"):
                described = (field.describe(field.teacher, x) for x in self._padded(field, train, trainer))
                field.target_mean_, field.target_std_ = channel_statistics(described)
            self._learn_students(field, train, validation, trainer)
            with trainer.timed("statistics"):
                images = self._images(validation or train, trainer)
                field.map_mean_, field.map_std_ = channel_statistics(map(field.error_and_variance, images))

    def _learn_students(
        self, field: ReceptiveField, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer
    ) -> None:
        """Train the students of one receptive field at once; their loss terms share no parameter."""
        c, stage = self.config, f"students_{field.patch}"

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            images = load_batch([train[int(k)] for k in draw.indices], self.input_size).image
            padded = pad_for(normalise(images.to(trainer.device)), field.support)
            top, left = (int(k) for k in torch.randint(field.stride, (2,), generator=draw.generator))
            return field.losses(padded[:, :, top:, left:])

        def measure() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [
                    torch.stack(list(field.losses(x).values())).sum() * len(x)
                    for x in self._padded(field, validation, trainer)
                ]
            return {"loss": float(torch.stack(parts).sum()) / len(validation)}

        early = EarlyStopping(measure, c.patience, higher_is_better=False)
        trainer.minimise(
            stage,
            loss,
            {"students": field.students},
            trainer.sampler(stage, len(train), c.batch_size),
            epochs=c.epochs,
            steps=c.steps,
            optimiser=c.optimiser,
            stopping=early if c.selection == "validation" else None,
        )

    def _images(self, records: Sequence[Record], trainer: Trainer) -> Iterator[Tensor]:
        """Normalised images in batches."""
        for batch in batches(records, self.input_size, PREDICT_BATCH):
            yield normalise(batch.image.to(trainer.device))

    def _padded(self, field: ReceptiveField, records: Sequence[Record], trainer: Trainer) -> Iterator[Tensor]:
        return (pad_for(x, field.support, field.stride) for x in self._images(records, trainer))

    # Inference -----------------------------------------------------------------------------------------------------

    def analyse(self, images: Tensor) -> Analysis:
        x = normalise(images)
        maps = [field.anomaly_map(x) for field in self.receptive_fields()]
        finest = max(m.shape[-1] for m in maps)
        maps = [
            F.interpolate(m, size=(finest, finest), mode="bilinear", align_corners=False)
            if m.shape[-1] < finest
            else m
            for m in maps
        ]
        maps = [self.quieted(m) for m in maps]
        combined = torch.stack(maps).mean(0)
        extras = {f"p{p}": m.flatten(1).amax(1) for p, m in zip(self.config.fields, maps, strict=True)}
        return Analysis(combined, combined.flatten(1).amax(1), extras)
