"""Students of different architectures; error of their mean and spread around it (variant V3).

Networks of one architecture tend to generalise alike away from the training images. Different architectures disagree there
more, and their spread is a second anomaly measure beside the error of their mean (Bergmann et al., arXiv 1911.02357, Eq. 6
to 9, with equal students). docs/reference/models.md, "Variants".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from andon.layers.residual_student import ResidualStudent

StudentKind = Literal["residual", "plain", "dilated", "positionwise"]
DILATIONS = (1, 2, 4, 8)
GROUPS = 8


def student_of_kind(kind: StudentKind, in_channels: int, out_channels: int, width: int) -> nn.Module:
    """(B, in_channels, H, W) to (B, out_channels, H, W) of the same grid.

    - residual: AST's student with two blocks
    - plain: four 3 x 3 convolutions without normalisation
    - dilated: 3 x 3 convolutions with dilations 1, 2, 4, 8 and GroupNorm; a large receptive field
    - positionwise: three 1 x 1 convolutions; no spatial context
    """
    if kind == "residual":
        return ResidualStudent(in_channels, out_channels, width=width, blocks=2)
    if kind == "plain":
        layers: list[nn.Module] = []
        for a in (in_channels, width, width):
            layers += [nn.Conv2d(a, width, 3, padding=1), nn.LeakyReLU()]
        return nn.Sequential(*layers, nn.Conv2d(width, out_channels, 3, padding=1))
    if kind == "dilated":
        layers = []
        for k, dilation in enumerate(DILATIONS):
            convolution = nn.Conv2d(
                in_channels if k == 0 else width, width, 3, padding=dilation, dilation=dilation
            )
            groups = GROUPS if width % GROUPS == 0 else 1
            layers += [convolution, nn.GroupNorm(groups, width), nn.LeakyReLU()]
        return nn.Sequential(*layers, nn.Conv2d(width, out_channels, 1))
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1),
        nn.LeakyReLU(),
        nn.Conv2d(width, width, 1),
        nn.LeakyReLU(),
        nn.Conv2d(width, out_channels, 1),
    )


def error_and_spread(target: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """(B, 2, H, W) from the target and M outputs (B, C, H, W): error and spread, channel means, both at least 0.

    Error: squared difference of target and mean output. Spread: variance of the outputs, mean_i |s_i|² - |mean_i s_i|².
    """
    stacked = torch.stack(list(outputs))
    mean = stacked.mean(0)
    spread = (stacked - mean).square().mean((0, 2))  # equals the formula, without its cancellation
    return torch.stack([(target - mean).square().mean(1), spread], 1)
