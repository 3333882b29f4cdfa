"""Students of different kinds, and what their disagreement says (spec 4, V3).

Networks that are built alike err alike away from the training images. Students that cannot represent the same functions
disagree there, and their spread is a second sign beside the error of their mean (Bergmann et al., arXiv 1911.02357,
Eq. 6 to 9, where the students are alike).
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

    - residual: that of AST, two blocks
    - plain: four convolutions without normalisation
    - dilated: convolutions with dilations 1, 2, 4, 8 and GroupNorm, which see far
    - positionwise: three layers of 1 x 1, which cannot use the surroundings
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


def error_and_spread(target: Tensor, answers: Sequence[Tensor]) -> Tensor:
    """What M answers (B, C, H, W) make of the target: (B, 2, H, W), both channel means, both at least 0.

    The squared error of the mean answer, and the answers' variance around it: mean_i |s_i|² - |mean_i s_i|².
    """
    stacked = torch.stack(list(answers))
    mean = stacked.mean(0)
    spread = (stacked - mean).square().mean((0, 2))  # the same value, without cancellation
    return torch.stack([(target - mean).square().mean(1), spread], 1)
