"""Pretraining of a class-agnostic flow teacher (docs/reference/models.md, "Variants", V4).

AST's flow (arXiv 2210.07829) is trained once by maximum likelihood on features of unrelated images instead of once per
category, with the schedule of EfficientAD's distillation (arXiv 2303.14535, Algorithm 3): 60,000 steps of 16 images, grey
with probability 0.1. Features are standardised with the channel statistics of these images; a detector standardises the
latent with the statistics of its own training images.

Training images may be photographs of anything, the good images of all categories, or those of all categories but the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from andon.core.config import Config, Count
from andon.core.errors import ConfigError, DataError
from andon.core.files import write_bytes
from andon.core.images import UNCHANGED, View
from andon.core.progress import Progress, track
from andon.core.records import Record
from andon.layers.adapter import FeatureAdapter
from andon.layers.flow import Flow, negative_log_likelihood
from andon.layers.flow_teacher import flow_interface, flow_teacher_state
from andon.layers.moments import channel_statistics
from andon.layers.positional import positional_encoding
from andon.nn.backbones import Backbone, BackboneConfig
from andon.nn.feature_cache import FeatureCache
from andon.nn.training import Draw, OptimiserConfig, Trainer, seeded
from andon.nn.weights import FLOW_NETWORK, WeightEntry, add
from andon.pretraining.jobs import (
    check_name,
    clean_up,
    image_records,
    images_line,
    job_folder,
    note_settings,
    resumable,
)

BATCH = 8
"""Images per batch while statistics are computed."""


class FlowPretrainingConfig(Config):
    """Settings of the flow; the defaults match the recipe `efficientad_ast/corrected`."""

    extractor: BackboneConfig = BackboneConfig(
        network="tf_efficientnet_b5",
        weights="tf_efficientnet_b5.aa_in1k",
        taps=("blocks.5",),
        image_size=768,
        static_same_padding=True,
    )
    """The frozen feature extractor."""
    project: Count | None = None
    """Channels after a fixed random orthonormal projection; None: no projection."""
    hidden: Count = 1024
    """Hidden channels of the coupling networks."""
    kernels: tuple[Literal[1, 3, 5, 7], ...] = (3, 3, 3, 5)
    """Kernel size per coupling block."""
    clamp: float = 3.0
    """Clamp α of the log-scales."""
    position: Count = 32
    """Channels of the positional encoding, the condition of the flow."""
    grey_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Probability of conversion to grey."""
    statistics: Count = 10_000
    """Images for the channel statistics, at most."""
    procedural: Count = 1000
    """Procedural images where no folder is given."""
    keep_features: bool = True
    """Cache features on disk (0.5 to 1 MB per image) instead of extracting them at every step."""
    steps: Count = 60_000
    """Optimiser steps."""
    batch_size: Count = 16
    """Images per step."""
    optimiser: OptimiserConfig = OptimiserConfig(lr=2e-4, decay_last=0.05)

    @classmethod
    def matching(cls, settings: Mapping[str, Any]) -> Self:
        """Pretraining settings that match resolved settings of `efficientad_ast`."""
        extractor, teacher = settings["extractor"], settings["teacher"]
        return cls.parse(
            {
                "extractor": {name: extractor[name] for name in BackboneConfig.model_fields},
                "project": extractor["project"],
                **{name: teacher[name] for name in ("hidden", "kernels", "clamp")},
            }
        )

    def interface(self) -> dict[str, Any]:
        """Settings that a detector must share to use the flow, by their names in its configuration."""
        values = self.model_dump(mode="json")
        return flow_interface(values["extractor"], self.project, values, self.position)


def pretrain_flow(
    name: str,
    folders: Sequence[Path],
    config: FlowPretrainingConfig | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    origin: str = "",
    licence: str = "",
) -> WeightEntry:
    """Train a flow on all images of `folders` and put it into the weight store as `name`, for `teacher.weights`.

    Folders are searched recursively; none means procedural images. After Ctrl-C (`InterruptedRun`) a checkpoint remains;
    `resume` continues to the same result as an uninterrupted call. Raises `DataError` without images and for masks among
    them, `WeightsError` for an unusable name or missing weights, `ConfigError` when the checkpoint has other settings.
    Weights of that name and a checkpoint that is not resumed are replaced with `overwrite` alone.
    """
    c = config or FlowPretrainingConfig()
    check_name(name, overwrite=overwrite)
    folder = job_folder(name, resume=resume, overwrite=overwrite)
    records = image_records(folders, c.procedural)
    _refuse_masks(records)
    backbone = Backbone.create(c.extractor)
    note_settings(folder, c, seed, records, resume, weights=backbone.weights.sha256, progress=progress)
    trainer = Trainer(seed=seed, device=device, checkpoints=folder, resume=resume, progress=progress)
    source = FlowFeatures(backbone.to(trainer.device), c)
    with resumable():
        source.fit(records, trainer)
        flow = learn_flow(source, records, c, trainer)
    state = flow_teacher_state(flow.state_dict(), source.adapter.mean_, source.adapter.std_, c.interface())
    file = folder / "teacher.safetensors"
    write_bytes(file, save({key: value.detach().cpu().contiguous() for key, value in state.items()}))
    entry = add(
        file,
        name=name,
        overwrite=overwrite,
        network=FLOW_NETWORK,
        origin=origin
        or f"andon pretrain flow: features of {c.extractor.network} ({backbone.weights.name}: {backbone.weights.origin}) of "
        f"{images_line(records, folders)}, {c.steps} steps",
        licence=licence or f"that of its pictures, and of {c.extractor.weights}: {backbone.weights.licence}",
    )
    clean_up(folder)
    return entry


class FlowFeatures:
    """Input of the flow: features on one grid, projected and standardised."""

    def __init__(self, backbone: Backbone, config: FlowPretrainingConfig) -> None:
        self.config = config
        self.cache = FeatureCache(backbone, enabled=config.keep_features)
        self.adapter = FeatureAdapter(backbone.shapes, project=config.project, standardise=True)
        _, height, width = self.adapter.shape
        if height != width:
            raise ConfigError(f"the feature grid must be square, it is {height} x {width}; choose other taps")

    def fit(self, records: Sequence[Record], trainer: Trainer) -> None:
        """Compute the channel statistics over a random subset of `statistics` images, without grey conversion."""
        order = torch.randperm(len(records), generator=seeded(trainer.seed, "statistics")).tolist()
        chosen = [records[k] for k in order[: self.config.statistics]]
        pieces = [chosen[k : k + BATCH] for k in range(0, len(chosen), BATCH)]
        with trainer.timed("statistics"):
            stream = (self.load(piece) for piece in pieces)
            mean, std = channel_statistics(track(trainer.progress, stream, "feature statistics", len(pieces)))
        self.adapter.mean_.copy_(mean)
        self.adapter.std_.copy_(std)

    def load(self, records: Sequence[Record], view: View = UNCHANGED) -> Tensor:
        """(B, C, h, w) features on the CPU."""
        return self.adapter.transform(self.cache.load(records, view=view))

    def draw(self, records: Sequence[Record], generator: torch.Generator) -> Tensor:
        """As `load`, with grey conversion at probability `grey_share`."""
        grey = torch.rand(len(records), generator=generator) < self.config.grey_share
        parts, where = [], []
        for view, chosen in ((UNCHANGED, ~grey), (View(colour="grey"), grey)):
            positions = chosen.nonzero().flatten().tolist()
            if positions:
                parts.append(self.load([records[k] for k in positions], view))
                where += positions
        return torch.cat(parts)[torch.argsort(torch.tensor(where))]


def learn_flow(
    source: FlowFeatures, records: Sequence[Record], config: FlowPretrainingConfig, trainer: Trainer
) -> Flow:
    """Train the flow by maximum likelihood of the features of every cell (AST, Sec. 3.1)."""
    c = config
    n, height, width = source.adapter.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trainer.seed)
        flow = Flow(n, c.position, c.hidden, c.kernels, c.clamp)
    flow.to(trainer.device)
    position = positional_encoding(c.position, height, width)[None].to(trainer.device)

    def loss(draw: Draw) -> Mapping[str, Tensor]:
        features = source.draw([records[k] for k in draw.indices.tolist()], draw.generator)
        z, log_det = flow(features.to(trainer.device), position.expand(len(features), -1, -1, -1))
        return {"nll": negative_log_likelihood(z, log_det).mean()}

    trainer.minimise(
        "flow",
        loss,
        {"flow": flow},
        trainer.sampler("flow", len(records), c.batch_size),
        steps=c.steps,
        optimiser=c.optimiser,
    )
    return flow


def _refuse_masks(records: Sequence[Record]) -> None:
    """Refuse folders of a whole data set, whose masks would be read as images."""
    found = next((record for record in records if "ground_truth" in record.image.parts), None)
    if found is not None:
        raise DataError(
            f"{found.image} is a mask beside test pictures, which no teacher may learn from: give the folders of good "
            "pictures, e.g. data/*/train/good"
        )
