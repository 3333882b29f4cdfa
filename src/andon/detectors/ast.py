"""AST: a residual student regresses the latent of a normalizing flow; where it cannot, the image is anomalous.

Paper: Rudolph, Wehrbein, Rosenhahn, Wandt: Asymmetric Student-Teacher Networks for Industrial Anomaly Detection,
arXiv 2210.07829. The teacher T is a flow trained by maximum likelihood on features of good images (Eq. 2), the student S
an ordinary network of another kind trained on the teacher's output (Eq. 3). Two alike networks would err alike away
from the training images; these do not, and their squared distance is the anomaly map.

With depth (spec 2.4) the depth of the part's surface, unshuffled to the grid of the features, is looked at alone
or beside them, and the foreground mask weighs losses and map.

Published numbers come from the paper's code. Where the two differ (LeakyReLU slope, soft mask) the code's way is the
default. In its evaluation the mask weighs the map twice; a hard mask makes no difference there.
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
from andon.nn.training import Draw, EarlyStopping, OptimiserConfig, Trainer

POSITION_CHANNELS = 32
ENLARGE = 8
"""Enlargement of the map before its maximum is taken, as in the authors' evaluation."""


class TeacherConfig(Config):
    """The flow."""

    hidden: Count = 1024
    """Width of the coupling networks."""
    kernels: tuple[Literal[1, 3, 5, 7], ...] = (3, 3, 3, 5)
    """Kernel size of each coupling block."""
    clamp: Amount = 3.0
    """Soft bound of the log-scales (alpha)."""
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
    score: Literal["mean", "max"] = "mean"
    """Image score: mean of the map (MVTec AD), or its maximum after enlarging it eightfold (MVTec 3D-AD)."""
    batch_size: Count = 8
    """Images of a step."""
    drop_last: bool = True
    """Leave the incomplete last batch of an epoch out, as the authors do (a set smaller than a batch is kept)."""
    optimiser: OptimiserConfig = OptimiserConfig()
    patience: Count = 10
    """Epochs without improvement that end training where `selection` judges epochs."""


class AST(DepthDetector):
    """Flow teacher and residual student; see the module's docstring."""

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
                explained.add(self.flow(x.f)[0], self.answer(x.f))
        trainer.sanity_check("student", explained.sanity_check("student", "the teacher's", STUDENT_EXPLAINS))

    def _minimise(
        self,
        stage: Literal["teacher", "student"],
        loss: Callable[[Inputs], Tensor],
        inputs: Inputs,
        held_out: Inputs,
        trainer: Trainer,
    ) -> None:
        """One of the two stages; the epoch kept is that of the recipe's `selection`."""
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
        trainer.minimise(
            stage,
            step,
            {stage: self.teacher if stage == "teacher" else self.student},
            trainer.sampler(stage, len(inputs), c.batch_size, drop_last=c.drop_last),
            epochs=c.teacher.epochs if stage == "teacher" else c.student.epochs,
            optimiser=c.optimiser,
            stopping=stopping,
        )

    def teacher_loss(self, inputs: Inputs) -> Tensor:
        """Negative log-likelihood (AST Eq. 2), summed over channels, weighed by the mask, averaged over cells and images."""
        likelihood = negative_log_likelihood(*self.flow(inputs.f))[:, None]
        return self.masked(likelihood, inputs.mask).mean()

    def student_loss(self, inputs: Inputs) -> Tensor:
        """Squared distance to the teacher (AST Eq. 3), averaged over channels, weighed by the mask, averaged over the rest."""
        with torch.no_grad():
            z = self.flow(inputs.f)[0]
        return self.masked(self.distance(z, inputs.f), inputs.mask).mean()

    # Answering -----------------------------------------------------------------------------------------------------

    def flow(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, h, w) to the latent z and log|det| per cell (B, h, w)."""
        return cast("tuple[Tensor, Tensor]", self.teacher(f, self.position.expand(f.shape[0], -1, -1, -1)))

    def answer(self, f: Tensor) -> Tensor:
        """The student's guess of the latent, (B, C, h, w); the position comes first."""
        s = self.student(torch.cat([self.position.expand(f.shape[0], -1, -1, -1), f], 1))
        return cast("Tensor", s.float())

    def distance(self, z: Tensor, f: Tensor) -> Tensor:
        """Channel mean of the squared difference between the latent z and the student's answer to f, (B, 1, h, w)."""
        return (z - self.answer(f)).square().mean(1, keepdim=True)

    def analyse(self, images: Tensor) -> Analysis:
        inputs = self.inputs(images)
        z, log_det = self.flow(inputs.f)
        weight = inputs.mask.square()  # once in the distance, once in the authors' evaluation
        maps = self.distance(z, inputs.f) * weight
        scores = {"mean": maps.mean((1, 2, 3)), "max": enlarged_max(maps)}
        likelihood = negative_log_likelihood(z, log_det)[:, None] * weight
        extras = {f"{name}_map": value for name, value in scores.items()}
        extras |= {"teacher_mean": likelihood.mean((1, 2, 3)), "teacher_max": likelihood.flatten(1).amax(1)}
        return Analysis(maps, scores[self.config.score], extras)


def enlarged_max(maps: Tensor) -> Tensor:
    """(B, 1, h, w) to (B,): the maximum after bicubic enlargement."""
    enlarged = F.interpolate(maps, scale_factor=ENLARGE, mode="bicubic", align_corners=False)
    return enlarged.flatten(1).amax(1)
