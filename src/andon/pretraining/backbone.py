"""Pretraining of a backbone by classification (docs/reference/models.md, "Teachers").

A folder with subfolders is a classification task, a subfolder a class. In a folder without subfolders every image is a class
of its own, recognised through random views (Dosovitskiy et al., Discriminative unsupervised feature learning with exemplar
convolutional neural networks, arXiv 1406.6909); so is every procedural image. All tasks share the network; each has a linear
layer on the mean of the last feature map. Training may start from existing weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.config import Config, Count
from andon.core.errors import DataError
from andon.core.files import write_bytes
from andon.core.images import load_batch
from andon.core.progress import Progress, track
from andon.core.records import Record
from andon.layers.augment import random_view, some_grey
from andon.nn.backbones import Backbone, BackboneConfig, check_state
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

LOADERS = 4
"""Threads that decode images."""
HELD_OUT = 20
"""Every so many images of a class, one is held out to measure the accuracy."""


class BackbonePretrainingConfig(Config):
    """Settings of the pretraining; the defaults continue from the embedded weights."""

    network: str = "resnet18"
    """timm architecture, without tag."""
    start: str = "starter"
    """Initial weights, or `random`."""
    last: str = "layer3"
    """Last module that is trained; later ones are dropped."""
    image_size: Annotated[int, Field(ge=32)] = 160
    """Both sides of the images in pixels."""
    smallest_crop: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Least share of the image area in a random crop."""
    jitter: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    """Largest relative change of brightness, contrast and saturation."""
    grey_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Probability of conversion to grey."""
    procedural: Annotated[int, Field(ge=0)] = 1000
    """Procedural images in addition to the folders, or instead of them."""
    statistics: Count = 2000
    """Uncropped images for the final BatchNorm statistics."""
    steps: Count = 20_000
    """Optimiser steps."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images per step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=2e-4, weight_decay=1e-4)


@dataclass(frozen=True, slots=True)
class Tasks:
    """Classification tasks over one list of images."""

    records: list[Record]
    classes: list[int]
    """Class of each image."""
    task_of: list[int]
    """Task of each class."""
    held_out: list[int]
    """Indices of held-out images."""


class Classifier(nn.Module):
    """(B, 3, H, W) images in [0, 1] and their tasks (B,) to logits (B, classes), -inf for classes of other tasks."""

    mean: Tensor
    std: Tensor
    task_of: Tensor

    def __init__(self, backbone: Backbone, task_of: Sequence[int]) -> None:
        super().__init__()
        self.trunk = backbone.trunk.requires_grad_(True)
        self.tap = backbone.config.taps[0]
        self.head = nn.Linear(backbone.shapes[self.tap][0], len(task_of))
        self.register_buffer("mean", backbone.mean, persistent=False)
        self.register_buffer("std", backbone.std, persistent=False)
        self.register_buffer("task_of", torch.tensor(task_of), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """(B, C, h, w) output of the last module."""
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        last: Tensor = self.trunk(x)[self.tap]
        return last

    def forward(self, images: Tensor, tasks: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean((2, 3))).float()
        return logits.masked_fill(self.task_of != tasks[:, None], -torch.inf)


def pretrain_backbone(
    name: str,
    folders: Sequence[Path],
    config: BackbonePretrainingConfig | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    origin: str = "",
    licence: str = "",
) -> WeightEntry:
    """Train a feature extractor and put it into the weight store as `name`, for `extractor.weights`.

    Each of `folders` is a task. After Ctrl-C (`InterruptedRun`) a checkpoint remains; `resume` continues to the same result as
    an uninterrupted call. Raises `DataError` with fewer than two classes, `WeightsError` for an unusable name or missing
    weights, `ConfigError` for an unknown network or module and when the checkpoint has other settings. Weights of that
    name and a checkpoint that is not resumed are replaced with `overwrite` alone.
    """
    c = config or BackbonePretrainingConfig()
    check_name(name, overwrite=overwrite)
    folder = job_folder(name, resume=resume, overwrite=overwrite)
    tasks = find_tasks(folders, c.procedural)
    backbone = Backbone.create(
        BackboneConfig(network=c.network, weights=c.start, taps=(c.last,), image_size=c.image_size)
    )
    note_settings(
        folder,
        c,
        seed,
        tasks.records,
        resume,
        weights=backbone.weights.sha256,
        classes=tasks.classes,
        progress=progress,
    )
    trainer = Trainer(seed=seed, device=device, checkpoints=folder, resume=resume, progress=progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(backbone, tasks.task_of).to(trainer.device)
    with resumable():
        learn(network, tasks, c, trainer)
        held_out_accuracy = accuracy(network, tasks, c, trainer)
    file = folder / "backbone.safetensors"
    write_bytes(file, save({k: v.detach().cpu().contiguous() for k, v in network.trunk.state_dict().items()}))
    entry = add(
        file,
        name=name,
        overwrite=overwrite,
        network=c.network,
        origin=origin or _origin(backbone, tasks, folders, held_out_accuracy, c),
        licence=licence or f"that of its pictures, and of {c.start}: {backbone.weights.licence}",
        check=lambda state: check_state(c.network, state),
    )
    clean_up(folder)
    return entry


def find_tasks(folders: Sequence[Path], procedural: int) -> Tasks:
    """Tasks of all folders and of `procedural` images. Raises `DataError` with fewer than two classes."""
    parts = [image_records([folder], 0) for folder in folders]
    names = [_class_names(folder, found) for folder, found in zip(folders, parts, strict=True)]
    if procedural:
        parts.append(image_records([], procedural))
        names.append([record.id for record in parts[-1]])
    tasks = Tasks([], [], [], [])
    for task, (found, called) in enumerate(zip(parts, names, strict=True)):
        numbers = {name: len(tasks.task_of) + k for k, name in enumerate(dict.fromkeys(called))}
        seen = dict.fromkeys(numbers, 0)
        for record, name in zip(found, called, strict=True):
            seen[name] += 1
            if seen[name] % HELD_OUT == 0:
                tasks.held_out.append(len(tasks.records))
            tasks.records.append(record)
            tasks.classes.append(numbers[name])
        tasks.task_of.extend([task] * len(numbers))
    if len(tasks.task_of) < 2:
        raise DataError(
            "there are no two kinds of pictures to tell apart: give folders with a subfolder for each kind, or more pictures"
        )
    return tasks


def _class_names(folder: Path, records: Sequence[Record]) -> list[str]:
    """Class name of each image: its subfolder, or its id where all images lie in one folder."""
    inner = [record.image.relative_to(folder).parts[:-1] for record in records]
    names = [parts[0] if parts else "" for parts in inner]
    return names if len(set(names)) > 1 else [record.id for record in records]


def learn(network: Classifier, tasks: Tasks, config: BackbonePretrainingConfig, trainer: Trainer) -> None:
    """Minimise the cross-entropy among the classes of each image's task, then recompute the BatchNorm statistics."""
    c = config
    learned = sorted(set(range(len(tasks.records))) - set(tasks.held_out))
    classes = torch.tensor(tasks.classes)
    with ThreadPoolExecutor(LOADERS) as pool:

        def views(chosen: Sequence[int], generator: torch.Generator, *, crop: bool) -> Tensor:
            images = torch.cat(list(pool.map(lambda k: _load(tasks.records[k], c.image_size), chosen)))
            if crop:
                images = random_view(
                    images, generator, scale=(c.smallest_crop, 1.0), ratio=(0.75, 4 / 3), jitter=c.jitter
                )
            return some_grey(images, c.grey_share, generator).to(trainer.device)

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            chosen = [learned[k] for k in draw.indices.tolist()]
            wanted = classes[chosen].to(trainer.device)
            logits = network(views(chosen, draw.generator, crop=True), network.task_of[wanted])
            return {"classes": F.cross_entropy(logits, wanted)}

        sampler = trainer.sampler("classes", len(learned), min(c.batch_size, len(learned)), drop_last=True)
        trainer.minimise("classes", loss, {"network": network}, sampler, steps=c.steps, optimiser=c.optimiser)
        generator = seeded(trainer.seed, "statistics")
        order = torch.randperm(len(learned), generator=generator)[: c.statistics].tolist()
        parts = _chunks([learned[k] for k in order], c.batch_size)
        stream = (views(part, generator, crop=False) for part in parts)  # crops are blurred by enlargement
        take_statistics(network, track(trainer.progress, stream, "statistics", len(parts)), trainer)


def take_statistics(network: Classifier, batches: Iterable[Tensor], trainer: Trainer) -> None:
    """Replace the running BatchNorm statistics by means and variances over (B, 3, H, W) images."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean over batches
    network.train()
    with torch.no_grad(), trainer.autocast():
        for images in batches:
            network.features(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


def accuracy(
    network: Classifier, tasks: Tasks, config: BackbonePretrainingConfig, trainer: Trainer
) -> float | None:
    """Accuracy on held-out images; None where there are none."""
    right = 0
    for part in _chunks(tasks.held_out, config.batch_size):
        images = torch.cat([_load(tasks.records[k], config.image_size) for k in part])
        wanted = torch.tensor([tasks.classes[k] for k in part], device=trainer.device)
        with torch.inference_mode(), trainer.autocast():
            found = network(images.to(trainer.device), network.task_of[wanted]).argmax(1)
        right += int((found == wanted).sum())
    return right / len(tasks.held_out) if tasks.held_out else None


def _load(record: Record, side: int) -> Tensor:
    return load_batch([record], (side, side)).image


def _chunks(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[k : k + size] for k in range(0, len(numbers), size)]


def _origin(
    backbone: Backbone,
    tasks: Tasks,
    folders: Sequence[Path],
    held_out_accuracy: float | None,
    config: BackbonePretrainingConfig,
) -> str:
    begun = (
        "from scratch"
        if backbone.weights.state is None
        else f"from {backbone.weights.name} ({backbone.weights.origin})"
    )
    drawn = f" and {config.procedural} procedural ones" if folders and config.procedural else ""
    own = len(tasks.records) - (config.procedural if folders else 0)
    known = (
        ""
        if held_out_accuracy is None
        else f", {100 * held_out_accuracy:.1f} % of held-out pictures recognised"
    )
    images = images_line(tasks.records[:own], folders)
    return (
        f"andon pretrain backbone: {config.network} up to {config.last}, {begun}, on {images}{drawn} in {len(tasks.task_of)} "
        f"classes, {config.steps} steps{known}"
    )
