"""Settings of Uninformed Students and of the distillation of its teachers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from andon.core.config import Amount, Config, Count, Seed, Share
from andon.detectors._base import DetectorConfig
from andon.detectors.uninformed_students.networks import Patch
from andon.nn.backbones import BackboneConfig
from andon.nn.training import OptimiserConfig

Side = Annotated[int, Field(ge=64, multiple_of=8, strict=True)]


class TeacherConfig(Config):
    """Distillation of the teachers (Sec. 3.1); done once per setting and kept between runs."""

    folder: str | None = None
    """Folder of photographs unrelated to the product; None = procedural images."""
    image_size: Side = 512
    """Both sides of these images are resized to this many pixels before windows are cropped."""
    grey_share: Share = 0.1
    """Probability that a crop is converted to grey."""
    knowledge: Amount = 1.0
    """Weight of L_k, knowledge distillation from the large network."""
    metric: Amount = 0.0
    """Weight of L_m, metric learning by a triplet loss."""
    compactness: Amount = 1.0
    """Weight of L_c, descriptor compactness."""
    correlation: Literal["dimensions", "samples"] = "dimensions"
    """What L_c decorrelates: the dimensions of the descriptor, or the crops of a batch (as re-implementations do)."""
    steps: Count = 50_000
    """Optimiser steps."""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 64
    """Crops per optimiser step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=2e-4)
    seed: Seed = 0
    """Seed of the distillation alone: one teacher serves all categories and all seeds of the students."""


class UninformedStudentsConfig(DetectorConfig):
    """Settings of Uninformed Students; the defaults are the paper's."""

    extractor: BackboneConfig = BackboneConfig(
        network="resnet18", weights="resnet18.tv_in1k", taps=("layer4",), image_size=224
    )
    """The large network; crops are enlarged to its `image_size`, its features are averaged over positions."""
    fields: tuple[Patch, ...] = Field((17, 33, 65), min_length=1)
    """Receptive fields p in pixels, each with its own teacher and students; their maps are averaged."""
    image_size: Side = 256
    """Both sides of the image are resized to this many pixels."""
    grid: Literal["dense", "strided"] = "dense"
    """A descriptor per pixel, or one per stride of the patch network (p = 17: 1, 33: 4, 65: 8), at random offsets in training."""
    width: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Channels of the hidden layers, as a share of the paper's."""
    descriptor: Count = 128
    """Dimensions of a descriptor."""
    students: Count = 3
    """Students M of each receptive field."""
    teacher: TeacherConfig = TeacherConfig()
    epochs: Count = 100
    """Passes over the training images."""
    steps: Count | None = None
    """Optimiser steps of the students of a receptive field, whatever the number of images; None = `epochs` passes."""
    batch_size: Count = 1
    """Images per optimiser step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=1e-4)
    patience: Count = 10
    """Epochs without improvement after which training ends with `selection: validation`."""
