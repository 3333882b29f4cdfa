"""AST: the distance between a normalizing-flow teacher and a convolutional student.

Paper: Rudolph, Wehrbein, Rosenhahn, Wandt: Asymmetric Student-Teacher Networks for Industrial Anomaly Detection,
arXiv 2210.07829. The teacher T is a flow trained by maximum likelihood on features of good images (Eq. 2). The student S is
a residual convolutional network trained to regress the teacher's output (Eq. 3). The squared distance of the two is the
anomaly map: networks of different architecture do not extrapolate alike outside of the training distribution.

With 3-D data (``docs/reference/models.md``, "AST") the relative depth of the part is unshuffled to the grid of the features and
used alone or concatenated to them; the foreground mask weights losses, scores and map.

The published numbers come from the authors' code, so its choices are the defaults where it differs from the paper (slope of the
LeakyReLU, soft mask). As there, the pixel map is multiplied by the mask twice, the losses and the mean scores once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.config import Amount, Config, Count
from andon.core.records import Record
from andon.detectors._base import Analysis
from andon.detectors._depth import DepthDetector, DepthDetectorConfig, Inputs
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.positional import positional_encoding
from andon.layers.residual_student import ResidualStudent
from andon.nn.sanity_checks import STUDENT_EXPLAINS, Explained
from andon.nn.stage import EarlyStopping
from andon.nn.training import Draw, OptimiserConfig, Trainer

POSITION_CHANNELS = 32
ENLARGE = 8
"""Upsampling of the map before its maximum is taken, as in the authors' evaluation."""


class TeacherConfig(Config):
    """The normalizing flow."""

    hidden: Count = 1024
    """Hidden channels of the coupling networks."""
    kernels: tuple[Literal[1, 3, 5, 7], ...] = (3, 3, 3, 5)
    """Kernel size of each coupling block."""
    clamp: Amount = 3.0
    """Soft bound of the log-scales (alpha of Sec. 3.1)."""
    epochs: Count = 240
    """Passes over the training images."""


class StudentConfig(Config):
    """The student."""

    width: Count = 1024
    """Channels of the residual blocks."""
    blocks: Count = 4
    """Number of residual blocks."""
    slope: Amount = 0.01
    """Negative slope of the LeakyReLU (paper: 0.2, code: 0.01)."""
    epochs: Count = 240
    """Passes over the training images."""


class ASTConfig(DepthDetectorConfig):
    """Settings of AST; the defaults are those for MVTec AD."""

    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    max_steps: Count | None = None
    """Most steps of a stage, in whole epochs (at least one), so that a large folder need not take longer than a small one."""
    score: Literal["mean", "max"] = "mean"
    """Image score: mean of the map (MVTec AD), or its maximum after eightfold upsampling (MVTec 3D-AD)."""
    batch_size: Count = 8
    """Images per optimiser step."""
    drop_last: bool = True
    """Drop the incomplete last batch of an epoch, as the authors do (a training set smaller than a batch is kept)."""
    optimiser: OptimiserConfig = OptimiserConfig()
    patience: Count = 10
    """Epochs without improvement after which training ends, where `selection` measures epochs."""


class AST(DepthDetector):
    """Flow teacher and convolutional student; see the module's docstring."""

    Config = ASTConfig
    config: ASTConfig
    position: Tensor

    def __init__(self, config: ASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        channels, *grid = self.create_inputs(pretrained=pretrained)
        self.teacher = Flow(channels, POSITION_CHANNELS, c.teacher.hidden, c.teacher.kernels, c.teacher.clamp)
        self.student = ResidualStudent(
            POSITION_CHANNELS + channels,
            channels,
            width=c.student.width,
            blocks=c.student.blocks,
            slope=c.student.slope,
        )
        self.register_buffer("position", positional_encoding(POSITION_CHANNELS, *grid)[None])
        self.eval()

    @property
    def score_rule(self) -> str:
        return "mean of the map" if self.config.score == "mean" else "maximum of the map, enlarged eightfold"

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        with trainer.timed("features"):
            features = self.load_inputs(train, trainer, what="training features", fit=True)
            held_out = self.load_inputs(validation, trainer, what="validation features")
        self._minimise("teacher", self.teacher_loss, features, held_out, trainer)
        self._minimise("student", self.student_loss, features, held_out, trainer)
        judged = held_out if len(held_out) else features
        explained = Explained()
        with torch.inference_mode():
            for x in judged.chunks(trainer.device):
                explained.add(self.flow(x.f)[0], self.regress(x.f))
        trainer.sanity_check("student", explained.sanity_check("student", "the teacher's", STUDENT_EXPLAINS))

    def _minimise(
        self,
        stage: Literal["teacher", "student"],
        loss: Callable[[Inputs], Tensor],
        inputs: Inputs,
        held_out: Inputs,
        trainer: Trainer,
    ) -> None:
        """Train one stage; `selection` decides which epoch is kept."""
        c = self.config

        def step(draw: Draw) -> Mapping[str, Tensor]:
            return {stage: loss(inputs.at(draw.indices, trainer.device))}

        def measure() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [float(loss(chunk)) * len(chunk) for chunk in held_out.chunks(trainer.device)]
            return {stage: sum(parts) / len(held_out)}

        stopping = None
        if c.selection == "validation":
            stopping = EarlyStopping(measure, c.patience, higher_is_better=False)
        elif c.selection in {"synthetic", "labels", "test"} and stage == "student":
            stopping = EarlyStopping(
                lambda: self.test_auroc(trainer.selection), c.patience, higher_is_better=True
            )
        sampler = trainer.sampler(stage, len(inputs), c.batch_size, drop_last=c.drop_last)
        epochs = c.teacher.epochs if stage == "teacher" else c.student.epochs
        trainer.minimise(
            stage,
            step,
            {stage: self.teacher if stage == "teacher" else self.student},
            sampler,
            epochs=epochs if c.max_steps is None else max(1, min(epochs, c.max_steps // sampler.per_epoch)),
            optimiser=c.optimiser,
            stopping=stopping,
        )

    def teacher_loss(self, inputs: Inputs) -> Tensor:
        """Eq. 2: negative log-likelihood, summed over channels, weighted by the mask, averaged over cells and images."""
        likelihood = negative_log_likelihood(*self.flow(inputs.f))[:, None]
        return self.masked(likelihood, inputs.mask).mean()

    def student_loss(self, inputs: Inputs) -> Tensor:
        """Eq. 3: squared distance to the teacher, averaged over channels, weighted by the mask, then averaged over cells."""
        with torch.no_grad():
            z = self.flow(inputs.f)[0]
        return self.masked(self.distance(z, inputs.f), inputs.mask).mean()

    # Inference -----------------------------------------------------------------------------------------------------

    def flow(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """T: features (B, C, h, w) to the latent z (B, C, h, w) and log|det| per cell (B, h, w)."""
        return cast("tuple[Tensor, Tensor]", self.teacher(f, self.position.expand(f.shape[0], -1, -1, -1)))

    def regress(self, f: Tensor) -> Tensor:
        """S: the student's output (B, C, h, w); its input is the positional encoding followed by the features."""
        s = self.student(torch.cat([self.position.expand(f.shape[0], -1, -1, -1), f], 1))
        return cast("Tensor", s.float())

    def distance(self, z: Tensor, f: Tensor) -> Tensor:
        """Mean over channels of (z - S(f))², (B, 1, h, w)."""
        return (z - self.regress(f)).square().mean(1, keepdim=True)

    def analyse(self, images: Tensor) -> Analysis:
        inputs = self.inputs(images)
        z, log_det = self.flow(inputs.f)
        distance = self.quieted(self.distance(z, inputs.f) * inputs.mask)
        maps = distance * inputs.mask  # the authors' evaluation weights the pixel map a second time
        scores = {"mean": distance.mean((1, 2, 3)), "max": enlarged_max(maps)}
        likelihood = self.quieted(negative_log_likelihood(z, log_det)[:, None] * inputs.mask)
        extras = {f"{name}_map": value for name, value in scores.items()}
        extras |= {"teacher_mean": likelihood.mean((1, 2, 3)), "teacher_max": likelihood.flatten(1).amax(1)}
        return Analysis(maps, scores[self.config.score], extras)


def enlarged_max(maps: Tensor) -> Tensor:
    """(B, 1, h, w) to (B,): the maximum after bicubic upsampling."""
    enlarged = F.interpolate(maps, scale_factor=ENLARGE, mode="bicubic", align_corners=False)
    return enlarged.flatten(1).amax(1)
