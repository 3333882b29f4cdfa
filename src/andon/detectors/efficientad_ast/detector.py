"""EfficientAD-AST: student and autoencoder of EfficientAD, taught by the normalizing flow of AST.

Source: bachelor thesis, Vilnius University 2024, which joins EfficientAD (Batzner et al., arXiv 2303.14535) and AST
(Rudolph et al., arXiv 2210.07829). A flow T turns backbone features f into a latent z of known distribution. A residual
student S imitates z with its first half S1 and the autoencoder A with its second half S2. Where the student cannot
follow its teachers, the image is anomalous: M = ½ mean_c (z - S1)² + ½ mean_c (A - S2)².

The recipe `published` reproduces the thesis' code with its defects, `corrected` repairs them; each defect that changes
a result is a switch below, named with its number (D1, D3, ...) in `docs/reference/models/efficientad_ast.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.errors import ConfigError
from andon.core.images import View, batches, load_batch
from andon.core.records import Record
from andon.detectors._base import PREDICT_BATCH, Analysis
from andon.detectors._depth import CHUNK, DepthDetector, Inputs
from andon.detectors.efficientad_ast.autoencoder import BottleneckAutoencoder, PublishedAutoencoder
from andon.detectors.efficientad_ast.bank_inputs import BankInputs, extra_channels
from andon.detectors.efficientad_ast.data import defect_shares, penalty_features, some_defects
from andon.detectors.efficientad_ast.defect_labels import (
    CalibratedHead,
    boundary_loss,
    chosen_cells,
    margin_loss,
)
from andon.detectors.efficientad_ast.further_students import error_and_spread, student_of_kind
from andon.detectors.efficientad_ast.settings import EfficientADASTConfig, check_settings
from andon.layers.augment import random_view
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.flow_teacher import flow_interface, locate_flow
from andon.layers.moments import channel_statistics
from andon.layers.positional import positional_encoding
from andon.layers.residual_student import ResidualStudent, frozen_statistics, hard_mean
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.sanity_checks import AUTOENCODER_EXPLAINS, STUDENT_EXPLAINS, Explained
from andon.nn.training import Draw, EarlyStopping, EpochSampler, Stage, Trainer, seeded

POSITION_CHANNELS = 32


@dataclass(frozen=True, slots=True)
class Views:
    """Features (B, C, h, w) of the same images as each network sees them, and the weight of each cell."""

    teacher: Tensor
    student: Tensor
    """With what the bank says of them (V7); of the student's own extractor (D1)."""
    autoencoder: Tensor
    mask: Tensor
    """(B, 1, h, w) in [0, 1]; 1 where there is no depth."""


class EfficientADAST(DepthDetector):
    """Flow teacher, two-headed student, autoencoder; see the module's docstring."""

    Config = EfficientADASTConfig
    config: EfficientADASTConfig
    position: Tensor
    teacher_mean_: Tensor
    teacher_std_: Tensor
    map_range_: Tensor
    spread_: Tensor

    def __init__(self, config: EfficientADASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        check_settings(c)
        n, height, width = self.create_inputs(pretrained=pretrained)
        if c.extractor.mode == "train":
            self.student_extractor = Backbone.create(c.extractor, pretrained=pretrained, train_mode=True)
            self.autoencoder_extractor = Backbone.create(c.extractor, pretrained=pretrained, train_mode=True)
        if height != width:
            raise ConfigError(f"the feature grid must be square, it is {height} x {width}; choose other taps")
        self.teacher = Flow(n, POSITION_CHANNELS, c.teacher.hidden, c.teacher.kernels, c.teacher.clamp)
        ready = self._load_teacher() if pretrained and c.teacher.weights is not None else ()
        self.bank = BankInputs(c.bank.inputs, n) if c.bank.inputs != "none" else None
        more = 0 if c.bank.inputs == "none" else extra_channels(c.bank.inputs, n)
        self.student = ResidualStudent(
            POSITION_CHANNELS + n + more,
            2 * n,
            width=c.student.width,
            blocks=c.student.blocks,
            slope=c.student.slope,
        )
        self.others = nn.ModuleList(
            student_of_kind(kind, POSITION_CHANNELS + n, n, c.others.width) for kind in c.others.kinds
        )
        self.head = CalibratedHead(2) if c.labels.head else None
        self.autoencoder: nn.Module
        if c.autoencoder.layout == "bottleneck":
            self.autoencoder = BottleneckAutoencoder(
                POSITION_CHANNELS + n, n, height, c.autoencoder.bottleneck, c.autoencoder.head
            )
        else:
            self.autoencoder = PublishedAutoencoder(POSITION_CHANNELS + n, n, c.autoencoder.head)
        self.register_buffer("position", positional_encoding(POSITION_CHANNELS, height, width)[None])
        self.register_buffer("teacher_mean_", torch.zeros(1, n, 1, 1))
        self.register_buffer("teacher_std_", torch.ones(1, n, 1, 1))
        self.register_buffer(
            "map_range_", torch.tensor([[0.0, 0.1], [0.0, 0.1]])
        )  # (student, autoencoder) x (q_a, q_b)
        self.register_buffer("spread_", torch.tensor([[0.0, 1.0]] * 2))  # (error, spread) x (mean, deviation)
        self.used_weights = (*self.used_weights, *ready)
        self.eval()

    @property
    def score_rule(self) -> str:
        rule = {
            "mean": "mean of",
            "max": "maximum (after enlarging) of",
            "topk": "mean of the largest 1 % cells of",
        }
        source = "calibrated" if self.head is not None else self.config.maps.score_map
        return f"{rule[self.config.maps.score]} the {source} map"

    @property
    def untiled(self) -> str:
        c = self.config.labels
        learns = c.margin > 0 or c.boundary > 0 or c.head
        return super().untiled or ("since labels.* learn from defects in whole pictures" if learns else "")

    @property
    def label_use(self) -> str:
        c = self.config.labels
        more = {"the student's margin": c.margin > 0, "the flow's boundary": c.boundary > 0}
        own = [what for what, on in (more | {"the calibrated map": c.head}).items() if on]
        return " and ".join([*own, super().label_use] if super().label_use else own)

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        c = self.config
        with trainer.timed("features"):
            plain = self.load_inputs(train, trainer, what="training features", fit=c.teacher.weights is None)
            good = Inputs.joined([plain, *self._other_light(train, trainer)])
            held_out = self.load_inputs(validation, trainer, what="validation features")
            penalty = self._penalty(len(train), trainer)
            defects = self._defects(trainer)
        self._learn_teacher(good, held_out, defects, trainer)
        seen = good.f
        if self.bank is not None:
            with trainer.timed("memory_bank"):
                owners = torch.arange(len(good)) % len(train)  # copies in other light: of their image
                self.bank.fit(good.f, owners, c.bank.share, seeded(trainer.seed, "bank"))
                self.bank.to(trainer.device)
                seen = self._seen(good.f, trainer, owners)
                penalty = None if penalty is None else self._seen(penalty, trainer)
        self._learn_student(train, (good, seen), held_out, penalty, defects, trainer)
        self._learn_others(good.f, trainer)
        with trainer.timed("normalisation"):
            known = (validation, held_out) if validation else (train, plain)
            if self.others:
                self.spread_ = self._spread_range(known[1], trainer)
            self.map_range_ = self._map_range(*known, trainer)
            if self.head is not None:
                self._fit_head(self.head, known[1], *defects, trainer)
            self._explained(known[1], trainer)

    def _explained(self, good: Inputs, trainer: Trainer) -> None:
        """Sanity checks: how much of its target student and autoencoder explain on good images."""
        student, autoencoder = Explained(), Explained()
        flow = self.config.autoencoder.target == "flow"
        with torch.inference_mode():
            for views in (self.views(x) for x in good.chunks(trainer.device)):
                z = self.latent(views.teacher)
                student.add(z, self.student(self._with_position(views.student)).chunk(2, dim=1)[0])
                target = z if flow else views.teacher
                autoencoder.add(target, self.autoencoder(self._with_position(views.autoencoder)))
        trainer.sanity_check("student", student.sanity_check("student", "the teacher's", STUDENT_EXPLAINS))
        whose = "the latent's" if flow else "the features'"
        trainer.sanity_check("student", autoencoder.sanity_check("autoencoder", whose, AUTOENCODER_EXPLAINS))

    def _seen(self, features: Tensor, trainer: Trainer, owners: Tensor | None = None) -> Tensor:
        """What the student sees of all features, on the CPU; `owners` as `BankInputs` takes them."""
        parts = []
        for chunk in torch.split(torch.arange(len(features)), CHUNK):
            own = None if owners is None else owners[chunk].to(trainer.device)
            parts.append(self.as_student_sees(features[chunk].to(trainer.device), own).cpu())
        return torch.cat(parts)

    def _other_light(self, train: Sequence[Record], trainer: Trainer) -> list[Inputs]:
        """The training images at each further brightness."""
        what = "training features at {:g} of the light"
        return [
            self.load_inputs(train, trainer, what=what.format(factor), view=View(brightness=factor))
            for factor in self.config.extractor.light
        ]

    def _penalty(self, train_size: int, trainer: Trainer) -> Tensor | None:
        """Features of penalty images before any bank; with depth (V1) they are flat, as where there is no part."""
        if self.config.student.penalty == 0 or self.extractor is None or self.adapter is None:
            return None
        f = penalty_features(self.config.penalty, self.extractor, self.adapter, train_size, trainer)
        flat = f.new_zeros(len(f), self.teacher_mean_.shape[1] - f.shape[1], *f.shape[2:])
        return torch.cat([f, flat], 1)

    def _defects(self, trainer: Trainer) -> tuple[Tensor, Tensor]:
        """V5: features of the labelled defects and how much of each cell is defective, NaN where no mask says so."""
        c = self.config.labels
        records = trainer.labelled if c.head or c.margin or c.boundary else ()
        if not records:
            return torch.empty(0), torch.empty(0)
        f = self.load_inputs(records, trainer, what="labelled features").f
        return f.to(trainer.device), defect_shares(records, (f.shape[2], f.shape[3])).to(trainer.device)

    def _load_teacher(self) -> tuple[dict[str, str]]:
        """V4: take flow and feature statistics from the weight store; returns the line on their origin."""
        c = self.config
        assert c.teacher.weights is not None
        assert self.adapter is not None
        values = c.model_dump(mode="json")
        extractor = {name: values["extractor"][name] for name in BackboneConfig.model_fields}
        interface = flow_interface(extractor, c.extractor.project, values["teacher"], POSITION_CHANNELS)
        found = locate_flow(c.teacher.weights, interface)
        self.teacher.load_state_dict(found.flow)
        self.adapter.mean_.copy_(found.mean)
        self.adapter.std_.copy_(found.std)
        return (found.weights.describe(),)

    def _epochs(self, wanted: int, sampler: EpochSampler) -> int:
        """Passes over the training images, as far as `max_steps` lets them."""
        limit = self.config.max_steps
        return wanted if limit is None else max(1, min(wanted, limit // sampler.per_epoch))

    def _learn_teacher(
        self, inputs: Inputs, held_out: Inputs, defects: tuple[Tensor, Tensor], trainer: Trainer
    ) -> None:
        """Stage 1: maximum likelihood of good features under the flow (AST Eq. 2), unless a ready one is used as it is."""
        c, weight = self.config.teacher, self.config.labels.boundary

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            batch = inputs.at(draw.indices, trainer.device)
            good = negative_log_likelihood(*self.flow(batch.f))
            terms = {"nll": self.masked(good[:, None], batch.mask).mean()}
            if weight > 0:
                bad, defective = some_defects(defects, len(good), draw)
                bad = negative_log_likelihood(*self.flow(bad))
                terms["boundary"] = weight * boundary_loss(good, bad, chosen_cells(defective, bad))
            return terms

        judged = held_out if len(held_out) else inputs

        def measure() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [
                    self.masked(negative_log_likelihood(*self.flow(x.f))[:, None], x.mask).flatten(1).mean(1)
                    for x in judged.chunks(trainer.device)
                ]
            return {"nll": float(torch.cat(parts).mean())}

        sampler = trainer.sampler(
            "teacher", len(inputs), self.config.batch_size, drop_last=self.config.drop_last
        )
        stopping = EarlyStopping(measure, self.config.patience, higher_is_better=False)
        if c.weights is None or c.fine_tune > 0:
            trainer.minimise(
                "teacher",
                loss,
                {"teacher": self.teacher},
                sampler,
                epochs=self._epochs(c.epochs, sampler),
                steps=None if c.weights is None else c.fine_tune,
                optimiser=self.config.teacher_optimiser,
                stopping=stopping if self.config.selection == "validation" else None,
            )
        scale = (
            0.0 if self.adapter is None else float(self.adapter.std_.log().sum())
        )  # so that scales compare
        trainer.stages.setdefault("teacher", Stage()).measured["nll"] = measure()["nll"] + scale
        if c.normalise == "channel":
            with torch.no_grad():
                latents = (self.flow(x.f)[0] for x in inputs.chunks(trainer.device))
                mean, std = channel_statistics(latents)
            self.teacher_mean_, self.teacher_std_ = mean.to(trainer.device), std.to(trainer.device)

    def _learn_student(
        self,
        train: Sequence[Record],
        inputs: tuple[Inputs, Tensor],
        held_out: Inputs,
        penalty: Tensor | None,
        defects: tuple[Tensor, Tensor],
        trainer: Trainer,
    ) -> None:
        """Stage 2: student and autoencoder together, against the finished teacher.

        `inputs` are what the teacher sees and the features as the student sees them, as `penalty` is.
        """
        c = self.config
        good, seen = inputs
        fixed = c.penalty.draw == "fixed" and penalty is not None
        limit = (
            len(cast("Tensor", penalty)) // c.batch_size if fixed else None
        )  # the shorter set ends the epoch
        sampler = trainer.sampler("student", len(good), c.batch_size, drop_last=c.drop_last, limit=limit)

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            if c.extractor.mode == "train" or c.augment:
                views = self._fresh_views(train, draw, trainer)
            else:
                x = good.at(draw.indices, trainer.device)
                as_student = x.f if seen is good.f else seen[draw.indices].to(trainer.device)
                views = Views(x.f, as_student, x.f, x.mask)
            terms = self.student_losses(views)
            if penalty is not None and c.student.penalty > 0:
                chosen = torch.randint(len(penalty), (len(views.mask),), generator=draw.generator)
                terms["penalty"] = c.student.penalty * self.penalty_loss(penalty[chosen].to(trainer.device))
            if c.labels.margin > 0:
                bad = some_defects(defects, len(views.mask), draw)
                terms["margin"] = c.labels.margin * self.margin_loss(views, *bad)
            return terms

        def held_out_loss() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [
                    sum(self.student_losses(self.views(x)).values()) * len(x)
                    for x in held_out.chunks(trainer.device)
                ]
            return {"loss": float(torch.stack(cast("list[Tensor]", parts)).sum()) / len(held_out)}

        def labels_told_apart() -> Mapping[str, float]:
            return self.test_auroc(trainer.selection)

        measure = held_out_loss if c.selection == "validation" else labels_told_apart
        modules = {"student": self.student, "autoencoder": self.autoencoder}
        if c.extractor.mode == "train":
            modules |= {
                "student_extractor": self.student_extractor,
                "autoencoder_extractor": self.autoencoder_extractor,
            }
        trainer.minimise(
            "student",
            loss,
            modules,
            sampler,
            epochs=self._epochs(c.epochs, sampler),
            optimiser=c.optimiser,
            stopping=None
            if c.selection == "budget"
            else EarlyStopping(measure, c.patience, higher_is_better=c.selection != "validation"),
        )

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

            epochs = self._epochs(c.epochs, sampler)
            trainer.minimise(stage, loss, {stage: network}, sampler, epochs=epochs, optimiser=c.optimiser)

    def margin_loss(self, views: Views, bad: Tensor, defective: Tensor) -> Tensor:
        """V5 a: the student has to stay wrong on defective cells (`layers.defect_labels.margin_loss`)."""
        with frozen_statistics(self.student):
            normal = self._difference(views.teacher, views.student)
            wrong = self._difference(bad, self.as_student_sees(bad))
        return margin_loss(normal, wrong, chosen_cells(defective, wrong.detach()))

    def _difference(self, f: Tensor, f_student: Tensor) -> Tensor:
        """Channel mean of (z - S1)², (B, h, w); the teacher is not moved."""
        with torch.no_grad():
            z = self.latent(f)
        s1: Tensor = self.student(self._with_position(f_student)).float().chunk(2, dim=1)[0]
        return (z - s1).square().mean(1)

    def student_losses(self, views: Views) -> dict[str, Tensor]:
        """L_ST, L_AE and L_STAE (EfficientAD Eq. 1, 4, 5), weighed by the mask."""
        c = self.config
        with torch.no_grad():
            z = self.latent(views.teacher)
        s1, s2 = self.student(self._with_position(views.student)).float().chunk(2, dim=1)
        a = self.autoencoder(self._with_position(views.autoencoder)).float()
        target = z if c.autoencoder.target == "flow" else views.teacher
        imitated = a.detach() if c.autoencoder.stop_gradient else a
        scale = z.shape[1] if c.student.loss == "ast" else 1
        return {
            "student": scale * hard_mean(self.masked((z - s1).square(), views.mask), c.student.p_hard),
            "autoencoder": self.masked((target - a).square(), views.mask).mean(),
            "student_autoencoder": hard_mean(
                self.masked((imitated - s2).square(), views.mask),
                c.student.p_hard if c.student.hard_terms == "both" else 0.0,
            ),
        }

    def penalty_loss(self, f: Tensor) -> Tensor:
        """Mean S1² on out-of-class features: the student must not learn to imitate the teacher in general."""
        x = self._with_position(f)
        if self.config.student.penalty_statistics == "frozen":
            with frozen_statistics(self.student):
                s = self.student(x)
        else:
            s = self.student(x)
        return cast("Tensor", s.float().chunk(2, dim=1)[0].square().mean())

    def _fresh_views(self, train: Sequence[Record], draw: Draw, trainer: Trainer) -> Views:
        """Features extracted at this step: of augmented images, or (D1) as extractors in train mode see them."""
        images = load_batch([train[int(k) % len(train)] for k in draw.indices], self.input_size).image
        if self.config.augment:
            images = random_view(images, draw.generator)
        with torch.no_grad():
            return self.extract(images.to(trainer.device))

    def _map_range(self, good: Sequence[Record], inputs: Inputs, trainer: Trainer) -> Tensor:
        """The 0.9 and 0.995 quantiles of both maps over all cells of good images that count (EfficientAD Sec. 3.4), (2, 2)."""
        with torch.inference_mode():
            if self.config.extractor.mode == "train":
                pictures = batches(good, self.input_size, PREDICT_BATCH)
                seen = (self.extract(batch.image.to(trainer.device)) for batch in pictures)
            else:
                seen = (self.views(x) for x in inputs.chunks(trainer.device))
            cells = [self.raw_maps(views).movedim(1, 0)[:, views.mask[:, 0] > 0] for views in seen]
        values = torch.cat(cells, 1).cpu().numpy()  # (2, n)
        return torch.from_numpy(np.quantile(values, (0.9, 0.995), axis=1).T.astype(np.float32))  # (2, 2)

    def _spread_range(self, good: Inputs, trainer: Trainer) -> Tensor:
        """V3: mean and deviation of error and spread over all cells of good images, (2, 2)."""
        with torch.inference_mode():
            parts = [self._error_and_spread(self.views(x)) for x in good.chunks(trainer.device)]
        deviation, mean = torch.std_mean(torch.cat(parts), dim=(0, 2, 3), correction=0)
        return torch.stack([mean, deviation.clamp_min(1e-9)], 1)

    def _fit_head(
        self, head: CalibratedHead, good: Inputs, bad: Tensor, defective: Tensor, trainer: Trainer
    ) -> None:
        """V5 c: from the cells of good images, the defective cells, and those that a mask leaves out."""
        defects = Inputs(bad, bad.new_ones(len(bad), 1, *bad.shape[2:]))
        with torch.inference_mode():
            chunks = (*good.chunks(trainer.device), *defects.chunks(trainer.device))
            maps = torch.cat([self.scaled_maps(self.views(x)) for x in chunks])
            wrong = chosen_cells(defective, maps[len(good) :].mean(1))
            cells = torch.cat([torch.zeros_like(maps[: len(good), 0], dtype=torch.bool), wrong])
            known = torch.cat([~cells[: len(good)], wrong | (defective == 0)])
        head.fit(maps.clone(), cells, known)

    # Answering -----------------------------------------------------------------------------------------------------

    def flow(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, H, W) to the latent z and log|det| per position."""
        return cast("tuple[Tensor, Tensor]", self.teacher(f, self.position.expand(f.shape[0], -1, -1, -1)))

    def latent(self, f: Tensor) -> Tensor:
        """What the student imitates: the flow's latent, scaled where the recipe says so."""
        return (self.flow(f)[0] - self.teacher_mean_) / self.teacher_std_

    def _with_position(self, f: Tensor) -> Tensor:
        return torch.cat([self.position.expand(f.shape[0], -1, -1, -1), f], 1)

    def extract(self, images: Tensor) -> Views:
        """(B, 3 or 5, H, W) as `analyse` gets them, as each network sees them."""
        views = self.views(self.inputs(images))
        if self.config.extractor.mode == "eval" or self.adapter is None:
            return views
        student = self.adapter.transform(self.student_extractor(images))
        autoencoder = self.adapter.transform(self.autoencoder_extractor(images))
        return Views(views.teacher, student, autoencoder, views.mask)

    def views(self, inputs: Inputs) -> Views:
        """The same features for all networks, but for what a bank adds."""
        return Views(inputs.f, self.as_student_sees(inputs.f), inputs.f, inputs.mask)

    def as_student_sees(self, f: Tensor, owners: Tensor | None = None) -> Tensor:
        """V7: features beside what the bank says of them; the features where there is no bank."""
        return f if self.bank is None else cast("Tensor", self.bank(f, owners))

    def _error_and_spread(self, views: Views) -> Tensor:
        """V3: of all students, (B, 2, h, w)."""
        f = views.teacher
        first = self.student(self._with_position(views.student)).chunk(2, dim=1)[0]
        return error_and_spread(
            self.latent(f), [first, *(other(self._with_position(f)) for other in self.others)]
        )

    def raw_maps(self, views: Views) -> Tensor:
        """Channel means of (z - S1)² and (A - S2)², weighed by the mask, (B, 2, h, w).

        V3: the first is error plus spread of all students, each standardised.
        """
        s1, s2 = self.student(self._with_position(views.student)).chunk(2, dim=1)
        a = self.autoencoder(self._with_position(views.autoencoder))
        if self.others:
            both = self._error_and_spread(views)
            first = ((both - self.spread_[:, 0, None, None]) / self.spread_[:, 1, None, None]).sum(1)
        else:
            first = (self.latent(views.teacher) - s1).square().mean(1)
        return torch.stack([first, (a - s2).square().mean(1)], 1) * views.mask

    def scaled_maps(self, views: Views) -> Tensor:
        """The raw maps, brought to one scale where the recipe says so, (B, 2, h, w)."""
        maps = self.raw_maps(views)
        if self.config.maps.normalise == "none":
            return maps
        low, high = self.map_range_[:, 0].view(1, 2, 1, 1), self.map_range_[:, 1].view(1, 2, 1, 1)
        return 0.1 * (maps - low) / (high - low).clamp_min(1e-12)  # q_a -> 0, q_b -> 0.1

    def analyse(self, images: Tensor) -> Analysis:
        views = self.extract(images)
        maps = F.pad(self.scaled_maps(views), [self.config.maps.pad] * 4)
        combined = maps.mean(1, keepdim=True) if self.head is None else self.head(maps)  # ½ + ½
        source = {"student": maps[:, :1], "combined": combined}
        likelihood = negative_log_likelihood(*self.flow(views.teacher))[:, None] * views.mask
        extras = {
            f"{rule}_{name}": self.score(m, rule)
            for name, m in source.items()
            for rule in ("mean", "max", "topk")
        }
        extras |= {
            "teacher_mean": self.score(likelihood, "mean"),
            "teacher_max": likelihood.flatten(1).amax(1),
        }
        scored = source[self.config.maps.score_map] if self.head is None else combined
        return Analysis(combined, self.score(scored, self.config.maps.score), extras)

    def score(self, maps: Tensor, rule: str) -> Tensor:
        """(B, 1, h, w) to (B,): mean, maximum after enlarging to the input size, or mean of the largest 1 % cells (D7)."""
        if rule == "max":
            enlarged = F.interpolate(maps, size=self.input_size, mode="bilinear", align_corners=False)
            return enlarged.flatten(1).amax(1)
        flat = maps.flatten(1)
        if rule == "mean":
            return flat.mean(1)
        return flat.topk(max(1, round(0.01 * flat.shape[1])), dim=1).values.mean(1)
