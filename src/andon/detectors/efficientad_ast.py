"""EfficientAD-AST: student and autoencoder of EfficientAD, taught by the normalizing flow of AST.

Source: bachelor thesis, Vilnius University 2024, which joins EfficientAD (Batzner et al., arXiv 2303.14535) and AST
(Rudolph et al., arXiv 2210.07829). A flow T turns backbone features f into a latent z of known distribution. A residual
student S imitates z with its first half S1 and the autoencoder A with its second half S2. Where the student cannot
follow its teachers, the picture is anomalous: M = ½ mean_c (z - S1)² + ½ mean_c (A - S2)².

The recipe `published` reproduces the thesis' code with its defects, `corrected` repairs them; each defect that changes
a result is a switch below, named with its number (D1, D3, ...) in `docs/efficientad_ast.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.backbones import Backbone, BackboneConfig
from andon.datasets.masks import load_regions
from andon.datasets.penalty import penalty_records
from andon.detector import PREDICT_BATCH, Analysis, Detector, weight_lines
from andon.detectors._efficientad_ast_settings import EfficientADASTConfig
from andon.errors import ConfigError
from andon.features import FeatureCache
from andon.images import View, batches, load_batch, read_size
from andon.layers.adapter import FeatureAdapter
from andon.layers.augment import random_view
from andon.layers.autoencoder import BottleneckAutoencoder, PublishedAutoencoder
from andon.layers.bank_inputs import BankInputs, extra_channels
from andon.layers.defect_labels import (
    CalibratedHead,
    boundary_loss,
    chosen_cells,
    defect_cells,
    margin_loss,
)
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.flow_teacher import flow_interface, locate_flow
from andon.layers.moments import channel_statistics
from andon.layers.positional import positional_encoding
from andon.layers.student import ResidualStudent, frozen_statistics, hard_mean
from andon.layers.students import error_and_spread, student_of_kind
from andon.structures import Record
from andon.training import Draw, EarlyStopping, EpochSampler, Stage, Trainer, derive_seed, seeded

POSITION_CHANNELS = 32
CHUNK = 8
"""Pictures that are computed at once where nothing is learned."""


class EfficientADAST(Detector):
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
        self._check_settings()
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        if c.extractor.mode == "train":
            self.student_extractor = Backbone.create(c.extractor, pretrained=pretrained, train_mode=True)
            self.autoencoder_extractor = Backbone.create(c.extractor, pretrained=pretrained, train_mode=True)
        self.adapter = FeatureAdapter(
            self.extractor.shapes, project=c.extractor.project, standardise=c.extractor.standardise
        )
        n, height, width = self.adapter.shape
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
        self.used_weights = (*weight_lines(self.extractor), *ready)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.extractor.image_size, self.config.extractor.image_size

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
    def label_use(self) -> str:
        c = self.config.labels
        more = {"the student's margin": c.margin > 0, "the flow's boundary": c.boundary > 0}
        own = [what for what, on in (more | {"the calibrated map": c.head}).items() if on]
        return " and ".join([*own, super().label_use] if super().label_use else own)

    def _check_settings(self) -> None:
        """Raise `ConfigError` for settings that exclude each other."""
        c = self.config
        if c.extractor.mode == "train" and c.extractor.light:
            raise ConfigError(
                "extractor.light needs extractor.mode=eval: train mode shows every picture once, as it is"
            )
        if c.bank.inputs != "none" and (c.extractor.mode == "train" or c.augment):
            raise ConfigError(
                f"bank.inputs={c.bank.inputs} looks every picture up once, before training: set extractor.mode=eval and "
                "augment=false"
            )
        if c.labels.head and c.maps.pad:
            raise ConfigError(
                "labels.head gives log-odds, in which a border of zeros means doubt: set maps.pad=0"
            )

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        cache = FeatureCache(self.extractor)
        with trainer.timed("features"):
            whole = cache.load(train, progress=trainer.progress, what="training features")
            if self.config.teacher.weights is None:
                self.adapter.fit(whole)
            features = torch.cat([self.adapter.transform(whole), *self._other_light(train, cache, trainer)])
            held_out = self.adapter.transform(
                cache.load(validation, progress=trainer.progress, what="validation features")
            )
            penalty = self._penalty_features(len(train), cache, trainer)
            defects = self._defects(cache, trainer)
        self._learn_teacher(features, held_out, defects, trainer)
        seen = features
        if self.bank is not None:
            with trainer.timed("memory_bank"):
                owners = torch.arange(len(features)) % len(
                    train
                )  # copies in other light belong to their picture
                self.bank.fit(features, owners, self.config.bank.share, seeded(trainer.seed, "bank"))
                self.bank.to(trainer.device)
                seen = self._seen(features, trainer, owners)
                penalty = None if penalty is None else self._seen(penalty, trainer)
        self._learn_student(train, (features, seen), held_out, penalty, defects, trainer)
        self._learn_others(features, trainer)
        with trainer.timed("normalisation"):
            good = (validation, held_out) if validation else (train, features[: len(train)])
            if self.others:
                self.spread_ = self._spread_range(good[1], trainer)
            self.map_range_ = self._map_range(*good, trainer)
            if self.head is not None:
                self._fit_head(self.head, good[1].to(trainer.device), *defects)

    def _seen(self, features: Tensor, trainer: Trainer, owners: Tensor | None = None) -> Tensor:
        """What the student sees of all features, on the CPU; `owners` as `BankInputs` takes them."""
        parts = []
        for chunk in torch.split(torch.arange(len(features)), CHUNK):
            own = None if owners is None else owners[chunk].to(trainer.device)
            parts.append(self.as_student_sees(features[chunk].to(trainer.device), own).cpu())
        return torch.cat(parts)

    def _defects(self, cache: FeatureCache, trainer: Trainer) -> tuple[Tensor, Tensor]:
        """V5: features of the labelled defects and how much of each cell is defective, NaN where no mask says so."""
        c = self.config.labels
        records = trainer.labelled if c.head or c.margin or c.boundary else ()
        if not records:
            return torch.empty(0), torch.empty(0)
        features = self.adapter.transform(
            cache.load(records, progress=trainer.progress, what="labelled features")
        )
        masks = [defect_cells(_mask(record), self.adapter.grid) for record in records]
        return features.to(trainer.device), torch.cat(masks).to(trainer.device)

    def _other_light(
        self, train: Sequence[Record], cache: FeatureCache, trainer: Trainer
    ) -> Iterator[Tensor]:
        """Features of the training pictures at each further brightness."""
        for factor in self.config.extractor.light:
            what = f"training features at {factor:g} of the light"
            copies = cache.load(train, view=View(light=factor), progress=trainer.progress, what=what)
            yield self.adapter.transform(copies)

    def _load_teacher(self) -> tuple[dict[str, str]]:
        """V4: take flow and feature statistics from the weight store; returns the line on their origin."""
        c = self.config
        assert c.teacher.weights is not None
        if c.teacher.normalise != "channel" or not c.extractor.standardise:
            raise ConfigError(
                "a ready flow (teacher.weights) gives latents of unknown scale from features scaled as it learned them: set "
                "teacher.normalise=channel and extractor.standardise=true"
            )
        values = c.model_dump(mode="json")
        extractor = {name: values["extractor"][name] for name in BackboneConfig.model_fields}
        interface = flow_interface(extractor, c.extractor.project, values["teacher"], POSITION_CHANNELS)
        found = locate_flow(c.teacher.weights, interface)
        self.teacher.load_state_dict(found.flow)
        self.adapter.mean_.copy_(found.mean)
        self.adapter.std_.copy_(found.std)
        return (found.weights.describe(),)

    def _epochs(self, wanted: int, sampler: EpochSampler) -> int:
        """Passes over the training pictures, as far as `max_steps` lets them."""
        limit = self.config.max_steps
        return wanted if limit is None else max(1, min(wanted, limit // sampler.per_epoch))

    def _learn_teacher(
        self, features: Tensor, held_out: Tensor, defects: tuple[Tensor, Tensor], trainer: Trainer
    ) -> None:
        """Stage 1: maximum likelihood of good features under the flow (AST Eq. 2), unless a ready one is used as it is."""
        c, weight = self.config.teacher, self.config.labels.boundary

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            good = negative_log_likelihood(*self.flow(features[draw.indices].to(trainer.device)))
            terms = {"nll": good.mean()}
            if weight > 0:
                bad, defective = _some(defects, len(good), draw)
                bad = negative_log_likelihood(*self.flow(bad))
                terms["boundary"] = weight * boundary_loss(good, bad, chosen_cells(defective, bad))
            return terms

        good = held_out if len(held_out) else features

        def measure() -> Mapping[str, float]:
            with torch.inference_mode():
                chunks = [
                    negative_log_likelihood(*self.flow(f.to(trainer.device))) for f in torch.split(good, 8)
                ]
            return {"nll": float(torch.cat(chunks).mean())}

        sampler = trainer.sampler(
            "teacher", len(features), self.config.batch_size, drop_last=self.config.drop_last
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
        before_scaling = float(self.adapter.std_.log().sum())  # so that differently scaled features compare
        trainer.stages.setdefault("teacher", Stage()).measured["nll"] = measure()["nll"] + before_scaling
        if c.normalise == "channel":
            with torch.no_grad():
                latents = (self.flow(f.to(trainer.device))[0] for f in torch.split(features, 8))
                mean, std = channel_statistics(latents)
            self.teacher_mean_, self.teacher_std_ = mean.to(trainer.device), std.to(trainer.device)

    def _learn_student(
        self,
        train: Sequence[Record],
        inputs: tuple[Tensor, Tensor],
        held_out: Tensor,
        penalty: Tensor | None,
        defects: tuple[Tensor, Tensor],
        trainer: Trainer,
    ) -> None:
        """Stage 2: student and autoencoder together, against the finished teacher.

        `inputs` are the features as the teacher and as the student sees them, `penalty` as the student does.
        """
        c = self.config
        features, seen = inputs
        fixed = c.penalty.draw == "fixed" and penalty is not None
        limit = (
            len(cast("Tensor", penalty)) // c.batch_size if fixed else None
        )  # the shorter set ends the epoch
        sampler = trainer.sampler("student", len(features), c.batch_size, drop_last=c.drop_last, limit=limit)

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            if c.extractor.mode == "train" or c.augment:
                f, f_student, f_autoencoder = self._fresh_features(train, draw, trainer)
            else:
                f = f_autoencoder = features[draw.indices].to(trainer.device)
                f_student = f if seen is features else seen[draw.indices].to(trainer.device)
            terms = self.student_losses(f, f_student, f_autoencoder)
            if penalty is not None and c.student.penalty > 0:
                chosen = torch.randint(len(penalty), (len(f),), generator=draw.generator)
                terms["penalty"] = c.student.penalty * self.penalty_loss(penalty[chosen].to(trainer.device))
            if c.labels.margin > 0:
                terms["margin"] = c.labels.margin * self.margin_loss(
                    f, f_student, *_some(defects, len(f), draw)
                )
            return terms

        def held_out_loss() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [
                    sum(self.student_losses(f, self.as_student_sees(f), f).values()) * len(f)
                    for f in torch.split(held_out.to(trainer.device), 8)
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

    def margin_loss(self, f: Tensor, f_student: Tensor, bad: Tensor, defective: Tensor) -> Tensor:
        """V5 a: the student has to stay wrong on defective cells (`layers.defect_labels.margin_loss`)."""
        with frozen_statistics(self.student):
            normal = self._difference(f, f_student)
            wrong = self._difference(bad, self.as_student_sees(bad))
        return margin_loss(normal, wrong, chosen_cells(defective, wrong.detach()))

    def _difference(self, f: Tensor, f_student: Tensor) -> Tensor:
        """Channel mean of (z - S1)², (B, h, w); the teacher is not moved."""
        with torch.no_grad():
            z = self.latent(f)
        s1: Tensor = self.student(self._with_position(f_student)).float().chunk(2, dim=1)[0]
        return (z - s1).square().mean(1)

    def student_losses(self, f: Tensor, f_student: Tensor, f_autoencoder: Tensor) -> dict[str, Tensor]:
        """L_ST, L_AE and L_STAE for features (B, C, H, W) as the three networks see them (EfficientAD Eq. 1, 4, 5)."""
        c = self.config
        with torch.no_grad():
            z = self.latent(f)
        s1, s2 = self.student(self._with_position(f_student)).float().chunk(2, dim=1)
        a = self.autoencoder(self._with_position(f_autoencoder)).float()
        target = z if c.autoencoder.target == "flow" else f
        imitated = a.detach() if c.autoencoder.stop_gradient else a
        scale = z.shape[1] if c.student.loss == "ast" else 1
        return {
            "student": scale * hard_mean((z - s1).square(), c.student.p_hard),
            "autoencoder": (target - a).square().mean(),
            "student_autoencoder": (imitated - s2).square().mean(),
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

    def _penalty_features(self, train_size: int, cache: FeatureCache, trainer: Trainer) -> Tensor | None:
        """Features of the penalty pictures; a fixed, seeded share of them is shown without colour (D15)."""
        c = self.config.penalty
        if self.config.student.penalty == 0:
            return None
        records = penalty_records(c.folder)
        order = torch.randperm(
            len(records), generator=torch.Generator().manual_seed(derive_seed(trainer.seed, "penalty"))
        )
        if c.draw == "fixed":
            order = order[:train_size]
        grey = round(c.grey_share * len(order))
        parts = []
        for positions, view in ((order[:grey], View(c.zoom, c.colour)), (order[grey:], View(c.zoom))):
            chosen = [records[int(k)] for k in positions]
            if chosen:
                parts.append(
                    cache.load(chosen, view=view, progress=trainer.progress, what="penalty features")
                )
        joined = {tap: torch.cat([part[tap] for part in parts]) for tap in parts[0]}
        return self.adapter.transform(joined)

    def _fresh_features(
        self, train: Sequence[Record], draw: Draw, trainer: Trainer
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features extracted at this step: of augmented pictures, or (D1) as extractors in train mode see them."""
        images = load_batch([train[int(k) % len(train)] for k in draw.indices], self.input_size).image
        if self.config.augment:
            images = random_view(images, draw.generator)
        with torch.no_grad():
            return self.extract(images.to(trainer.device))

    def _map_range(self, good: Sequence[Record], features: Tensor, trainer: Trainer) -> Tensor:
        """The 0.9 and 0.995 quantiles of both maps over all cells of good pictures (EfficientAD Sec. 3.4), (2, 2)."""
        with torch.inference_mode():
            if self.config.extractor.mode == "train":
                images = (
                    batch.image.to(trainer.device) for batch in batches(good, self.input_size, PREDICT_BATCH)
                )
                parts = [self.raw_maps(*self.extract(image)) for image in images]
            else:
                parts = [
                    self.raw_maps(f, self.as_student_sees(f), f)
                    for f in torch.split(features.to(trainer.device), CHUNK)
                ]
        cells = torch.cat(parts).transpose(0, 1).flatten(1)  # (2, n)
        return torch.from_numpy(
            np.quantile(cells.cpu().numpy(), (0.9, 0.995), axis=1).T.astype(np.float32)
        )  # (2, 2)

    def _spread_range(self, features: Tensor, trainer: Trainer) -> Tensor:
        """V3: mean and deviation of error and spread over all cells of good pictures, (2, 2)."""
        with torch.inference_mode():
            chunks = torch.split(features.to(trainer.device), CHUNK)
            parts = [self._error_and_spread(f, self.as_student_sees(f)) for f in chunks]
        deviation, mean = torch.std_mean(torch.cat(parts), dim=(0, 2, 3), correction=0)
        return torch.stack([mean, deviation.clamp_min(1e-9)], 1)

    def _fit_head(self, head: CalibratedHead, good: Tensor, bad: Tensor, defective: Tensor) -> None:
        """V5 c: from the cells of good pictures, the defective cells, and those that a mask leaves out."""
        with torch.inference_mode():
            chunks = (*torch.split(good, CHUNK), *torch.split(bad, CHUNK))
            maps = torch.cat([self.scaled_maps(f, self.as_student_sees(f), f) for f in chunks])
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

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of (B, 3, H, W) pictures as teacher, student and autoencoder see them (the same, but for D1)."""
        f = self.adapter.transform(self.extractor(images))
        if self.config.extractor.mode == "eval":
            return f, self.as_student_sees(f), f
        return (
            f,
            self.adapter.transform(self.student_extractor(images)),
            self.adapter.transform(self.autoencoder_extractor(images)),
        )

    def as_student_sees(self, f: Tensor, owners: Tensor | None = None) -> Tensor:
        """V7: features beside what the bank says of them; the features where there is no bank."""
        return f if self.bank is None else cast("Tensor", self.bank(f, owners))

    def _error_and_spread(self, f: Tensor, f_student: Tensor) -> Tensor:
        """V3: of all students, (B, 2, h, w)."""
        first = self.student(self._with_position(f_student)).chunk(2, dim=1)[0]
        return error_and_spread(
            self.latent(f), [first, *(other(self._with_position(f)) for other in self.others)]
        )

    def raw_maps(self, f: Tensor, f_student: Tensor, f_autoencoder: Tensor) -> Tensor:
        """Channel means of (z - S1)² and (A - S2)², (B, 2, h, w); V3: the first is error plus spread, each standardised."""
        s1, s2 = self.student(self._with_position(f_student)).chunk(2, dim=1)
        a = self.autoencoder(self._with_position(f_autoencoder))
        if self.others:
            both = self._error_and_spread(f, f_student)
            standard = (both - self.spread_[:, 0, None, None]) / self.spread_[:, 1, None, None]
            return torch.stack([standard.sum(1), (a - s2).square().mean(1)], 1)
        return torch.stack([(self.latent(f) - s1).square().mean(1), (a - s2).square().mean(1)], 1)

    def scaled_maps(self, f: Tensor, f_student: Tensor, f_autoencoder: Tensor) -> Tensor:
        """The raw maps, brought to one scale where the recipe says so, (B, 2, h, w)."""
        maps = self.raw_maps(f, f_student, f_autoencoder)
        if self.config.maps.normalise == "none":
            return maps
        low, high = self.map_range_[:, 0].view(1, 2, 1, 1), self.map_range_[:, 1].view(1, 2, 1, 1)
        return 0.1 * (maps - low) / (high - low).clamp_min(1e-12)  # q_a -> 0, q_b -> 0.1

    def analyse(self, images: Tensor) -> Analysis:
        f, f_student, f_autoencoder = self.extract(images)
        maps = F.pad(self.scaled_maps(f, f_student, f_autoencoder), [self.config.maps.pad] * 4)
        combined = maps.mean(1, keepdim=True) if self.head is None else self.head(maps)  # ½ + ½
        source = {"student": maps[:, :1], "combined": combined}
        likelihood = negative_log_likelihood(*self.flow(f))[:, None]
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


def _mask(record: Record) -> Tensor:
    """(1, 1, H, W): 1 on the defect, or NaN everywhere where no mask says where it is."""
    regions = load_regions(record, read_size(record.image))
    union = torch.from_numpy(np.asarray(regions.union, np.float32))[None, None]
    return union if regions.regions else torch.full_like(union, torch.nan)


def _some(defects: tuple[Tensor, Tensor], count: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """V5: at most `count` of the labelled defects, drawn anew at each step."""
    features, cells = defects
    chosen = torch.randint(len(features), (min(count, len(features)),), generator=draw.generator)
    chosen = chosen.to(features.device)
    return features[chosen], cells[chosen]
