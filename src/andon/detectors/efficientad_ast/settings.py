"""Settings of EfficientAD-AST: every switch between the published code and its repair, and the variants (V1 to V10)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from andon.core.config import Amount, Config, Count, Share
from andon.core.errors import ConfigError
from andon.detectors._depth import AdaptedExtractorConfig, DepthDetectorConfig
from andon.detectors.efficientad_ast.further_students import StudentKind
from andon.nn.training import OptimiserConfig

OddKernel = Literal[1, 3, 5, 7]
Cells = Annotated[int, Field(ge=0, le=64)]


class ExtractorConfig(AdaptedExtractorConfig):
    """The frozen feature extractor."""

    mode: Literal["eval", "train"] = "eval"
    """D1, D2: `train` gives student and autoencoder private copies that run, and drift, in train mode as published."""
    light: tuple[Amount, ...] = ()
    """Brightness factors of further copies of every training image, e.g. [0.8, 1.2]; lamps age (mode `eval` only)."""


class TeacherConfig(Config):
    """The flow."""

    hidden: Count = 1024
    """Width of the coupling networks."""
    kernels: tuple[OddKernel, ...] = (3, 3, 3, 5)
    """Kernel size of each coupling block."""
    clamp: float = 3.0
    """Soft bound of the log-scales (alpha)."""
    epochs: Count = 240
    """Passes over the training images, where the flow is not a ready one."""
    weights: str | None = None
    """V4: a ready flow from the weight store (`andon pretrain flow`), used as it is; None = learn one from the good images."""
    fine_tune: Annotated[int, Field(ge=0, strict=True)] = 0
    """Optimiser steps on the good images that a ready flow is adapted with; 0 = it stays as it is."""
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
    """D16: only the elements above this quantile of (z - S1)² are learned from; 0 = all, EfficientAD: 0.999."""
    hard_terms: Literal["student", "both"] = "student"
    """V8: `both` learns from the hardest elements of (A - S2)² alone, too."""
    loss: Literal["mse", "ast"] = "mse"
    """`ast` sums over the channels as AST's equation does, `mse` takes their mean: the weight against the other terms differs."""
    penalty: Amount = 1.0
    """Weight of the out-of-class penalty mean S1(P)²; 0 switches it off."""
    penalty_statistics: Literal["frozen", "shared"] = "frozen"
    """D3: `shared` lets penalty images into the BatchNorm statistics, as published."""


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
    """Out-of-class images."""

    folder: str | None = None
    """Folder of photographs; None = procedural images."""
    zoom: bool = True
    """D15: resize to twice the size and keep the centre; off = the whole image, as published."""
    colour: Literal["grey", "tint"] = "grey"
    """D15: how a share of the images loses its colour; `tint` does it after normalisation, as published."""
    grey_share: float = 0.3
    """Share of the images without colour."""
    draw: Literal["each_step", "fixed"] = "each_step"
    """D15, D19: `fixed` draws one subset as large as the training set; the shorter of the two ends the epoch, as published."""


class MapConfig(Config):
    """From differences to scores."""

    normalise: Literal["quantile", "none"] = "quantile"
    """D8: bring both maps to one scale by their 0.9 and 0.995 quantiles on held-out good images."""
    pad: Cells = 0
    """Cells of value 0 put around the map before it is enlarged, which shifts it inwards (thesis, before its step 14: 4)."""
    score: Literal["mean", "max", "topk"] = "mean"
    """D7: image score = mean of the map, its maximum after enlarging to the input size, or the mean of its largest 1 % cells."""
    score_map: Literal["student", "combined"] = "student"
    """Map the image score is taken from: that of S1 alone, or the sum of both."""


class OthersConfig(Config):
    """V3: further students."""

    kinds: tuple[StudentKind, ...] = ()
    """Students beside the published one, each learned by itself; the map is then error plus spread of all of them."""
    width: Count = 512
    """Their width."""


class BankConfig(Config):
    """V7: what the nearest good features say, as an input of the student."""

    inputs: Literal["none", "residual", "distances", "neighbours"] = "none"
    """The difference to the nearest, the distances of the three nearest, or their mean in place of the features."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the cells the bank keeps."""


class LabelsConfig(Config):
    """V5: what labelled defects (`--labelled`) are used for while learning; 0 and off: nothing."""

    margin: Amount = 0.0
    """Weight of the term that keeps the student wrong on defective cells (0.1)."""
    boundary: Amount = 0.0
    """Weight of the term that keeps defective cells unlikely under the flow (1)."""
    head: bool = False
    """Turn the maps into one by a logistic regression learned from defective and good cells."""


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
    others: OthersConfig = OthersConfig()
    bank: BankConfig = BankConfig()
    labels: LabelsConfig = LabelsConfig()
    epochs: Count = 100
    """Passes over the training images for student and autoencoder."""
    max_steps: Count | None = None
    """Steps a stage takes at most, in whole epochs (one at least): a large folder need not take longer than a small one."""
    batch_size: Count = 8
    """Images of a step."""
    augment: bool = False
    """Show student and autoencoder a random crop, flip and colour of each image at each step; extracted anew, so slow."""
    drop_last: bool = False
    """D18: leave the incomplete last batch of an epoch out, as published."""
    teacher_optimiser: OptimiserConfig = OptimiserConfig(decay_last=0.05)
    optimiser: OptimiserConfig = OptimiserConfig(decay_last=0.05)
    patience: Count = 10
    """Epochs without improvement that end training where `selection` judges epochs (D9)."""


def check_settings(c: EfficientADASTConfig) -> None:
    """Raise `ConfigError` for settings that exclude each other."""
    if c.mode != "rgb":
        _check_depth(c)
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
    if c.teacher.weights is not None and (c.teacher.normalise != "channel" or not c.extractor.standardise):
        raise ConfigError(
            "a ready flow (teacher.weights) gives latents of unknown scale from features scaled as it learned them: set "
            "teacher.normalise=channel and extractor.standardise=true"
        )


def _check_depth(c: EfficientADASTConfig) -> None:
    """V1 is a configuration of the corrected model: depth goes with none of the other variants."""
    others = {
        "extractor.mode=eval": c.extractor.mode == "train",
        "augment=false": c.augment,
        "bank.inputs=none": c.bank.inputs != "none",
        "others.kinds=[]": bool(c.others.kinds),
        "labels.margin=0, labels.boundary=0, labels.head=false": bool(
            c.labels.margin or c.labels.boundary or c.labels.head
        ),
        "teacher.weights=null": c.teacher.weights is not None,
        "student.penalty=0 (penalty pictures have no depth)": c.mode == "depth" and c.student.penalty > 0,
        "extractor.light=[] (a lamp does not change depth)": c.mode == "depth" and bool(c.extractor.light),
    }
    wrong = [setting for setting, on in others.items() if on]
    if wrong:
        raise ConfigError(f"mode={c.mode} looks at depth as well: set {', '.join(wrong)}")
