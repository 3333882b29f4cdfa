"""AST: a residual student regresses the latent of a normalizing flow; where it cannot, the picture is anomalous.

Paper: Rudolph, Wehrbein, Rosenhahn, Wandt: Asymmetric Student-Teacher Networks for Industrial Anomaly Detection,
arXiv 2210.07829. The teacher T is a flow trained by maximum likelihood on features of good pictures (Eq. 2), the student S
an ordinary network of another kind trained on the teacher's output (Eq. 3). Two alike networks would err alike away
from the training pictures; these do not, and their squared distance is the anomaly map.

With depth (spec 2.4) the depth of the part's surface, unshuffled to the grid of the features, is looked at alone
or beside them, and the foreground mask weighs losses and map.

Published numbers come from the paper's code. Where the two differ (LeakyReLU slope, soft mask) the code's way is the
default. In its evaluation the mask weighs the map twice; a hard mask makes no difference there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from andon.backbones import Backbone, BackboneConfig
from andon.config import Amount, Config, Count
from andon.datasets.depth import network_planes
from andon.detector import Analysis, Detector, DetectorConfig, weight_lines
from andon.errors import ConfigError
from andon.features import FeatureCache
from andon.images import load_depth
from andon.layers.adapter import FeatureAdapter
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.positional import positional_encoding
from andon.layers.student import ResidualStudent
from andon.structures import Record
from andon.training import Draw, EarlyStopping, OptimiserConfig, Trainer

POSITION_CHANNELS = 32
CHUNK = 8
"""Pictures that are computed at once where nothing is learned."""
ENLARGE = 8
"""Enlargement of the map before its maximum is taken, as in the authors' evaluation."""


class ExtractorConfig(BackboneConfig):
    """The frozen feature extractor."""

    project: Count | None = None
    """Reduce the features to this many channels by a fixed random orthonormal projection."""
    standardise: bool = False
    """Scale each feature channel to mean 0 and deviation 1 over the training pictures."""


class DepthConfig(Config):
    """The point cloud, in the modes `depth` and `combined`."""

    side: int = Field(default=192, ge=8, le=2048)
    """Both sides of the depth map are forced to this many pixels."""
    cell: Count = 8
    """Depth values of a feature cell, in each direction; they become cell² channels. Divides `side`."""
    distance: Amount = 7e-3
    """Metres that part and background are apart at least."""
    dilate: Count = 8
    """Side, in pixels of the depth map, of the square the foreground is widened with."""
    mask: Literal["soft", "binary"] = "soft"
    """Weight of a cell: share of the foreground around its centre, or (paper) 1 where there is any."""


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


class ASTConfig(DetectorConfig):
    """Settings of AST; the defaults are those for MVTec AD."""

    mode: Literal["rgb", "depth", "combined"] = "rgb"
    """What is looked at: the picture, the point cloud beside it, or both."""
    extractor: ExtractorConfig = ExtractorConfig(
        network="tf_efficientnet_b5",
        weights="tf_efficientnet_b5.aa_in1k",
        taps=("blocks.5",),
        image_size=768,
        static_same_padding=True,
    )
    depth: DepthConfig = DepthConfig()
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
    """Epochs without improvement that end training where `selection` judges epochs."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the two networks see of some pictures."""

    f: Tensor
    """(B, C, h, w) features, depth, or both."""
    mask: Tensor
    """(B, 1, h, w) weight of each cell in [0, 1]; 1 where there is no depth."""

    def at(self, indices: Tensor, device: torch.device) -> Inputs:
        """Some of them, on a device."""
        return Inputs(self.f[indices].to(device), self.mask[indices].to(device))


class AST(Detector):
    """Flow teacher and residual student; see the module's docstring."""

    Config = ASTConfig
    config: ASTConfig
    position: Tensor

    def __init__(self, config: ASTConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        c = self.config
        self.extractor: Backbone | None = None
        self.adapter: FeatureAdapter | None = None
        channels, grid = 0, (c.depth.side // c.depth.cell, c.depth.side // c.depth.cell)
        if c.mode != "depth":
            self.extractor = Backbone.create(c.extractor, pretrained=pretrained)
            self.adapter = FeatureAdapter(
                self.extractor.shapes, project=c.extractor.project, standardise=c.extractor.standardise
            )
            channels, *cells = self.adapter.shape
            self.used_weights = weight_lines(self.extractor)
            if c.mode == "combined":
                _check_grids(c, (cells[0], cells[1]))
            grid = cells[0], cells[1]
        if c.mode != "rgb":
            _check_cells(c.depth)
            channels += c.depth.cell**2
        if channels < 2:
            raise ConfigError(
                "the flow splits the features in two and needs at least 2 channels: choose another tap"
            )
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
    def input_size(self) -> tuple[int, int]:
        side = self.config.depth.side if self.config.mode == "depth" else self.config.extractor.image_size
        return side, side

    @property
    def input_channels(self) -> int:
        return 3 if self.config.mode == "rgb" else 5

    @property
    def depth_planes(self) -> Callable[[npt.NDArray[np.float32]], Tensor] | None:
        """Depth and foreground as two further channels, each value repeated up to the size of the picture."""
        return None if self.config.mode == "rgb" else self._planes_at_input_size

    def _planes_at_input_size(self, points: npt.NDArray[np.float32]) -> Tensor:
        repeat = self.input_size[0] // self.config.depth.side
        return self._planes(points).repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)

    def _planes(self, points: npt.NDArray[np.float32]) -> Tensor:
        c = self.config.depth
        return torch.from_numpy(network_planes(points, c.side, distance=c.distance, dilate=c.dilate))

    @property
    def score_rule(self) -> str:
        return "mean of the map" if self.config.score == "mean" else "maximum of the map, enlarged eightfold"

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        with trainer.timed("features"):
            features = self._load(train, trainer, fit=True)
            held_out = self._load(validation, trainer, fit=False)
        self._minimise("teacher", self.teacher_loss, features, held_out, trainer)
        self._minimise("student", self.student_loss, features, held_out, trainer)

    def _load(self, records: Sequence[Record], trainer: Trainer, *, fit: bool) -> Inputs:
        """What the two networks see of all records, on the CPU."""
        planes = None
        if self.config.mode != "rgb":
            side = self.config.depth.side
            read = load_depth(records, self._planes, progress=trainer.progress) if records else None
            planes = torch.empty(0, 2, side, side) if read is None else read
        colours = None
        if self.extractor is not None and self.adapter is not None:
            what = "training features" if fit else "validation features"
            raw = FeatureCache(self.extractor).load(records, progress=trainer.progress, what=what)
            if fit:
                self.adapter.fit(raw)
            colours = self.adapter.transform(raw)
        return self.joined(colours, planes)

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
                chunks = torch.split(torch.arange(len(held_out.f)), CHUNK)
                parts = [float(loss(held_out.at(chunk, trainer.device))) * len(chunk) for chunk in chunks]
            return {stage: sum(parts) / len(held_out.f)}

        stopping = None
        if c.selection == "validation":
            stopping = EarlyStopping(measure, c.patience, higher_is_better=False)
        elif c.selection in {"labels", "test"} and stage == "student":
            stopping = EarlyStopping(
                lambda: self.test_auroc(trainer.selection), c.patience, higher_is_better=True
            )
        trainer.minimise(
            stage,
            step,
            {stage: self.teacher if stage == "teacher" else self.student},
            trainer.sampler(stage, len(inputs.f), c.batch_size, drop_last=c.drop_last),
            epochs=c.teacher.epochs if stage == "teacher" else c.student.epochs,
            optimiser=c.optimiser,
            stopping=stopping,
        )

    def teacher_loss(self, inputs: Inputs) -> Tensor:
        """Negative log-likelihood (AST Eq. 2), summed over channels, weighed by the mask, averaged over cells and pictures."""
        return (negative_log_likelihood(*self.flow(inputs.f))[:, None] * inputs.mask).mean()

    def student_loss(self, inputs: Inputs) -> Tensor:
        """Squared distance to the teacher (AST Eq. 3), averaged over channels, weighed by the mask, averaged over the rest."""
        with torch.no_grad():
            z = self.flow(inputs.f)[0]
        return (self.distance(z, inputs.f) * inputs.mask).mean()

    # Answering -----------------------------------------------------------------------------------------------------

    def joined(self, colours: Tensor | None, planes: Tensor | None) -> Inputs:
        """Features (B, C, h, w) and depth with foreground (B, 2, side, side), where there are such, as the networks see them."""
        if planes is None:
            assert colours is not None
            return Inputs(colours, colours.new_ones(colours.shape[0], 1, *colours.shape[2:]))
        depth = F.pixel_unshuffle(planes[:, :1], self.config.depth.cell)
        f = depth if colours is None else torch.cat([colours, depth], 1)
        mask = F.interpolate(planes[:, 1:], size=f.shape[2:], mode="bilinear", align_corners=False)
        return Inputs(f, mask if self.config.depth.mask == "soft" else (mask > 0).to(f.dtype))

    def flow(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, h, w) to the latent z and log|det| per cell (B, h, w)."""
        return cast("tuple[Tensor, Tensor]", self.teacher(f, self.position.expand(f.shape[0], -1, -1, -1)))

    def distance(self, z: Tensor, f: Tensor) -> Tensor:
        """Channel mean of the squared difference between the latent z and the student's answer to f, (B, 1, h, w)."""
        s = self.student(
            torch.cat([self.position.expand(f.shape[0], -1, -1, -1), f], 1)
        )  # the condition comes first
        return cast("Tensor", (z - s.float()).square().mean(1, keepdim=True))

    def inputs(self, images: Tensor) -> Inputs:
        """(B, 3 or 5, H, W) as `analyse` gets them, to what the networks see."""
        colours = None
        if self.extractor is not None and self.adapter is not None:
            colours = self.adapter.transform(self.extractor(images[:, :3]))
        if self.config.mode == "rgb":
            return self.joined(colours, None)
        step = self.input_size[0] // self.config.depth.side
        return self.joined(colours, images[:, 3:, ::step, ::step])

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


def _check_cells(c: DepthConfig) -> None:
    if c.side % c.cell:
        raise ConfigError(f"depth.cell={c.cell} does not divide depth.side={c.side}: choose a divisor of it")


def _check_grids(c: ASTConfig, grid: tuple[int, int]) -> None:
    """Depth map and features must meet cell by cell, and the depth map must fit into the picture's pixels."""
    side, size, cell = c.depth.side, c.extractor.image_size, c.depth.cell
    if grid != (side // cell, side // cell):
        raise ConfigError(
            f"features have {grid[0]} x {grid[1]} cells, the depth map {side // cell} x {side // cell}: set "
            f"depth.side={grid[0] * cell}, or another depth.cell"
        )
    if size % side:
        raise ConfigError(
            f"extractor.image_size={size} is no multiple of depth.side={side}: set depth.cell to a divisor of {size // grid[0]}"
        )
