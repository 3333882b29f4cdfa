"""The patch-description teacher of EfficientAD, made by distillation (arXiv 2303.14535, Algorithm 3; spec 1.5).

A small patch description network learns to say what a large classification network says about each patch. It is made
once, needs no labels and belongs to no product. Differs from the paper: any timm network, any folders of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.config import Config, Count
from andon.core.errors import ConfigError, DataError
from andon.core.files import write_bytes
from andon.core.images import batches, load_batch, resize
from andon.core.paths import cache_dir
from andon.core.progress import Progress, track
from andon.core.records import Record
from andon.layers.augment import random_view, some_grey
from andon.layers.patches import pooling_window, to_grid
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.pdn import Size, grid, pdn
from andon.nn.training import Draw, OptimiserConfig, Trainer, seeded
from andon.nn.weights import WeightEntry, add
from andon.pretraining.jobs import (
    check_name,
    clean_up,
    image_records,
    images_line,
    note_settings,
    resumable,
)

REDUCED = 1024
"""Numbers a tap's 3 x 3 neighbourhood is pooled to before all taps are pooled to the description."""
LOADERS = 4
"""Threads that decode the images of a step."""


class DistillationConfig(Config):
    """Settings of the distillation; the defaults are the paper's."""

    target: BackboneConfig = BackboneConfig(
        network="wide_resnet101_2",
        weights="wide_resnet101_2.tv_in1k",
        taps=("layer2", "layer3"),
        image_size=512,
    )
    """The large network; its first tap must have the grid of the teacher's padded output, so it sees twice the size."""
    size: Size = "small"
    """Layers of the teacher: that of EfficientAD-S or of EfficientAD-M."""
    width: Count | None = None
    """Channels of its first layer, None = as in the paper (128, medium 256)."""
    channels: Count = 384
    """Numbers that describe a patch."""
    image_size: Annotated[int, Field(ge=64, multiple_of=8)] = 256
    """Both sides of the teacher's images in pixels."""
    grey_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Probability with which an image loses its colour, for both networks alike."""
    smallest_crop: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """1 shows whole images (paper); less shows random crops of at least this share of the area, flips and colours."""
    statistics: Count = 10_000
    """Images the channel means are taken over, and again as many for the deviations; all where there are fewer."""
    procedural: Count = 1000
    """Procedural images that are drawn where no folder is given."""
    steps: Count = 60_000
    """Optimiser steps."""
    batch_size: Count = 16
    """Images of a step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=1e-4)
    half: bool = False
    """Store the teacher in half precision: half the size, differences of about 0.1 %."""


class PatchTarget(nn.Module):
    """What the teacher has to say: the taps of a large network as one description per patch, scaled channel by channel.

    The numbers are those of `PatchEmbedding`. All of that is linear and the same everywhere, so here, where few numbers
    are wanted of many images, it is folded into one ordinary convolution per tap (ten times faster on processors); a
    coarser tap is enlarged afterwards.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)  # twice as fast on processors
        shapes = [backbone.shapes[tap] for tap in backbone.config.taps]
        self.grid = shapes[0][1:]
        join = pooling_window(REDUCED * len(shapes), channels).chunk(
            len(shapes), dim=1
        )  # (channels, 1024) each
        for k, (part, (c, _, _)) in enumerate(zip(join, shapes, strict=True)):
            kernel = (part @ pooling_window(9 * c, REDUCED)).view(channels, c, 3, 3)
            self.register_buffer(f"kernel{k}", kernel, persistent=False)
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, channels, h, w), on the grid of the first tap."""
        features = self.backbone(images)
        out = torch.zeros(len(images), self.mean.shape[1], *self.grid, device=images.device)
        for k, tap in enumerate(self.backbone.config.taps):
            kernel: Tensor = self.get_buffer(f"kernel{k}")
            fed = kernel.flatten(1).any(1)  # a tap feeds about its share of the outputs
            out[:, fed] += to_grid(F.conv2d(features[tap], kernel[fed], padding=1).float(), self.grid)
        return (out - self.mean) / self.std


def pretrain_pdn(
    name: str,
    folders: Sequence[Path],
    config: DistillationConfig | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
    origin: str = "",
    licence: str = "",
) -> WeightEntry:
    """Distil a teacher and put it into the weight store as `name`; recipes take it as `teacher.weights`.

    `folders` are searched through for images, subfolders included; none means procedural images. After Ctrl-C
    (`InterruptedRun`) the state reached is kept, and `resume` continues to the result an uninterrupted call has. Raises
    `DataError` without images, `WeightsError` for a name that cannot be used or missing weights, `ConfigError` when the
    two networks' grids differ or `resume` finds other settings.
    """
    c = config or DistillationConfig()
    check_name(name)
    target = PatchTarget(Backbone.create(c.target), c.channels)
    cells = grid(c.image_size, padding=True)
    if tuple(target.grid) != (cells, cells):
        raise ConfigError(
            f"{c.target.network} has {target.grid[0]} x {target.grid[1]} cells at {c.target.taps[0]} for "
            f"{c.target.image_size} pixels, the teacher {cells} x {cells} for {c.image_size}: change target.image_size"
        )
    records = image_records(folders, c.procedural)
    folder = cache_dir() / "pretraining" / name
    note_settings(folder, c, seed, records, resume)
    trainer = Trainer(seed=seed, device=device, checkpoints=folder, resume=resume, progress=progress)
    target.to(trainer.device)
    _learn_statistics(target, records, c, trainer, folder / "statistics.safetensors")
    with resumable():
        network = distil(target, records, c, trainer)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    file = folder / "teacher.safetensors"
    write_bytes(file, save({key: value.half() for key, value in state.items()} if c.half else state))
    entry = add(
        file,
        name=name,
        network=f"pdn_{c.size}",
        origin=origin or _origin(target.backbone, images_line(records, folders), c),
        licence=licence
        or f"that of its pictures, and of {c.target.weights}: {target.backbone.weights.licence}",
    )
    clean_up(folder)
    return entry


def distil(
    target: PatchTarget, records: Sequence[Record], config: DistillationConfig, trainer: Trainer
) -> nn.Sequential:
    """The teacher, trained on mean (Ψ̂ - PDN)² with Ψ̂ the normalised target."""
    c = config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trainer.seed)
        network = pdn(c.size, c.width, c.channels, padding=True)
    network.to(trainer.device)
    big, small = (c.target.image_size,) * 2, (c.image_size,) * 2
    mean, std = target.backbone.mean, target.backbone.std

    with ThreadPoolExecutor(LOADERS) as pool:

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            chosen = [[records[k]] for k in draw.indices.tolist()]
            images = torch.cat([batch.image for batch in pool.map(lambda one: load_batch(one, big), chosen)])
            if c.smallest_crop < 1:
                images = random_view(images, draw.generator, scale=(c.smallest_crop, 1.0))
            images = some_grey(images, c.grey_share, draw.generator).to(trainer.device)
            with torch.no_grad():
                wanted = target(images)
            found = network((resize(images, small) - mean) / std).float()
            return {"distillation": (wanted - found).square().mean()}

        trainer.minimise(
            "distillation",
            loss,
            {"teacher": network},
            trainer.sampler("distillation", len(records), c.batch_size),
            steps=c.steps,
            optimiser=c.optimiser,
        )
    return network


def _learn_statistics(
    target: PatchTarget, records: Sequence[Record], config: DistillationConfig, trainer: Trainer, file: Path
) -> None:
    """Channel means over some images, then deviations around those means over others; kept in `file` for `resume`."""
    mean, std = target.mean, target.std
    if trainer.resume and file.is_file():
        try:
            stored = load_file(file)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file} is damaged: start anew without --resume") from error
        mean.copy_(stored["mean"])
        std.copy_(stored["std"])
        return
    order = torch.randperm(len(records), generator=seeded(trainer.seed, "statistics")).tolist()
    n = config.statistics if len(order) >= 2 * config.statistics else len(order)
    further = order[n : 2 * n] or order[:n]
    with trainer.timed("statistics"):
        mean.copy_(_average(target, [records[k] for k in order[:n]], config, trainer, power=1))
        # `target` now gives values around the mean, so that their mean square is the variance.
        std.copy_(
            _average(target, [records[k] for k in further], config, trainer, power=2).sqrt().clamp_min(1e-6)
        )
    write_bytes(file, save({"mean": mean.cpu().contiguous(), "std": std.cpu().contiguous()}))


def _average(
    target: PatchTarget,
    records: Sequence[Record],
    config: DistillationConfig,
    trainer: Trainer,
    *,
    power: int,
) -> Tensor:
    """Mean of the target's values to a power over all images and patches, (1, C, 1, 1)."""
    total = torch.zeros(config.channels, dtype=torch.float64)
    side, size = config.target.image_size, min(config.batch_size, 4)
    stream = batches(records, (side, side), size)
    for batch in track(trainer.progress, stream, "target statistics", -(-len(records) // size)):
        with torch.no_grad(), trainer.fabric.autocast():
            found = target(batch.image.to(trainer.device))
        total += found.double().pow(power).mean((2, 3)).sum(0).cpu()
    return (total / len(records)).float().view(1, -1, 1, 1)


def _origin(backbone: Backbone, pictures: str, config: DistillationConfig) -> str:
    return (
        f"andon pretrain pdn: distilled from {config.target.network} ({backbone.weights.name}: {backbone.weights.origin}) "
        f"on {pictures}, {config.steps} steps"
    )
