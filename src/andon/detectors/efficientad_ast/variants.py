"""Research directions of EfficientAD-AST (docs/reference/models.md, "Variants"), each switched on by its settings.

V3 further students, V4 a ready-made flow, V5 labelled defects, V7 bank inputs of the student, V8 the hard-feature loss of
both terms. With its defaults `EfficientADASTVariants` is exactly `EfficientADAST`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from andon.core.config import Amount, Config, Count
from andon.core.errors import ConfigError
from andon.core.images import View
from andon.core.records import Record
from andon.detectors._depth import CHUNK, PLAIN, Inputs
from andon.detectors.efficientad_ast.bank_inputs import BankInputs, extra_channels
from andon.detectors.efficientad_ast.data import TrainingData, Views
from andon.detectors.efficientad_ast.defect_labels import (
    CalibratedHead,
    LabelledDefects,
    boundary_loss,
    chosen_cells,
    defect_shares,
    margin_loss,
)
from andon.detectors.efficientad_ast.detector import POSITION_CHANNELS, EfficientADAST
from andon.detectors.efficientad_ast.further_students import (
    StudentKind,
    error_and_spread,
    student_of_kind,
)
from andon.detectors.efficientad_ast.maps import SCORE_RULES
from andon.detectors.efficientad_ast.settings import EfficientADASTConfig, StudentConfig, TeacherConfig
from andon.layers.flow import negative_log_likelihood
from andon.layers.flow_teacher import flow_interface, locate_flow
from andon.layers.residual_student import ResidualStudent, frozen_statistics, hard_mean
from andon.nn.backbones import BackboneConfig
from andon.nn.training import Draw, Trainer, seeded


class ReadyTeacherConfig(TeacherConfig):
    """The normalizing flow, learned for this product or ready-made."""

    weights: str | None = None
    """V4: a ready flow from the weight store (`andon pretrain flow`), used as it is; None = learn one from the good images."""
    fine_tune: Annotated[int, Field(ge=0, strict=True)] = 0
    """V4: optimiser steps on the good images that adapt a ready flow; 0 = it is used as it is."""


class HardStudentConfig(StudentConfig):
    """The student."""

    hard_terms: Literal["student", "both"] = "student"
    """V8: which losses p_hard applies to: (z - S1)² alone, or (A - S2)² as well."""


class OthersConfig(Config):
    """V3: further students."""

    kinds: tuple[StudentKind, ...] = ()
    """Students beside the published one, each trained by itself; the map is then error plus spread of all of them."""
    width: Count = 512
    """Their width."""


class BankConfig(Config):
    """V7: nearest good features as an input of the student."""

    inputs: Literal["none", "residual", "distances", "neighbours"] = "none"
    """The difference to the nearest, the distances of the three nearest, or their mean in place of the features."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the cells the bank keeps."""


class LabelsConfig(Config):
    """V5: what labelled defects (`--labelled`) are used for in training; 0 and off: nothing."""

    margin: Amount = 0.0
    """Weight of the term that keeps the student wrong on defective cells (0.1)."""
    boundary: Amount = 0.0
    """Weight of the term that keeps defective cells unlikely under the flow (1)."""
    head: bool = False
    """Combine the maps by a logistic regression fitted to defective and good cells."""


class VariantsConfig(EfficientADASTConfig):
    """Settings of EfficientAD-AST and of its variants."""

    teacher: ReadyTeacherConfig = ReadyTeacherConfig()
    student: HardStudentConfig = HardStudentConfig()
    others: OthersConfig = OthersConfig()
    bank: BankConfig = BankConfig()
    labels: LabelsConfig = LabelsConfig()

    def check(self) -> None:
        """Raise `ConfigError` for settings that exclude each other."""
        super().check()
        if self.bank.inputs != "none" and (self.extractor.mode == "train" or self.augment):
            raise ConfigError(
                f"bank.inputs={self.bank.inputs} looks every picture up once, before training: set extractor.mode=eval and "
                "augment=false"
            )
        if self.labels.head and self.maps.pad:
            raise ConfigError(
                "labels.head gives log-odds, in which a border of zeros means doubt: set maps.pad=0"
            )
        scaled = self.teacher.normalise == "channel" and self.extractor.standardise
        if self.teacher.weights is not None and not scaled:
            raise ConfigError(
                "a ready flow (teacher.weights) gives latents of unknown scale from features scaled as it learned them: set "
                "teacher.normalise=channel and extractor.standardise=true"
            )

    def excluded_by_depth(self) -> dict[str, bool]:
        """Value that a setting must have beside depth, and whether it has another one."""
        return super().excluded_by_depth() | {
            "bank.inputs=none": self.bank.inputs != "none",
            "others.kinds=[]": bool(self.others.kinds),
            "labels.margin=0, labels.boundary=0, labels.head=false": self.uses_defects,
            "teacher.weights=null": self.teacher.weights is not None,
        }

    @property
    def uses_defects(self) -> bool:
        """Whether training uses labelled defects."""
        return self.labels.margin > 0 or self.labels.boundary > 0 or self.labels.head


class EfficientADASTVariants(EfficientADAST):
    """EfficientAD-AST with its research directions."""

    Config = VariantsConfig
    config: VariantsConfig
    bank: BankInputs | None
    others: nn.ModuleList
    spread_: Tensor

    def __init__(self, config: VariantsConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        self.head = CalibratedHead(2) if self.config.labels.head else None
        self.register_buffer("spread_", torch.tensor([[0.0, 1.0]] * 2))  # (error, spread) x (mean, deviation)
        if pretrained and self.config.teacher.weights is not None:
            self._load_teacher(self.config.teacher.weights)
        self.eval()

    def create_student(self, features: int, latent: int) -> ResidualStudent:
        """The student, whose input a bank may widen (V7), and the further students (V3)."""
        bank, others = self.config.bank, self.config.others
        self.bank = None if bank.inputs == "none" else BankInputs(bank.inputs, features)
        more = 0 if bank.inputs == "none" else extra_channels(bank.inputs, features)
        student = super().create_student(features + more, latent)
        self.others = nn.ModuleList(
            student_of_kind(kind, POSITION_CHANNELS + features, latent, others.width) for kind in others.kinds
        )
        return student

    def _load_teacher(self, name: str) -> None:
        """V4: flow and feature statistics from the weight store."""
        assert self.adapter is not None
        values = self.config.model_dump(mode="json")
        extractor = {name: values["extractor"][name] for name in BackboneConfig.model_fields}
        project = self.config.extractor.project
        found = locate_flow(name, flow_interface(extractor, project, values["teacher"], POSITION_CHANNELS))
        self.teacher.load_state_dict(found.flow)
        self.adapter.mean_.copy_(found.mean)
        self.adapter.std_.copy_(found.std)
        self.used_weights = (*self.used_weights, found.weights.describe())

    @property
    def score_rule(self) -> str:
        if self.head is None:
            return super().score_rule
        return f"{SCORE_RULES[self.config.maps.score]} the calibrated map"

    @property
    def untiled(self) -> str:
        whole = "since labels.* learn from defects in whole pictures" if self.config.uses_defects else ""
        return super().untiled or whole

    @property
    def label_use(self) -> str:
        c = self.config.labels
        uses = {
            "the student's margin": c.margin > 0,
            "the flow's boundary": c.boundary > 0,
            "the calibrated map": c.head,
        }
        own = [use for use, on in uses.items() if on]
        return " and ".join([*own, super().label_use] if super().label_use else own)

    # Learning ------------------------------------------------------------------------------------------------------

    def load_data(
        self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer
    ) -> TrainingData:
        """As in the thesis, with the labelled defects (V5)."""
        data = super().load_data(train, validation, trainer)
        if not (self.config.uses_defects and trainer.labelled):
            return data
        f = self.load_inputs(trainer.labelled, trainer, what="labelled features").f.to(trainer.device)
        share = defect_shares(trainer.labelled, (f.shape[2], f.shape[3])).to(trainer.device)
        return replace(data, defects=LabelledDefects(f, share))

    def load_inputs(
        self, records: Sequence[Record], trainer: Trainer, *, what: str, view: View = PLAIN, fit: bool = False
    ) -> Inputs:
        """As in the base class; a ready flow (V4) brings the scale of the features along."""
        own_scale = self.config.teacher.weights is None
        return super().load_inputs(records, trainer, what=what, view=view, fit=fit and own_scale)

    def fit_flow(self, data: TrainingData, trainer: Trainer, steps: int | None = None) -> None:
        """V4: a ready flow is used as it is, or adapted in a few steps."""
        c = self.config.teacher
        if c.weights is None:
            super().fit_flow(data, trainer, steps)
        elif c.fine_tune > 0:
            super().fit_flow(data, trainer, c.fine_tune)

    def teacher_losses(self, nll: Tensor, mask: Tensor, data: TrainingData, draw: Draw) -> dict[str, Tensor]:
        """With the boundary that keeps defective cells unlikely (V5)."""
        terms, weight = super().teacher_losses(nll, mask, data, draw), self.config.labels.boundary
        if weight > 0 and data.defects is not None:
            defects = data.defects.some(len(nll), draw)
            bad = negative_log_likelihood(*self.flow(defects.f))
            terms["boundary"] = weight * boundary_loss(nll, bad, chosen_cells(defects.share, bad))
        return terms

    def learn_student(self, data: TrainingData, trainer: Trainer) -> None:
        """As in the thesis, on features beside those of the bank (V7); then the further students (V3)."""
        seen = data if self.bank is None else self._with_bank(self.bank, data, trainer)
        super().learn_student(seen, trainer)
        self._learn_others(data.good.f, trainer)

    def _with_bank(self, bank: BankInputs, data: TrainingData, trainer: Trainer) -> TrainingData:
        """V7: fit the bank; training and penalty features as the student sees them."""
        with trainer.timed("memory_bank"):
            owners = torch.arange(len(data.good)) % len(data.train)  # brightness copies belong to their image
            bank.fit(data.good.f, owners, self.config.bank.share, seeded(trainer.seed, "bank"))
            bank.to(trainer.device)
            penalty = data.penalty
            if penalty is not None and penalty.features is not None:
                penalty = replace(penalty, features=self._all_as_student(penalty.features))
            return replace(data, as_student=self._all_as_student(data.good.f, owners), penalty=penalty)

    def _all_as_student(self, features: Tensor, owners: Tensor | None = None) -> Tensor:
        """`as_student_sees` of many features (N, C, h, w), result on the CPU."""
        parts, device = [], self.device()
        for chunk in torch.split(torch.arange(len(features)), CHUNK):
            own = None if owners is None else owners[chunk].to(device)
            parts.append(self.as_student_sees(features[chunk].to(device), own).cpu())
        return torch.cat(parts)

    def _learn_others(self, features: Tensor, trainer: Trainer) -> None:
        """V3: each further student by itself, against the same teacher."""
        c = self.config
        for k, (kind, network) in enumerate(zip(c.others.kinds, self.others, strict=True)):
            stage = f"student_{k + 2}_{kind}"
            sampler = trainer.sampler(stage, len(features), c.batch_size, drop_last=c.drop_last)

            def loss(draw: Draw, network: nn.Module = network) -> Mapping[str, Tensor]:
                f = features[draw.indices].to(trainer.device)
                with torch.no_grad():
                    z = self.latent(f)
                return {"student": (z - network(self._with_position(f)).float()).square().mean()}

            epochs = self.epochs(c.epochs, sampler)
            trainer.minimise(stage, loss, {stage: network}, sampler, epochs=epochs, optimiser=c.optimiser)

    def step_losses(self, views: Views, data: TrainingData, draw: Draw) -> dict[str, Tensor]:
        """With the margin that the student must keep on defective cells (V5)."""
        terms, weight = super().step_losses(views, data, draw), self.config.labels.margin
        if weight > 0 and data.defects is not None:
            terms["margin"] = weight * self._margin_loss(views, data.defects.some(len(views.mask), draw))
        return terms

    def _margin_loss(self, views: Views, defects: LabelledDefects) -> Tensor:
        with frozen_statistics(self.student):
            normal = self._difference(views.teacher, views.student)
            wrong = self._difference(defects.f, self.as_student_sees(defects.f))
        return margin_loss(normal, wrong, chosen_cells(defects.share, wrong.detach()))

    def _difference(self, f: Tensor, f_student: Tensor) -> Tensor:
        """Channel mean of (z - S1)², (B, h, w); no gradient into the teacher."""
        with torch.no_grad():
            z = self.latent(f)
        s1: Tensor = self.student(self._with_position(f_student)).float().chunk(2, dim=1)[0]
        return (z - s1).square().mean(1)

    def imitation_loss(self, difference: Tensor) -> Tensor:
        """L_STAE, of its hardest elements alone where the recipe says so (V8)."""
        c = self.config.student
        return hard_mean(difference, c.p_hard if c.hard_terms == "both" else 0.0)

    def normalise_maps(self, data: TrainingData) -> None:
        """With the statistics of the further students (V3) before, and the calibrated map (V5) after."""
        if self.others:
            self.spread_ = self._spread_range(data)
        super().normalise_maps(data)
        if self.head is not None and data.defects is not None:
            self._fit_head(self.head, data.reference[1], data.defects)

    def _spread_range(self, data: TrainingData) -> Tensor:
        """V3: mean and deviation of error and spread over all cells of good images, (2, 2)."""
        with torch.inference_mode():
            parts = [self.error_and_spread(views) for views in self.reference_views(data)]
        deviation, mean = torch.std_mean(torch.cat(parts), dim=(0, 2, 3), correction=0)
        return torch.stack([mean, deviation.clamp_min(1e-9)], 1)

    def _fit_head(self, head: CalibratedHead, good: Inputs, defects: LabelledDefects) -> None:
        """V5: on the cells of good images, and of the defects those that are defective or outside their masks."""
        bad = Inputs(defects.f, defects.f.new_ones(len(defects.f), 1, *defects.f.shape[2:]))
        with torch.inference_mode():
            chunks = (*good.chunks(self.device()), *bad.chunks(self.device()))
            maps = torch.cat([self.scaled_maps(self.views(x)) for x in chunks])
            wrong = chosen_cells(defects.share, maps[len(good) :].mean(1))
            cells = torch.cat([torch.zeros_like(maps[: len(good), 0], dtype=torch.bool), wrong])
            known = torch.cat([~cells[: len(good)], wrong | (defects.share == 0)])
        head.fit(maps.clone(), cells, known)

    # Predicting ----------------------------------------------------------------------------------------------------

    def views(self, inputs: Inputs) -> Views:
        """The same features for all networks, those of the student beside what the bank adds (V7)."""
        return replace(super().views(inputs), student=self.as_student_sees(inputs.f))

    def as_student_sees(self, f: Tensor, owners: Tensor | None = None) -> Tensor:
        """V7: features with the bank's channels; `owners` as `BankInputs` takes them. Without a bank: the features."""
        return f if self.bank is None else cast("Tensor", self.bank(f, owners))

    def student_map(self, views: Views, s1: Tensor) -> Tensor:
        """V3: error plus spread of all students, each standardised over good images."""
        if not self.others:
            return super().student_map(views, s1)
        both = self.error_and_spread(views, s1)
        return ((both - self.spread_[:, 0, None, None]) / self.spread_[:, 1, None, None]).sum(1)

    def error_and_spread(self, views: Views, s1: Tensor | None = None) -> Tensor:
        """V3: error and spread of all students, (B, 2, h, w); `s1` is the first student's output where it is known."""
        if s1 is None:
            s1 = self.student(self._with_position(views.student)).chunk(2, dim=1)[0]
        outputs = [s1, *(other(self._with_position(views.teacher)) for other in self.others)]
        return error_and_spread(self.latent_of(views), outputs)

    def combine(self, maps: Tensor) -> Tensor:
        """The mean of both maps, or the log-odds of the calibrated head (V5)."""
        return super().combine(maps) if self.head is None else cast("Tensor", self.head(maps))

    @property
    def scored_map(self) -> str:
        return super().scored_map if self.head is None else "combined"
