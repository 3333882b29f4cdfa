"""What EfficientAD-AST learns from beside good images: out-of-class images, and labelled defects (V5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from andon.core.image_files import read_size
from andon.core.images import View
from andon.core.records import Record
from andon.datasets.masks import load_ground_truth
from andon.datasets.penalty_images import penalty_records
from andon.detectors.efficientad_ast.defect_labels import defect_cells
from andon.detectors.efficientad_ast.settings import PenaltyConfig
from andon.layers.adapter import FeatureAdapter
from andon.nn.backbones import Backbone
from andon.nn.feature_cache import FeatureCache
from andon.nn.training import Draw, Trainer, derive_seed


def penalty_features(
    c: PenaltyConfig, extractor: Backbone, adapter: FeatureAdapter, train_size: int, trainer: Trainer
) -> Tensor:
    """Features (N, C, h, w) of the penalty images; a fixed, seeded share of them is shown without colour (D15)."""
    cache = FeatureCache(extractor)
    records = penalty_records(c.folder)
    seed = derive_seed(trainer.seed, "penalty")
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed))
    if c.draw == "fixed":
        order = order[:train_size]
    grey = round(c.grey_share * len(order))
    parts = []
    for positions, view in ((order[:grey], View(c.zoom, c.colour)), (order[grey:], View(c.zoom))):
        chosen = [records[int(k)] for k in positions]
        if chosen:
            parts.append(cache.load(chosen, view=view, progress=trainer.progress, what="penalty features"))
    return adapter.transform({tap: torch.cat([part[tap] for part in parts]) for tap in parts[0]})


def defect_shares(records: Sequence[Record], grid: tuple[int, int]) -> Tensor:
    """(N, h, w): how much of each cell is defective, NaN throughout where no mask says so."""
    return torch.cat([defect_cells(_mask(record), grid) for record in records])


def some_defects(defects: tuple[Tensor, Tensor], count: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """At most `count` of the labelled defects (features, defective share of the cells), drawn anew at each step."""
    features, cells = defects
    chosen = torch.randint(len(features), (min(count, len(features)),), generator=draw.generator)
    chosen = chosen.to(features.device)
    return features[chosen], cells[chosen]


def _mask(record: Record) -> Tensor:
    """(1, 1, H, W): 1 on the defect, or NaN everywhere where no mask says where it is."""
    truth = load_ground_truth(record, read_size(record.image))
    union = torch.from_numpy(np.asarray(truth.union, np.float32))[None, None]
    return union if truth.defects else torch.full_like(union, torch.nan)
