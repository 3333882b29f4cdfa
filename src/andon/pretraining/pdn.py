"""Distillation of EfficientAD's teacher (arXiv 2303.14535, Algorithm 3; docs/reference/models.md, "Teachers").

A patch description network (PDN) regresses the features of a large classification network at every patch, once for all
categories and without labels. Differs from the paper: any timm network, any folders of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.config import Config, Count
from andon.core.errors import ConfigError, DataError
from andon.core.files import checked, with_checksum, write_bytes
from andon.core.images import batches, load_batch, resize
from andon.core.progress import Progress, track
from andon.core.records import Record
from andon.layers.augment import random_view, some_grey
from andon.layers.patches import pooling_window, to_grid
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.pdn import LOST_CELLS, Size, grid, pdn
from andon.nn.stage import ANEW
from andon.nn.training import Draw, OptimiserConfig, Trainer, seeded
from andon.nn.weights import WeightEntry, add
from andon.pretraining.jobs import (
    check_name,
    clean_up,
    image_records,
    images_line,
    job_folder,
    note_settings,
    resumable,
)

REDUCED = 1024
"""Dimensions that the 3 x 3 neighbourhoods of each tap are pooled to before the taps are joined."""
LOADERS = 4
"""Threads that decode images."""


class DistillationConfig(Config):
    """Settings of the distillation; the defaults are the paper's."""

    target: BackboneConfig = BackboneConfig(
        network="wide_resnet101_2",
        weights="wide_resnet101_2.tv_in1k",
        taps=("layer2", "layer3"),
        image_size=512,
    )
    """The large network; its first tap must have the grid of the padded PDN, hence twice the image size."""
    size: Size = "small"
    """Layers of the PDN: EfficientAD-S or EfficientAD-M."""
    width: Count | None = None
    """Channels of the first layer; None: those of the paper (128, medium 256)."""
    channels: Count = 384
    """Output channels."""
    image_size: Annotated[int, Field(ge=64, multiple_of=8)] = 256
    """Both sides of the PDN's input in pixels."""
    padding: bool = True
    """False: the PDN runs without zero padding and only cells whose receptive field lies inside the image count."""
    grey_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Probability of conversion to grey, the same image for both networks."""
    smallest_crop: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """1: whole images (paper); less: random crops of at least this share of the area, flips and colour jitter."""
    statistics: Count = 10_000
    """Images for the channel means, and as many others for the standard deviations; all where there are fewer."""
    procedural: Count = 1000
    """Procedural images where no folder is given."""
    steps: Count = 60_000
    """Optimiser steps."""
    batch_size: Count = 16
    """Images per step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=1e-4)
    half: bool = False
    """Store the teacher in half precision: half the size, differences of about 0.1 %."""


class PatchTarget(nn.Module):
    """Distillation target Ψ̂: the patch embedding of the large network's taps, standardised per channel.

    The values are those of `PatchEmbedding`, whose linear steps are folded into one convolution per tap (ten times faster on
    CPUs for a small number of outputs); coarser taps are enlarged afterwards.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone.to(memory_format=torch.channels_last)  # twice as fast on CPUs
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
            fed = kernel.flatten(1).any(1)  # most outputs depend on one tap alone
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
    overwrite: bool = False,
    progress: Progress | None = None,
    origin: str = "",
    licence: str = "",
) -> WeightEntry:
    """Distil a teacher and put it into the weight store as `name`, for `teacher.weights`.

    `folders` are searched recursively; none means procedural images. After Ctrl-C (`InterruptedRun`) a checkpoint remains;
    `resume` continues to the same result as an uninterrupted call. Raises `DataError` without images, `WeightsError` for an
    unusable name or missing weights, `ConfigError` when the grids of the two networks differ and when the checkpoint has
    other settings. Weights of that name and a checkpoint that is not resumed are replaced with `overwrite` alone.
    """
    c = config or DistillationConfig()
    check_name(name, overwrite=overwrite)
    folder = job_folder(name, resume=resume, overwrite=overwrite)
    target = PatchTarget(Backbone.create(c.target), c.channels)
    cells = grid(c.image_size, padding=True)
    if tuple(target.grid) != (cells, cells):
        raise ConfigError(
            f"{c.target.network} has {target.grid[0]} x {target.grid[1]} cells at {c.target.taps[0]} for "
            f"{c.target.image_size} pixels, the teacher {cells} x {cells} for {c.image_size}: change target.image_size"
        )
    records = image_records(folders, c.procedural)
    note_settings(folder, c, seed, records, resume, weights=target.backbone.weights.sha256, progress=progress)
    trainer = Trainer(seed=seed, device=device, checkpoints=folder, resume=resume, progress=progress)
    target.to(trainer.device)
    with resumable():
        _learn_statistics(target, records, c, trainer, folder / "statistics.safetensors")
        network = distil(target, records, c, trainer)
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    file = folder / "teacher.safetensors"
    write_bytes(file, save({key: value.half() for key, value in state.items()} if c.half else state))
    entry = add(
        file,
        name=name,
        overwrite=overwrite,
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
    """Train the PDN on mean (Ψ̂ - PDN)², Ψ̂ the standardised target."""
    c = config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trainer.seed)
        network = pdn(c.size, c.width, c.channels, padding=c.padding)
    network.to(trainer.device)
    target_size, pdn_size = (c.target.image_size,) * 2, (c.image_size,) * 2
    mean, std = target.backbone.mean, target.backbone.std
    lost = 0 if c.padding else LOST_CELLS

    with ThreadPoolExecutor(LOADERS) as pool:

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            chosen = [[records[k]] for k in draw.indices.tolist()]
            images = torch.cat(
                [batch.image for batch in pool.map(lambda one: load_batch(one, target_size), chosen)]
            )
            if c.smallest_crop < 1:
                images = random_view(images, draw.generator, scale=(c.smallest_crop, 1.0))
            images = some_grey(images, c.grey_share, draw.generator).to(trainer.device)
            with torch.no_grad():
                wanted = target(images)[:, :, lost : target.grid[0] - lost, lost : target.grid[1] - lost]
            found = network((resize(images, pdn_size) - mean) / std).float()
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
    """Channel means over one set of images, standard deviations around them over another; kept in `file` for `resume`."""
    mean, std = target.mean, target.std
    if trainer.resume and file.is_file():
        try:
            stored = load(checked(file.read_bytes()))
            mean.copy_(stored["mean"])
            std.copy_(stored["std"])
        except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
            raise DataError(f"{file} is damaged or of other settings: {ANEW}") from error
        return
    order = torch.randperm(len(records), generator=seeded(trainer.seed, "statistics")).tolist()
    n = config.statistics if len(order) >= 2 * config.statistics else len(order)
    further = order[n : 2 * n] or order[:n]
    with trainer.timed("statistics"):
        mean.copy_(_average(target, [records[k] for k in order[:n]], config, trainer, power=1))
        # `target` is centred from here on: its mean square is the variance.
        std.copy_(
            _average(target, [records[k] for k in further], config, trainer, power=2).sqrt().clamp_min(1e-6)
        )
    content = save({"mean": mean.cpu().contiguous(), "std": std.cpu().contiguous()})
    write_bytes(file, with_checksum(content))


def _average(
    target: PatchTarget,
    records: Sequence[Record],
    config: DistillationConfig,
    trainer: Trainer,
    *,
    power: int,
) -> Tensor:
    """Mean of target**power over all images and patches, (1, C, 1, 1)."""
    total = torch.zeros(config.channels, dtype=torch.float64)
    side, size = config.target.image_size, min(config.batch_size, 4)
    stream = batches(records, (side, side), size)
    for batch in track(trainer.progress, stream, "target statistics", -(-len(records) // size)):
        with torch.no_grad(), trainer.autocast():
            found = target(batch.image.to(trainer.device))
        total += found.double().pow(power).mean((2, 3)).sum(0).cpu()
    return (total / len(records)).float().view(1, -1, 1, 1)


def _origin(backbone: Backbone, images: str, config: DistillationConfig) -> str:
    return (
        f"andon pretrain pdn: distilled from {config.target.network} ({backbone.weights.name}: {backbone.weights.origin}) "
        f"on {images}, {config.steps} steps"
    )
