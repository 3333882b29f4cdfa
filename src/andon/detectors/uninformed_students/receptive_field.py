"""One receptive field of Uninformed Students: a teacher, its ensemble of students, their error and variance (Sec. 3.2, 3.3)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from andon.detectors.uninformed_students.networks import Patch, PatchNetwork, pad_for
from andon.detectors.uninformed_students.settings import UninformedStudentsConfig
from andon.nn.weights import IMAGENET_MEAN, IMAGENET_STD


class ReceptiveField(nn.Module):
    """Teacher and students of one receptive field p, with the statistics that standardise descriptors and maps."""

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
        """Descriptors (B, d, h, w) of padded images: dense, or one per stride."""
        chosen = cast("PatchNetwork", network)
        return (chosen.dense(padded) if self.is_dense else chosen(padded)).float()

    def target(self, padded: Tensor) -> Tensor:
        """ŷ: the teacher's descriptors (B, d, h, w), each dimension standardised over the training images."""
        with torch.no_grad():
            return (self.describe(self.teacher, padded) - self.target_mean_) / self.target_std_

    def losses(self, padded: Tensor) -> dict[str, Tensor]:
        """Regression loss of each student (Eq. 7): ‖S_i - ŷ‖², averaged over positions."""
        target = self.target(padded)
        return {
            f"student_{k}": (self.describe(student, padded) - target).square().sum(1).mean()
            for k, student in enumerate(self.students)
        }

    def error_and_variance(self, images: Tensor) -> Tensor:
        """Regression error e and predictive uncertainty v (Eq. 9, 10) of normalised images (B, 3, H, W): (B, 2, h, w)."""
        padded = pad_for(images, self.support, self.stride)
        outputs = torch.stack([self.describe(student, padded) for student in self.students])
        return torch.stack(error_and_variance(outputs, self.target(padded)), 1)

    def anomaly_map(self, images: Tensor) -> Tensor:
        """Anomaly map (e - e_μ) / e_σ + (v - v_μ) / v_σ (Eq. 11): (B, 1, h, w)."""
        maps = (self.error_and_variance(images) - self.map_mean_) / self.map_std_
        return maps.sum(1, keepdim=True)


def error_and_variance(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """e = ‖μ̄ - ŷ‖² and v = mean ‖S_i - μ̄‖², both (B, h, w), of outputs (M, B, d, h, w) and target (B, d, h, w)."""
    mean = outputs.mean(0)
    return (mean - target).square().sum(1), (outputs - mean).square().sum(2).mean(0)


def patch_network(patch: Patch, config: UninformedStudentsConfig) -> PatchNetwork:
    """An untrained patch network of the configured size."""
    return PatchNetwork(patch, width=config.width, descriptor=config.descriptor)


def normalise(images: Tensor) -> Tensor:
    """Images in [0, 1], standardised with the ImageNet channel statistics."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std
