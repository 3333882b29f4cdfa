"""AST: a student regresses the output of a normalizing flow; where the two disagree, the picture is anomalous.

Paper: Rudolph et al., "Asymmetric Student-Teacher Networks for Industrial Anomaly Detection", WACV 2023, arXiv 2210.07829.
The teacher, a conditional flow, is trained by maximum likelihood on features of good pictures (Eq. 2); the student, an ordinary
residual network, regresses its output (Eq. 4). Flow and network extrapolate differently, so their distance (Eq. 5) grows away
from good pictures. This file is the RGB mode.

The slope of the student's LeakyReLU is 0.2 in the paper and 0.01 in its code: `student.slope`, default that of the code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.backbones import Backbone, BackboneConfig
from andon.config import Amount, Config, Count
from andon.detector import Analysis, Detector, DetectorConfig, weight_lines
from andon.errors import ConfigError
from andon.features import FeatureCache
from andon.layers.adapter import FeatureAdapter
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.positional import positional_encoding
from andon.layers.student import ResidualStudent
from andon.structures import Record
from andon.training import Draw, EarlyStopping, OptimiserConfig, Trainer

POSITION_CHANNELS = 32
PIECE = 8
"""Pictures whose features are looked at together outside training."""
ENLARGE = 8
"""Enlargement of the map before its maximum is taken, as in the authors' evaluation."""
OddKernel = Literal[1, 3, 5, 7]
Loss = Callable[[Tensor], Tensor]
"""Features (B, C, H, W) to a scalar."""


class ExtractorConfig(BackboneConfig):
    """The frozen feature extractor."""

    project: Count | None = None
    """Reduce the features to this many channels by a fixed random orthonormal projection."""
    standardise: bool = False
    """Scale each feature channel to mean 0 and deviation 1 over the training pictures."""


class TeacherConfig(Config):
    """The flow."""

    hidden: Count = 1024
    """Width of the coupling networks."""
    kernels: tuple[OddKernel, ...] = (3, 3, 3, 5)
    """Kernel size of each coupling block."""
    clamp: float = 3.0
    """Soft bound of the log-scales (alpha)."""
    epochs: Count = 240
    """Passes over the training pictures."""


class StudentConfig(Config):
    """The student."""

    width: Count = 1024
    """Channels of the residual blocks."""
    blocks: Count = 4
    """Number of residual blocks."""
    slope: Amount = 0.01
    """Negative slope of the LeakyReLU."""
    epochs: Count = 240
    """Passes over the training pictures."""


class ASTConfig(DetectorConfig):
    """Settings of AST; the defaults are those for RGB pictures."""

    extractor: ExtractorConfig = ExtractorConfig(
        network="tf_efficientnet_b5",
        weights="tf_efficientnet_b5.aa_in1k",
        taps=("blocks.5",),
        image_size=768,
        static_same_padding=True,
    )
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    score: Literal["mean", "max"] = "mean"
    """Image score: mean of the map (MVTec AD), or its maximum after enlarging it eightfold (MVTec 3D-AD)."""
    batch_size: Count = 8
    """Pictures of a step."""
    drop_last: bool = True
    """Leave the incomplete last batch of an epoch out, as the authors do (a set smaller than a batch is kept)."""
    optimiser: OptimiserConfig = OptimiserConfig()
    patience: Count = 10
    """Epochs without improvement that end a stage where `selection` judges epochs."""


class AST(Detector):
    """Flow teacher and residual student; see the module's docstring."""

    Config = ASTConfig
    config: ASTConfig
    position: Tensor

    def __init__(self, config: ASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
        self.adapter = FeatureAdapter(
            self.extractor.shapes, project=c.extractor.project, standardise=c.extractor.standardise
        )
        n, height, width = self.adapter.shape
        if n < 2:
            raise ConfigError(
                "the flow splits the features in two and needs at least 2 channels: choose another tap"
            )
        self.teacher = Flow(n, POSITION_CHANNELS, c.teacher.hidden, c.teacher.kernels, c.teacher.clamp)
        self.student = ResidualStudent(
            POSITION_CHANNELS + n, n, width=c.student.width, blocks=c.student.blocks, slope=c.student.slope
        )
        self.register_buffer("position", positional_encoding(POSITION_CHANNELS, height, width)[None])
        self.used_weights = weight_lines(self.extractor)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.extractor.image_size, self.config.extractor.image_size

    @property
    def score_rule(self) -> str:
        return "mean of the map" if self.config.score == "mean" else "maximum of the map, enlarged eightfold"

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        cache = FeatureCache(self.extractor)
        with trainer.timed("features"):
            raw = cache.load(train, progress=trainer.progress, what="training features")
            self.adapter.fit(raw)
            features = self.adapter.transform(raw)
            held_out = self.adapter.transform(
                cache.load(validation, progress=trainer.progress, what="validation features")
            )
        self._minimise("teacher", self.teacher_loss, features, held_out, trainer)
        self._minimise("student", self.student_loss, features, held_out, trainer)

    def teacher_loss(self, f: Tensor) -> Tensor:
        """Negative log-likelihood of (B, C, H, W) features, without its constant (Eq. 2)."""
        return negative_log_likelihood(*self.flow(f)).mean()

    def student_loss(self, f: Tensor) -> Tensor:
        """Mean squared distance of the student to the flow's output (Eq. 4)."""
        with torch.no_grad():
            z = self.flow(f)[0]
        return self.distance(z, f).mean()

    def _minimise(
        self,
        stage: Literal["teacher", "student"],
        loss: Loss,
        features: Tensor,
        held_out: Tensor,
        trainer: Trainer,
    ) -> None:
        """One of the two stages; the epoch kept is that of the recipe's `selection`."""
        c = self.config

        def batch_loss(draw: Draw) -> Mapping[str, Tensor]:
            return {stage: loss(features[draw.indices].to(trainer.device))}

        def held_out_loss() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [loss(f.to(trainer.device)) * len(f) for f in torch.split(held_out, PIECE)]
            return {stage: float(torch.stack(parts).sum()) / len(held_out)}

        stopping = None
        if c.selection == "validation":
            stopping = EarlyStopping(held_out_loss, c.patience, higher_is_better=False)
        elif c.selection in {"labels", "test"} and stage == "student":
            stopping = EarlyStopping(
                lambda: self.test_auroc(trainer.selection), c.patience, higher_is_better=True
            )
        trainer.minimise(
            stage,
            batch_loss,
            {stage: self.teacher if stage == "teacher" else self.student},
            trainer.sampler(stage, len(features), c.batch_size, drop_last=c.drop_last),
            epochs=c.teacher.epochs if stage == "teacher" else c.student.epochs,
            optimiser=c.optimiser,
            stopping=stopping,
        )

    # Answering -----------------------------------------------------------------------------------------------------

    def flow(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, H, W) to the latent z and log|det| per position."""
        return cast("tuple[Tensor, Tensor]", self.teacher(f, self.position.expand(len(f), -1, -1, -1)))

    def distance(self, z: Tensor, f: Tensor) -> Tensor:
        """Channel mean of (z - S(c, f))², (B, H, W) (Eq. 5)."""
        s = self.student(torch.cat([self.position.expand(len(f), -1, -1, -1), f], 1)).float()
        return cast("Tensor", (z - s).square().mean(1))

    def analyse(self, images: Tensor) -> Analysis:
        f = self.adapter.transform(self.extractor(images))
        z, log_det = self.flow(f)
        maps = self.distance(z, f)[:, None]
        scores = {"mean": maps.mean((1, 2, 3)), "max": enlarged_max(maps)}
        likelihood = negative_log_likelihood(z, log_det)
        extras = {f"{name}_map": value for name, value in scores.items()}
        extras |= {"teacher_mean": likelihood.mean((1, 2)), "teacher_max": likelihood.flatten(1).amax(1)}
        return Analysis(maps, scores[self.config.score], extras)


def enlarged_max(maps: Tensor) -> Tensor:
    """(B, 1, h, w) to (B,): the maximum after bicubic enlargement."""
    enlarged = F.interpolate(maps, scale_factor=ENLARGE, mode="bicubic", align_corners=False)
    return enlarged.flatten(1).amax(1)
