"""EfficientAD-AST: student and autoencoder of EfficientAD, taught by the normalizing flow of AST.

Source: bachelor thesis, Vilnius University 2024, which joins EfficientAD (Batzner et al., arXiv 2303.14535) and AST
(Rudolph et al., arXiv 2210.07829); docs/reference/models.md, "EfficientAD-AST". A flow T maps backbone features f to a
latent z of known distribution. A residual student S imitates z with its first half S1 of the channels and an autoencoder A
with its second half S2. The anomaly map is M = ½ mean_c (z - S1)² + ½ mean_c (A - S2)².

The recipe `published` reproduces the thesis' code with its defects, `corrected` repairs them. Each defect that changes a
result is a setting; its number (D1, D3, ...) is that of docs/reference/models/efficientad_ast.md. Users get this detector
with its research directions, from variants.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.errors import ConfigError
from andon.core.images import View, batches, load_batch
from andon.core.records import Record
from andon.detectors._base import PREDICT_BATCH, Analysis
from andon.detectors._depth import DepthDetector, Inputs
from andon.detectors.efficientad_ast.autoencoder import create_autoencoder
from andon.detectors.efficientad_ast.data import PenaltySet, TrainingData, Views
from andon.detectors.efficientad_ast.maps import SCORE_RULES, image_score, quantile_range, rescaled
from andon.detectors.efficientad_ast.settings import EfficientADASTConfig
from andon.layers.augment import random_view
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.moments import channel_statistics
from andon.layers.positional import positional_encoding
from andon.layers.residual_student import ResidualStudent, frozen_statistics, hard_mean
from andon.nn.backbones import Backbone
from andon.nn.sanity_checks import AUTOENCODER_EXPLAINS, STUDENT_EXPLAINS, Explained
from andon.nn.stage import EarlyStopping, Stage
from andon.nn.training import Draw, EpochSampler, Trainer

POSITION_CHANNELS = 32


class EfficientADAST(DepthDetector):
    """Flow teacher, two-headed student and autoencoder: the algorithm of the thesis, published or corrected."""

    Config: ClassVar[type[EfficientADASTConfig]] = EfficientADASTConfig
    config: EfficientADASTConfig
    position: Tensor
    teacher_mean_: Tensor
    teacher_std_: Tensor
    map_range_: Tensor

    def __init__(self, config: EfficientADASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        c.check()
        n, height, width = self.create_inputs(pretrained=pretrained)
        if height != width:
            raise ConfigError(f"the feature grid must be square, it is {height} x {width}; choose other taps")
        if c.extractor.mode == "train":  # D1, D2
            self.student_extractor = Backbone.create(c.extractor, pretrained=pretrained, train_mode=True)
            self.autoencoder_extractor = Backbone.create(c.extractor, pretrained=pretrained, train_mode=True)
        self.teacher = Flow(n, POSITION_CHANNELS, c.teacher.hidden, c.teacher.kernels, c.teacher.clamp)
        self.student = self.create_student(n, n)
        self.autoencoder = create_autoencoder(c.autoencoder, POSITION_CHANNELS + n, n, height)
        self.register_buffer("position", positional_encoding(POSITION_CHANNELS, height, width)[None])
        self.register_buffer("teacher_mean_", torch.zeros(1, n, 1, 1))
        self.register_buffer("teacher_std_", torch.ones(1, n, 1, 1))
        # (student, second map) x (q_a, q_b)
        self.register_buffer("map_range_", torch.tensor([[0.0, 0.1], [0.0, 0.1]]))
        self.eval()

    def create_student(self, features: int, latent: int) -> ResidualStudent:
        """From position and `features` channels to twice the `latent` channels: S1 and S2."""
        c = self.config.student
        channels = POSITION_CHANNELS + features
        return ResidualStudent(channels, 2 * latent, width=c.width, blocks=c.blocks, slope=c.slope)

    @property
    def score_rule(self) -> str:
        return f"{SCORE_RULES[self.config.maps.score]} the {self.config.maps.score_map} map"

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        with trainer.timed("features"):
            data = self.load_data(train, validation, trainer)
        self.learn_teacher(data, trainer)
        self.learn_student(data, trainer)
        with trainer.timed("normalisation"):
            self.normalise_maps(data)
            self._check_explained(data, trainer)

    def load_data(
        self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer
    ) -> TrainingData:
        """Features of all images to learn from, with the teacher's extractor in eval mode."""
        plain = self.load_inputs(train, trainer, what="training features", fit=True)
        what = "training features at brightness {:g}"
        copies = [
            self.load_inputs(train, trainer, what=what.format(factor), view=View(brightness=factor))
            for factor in self.config.extractor.brightness
        ]
        good = Inputs.joined([plain, *copies])
        held_out = self.load_inputs(validation, trainer, what="validation features")
        reference = (validation, held_out) if validation else (train, plain)
        penalty = self._load_penalty(len(train), trainer)
        return TrainingData(train, good, good.f, held_out, reference, penalty)

    def _load_penalty(self, train_size: int, trainer: Trainer) -> PenaltySet | None:
        """Out-of-class images, with their features unless the student's extractor is in train mode (D1)."""
        c = self.config
        if c.student.penalty == 0 or self.extractor is None or self.adapter is None:
            return None
        penalty = PenaltySet.choose(c.penalty, train_size, c.batch_size, trainer)
        if c.extractor.mode == "train":
            return penalty
        return penalty.extracted(self.extractor, self.adapter, self.teacher_mean_.shape[1], trainer)

    def learn_teacher(self, data: TrainingData, trainer: Trainer) -> None:
        """Stage 1: the flow, and the channel statistics of its latent."""
        self.fit_flow(data, trainer)
        scale = 0.0 if self.adapter is None else float(self.adapter.std_.log().sum())
        nll = self._mean_nll(data) + scale  # of the features before they are standardised
        trainer.stages.setdefault("teacher", Stage()).measured["nll"] = nll
        if self.config.teacher.normalise == "channel":
            with torch.no_grad():
                latents = (self.flow(x.f)[0] for x in data.good.chunks(trainer.device))
                mean, std = channel_statistics(latents)
            self.teacher_mean_, self.teacher_std_ = mean.to(trainer.device), std.to(trainer.device)

    def fit_flow(self, data: TrainingData, trainer: Trainer, steps: int | None = None) -> None:
        """Maximum likelihood of good features under the flow (AST Eq. 2); `steps` in place of the epochs."""
        c = self.config

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            batch = data.good.at(draw.indices, trainer.device)
            nll = negative_log_likelihood(*self.flow(batch.f))
            return self.teacher_losses(nll, batch.mask, data, draw)

        def measure() -> Mapping[str, float]:
            return {"nll": self._mean_nll(data)}

        sampler = trainer.sampler("teacher", len(data.good), c.batch_size, drop_last=c.drop_last)
        stopping = EarlyStopping(measure, c.patience, higher_is_better=False)
        trainer.minimise(
            "teacher",
            loss,
            {"teacher": self.teacher},
            sampler,
            epochs=self.epochs(c.teacher.epochs, sampler),
            steps=steps,
            optimiser=c.teacher_optimiser,
            stopping=stopping if c.selection == "validation" else None,
        )

    def teacher_losses(self, nll: Tensor, mask: Tensor, data: TrainingData, draw: Draw) -> dict[str, Tensor]:
        """Loss terms of stage 1 from the negative log-likelihood (B, h, w) of the step's good images."""
        return {"nll": self.masked(nll[:, None], mask).mean()}

    def _mean_nll(self, data: TrainingData) -> float:
        """Mean negative log-likelihood of held-out good images, or of those of training where there are none."""
        judged = data.held_out if len(data.held_out) else data.good
        with torch.inference_mode():
            parts = [
                self.masked(negative_log_likelihood(*self.flow(x.f))[:, None], x.mask).flatten(1).mean(1)
                for x in judged.chunks(self.device())
            ]
        return float(torch.cat(parts).mean())

    def learn_student(self, data: TrainingData, trainer: Trainer) -> None:
        """Stage 2: student and autoencoder together, against the finished teacher."""
        c = self.config
        order = None if data.penalty is None else data.penalty.order
        limit = None if order is None else order.per_epoch  # D19: the smaller set ends the epoch
        sampler = trainer.sampler("student", len(data.good), c.batch_size, drop_last=c.drop_last, limit=limit)

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            return self.step_losses(self._training_views(data, draw), data, draw)

        def measure() -> Mapping[str, float]:
            if c.selection == "validation":
                return {"loss": self._held_out_loss(data)}
            return self.test_auroc(trainer.selection)

        modules: dict[str, nn.Module] = {"student": self.student, "autoencoder": self.autoencoder}
        if c.extractor.mode == "train":
            modules["student_extractor"] = self.student_extractor
            modules["autoencoder_extractor"] = self.autoencoder_extractor
        stopping = EarlyStopping(measure, c.patience, higher_is_better=c.selection != "validation")
        trainer.minimise(
            "student",
            loss,
            modules,
            sampler,
            epochs=self.epochs(c.epochs, sampler),
            optimiser=c.optimiser,
            stopping=None if c.selection == "budget" else stopping,
        )

    def step_losses(self, views: Views, data: TrainingData, draw: Draw) -> dict[str, Tensor]:
        """Loss terms of stage 2: L_ST, L_AE, L_STAE and the penalty."""
        terms = self.student_losses(views)
        if data.penalty is not None:
            f = self._penalty_batch(data.penalty, len(views.mask), draw)
            terms["penalty"] = self.config.student.penalty * self.penalty_loss(f)
        return terms

    def student_losses(self, views: Views) -> dict[str, Tensor]:
        """L_ST, L_AE and L_STAE (EfficientAD Eq. 1, 4, 5), weighed by the mask."""
        c = self.config
        with torch.no_grad():
            z = self.latent_of(views)
        s1, s2 = self.student(self._with_position(views.student)).float().chunk(2, dim=1)
        a = self.autoencoder(self._with_position(views.autoencoder)).float()
        target = z if c.autoencoder.target == "flow" else views.teacher
        imitated = a.detach() if c.autoencoder.stop_gradient else a  # D17
        scale = z.shape[1] if c.student.loss == "ast" else 1
        return {
            "student": scale * hard_mean(self.masked((z - s1).square(), views.mask), c.student.p_hard),
            "autoencoder": self.masked((target - a).square(), views.mask).mean(),
            "student_autoencoder": self.imitation_loss(self.masked((imitated - s2).square(), views.mask)),
        }

    def imitation_loss(self, difference: Tensor) -> Tensor:
        """L_STAE from the masked (A - S2)²."""
        return difference.mean()

    def penalty_loss(self, f: Tensor) -> Tensor:
        """Mean S1² on out-of-class features, so that the student does not imitate the teacher in general (D3)."""
        x = self._with_position(f)
        if self.config.student.penalty_statistics == "frozen":
            with frozen_statistics(self.student):
                s = self.student(x)
        else:
            s = self.student(x)
        return cast("Tensor", s.float().chunk(2, dim=1)[0].square().mean())

    def _penalty_batch(self, penalty: PenaltySet, count: int, draw: Draw) -> Tensor:
        """(B, C, h, w) out-of-class features as the student sees them; D1: a second pass of its extractor in each step."""
        positions = penalty.positions(count, draw)
        if penalty.features is not None:
            return penalty.features[positions].to(self.device())
        images = penalty.images(positions, self.input_size, draw).to(self.device())
        with torch.no_grad():
            return self._private(self.student_extractor, images)

    def _training_views(self, data: TrainingData, draw: Draw) -> Views:
        """Cached features of the step's images; with augmentation or in train mode (D1) they are extracted anew."""
        if self.config.extractor.mode == "eval" and not self.config.augment:
            x = data.good.at(draw.indices, self.device())
            return Views(x.f, data.student_batch(draw, x), x.f, x.mask)
        images = load_batch(
            [data.train[int(k) % len(data.train)] for k in draw.indices], self.input_size
        ).image
        if self.config.augment:
            images = random_view(images, draw.generator)
        with torch.no_grad():
            return self.extract(images.to(self.device()))

    def _held_out_loss(self, data: TrainingData) -> float:
        """Loss of held-out good images, without the penalty."""
        with torch.inference_mode():
            parts = [
                sum(self.student_losses(views).values(), torch.zeros(())) * len(views.mask)
                for views in self.reference_views(data)
            ]
        return float(torch.stack(parts).sum()) / len(data.held_out)

    def epochs(self, wanted: int, sampler: EpochSampler) -> int:
        """Passes over the training images, as far as `max_steps` allows."""
        most = self.config.max_steps
        return wanted if most is None else max(1, min(wanted, most // sampler.per_epoch))

    def reference_views(self, data: TrainingData) -> Iterator[Views]:
        """The reference images as each network sees them when it predicts, a few at a time."""
        records, inputs = data.reference
        if self.config.extractor.mode == "train":
            for batch in batches(records, self.input_size, PREDICT_BATCH):
                yield self.extract(batch.image.to(self.device()))
        else:
            yield from (self.views(x) for x in inputs.chunks(self.device()))

    def normalise_maps(self, data: TrainingData) -> None:
        """The 0.9 and 0.995 quantiles of both maps over the cells of good images that count (EfficientAD Sec. 3.4)."""
        with torch.inference_mode():
            cells = [self._counting_cells(views) for views in self.reference_views(data)]
        self.map_range_ = quantile_range(torch.cat(cells, 1))

    def _counting_cells(self, views: Views) -> Tensor:
        """(2, n) values of both raw maps where there is an object that is inspected."""
        counts = views.mask[:, 0] > 0
        inside = self.inspected(counts.shape[1], counts.shape[2], self.config.maps.pad)
        return self.raw_maps(views).movedim(1, 0)[:, counts if inside is None else counts & inside]

    def _check_explained(self, data: TrainingData, trainer: Trainer) -> None:
        """Sanity checks: the share of its target's variance that each network explains on good images."""
        student, autoencoder = Explained(), Explained()
        flow = self.config.autoencoder.target == "flow"
        with torch.inference_mode():
            for views in self.reference_views(data):
                z = self.latent_of(views)
                student.add(z, self.student(self._with_position(views.student)).chunk(2, dim=1)[0])
                target = z if flow else views.teacher
                autoencoder.add(target, self.autoencoder(self._with_position(views.autoencoder)))
        trainer.sanity_check("student", student.sanity_check("student", "the teacher's", STUDENT_EXPLAINS))
        whose = "the latent's" if flow else "the features'"
        trainer.sanity_check("student", autoencoder.sanity_check("autoencoder", whose, AUTOENCODER_EXPLAINS))

    # Predicting ----------------------------------------------------------------------------------------------------

    def flow(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, H, W) to the latent z and log|det| per position."""
        return cast("tuple[Tensor, Tensor]", self.teacher(f, self.position.expand(f.shape[0], -1, -1, -1)))

    def flow_of(self, views: Views) -> tuple[Tensor, Tensor]:
        """z and log|det| of the teacher's features."""
        return self.flow(views.teacher) if views.flow is None else views.flow

    def latent_of(self, views: Views) -> Tensor:
        """What the student imitates: the flow's latent, standardised where the recipe says so."""
        return (self.flow_of(views)[0] - self.teacher_mean_) / self.teacher_std_

    def latent(self, f: Tensor) -> Tensor:
        """The same of features (B, C, h, w)."""
        return (self.flow(f)[0] - self.teacher_mean_) / self.teacher_std_

    def _with_position(self, f: Tensor) -> Tensor:
        return torch.cat([self.position.expand(f.shape[0], -1, -1, -1), f], 1)

    def extract(self, images: Tensor) -> Views:
        """(B, 3 or 5, H, W) as `analyse` gets them, as each network sees them."""
        views = self.views(self.inputs(images))
        if self.config.extractor.mode == "eval":
            return views
        student = self._private(self.student_extractor, images)
        return replace(views, student=student, autoencoder=self._private(self.autoencoder_extractor, images))

    def _private(self, extractor: Backbone, images: Tensor) -> Tensor:
        """D1, D2: features from the extractor that belongs to one network alone."""
        assert self.adapter is not None
        return self.adapter.transform(extractor(images))

    def views(self, inputs: Inputs) -> Views:
        """The same features for all networks."""
        return Views(inputs.f, inputs.f, inputs.f, inputs.mask, self.flow(inputs.f))

    def raw_maps(self, views: Views) -> Tensor:
        """Student map and second map (`maps.second`), weighed by the mask, (B, 2, h, w)."""
        s1, s2 = self.student_outputs(views)
        if self.config.maps.second == "likelihood":
            second = negative_log_likelihood(*self.flow_of(views))
        else:
            second = self.autoencoder_map(views, s2)
        return torch.stack([self.student_map(views, s1), second], 1) * views.mask

    def student_outputs(self, views: Views) -> tuple[Tensor, Tensor]:
        """S1 and S2, each (B, C, h, w)."""
        return cast("tuple[Tensor, Tensor]", self.student(self._with_position(views.student)).chunk(2, dim=1))

    def student_map(self, views: Views, s1: Tensor) -> Tensor:
        """Channel mean of (z - S1)², (B, h, w)."""
        return (self.latent_of(views) - s1).square().mean(1)

    def autoencoder_map(self, views: Views, s2: Tensor) -> Tensor:
        """Channel mean of (A - S2)², (B, h, w)."""
        difference = self.autoencoder(self._with_position(views.autoencoder)) - s2
        return cast("Tensor", difference.square().mean(1))

    def scaled_maps(self, views: Views) -> Tensor:
        """The raw maps, brought to one scale where the recipe says so, (B, 2, h, w)."""
        maps = self.raw_maps(views)
        return maps if self.config.maps.normalise == "none" else rescaled(maps, self.map_range_)

    def combine(self, maps: Tensor) -> Tensor:
        """(B, 2, h, w) to the anomaly map (B, 1, h, w): ½ + ½."""
        return maps.mean(1, keepdim=True)

    def analyse(self, images: Tensor) -> Analysis:
        views = self.extract(images)
        maps = self.quieted(F.pad(self.scaled_maps(views), [self.config.maps.pad] * 4))
        combined = self.combine(maps)
        source = {"student": maps[:, :1], "combined": combined}
        likelihood = self.quieted(negative_log_likelihood(*self.flow_of(views))[:, None] * views.mask)
        extras = {f"{rule}_{name}": self.score(m, rule) for name, m in source.items() for rule in SCORE_RULES}
        extras |= {
            "teacher_mean": self.score(likelihood, "mean"),
            "teacher_max": likelihood.flatten(1).amax(1),
        }
        scored = source[self.scored_map]
        return Analysis(combined, self.score(scored, self.config.maps.score), extras)

    @property
    def scored_map(self) -> str:
        """Which map the image score is taken from: `student` or `combined`."""
        return self.config.maps.score_map

    def score(self, maps: Tensor, rule: str) -> Tensor:
        """Image scores (B,) of maps (B, 1, h, w), by the name of the rule."""
        return image_score(maps, rule, self.input_size)
