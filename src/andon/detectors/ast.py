"""AST: a residual student regresses the latent of a normalizing flow; where it cannot, the picture is anomalous.

Paper: Rudolph, Wehrbein, Rosenhahn, Wandt: Asymmetric Student-Teacher Networks for Industrial Anomaly Detection,
arXiv 2210.07829. The teacher T is a flow trained by maximum likelihood on features of good pictures (Eq. 2), the student S
an ordinary network of another kind trained on the teacher's output (Eq. 3). Two alike networks would err alike away
from the training pictures; these do not, and their squared distance is the anomaly map.

Published numbers come from the paper's code. Where the two differ (LeakyReLU slope) the code's way is the default.
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
from andon.features import FeatureCache
from andon.layers.adapter import FeatureAdapter
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.positional import positional_encoding
from andon.layers.student import ResidualStudent
from andon.structures import Record
from andon.training import Draw, EarlyStopping, OptimiserConfig, Trainer

POSITION_CHANNELS = 32
CHUNK = 8
"""Pictures that are computed at once where nothing is learned."""


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
    kernels: tuple[Literal[1, 3, 5, 7], ...] = (3, 3, 3, 5)
    """Kernel size of each coupling block."""
    clamp: Amount = 3.0
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
    """Negative slope of the LeakyReLU (paper: 0.2, code: 0.01)."""
    epochs: Count = 240
    """Passes over the training pictures."""


class MapConfig(Config):
    """From differences to scores."""

    score: Literal["mean", "max"] = "mean"
    """Image score: mean of the map over all its cells, or the maximum of the enlarged map."""
    enlarge: Literal["bicubic", "none"] = "bicubic"
    """Enlarge the map eight times before its maximum is taken (final evaluation of the code), or take the cells as they are."""


class ASTConfig(DetectorConfig):
    """Settings of AST; the defaults are those for MVTec AD."""

    extractor: ExtractorConfig = ExtractorConfig(
        network="tf_efficientnet_b5",
        weights="tf_efficientnet_b5.aa_in1k",
        taps=("blocks.5",),
        image_size=768,
        static_same_padding=True,
    )
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    maps: MapConfig = MapConfig()
    batch_size: Count = 8
    """Pictures of a step."""
    drop_last: bool = False
    """Leave the incomplete last batch of an epoch out, as published."""
    teacher_optimiser: OptimiserConfig = OptimiserConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    """Of the student."""
    patience: Count = 10
    """Epochs without improvement that end training where `selection` judges epochs."""


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
        enlarged = " (enlarged eight times)" if self.config.maps.enlarge == "bicubic" else ""
        return "mean of the map" if self.config.maps.score == "mean" else f"maximum of the map{enlarged}"

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        with trainer.timed("features"):
            features = self._load(train, trainer, fit=True)
            held_out = self._load(validation, trainer, fit=False)
        c = self.config
        judge = c.selection == "validation"
        self._minimise(
            "teacher",
            self.teacher_loss,
            features,
            held_out,
            c.teacher.epochs,
            c.teacher_optimiser,
            trainer,
            judge,
        )
        self._minimise(
            "student", self.student_loss, features, held_out, c.student.epochs, c.optimiser, trainer, judge
        )

    def _load(self, records: Sequence[Record], trainer: Trainer, *, fit: bool) -> Tensor:
        """Features (N, C, h, w) of all records, on the CPU."""
        what = "training features" if fit else "validation features"
        raw = FeatureCache(self.extractor).load(records, progress=trainer.progress, what=what)
        if fit:
            self.adapter.fit(raw)
        return self.adapter.transform(raw)

    def _minimise(
        self,
        stage: Literal["teacher", "student"],
        loss: Callable[[Tensor], Tensor],
        features: Tensor,
        held_out: Tensor,
        epochs: int,
        optimiser: OptimiserConfig,
        trainer: Trainer,
        judge: bool,
    ) -> None:
        """Train one of the two networks on features of good pictures."""

        def step(draw: Draw) -> Mapping[str, Tensor]:
            return {stage: loss(features[draw.indices].to(trainer.device))}

        def measure() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [float(loss(f.to(trainer.device))) * len(f) for f in torch.split(held_out, CHUNK)]
            return {stage: sum(parts) / len(held_out)}

        trainer.minimise(
            stage,
            step,
            {stage: cast("torch.nn.Module", getattr(self, stage))},
            trainer.sampler(stage, len(features), self.config.batch_size, drop_last=self.config.drop_last),
            epochs=epochs,
            optimiser=optimiser,
            stopping=EarlyStopping(measure, self.config.patience, higher_is_better=False) if judge else None,
        )

    def teacher_loss(self, f: Tensor) -> Tensor:
        """Negative log-likelihood (AST Eq. 2), summed over channels, averaged over cells and pictures."""
        return negative_log_likelihood(*self.flow(f)).mean()

    def student_loss(self, f: Tensor) -> Tensor:
        """Squared distance to the teacher (AST Eq. 3), averaged over channels, cells and pictures."""
        with torch.no_grad():
            z = self.flow(f)[0]
        return self.distance(z, f).mean()

    # Answering -----------------------------------------------------------------------------------------------------

    def flow(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, h, w) to the latent z and log|det| per cell (B, h, w)."""
        return cast("tuple[Tensor, Tensor]", self.teacher(f, self.position.expand(len(f), -1, -1, -1)))

    def distance(self, z: Tensor, f: Tensor) -> Tensor:
        """Channel mean of the squared difference between the latent z and the student's answer to f, (B, 1, h, w)."""
        s = self.student(
            torch.cat([self.position.expand(len(f), -1, -1, -1), f], 1)
        )  # the condition comes first
        return cast("Tensor", (z - s.float()).square().mean(1, keepdim=True))

    def analyse(self, images: Tensor) -> Analysis:
        f = self.adapter.transform(self.extractor(images))
        z, log_det = self.flow(f)
        cells, likelihood = self.distance(z, f), negative_log_likelihood(z, log_det)[:, None]
        anomaly_map, teacher_map = self.enlarged(cells), self.enlarged(likelihood)
        extras = {
            "mean": cells.mean((1, 2, 3)),
            "max": anomaly_map.amax((1, 2, 3)),
            "teacher_mean": likelihood.mean((1, 2, 3)),
            "teacher_max": teacher_map.amax((1, 2, 3)),
        }
        return Analysis(anomaly_map, extras[self.config.maps.score], extras)

    def enlarged(self, cells: Tensor) -> Tensor:
        """(B, 1, h, w) to (B, 1, 8 h, 8 w), bicubic; as it is where the settings say so."""
        if self.config.maps.enlarge == "none":
            return cells
        return F.interpolate(cells, scale_factor=8.0, mode="bicubic", align_corners=False)
