"""Teachers that are made once and serve every product; they end in the weight store."""

from __future__ import annotations

from andon.pretraining.flow import FlowPretrainingConfig, pretrain_flow
from andon.pretraining.pdn import DistillationConfig, PatchTarget, pretrain_pdn

__all__ = ["DistillationConfig", "FlowPretrainingConfig", "PatchTarget", "pretrain_flow", "pretrain_pdn"]
