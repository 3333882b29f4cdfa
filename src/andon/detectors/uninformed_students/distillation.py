"""Distillation of the patch teachers from a large network, on images unrelated to the product (Sec. 3.1)."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from andon.core.errors import ConfigError, DataError
from andon.core.files import writing_errors
from andon.core.images import load_batch, resize
from andon.core.paths import cache_dir
from andon.core.records import Record
from andon.datasets.dataset import content_key
from andon.datasets.penalty_images import VERSION, penalty_records
from andon.detectors.uninformed_students.networks import Patch, PatchNetwork
from andon.detectors.uninformed_students.receptive_field import normalise, patch_network
from andon.detectors.uninformed_students.settings import TeacherConfig, UninformedStudentsConfig
from andon.detectors.uninformed_students.teacher import (
    compactness_loss,
    knowledge_loss,
    largest_shift,
    metric_loss,
    random_windows,
    shifted_crops,
)
from andon.nn.backbones import Backbone
from andon.nn.stage import read_checkpoint
from andon.nn.training import Draw, Trainer, derive_seed

KEPT_IMAGES = 2048
"""Images that a distillation keeps in memory, as bytes."""


def distil_teacher(
    patch: Patch,
    config: UninformedStudentsConfig,
    extractor: Backbone,
    trainer: Trainer,
    *,
    unseen: Sequence[Record] = (),
) -> PatchNetwork:
    """A patch network distilled from `extractor` on unrelated images; done once per setting (Sec. 3.1).

    It is kept under `ANDON_HOME`: a later call with the same settings loads it, or continues an interrupted distillation. Raises
    `ConfigError` when an image of `unseen`, the product's training data, is among the images of the distillation.
    """
    settings, stage = config.teacher, f"teacher_{patch}"
    records = penalty_records(settings.folder, "teacher.folder")
    _refuse_shared(records, unseen, settings.folder)
    width = sum(channels for channels, _, _ in extractor.shapes.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.seed, stage))
        network, decoder = patch_network(patch, config), nn.Linear(config.descriptor, width)
    modules = {"teacher": network.to(trainer.device), "decoder": decoder.to(trainer.device)}

    @lru_cache(maxsize=KEPT_IMAGES)
    def image(k: int) -> Tensor:
        loaded = load_batch([records[k]], (settings.image_size, settings.image_size)).image[0]
        return (loaded * 255).round().byte()

    def loss(draw: Draw) -> Mapping[str, Tensor]:
        images = [image(int(k) % len(records)) for k in draw.indices]
        return teacher_losses(patch, settings, network, decoder, extractor, images, draw.generator)

    folder = _teacher_folder(patch, config, extractor, records, trainer.precision)
    _drop_unusable(folder / f"{stage}.safetensors", modules)
    distiller = trainer.beside(seed=settings.seed, checkpoints=folder)
    crops = distiller.sampler(stage, settings.steps * settings.batch_size, settings.batch_size)
    with trainer.timed(stage):
        distiller.minimise(stage, loss, modules, crops, epochs=1, optimiser=settings.optimiser)
    trainer.stages[stage].steps = distiller.stages[stage].steps
    trainer.stages[stage].curve = distiller.stages[stage].curve
    return network


def teacher_losses(
    patch: Patch,
    settings: TeacherConfig,
    network: nn.Module,
    decoder: nn.Module,
    extractor: Backbone,
    images: Sequence[Tensor],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Weighted L_k, L_m and L_c (Eq. 1 to 4) of one random crop of each (3, S, S) uint8 image; terms of weight 0 are left out."""
    border = largest_shift(patch) if settings.metric else 0
    windows = random_windows(images, patch, generator, border=border, grey_share=settings.grey_share)
    crops, shifted = (x.to(extractor.mean.device) for x in shifted_crops(windows, patch, generator))
    descriptors = network(normalise(crops)).float().flatten(1)  # (B, d)
    terms: dict[str, Tensor] = {}
    if settings.knowledge:
        with torch.no_grad():
            features = extractor(resize(crops, (extractor.config.image_size,) * 2))
            target = torch.cat([f.float().mean((2, 3)) for f in features.values()], 1)
        terms["knowledge"] = settings.knowledge * knowledge_loss(decoder(descriptors).float(), target)
    if settings.metric:
        positive = network(normalise(shifted)).float().flatten(1)
        terms["metric"] = settings.metric * metric_loss(descriptors, positive, descriptors.roll(1, 0))
    if settings.compactness:
        terms["compactness"] = settings.compactness * compactness_loss(descriptors, settings.correlation)
    return terms


def _refuse_shared(records: Sequence[Record], unseen: Sequence[Record], folder: str | None) -> None:
    """The distillation must not contain images of the product."""
    own = {record.image.resolve() for record in unseen}
    shared = next((record.image for record in records if record.image.resolve() in own), None)
    if shared is not None:
        raise ConfigError(
            f"teacher.folder={folder} holds training pictures ({shared.name}): give photographs of other things"
        )


def _teacher_folder(
    patch: Patch,
    config: UninformedStudentsConfig,
    extractor: Backbone,
    records: Sequence[Record],
    precision: str,
) -> Path:
    """Folder of the teacher of these settings, extractor and contents of images."""
    version = VERSION if config.teacher.folder is None else 0
    parts = {
        "patch": patch,
        "width": config.width,
        "descriptor": config.descriptor,
        "teacher": config.teacher.model_dump(mode="json", exclude={"folder"}),
        "extractor": extractor.fingerprint(),
        "images": [version, *map(content_key, records)],
        "precision": precision,
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "patch_teachers" / key[:32]


def _drop_unusable(file: Path, modules: Mapping[str, nn.Module]) -> None:
    """Remove a stored teacher that is damaged or of other networks, so that it is distilled again."""
    if not file.is_file():
        return
    wanted = {f"{m}.{k}": v.shape for m, module in modules.items() for k, v in module.state_dict().items()}
    with contextlib.suppress(DataError):
        if {k: v.shape for k, v in read_checkpoint(file).networks().items()} == wanted:
            return
    with writing_errors(file):
        file.unlink(missing_ok=True)
