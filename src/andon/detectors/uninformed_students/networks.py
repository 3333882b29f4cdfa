"""Patch networks of Uninformed Students (Bergmann et al., arXiv 1911.02357, Sec. 3.1) and their dense evaluation.

A patch network maps a p x p patch to a descriptor. Dense evaluation gives the descriptors of all patches of an image in one
pass (Bailer et al., "Fast dense feature extraction with CNNs that have pooling layers", BMVC 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Patch = Literal[17, 33, 65]
"""Receptive field p in pixels."""


@dataclass(frozen=True, slots=True)
class Conv:
    """A valid convolution with bias."""

    kernel: int
    channels: int


@dataclass(frozen=True, slots=True)
class Pool:
    """2 x 2 max-pooling with stride 2."""


LAYERS: dict[int, tuple[Conv | Pool, ...]] = {
    65: (Conv(5, 128), Pool(), Conv(5, 128), Pool(), Conv(5, 128), Pool(), Conv(4, 256), Conv(1, 128)),
    33: (Conv(5, 128), Pool(), Conv(5, 256), Pool(), Conv(2, 256), Conv(4, 128)),
    17: (Conv(6, 128), Conv(5, 256), Conv(5, 256), Conv(4, 128)),
}
"""Layers by patch size: the paper's tables, with the kernels that give the map sizes printed there."""


class PatchNetwork(nn.Module):
    """(B, 3, H, W) to descriptors of patches; LeakyReLU after each convolution but the last.

    `width` scales the channels of the hidden layers, `descriptor` is the number of output channels.
    """

    def __init__(
        self, patch: Patch, *, width: float = 1.0, descriptor: int = 128, slope: float = 5e-3
    ) -> None:
        super().__init__()
        self.layers = LAYERS[patch]
        self.slope = slope
        widths = [max(1, round(width * layer.channels)) for layer in self._convolutions()]
        widths[-1] = descriptor
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inner, outer, layer.kernel)
            for inner, outer, layer in zip([3, *widths], widths, self._convolutions(), strict=False)
        )
        self.stride = 2 ** sum(isinstance(layer, Pool) for layer in self.layers)
        """Pixels between neighbouring patches of `forward`."""
        self.support = self._support()
        """Side of the square a descriptor depends on: p, less the rows that pooling of odd sizes drops."""

    def _convolutions(self) -> list[Conv]:
        return [layer for layer in self.layers if isinstance(layer, Conv)]

    def _support(self) -> int:
        size = 1
        for layer in reversed(self.layers):
            size = 2 * size if isinstance(layer, Pool) else size + layer.kernel - 1
        return size

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, d, h, w): one descriptor per `stride` pixels; a p x p patch gives one."""
        return self._run(images, dense=False)

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, d, H - support + 1, W - support + 1): one descriptor per pixel.

        Each pooling has stride 1; the layers after it are dilated by the product of the strides left out.
        """
        return self._run(images, dense=True)

    def _run(self, x: Tensor, *, dense: bool) -> Tensor:
        dilation = 1  # product of the strides left out
        remaining = [conv for conv in self.convolutions if isinstance(conv, nn.Conv2d)]
        for layer in self.layers:
            if isinstance(layer, Pool):
                x = F.max_pool2d(x, 2, stride=1 if dense else 2, dilation=dilation)
                dilation *= 2 if dense else 1
                continue
            conv = remaining.pop(0)
            x = F.conv2d(x, conv.weight, conv.bias, dilation=dilation)
            if remaining:
                x = F.leaky_relu(x, self.slope)
        return x


def pad_for(images: Tensor, support: int, stride: int = 1) -> Tensor:
    """Pad (B, C, H, W) by reflection so that each `stride` x `stride` cell is the centre of one descriptor's support.

    The output is then H / stride x W / stride (dense evaluation: stride 1). Sides must be divisible by the stride and larger
    than half the support.
    """
    missing = support - stride
    before, after = missing // 2, math.ceil(missing / 2)
    return F.pad(images, (before, after, before, after), mode="reflect")
