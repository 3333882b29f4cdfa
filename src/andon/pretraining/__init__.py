"""Pretraining of teachers and backbones that serve every product; the results go into the weight store."""

from __future__ import annotations

from andon.pretraining.backbone import BackbonePretrainingConfig, pretrain_backbone
from andon.pretraining.flow import FlowPretrainingConfig, pretrain_flow
from andon.pretraining.pdn import DistillationConfig, PatchTarget, pretrain_pdn

__all__ = [
    "BackbonePretrainingConfig",
    "DistillationConfig",
    "FlowPretrainingConfig",
    "PatchTarget",
    "pretrain_backbone",
    "pretrain_flow",
    "pretrain_pdn",
]
