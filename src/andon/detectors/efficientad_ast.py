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
from typing import Annotated, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from andon.backbones import Backbone, BackboneConfig
from andon.config import Amount, Config, Count, Share
from andon.datasets.penalty import penalty_records
from andon.detector import PREDICT_BATCH, Analysis, Detector, DetectorConfig, weight_lines
from andon.errors import ConfigError
from andon.features import FeatureCache
from andon.images import View, batches, load_batch
from andon.layers.adapter import FeatureAdapter
from andon.layers.augment import random_view
from andon.layers.autoencoder import BottleneckAutoencoder, PublishedAutoencoder
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.flow_teacher import flow_interface, locate_flow
from andon.layers.moments import channel_statistics
from andon.layers.positional import positional_encoding
from andon.layers.student import ResidualStudent, frozen_statistics, hard_mean
from andon.structures import Record
from andon.training import Draw, EarlyStopping, EpochSampler, OptimiserConfig, Stage, Trainer, derive_seed

POSITION_CHANNELS = 32
OddKernel = Literal[1, 3, 5, 7]
Cells = Annotated[int, Field(ge=0, le=64)]


class ExtractorConfig(BackboneConfig):
    """The frozen feature extractor."""

    mode: Literal["eval", "train"] = "eval"
    """D1, D2: `train` gives student and autoencoder private copies that run, and drift, in train mode as published."""
    project: Count | None = None
    """Reduce the features to this many channels by a fixed random orthonormal projection."""
    standardise: bool = False
    """Scale each feature channel to mean 0 and deviation 1 over the training pictures."""
    light: tuple[Amount, ...] = ()
    """Brightness factors of further copies of every training picture, e.g. [0.8, 1.2]; lamps age (mode `eval` only)."""


class TeacherConfig(Config):
    """The flow."""

    hidden: Count = 1024
    """Width of the coupling networks."""
    kernels: tuple[OddKernel, ...] = (3, 3, 3, 5)
    """Kernel size of each coupling block."""
    clamp: float = 3.0
    """Soft bound of the log-scales (alpha)."""
    epochs: Count = 240
    """Passes over the training pictures, where the flow is not a ready one."""
    weights: str | None = None
    """V4: a ready flow from the weight store (`andon pretrain flow`), used as it is; None = learn one from the good pictures."""
    fine_tune: Annotated[int, Field(ge=0, strict=True)] = 0
    """Optimiser steps on the good pictures that a ready flow is adapted with; 0 = it stays as it is."""
    normalise: Literal["none", "channel"] = "none"
    """`channel` scales each latent channel to mean 0 and deviation 1 over the training pictures."""


class StudentConfig(Config):
    """The student."""

    width: Count = 1024
    """Channels of the residual blocks."""
    blocks: Count = 4
    """Number of residual blocks."""
    slope: Amount = 0.01
    """Negative slope of the LeakyReLU (AST's paper: 0.2, all code: 0.01)."""
    p_hard: Share = 0.0
    """D16: only the elements above this quantile of (z - S1)² are learned from; 0 = all, EfficientAD: 0.999."""
    loss: Literal["mse", "ast"] = "mse"
    """`ast` sums over the channels as AST's equation does, `mse` takes their mean: the weight against the other terms differs."""
    penalty: Amount = 1.0
    """Weight of the out-of-class penalty mean S1(P)²; 0 switches it off."""
    penalty_statistics: Literal["frozen", "shared"] = "frozen"
    """D3: `shared` lets penalty pictures into the BatchNorm statistics, as published."""


class AutoencoderConfig(Config):
    """The autoencoder."""

    layout: Literal["bottleneck", "published"] = "bottleneck"
    """D5, D6: `published` never narrows the grid, and enlarges it eight times before averaging it back."""
    bottleneck: Count = 64
    """Numbers everything passes through (layout `bottleneck`)."""
    head: Literal["linear", "relu_dropout"] = "linear"
    """D4: `relu_dropout` ends in ReLU and dropout as published, so negative targets are out of reach."""
    target: Literal["flow", "features"] = "flow"
    """What is reconstructed: the latent z, or the features before the flow (z is whitened: little of it is predictable)."""
    stop_gradient: bool = False
    """D17: keep the student-autoencoder loss from moving the autoencoder."""


class PenaltyConfig(Config):
    """Out-of-class pictures."""

    folder: str | None = None
    """Folder of photographs; None = procedural pictures."""
    zoom: bool = True
    """D15: resize to twice the size and keep the centre; off = the whole picture, as published."""
    colour: Literal["grey", "tint"] = "grey"
    """D15: how a share of the pictures loses its colour; `tint` does it after normalisation, as published."""
    grey_share: float = 0.3
    """Share of the pictures without colour."""
    draw: Literal["each_step", "fixed"] = "each_step"
    """D15, D19: `fixed` draws one subset as large as the training set; the shorter of the two ends the epoch, as published."""


class MapConfig(Config):
    """From differences to scores."""

    normalise: Literal["quantile", "none"] = "quantile"
    """D8: bring both maps to one scale by their 0.9 and 0.995 quantiles on held-out good pictures."""
    pad: Cells = 0
    """Cells of value 0 put around the map before it is enlarged, which shifts it inwards (thesis, before its step 14: 4)."""
    score: Literal["mean", "max", "topk"] = "mean"
    """D7: image score = mean of the map, its maximum after enlarging to the input size, or the mean of its largest 1 % cells."""
    score_map: Literal["student", "combined"] = "student"
    """Map the image score is taken from: that of S1 alone, or the sum of both."""


class EfficientADASTConfig(DetectorConfig):
    """Settings of EfficientAD-AST; the defaults are the corrected design."""

    extractor: ExtractorConfig = ExtractorConfig(
        network="tf_efficientnet_b5",
        weights="tf_efficientnet_b5.aa_in1k",
        taps=("blocks.5",),
        image_size=768,
        static_same_padding=True,
    )
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    penalty: PenaltyConfig = PenaltyConfig()
    maps: MapConfig = MapConfig()
    epochs: Count = 100
    """Passes over the training pictures for student and autoencoder."""
    max_steps: Count | None = None
    """Steps a stage takes at most, in whole epochs (one at least): a large folder need not take longer than a small one."""
    batch_size: Count = 8
    """Pictures of a step."""
    augment: bool = False
    """Show student and autoencoder a random crop, flip and colour of each picture at each step; extracted anew, so slow."""
    drop_last: bool = False
    """D18: leave the incomplete last batch of an epoch out, as published."""
    teacher_optimiser: OptimiserConfig = OptimiserConfig(decay_last=0.05)
    optimiser: OptimiserConfig = OptimiserConfig(decay_last=0.05)
    patience: Count = 10
    """Epochs without improvement that end training where `selection` judges epochs (D9)."""


class EfficientADAST(Detector):
    """Flow teacher, two-headed student, autoencoder; see the module's docstring."""

    Config = EfficientADASTConfig
    config: EfficientADASTConfig
    position: Tensor
    teacher_mean_: Tensor
    teacher_std_: Tensor
    map_range_: Tensor

    def __init__(self, config: EfficientADASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        if c.extractor.mode == "train" and c.extractor.light:
            raise ConfigError(
                "extractor.light needs extractor.mode=eval: train mode shows every picture once, as it is"
            )
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
        self.student = ResidualStudent(
            POSITION_CHANNELS + n,
            2 * n,
            width=c.student.width,
            blocks=c.student.blocks,
            slope=c.student.slope,
        )
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
        return f"{rule[self.config.maps.score]} the {self.config.maps.score_map} map"

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
        self._learn_teacher(features, held_out, trainer)
        self._learn_student(train, features, held_out, penalty, trainer)
        with trainer.timed("normalisation"):
            good = (validation, held_out) if validation else (train, features[: len(train)])
            self.map_range_ = self._map_range(*good, trainer)

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

    def _learn_teacher(self, features: Tensor, held_out: Tensor, trainer: Trainer) -> None:
        """Stage 1: maximum likelihood of good features under the flow (AST Eq. 2), unless a ready one is used as it is."""
        c = self.config.teacher

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            z, log_det = self.flow(features[draw.indices].to(trainer.device))
            return {"nll": negative_log_likelihood(z, log_det).mean()}

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
        features: Tensor,
        held_out: Tensor,
        penalty: Tensor | None,
        trainer: Trainer,
    ) -> None:
        """Stage 2: student and autoencoder together, against the finished teacher."""
        c = self.config
        fixed = c.penalty.draw == "fixed" and penalty is not None
        limit = (
            len(cast("Tensor", penalty)) // c.batch_size if fixed else None
        )  # the shorter set ends the epoch
        sampler = trainer.sampler("student", len(features), c.batch_size, drop_last=c.drop_last, limit=limit)

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            if c.extractor.mode == "train" or c.augment:
                f, f_student, f_autoencoder = self._fresh_features(train, draw, trainer)
            else:
                f = f_student = f_autoencoder = features[draw.indices].to(trainer.device)
            terms = self.student_losses(f, f_student, f_autoencoder)
            if penalty is not None and c.student.penalty > 0:
                chosen = torch.randint(len(penalty), (len(f),), generator=draw.generator)
                terms["penalty"] = c.student.penalty * self.penalty_loss(penalty[chosen].to(trainer.device))
            return terms

        def held_out_loss() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [
                    sum(self.student_losses(f, f, f).values()) * len(f)
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
                parts = [self.raw_maps(f, f, f) for f in torch.split(features.to(trainer.device), 8)]
        cells = torch.cat(parts).transpose(0, 1).flatten(1)  # (2, n)
        return torch.from_numpy(
            np.quantile(cells.cpu().numpy(), (0.9, 0.995), axis=1).T.astype(np.float32)
        )  # (2, 2)

    # Answering -----------------------------------------------------------------------------------------------------

    def flow(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, H, W) to the latent z and log|det| per position."""
        return cast("tuple[Tensor, Tensor]", self.teacher(f, self.position.expand(len(f), -1, -1, -1)))

    def latent(self, f: Tensor) -> Tensor:
        """What the student imitates: the flow's latent, scaled where the recipe says so."""
        return (self.flow(f)[0] - self.teacher_mean_) / self.teacher_std_

    def _with_position(self, f: Tensor) -> Tensor:
        return torch.cat([self.position.expand(len(f), -1, -1, -1), f], 1)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of (B, 3, H, W) pictures as teacher, student and autoencoder see them (the same, but for D1)."""
        f = self.adapter.transform(self.extractor(images))
        if self.config.extractor.mode == "eval":
            return f, f, f
        return (
            f,
            self.adapter.transform(self.student_extractor(images)),
            self.adapter.transform(self.autoencoder_extractor(images)),
        )

    def raw_maps(self, f: Tensor, f_student: Tensor, f_autoencoder: Tensor) -> Tensor:
        """Channel means of (z - S1)² and (A - S2)², (B, 2, h, w)."""
        s1, s2 = self.student(self._with_position(f_student)).chunk(2, dim=1)
        a = self.autoencoder(self._with_position(f_autoencoder))
        return torch.stack([(self.latent(f) - s1).square().mean(1), (a - s2).square().mean(1)], 1)

    def analyse(self, images: Tensor) -> Analysis:
        f, f_student, f_autoencoder = self.extract(images)
        maps = self.raw_maps(f, f_student, f_autoencoder)
        if self.config.maps.normalise == "quantile":
            low, high = self.map_range_[:, 0].view(1, 2, 1, 1), self.map_range_[:, 1].view(1, 2, 1, 1)
            maps = 0.1 * (maps - low) / (high - low).clamp_min(1e-12)  # q_a -> 0, q_b -> 0.1
        maps = F.pad(maps, [self.config.maps.pad] * 4)
        combined = maps.mean(1, keepdim=True)  # ½ + ½
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
        return Analysis(
            combined, self.score(source[self.config.maps.score_map], self.config.maps.score), extras
        )

    def score(self, maps: Tensor, rule: str) -> Tensor:
        """(B, 1, h, w) to (B,): mean, maximum after enlarging to the input size, or mean of the largest 1 % cells (D7)."""
        if rule == "max":
            enlarged = F.interpolate(maps, size=self.input_size, mode="bilinear", align_corners=False)
            return enlarged.flatten(1).amax(1)
        flat = maps.flatten(1)
        if rule == "mean":
            return flat.mean(1)
        return flat.topk(max(1, round(0.01 * flat.shape[1])), dim=1).values.mean(1)
