"""Uninformed Students: ensembles of students imitate a teacher's description of every patch; they err where all was not seen.

Paper: Bergmann et al., CVPR 2020, arXiv 1911.02357. A patch network T̂ learns, once and on unrelated images, to describe
patches as a big network does (Sec. 3.1). Several students S_i of the same shape learn to repeat its descriptors ŷ on good
images (Sec. 3.2). Anomalous is where their mean μ̄ misses the teacher, e = ‖μ̄ - ŷ‖², and where they disagree,
v = mean ‖S_i - μ̄‖². Both are standardised on held-out good images, added, and averaged over receptive fields (Sec. 3.3, 3.4).

Differs from the paper: layer sizes are the consistent reading of its tables, the compactness loss sums squared
correlations (spec 8.1, 8.3). `grid: strided` computes one descriptor per 4 x 4 or 8 x 8 pixels instead of every pixel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from andon.core.config import Amount, Config, Count, Share
from andon.core.errors import ConfigError
from andon.core.images import batches, load_batch, resize
from andon.core.paths import cache_dir
from andon.core.records import Record
from andon.datasets.penalty_images import VERSION, penalty_records
from andon.detectors._base import PREDICT_BATCH, Analysis, Detector, DetectorConfig, weight_lines
from andon.detectors.uninformed_students.networks import Patch, PatchNetwork, pad_for
from andon.detectors.uninformed_students.teacher import (
    compactness_loss,
    knowledge_loss,
    largest_shift,
    metric_loss,
    random_windows,
    shifted_crops,
)
from andon.layers.moments import channel_statistics
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.training import Draw, EarlyStopping, OptimiserConfig, Trainer, derive_seed
from andon.nn.weights import IMAGENET_MEAN, IMAGENET_STD

KEPT_IMAGES = 2048
"""Images a distillation keeps in memory, as bytes."""
Side = Annotated[int, Field(ge=64, multiple_of=8, strict=True)]


class TeacherConfig(Config):
    """The distillation of the teachers; done once per setting and kept between runs."""

    folder: str | None = None
    """Folder of photographs that have nothing to do with the parts; None = procedural images."""
    picture_size: Side = 512
    """Both sides of these images are forced to this many pixels before windows are zoomed and cut out."""
    grey_share: Share = 0.1
    """Share of the crops that lose their colour."""
    knowledge: Amount = 1.0
    """Weight of L_k, the distance to the big network's features."""
    metric: Amount = 0.0
    """Weight of L_m, the triplet loss."""
    compactness: Amount = 1.0
    """Weight of L_c, the correlation of the descriptors."""
    correlation: Literal["dimensions", "samples"] = "dimensions"
    """What L_c keeps uncorrelated: the dimensions of the descriptor, or the crops of a batch (as re-implementations do)."""
    steps: Count = 50_000
    """Optimiser steps."""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 64
    """Crops of a step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=2e-4)
    seed: int = 0
    """Of the distillation alone: one teacher serves all categories and all seeds of the students."""


class UninformedStudentsConfig(DetectorConfig):
    """Settings of Uninformed Students; the defaults are the paper's."""

    extractor: BackboneConfig = BackboneConfig(
        network="resnet18", weights="resnet18.tv_in1k", taps=("layer4",), image_size=224
    )
    """The big network; `image_size` is what crops are enlarged to, features are averaged over positions."""
    fields: tuple[Patch, ...] = Field((17, 33, 65), min_length=1)
    """Patch sizes in pixels, each with its own teacher and students; their maps are averaged."""
    image_size: Side = 256
    """Both sides of the image are forced to this many pixels."""
    grid: Literal["dense", "strided"] = "dense"
    """`strided`: a descriptor per cell of the patch network's stride (17: 1, 33: 4, 65: 8), at random offsets in training."""
    width: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the paper's channels in the hidden layers."""
    descriptor: Count = 128
    """Dimensions of a descriptor."""
    students: Count = 3
    """Students of each field."""
    teacher: TeacherConfig = TeacherConfig()
    epochs: Count = 100
    """Passes over the training images."""
    batch_size: Count = 1
    """Images of a step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=1e-4)
    patience: Count = 10
    """Epochs without improvement that end training with `selection: validation`."""


class ReceptiveField(nn.Module):
    """Teacher and students of one patch size, with what standardises their descriptors and maps."""

    target_mean_: Tensor
    target_std_: Tensor
    map_mean_: Tensor
    map_std_: Tensor

    def __init__(self, patch: Patch, config: UninformedStudentsConfig) -> None:
        super().__init__()
        self.patch, self.is_dense = patch, config.grid == "dense"
        self.teacher = patch_network(patch, config).requires_grad_(False)
        self.students = nn.ModuleList(patch_network(patch, config) for _ in range(config.students))
        self.support = self.teacher.support
        self.stride = 1 if self.is_dense else self.teacher.stride
        self.register_buffer("target_mean_", torch.zeros(1, config.descriptor, 1, 1))
        self.register_buffer("target_std_", torch.ones(1, config.descriptor, 1, 1))
        self.register_buffer("map_mean_", torch.zeros(1, 2, 1, 1))  # of e and v
        self.register_buffer("map_std_", torch.ones(1, 2, 1, 1))

    def describe(self, network: nn.Module, padded: Tensor) -> Tensor:
        """Descriptors (B, d, h, w) of a padded image, on the field's grid."""
        chosen = cast("PatchNetwork", network)
        return (chosen.dense(padded) if self.is_dense else chosen(padded)).float()

    def target(self, padded: Tensor) -> Tensor:
        """ŷ: the teacher's descriptors, each dimension standardised over the training images."""
        with torch.no_grad():
            return (self.describe(self.teacher, padded) - self.target_mean_) / self.target_std_

    def losses(self, padded: Tensor) -> dict[str, Tensor]:
        """Mean over positions of ‖S_i - ŷ‖², for each student (Eq. 7)."""
        target = self.target(padded)
        return {
            f"student_{k}": (self.describe(student, padded) - target).square().sum(1).mean()
            for k, student in enumerate(self.students)
        }

    def error_and_spread(self, images: Tensor) -> Tensor:
        """e = ‖μ̄ - ŷ‖² and v = mean ‖S_i - μ̄‖² of normalised images (B, 3, H, W), as (B, 2, h, w) (Eq. 9, 10)."""
        padded = pad_for(images, self.support, self.stride)
        answers = torch.stack([self.describe(student, padded) for student in self.students])
        return torch.stack(error_and_spread(answers, self.target(padded)), 1)

    def anomaly_map(self, images: Tensor) -> Tensor:
        """(e - e_μ) / e_σ + (v - v_μ) / v_σ, (B, 1, h, w) (Eq. 11)."""
        maps = (self.error_and_spread(images) - self.map_mean_) / self.map_std_
        return maps.sum(1, keepdim=True)


def error_and_spread(answers: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of the students' mean, and their variance around it: (M, B, d, h, w), (B, d, h, w) to two (B, h, w)."""
    mean = answers.mean(0)
    return (mean - target).square().sum(1), (answers - mean).square().sum(2).mean(0)


def patch_network(patch: Patch, config: UninformedStudentsConfig) -> PatchNetwork:
    """An untrained network of the configured size."""
    return PatchNetwork(patch, width=config.width, descriptor=config.descriptor)


def normalise(images: Tensor) -> Tensor:
    """Images in [0, 1] to the values networks see."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


class UninformedStudents(Detector):
    """Patch teachers and their students; see the module's docstring."""

    Config = UninformedStudentsConfig
    config: UninformedStudentsConfig

    def __init__(self, config: UninformedStudentsConfig | None = None, *, pretrained: bool = True) -> None:
        super().__init__(config, pretrained=pretrained)
        if self.config.selection in {"synthetic", "labels", "test"}:
            raise ConfigError(
                "uninformed_students learns its fields one after the other, so no epoch can be chosen on labels: "
                "use selection=budget or selection=validation"
            )
        if len(set(self.config.fields)) < len(self.config.fields):
            raise ConfigError(f"fields={list(self.config.fields)} names a patch size twice: name each once")
        self.fields = nn.ModuleList(ReceptiveField(patch, self.config) for patch in self.config.fields)
        self.eval()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.image_size, self.config.image_size

    @property
    def score_rule(self) -> str:
        return "maximum of the map (standardised error plus standardised spread, mean over receptive fields)"

    def receptive_fields(self) -> Iterator[ReceptiveField]:
        """The fields, in the order of the setting."""
        return (cast("ReceptiveField", field) for field in self.fields)

    # Learning ------------------------------------------------------------------------------------------------------

    def learn(self, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer) -> None:
        extractor = Backbone.create(self.config.extractor).to(trainer.device)
        self.used_weights = weight_lines(extractor)
        for field in self.receptive_fields():
            distilled = distil_teacher(field.patch, self.config, extractor, trainer, unseen=train)
            field.teacher.load_state_dict(distilled.state_dict())
            with trainer.timed("statistics"):
                described = (field.describe(field.teacher, x) for x in self._padded(field, train, trainer))
                field.target_mean_, field.target_std_ = channel_statistics(described)
            self._learn_students(field, train, validation, trainer)
            with trainer.timed("statistics"):
                pictures = self._pictures(validation or train, trainer)
                field.map_mean_, field.map_std_ = channel_statistics(map(field.error_and_spread, pictures))

    def _learn_students(
        self, field: ReceptiveField, train: Sequence[Record], validation: Sequence[Record], trainer: Trainer
    ) -> None:
        """The students of one field, side by side: each has its own term, so none of them feels the others."""
        c, stage = self.config, f"students_{field.patch}"

        def loss(draw: Draw) -> Mapping[str, Tensor]:
            images = load_batch([train[int(k)] for k in draw.indices], self.input_size).image
            padded = pad_for(normalise(images.to(trainer.device)), field.support)
            top, left = (int(k) for k in torch.randint(field.stride, (2,), generator=draw.generator))
            return field.losses(padded[:, :, top:, left:])

        def measure() -> Mapping[str, float]:
            with torch.inference_mode():
                parts = [
                    torch.stack(list(field.losses(x).values())).sum() * len(x)
                    for x in self._padded(field, validation, trainer)
                ]
            return {"loss": float(torch.stack(parts).sum()) / len(validation)}

        judged = EarlyStopping(measure, c.patience, higher_is_better=False)
        trainer.minimise(
            stage,
            loss,
            {"students": field.students},
            trainer.sampler(stage, len(train), c.batch_size),
            epochs=c.epochs,
            optimiser=c.optimiser,
            stopping=judged if c.selection == "validation" else None,
        )

    def _pictures(self, records: Sequence[Record], trainer: Trainer) -> Iterator[Tensor]:
        """Normalised images, batch by batch."""
        for batch in batches(records, self.input_size, PREDICT_BATCH):
            yield normalise(batch.image.to(trainer.device))

    def _padded(self, field: ReceptiveField, records: Sequence[Record], trainer: Trainer) -> Iterator[Tensor]:
        return (pad_for(x, field.support, field.stride) for x in self._pictures(records, trainer))

    # Answering -----------------------------------------------------------------------------------------------------

    def analyse(self, images: Tensor) -> Analysis:
        x = normalise(images)
        maps = [field.anomaly_map(x) for field in self.receptive_fields()]
        finest = max(m.shape[-1] for m in maps)
        maps = [
            F.interpolate(m, size=(finest, finest), mode="bilinear", align_corners=False)
            if m.shape[-1] < finest
            else m
            for m in maps
        ]
        combined = torch.stack(maps).mean(0)
        extras = {f"p{p}": m.flatten(1).amax(1) for p, m in zip(self.config.fields, maps, strict=True)}
        return Analysis(combined, combined.flatten(1).amax(1), extras)


# The teachers ------------------------------------------------------------------------------------------------------


def distil_teacher(
    patch: Patch,
    config: UninformedStudentsConfig,
    extractor: Backbone,
    trainer: Trainer,
    *,
    unseen: Sequence[Record] = (),
) -> PatchNetwork:
    """A patch network that describes patches as `extractor` describes them enlarged; made once per setting (Sec. 3.1).

    It is kept under `ANDON_HOME`, finished or not: a later call takes it from there or continues it. Raises `ConfigError`
    when an image of `unseen`, the data that will be judged, is among those it would learn from.
    """
    settings, stage = config.teacher, f"teacher_{patch}"
    records = penalty_records(settings.folder)
    _refuse_shared(records, unseen, settings.folder)
    width = sum(channels for channels, _, _ in extractor.shapes.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.seed, stage))
        network, decoder = patch_network(patch, config), nn.Linear(config.descriptor, width)
    modules = {"teacher": network.to(trainer.device), "decoder": decoder.to(trainer.device)}

    @lru_cache(maxsize=KEPT_IMAGES)
    def picture(k: int) -> Tensor:
        image = load_batch([records[k]], (settings.picture_size, settings.picture_size)).image[0]
        return (image * 255).round().byte()

    def loss(draw: Draw) -> Mapping[str, Tensor]:
        pictures = [picture(int(k) % len(records)) for k in draw.indices]
        return teacher_losses(patch, settings, network, decoder, extractor, pictures, draw.generator)

    folder = _teacher_folder(patch, config, extractor, records, trainer.precision)
    _drop_damaged(folder / f"{stage}.safetensors")
    maker = trainer.beside(seed=settings.seed, checkpoints=folder)
    crops = maker.sampler(stage, settings.steps * settings.batch_size, settings.batch_size)
    with trainer.timed(stage):
        maker.minimise(stage, loss, modules, crops, epochs=1, optimiser=settings.optimiser)
    trainer.stages[stage].steps = maker.stages[stage].steps
    trainer.stages[stage].curve = maker.stages[stage].curve
    return network


def teacher_losses(
    patch: Patch,
    settings: TeacherConfig,
    network: nn.Module,
    decoder: nn.Module,
    extractor: Backbone,
    pictures: Sequence[Tensor],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The weighted terms L_k, L_m, L_c (Eq. 1-4) for one random crop of each (3, S, S) uint8 image; weight 0 leaves out."""
    border = largest_shift(patch) if settings.metric else 0
    windows = random_windows(pictures, patch, generator, border=border, grey_share=settings.grey_share)
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
    """The teacher must know nothing of the parts, or the students could not be told apart by what they have not seen."""
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
    """Where the teacher of these settings, this extractor and these images is kept."""
    pictures = VERSION if config.teacher.folder is None else 0
    parts = {
        "patch": patch,
        "width": config.width,
        "descriptor": config.descriptor,
        "teacher": config.teacher.model_dump(mode="json", exclude={"folder"}),
        "extractor": extractor.fingerprint(),
        "pictures": [pictures, *((record.image.name, record.image.stat().st_size) for record in records)],
        "precision": precision,
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "patch_teachers" / key[:32]


def _drop_damaged(file: Path) -> None:
    """Remove a kept teacher that cannot be read, so that it is made again."""
    if not file.is_file():
        return
    try:
        with safe_open(str(file), "pt") as stored:
            stored.metadata()
    except (SafetensorError, OSError):
        file.unlink(missing_ok=True)
