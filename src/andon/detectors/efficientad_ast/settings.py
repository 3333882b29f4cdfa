"""Settings of EfficientAD-AST; D1 to D19 are the defects of the published code, numbered in docs/reference/models.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from andon.core.config import Amount, Config, Count, Share
from andon.core.errors import ConfigError
from andon.detectors._depth import AdaptedExtractorConfig, DepthDetectorConfig
from andon.nn.training import OptimiserConfig

OddKernel = Literal[1, 3, 5, 7]
Cells = Annotated[int, Field(ge=0, le=64)]


class ExtractorConfig(AdaptedExtractorConfig):
    """The frozen feature extractor."""

    mode: Literal["eval", "train"] = "eval"
    """D1, D2: `train` gives student and autoencoder private extractors in train mode, whose statistics drift, as published."""
    brightness: tuple[Amount, ...] = ()
    """Brightness augmentation: factors of further copies of every training image, e.g. [0.8, 1.2] (mode `eval` only)."""


class TeacherConfig(Config):
    """The normalizing flow."""

    hidden: Count = 1024
    """Width of the coupling networks."""
    kernels: tuple[OddKernel, ...] = (3, 3, 3, 5)
    """Kernel size of each coupling block."""
    clamp: float = 3.0
    """Soft bound of the log-scales (alpha)."""
    epochs: Count = 240
    """Passes over the training images."""
    normalise: Literal["none", "channel"] = "none"
    """`channel` scales each latent channel to mean 0 and deviation 1 over the training images."""


class StudentConfig(Config):
    """The student."""

    width: Count = 1024
    """Channels of the residual blocks."""
    blocks: Count = 4
    """Number of residual blocks."""
    slope: Amount = 0.01
    """Negative slope of the LeakyReLU (AST's paper: 0.2, all code: 0.01)."""
    p_hard: Share = 0.0
    """D16: only elements above this quantile of (z - S1)² count in the loss; 0 = all, EfficientAD: 0.999."""
    loss: Literal["mse", "ast"] = "mse"
    """`ast` sums (z - S1)² over the channels as AST does, `mse` takes the mean; the weight against the other terms differs."""
    penalty: Amount = 1.0
    """Weight of the penalty mean S1(P)² on out-of-class images P; 0 switches it off."""
    penalty_statistics: Literal["frozen", "shared"] = "frozen"
    """D3: `shared` lets penalty images into the student's BatchNorm statistics, as published."""


class AutoencoderConfig(Config):
    """The autoencoder."""

    layout: Literal["bottleneck", "published"] = "bottleneck"
    """D5, D6: `published` has no bottleneck, and decodes to an eightfold grid that is averaged back."""
    bottleneck: Count = 64
    """Size of the bottleneck vector (layout `bottleneck`)."""
    head: Literal["linear", "relu_dropout"] = "linear"
    """D4: `relu_dropout` ends in ReLU and dropout as published, so that negative targets cannot be reached."""
    target: Literal["flow", "features"] = "flow"
    """What is reconstructed: the latent z, or the features before the flow (z is whitened, so little of it is predictable)."""
    stop_gradient: bool = False
    """D17: no gradient of the student-autoencoder loss into the autoencoder."""


class PenaltyConfig(Config):
    """Out-of-class images."""

    folder: str | None = None
    """Folder of photographs; None = procedural images."""
    zoom: bool = True
    """D15: resize to twice the size and crop the centre; off = the whole image, as published."""
    colour: Literal["grey", "tint"] = "grey"
    """D15: how a share of the images loses its colour; `tint` does it after normalisation, as published."""
    grey_share: float = 0.3
    """Share of the images without colour; always the same ones, but drawn anew at each step with extractor.mode=train."""
    draw: Literal["each_step", "fixed"] = "each_step"
    """D15, D19: `each_step` draws from all images, with replacement. `fixed`, as published: one subset as large as the training
    set, each image once per epoch, and the smaller of the two sets ends the epoch."""


class MapConfig(Config):
    """From differences to scores."""

    normalise: Literal["quantile", "none"] = "quantile"
    """D8: bring both maps to one scale by their 0.9 and 0.995 quantiles on held-out good images."""
    pad: Cells = 0
    """Cells of value 0 around the map before it is enlarged, which shifts it inwards (thesis, before its step 14: 4)."""
    score: Literal["mean", "max", "topk"] = "mean"
    """D7: image score = mean of the map, its maximum after enlarging to the input size, or the mean of its largest 1 % cells."""
    score_map: Literal["student", "combined"] = "student"
    """Map the image score is taken from: that of S1 alone, or the mean of both."""
    second: Literal["autoencoder", "likelihood"] = "autoencoder"
    """Map beside that of S1: (A - S2)², or the negative log-likelihood under the flow."""


class EfficientADASTConfig(DepthDetectorConfig):
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
    """Passes over the training images for student and autoencoder."""
    max_steps: Count | None = None
    """Most steps of a stage, in whole epochs (at least one), so that a large folder need not take longer than a small one."""
    batch_size: Count = 8
    """Images of a step."""
    augment: bool = False
    """Random crop, flip and colour of each image at each step for student and autoencoder; features are not cached, so slow."""
    drop_last: bool = False
    """D18: leave the incomplete last batch of an epoch out, as published."""
    teacher_optimiser: OptimiserConfig = OptimiserConfig(decay_last=0.05)
    optimiser: OptimiserConfig = OptimiserConfig(decay_last=0.05)
    patience: Count = 10
    """Epochs without improvement that end training where `selection` judges epochs (D9)."""

    def check(self) -> None:
        """Raise `ConfigError` for settings that exclude each other."""
        if self.mode != "rgb":
            wrong = [setting for setting, on in self.excluded_by_depth().items() if on]
            if wrong:
                raise ConfigError(f"mode={self.mode} looks at depth as well: set {', '.join(wrong)}")
        if self.extractor.mode == "train" and self.extractor.brightness:
            raise ConfigError(
                "extractor.brightness needs extractor.mode=eval: train mode shows every picture once, as it is"
            )

    def excluded_by_depth(self) -> dict[str, bool]:
        """Value that a setting must have beside depth, and whether it has another one."""
        alone = self.mode == "depth"
        return {
            "extractor.mode=eval": self.extractor.mode == "train",
            "augment=false": self.augment,
            "student.penalty=0 (penalty pictures have no depth)": alone and self.student.penalty > 0,
            "extractor.brightness=[] (brightness does not change depth)": alone
            and bool(self.extractor.brightness),
        }
