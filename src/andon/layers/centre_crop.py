"""Centre crop before the network and its inverse for the anomaly map.

The papers on memory banks resize an image to 256 x 256 and crop its centre of 224 x 224. The anomaly map has to cover the
whole image, so the crop is pasted back and the border, which the network did not see, gets the map's minimum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from andon.core.errors import ConfigError


def resized_side(resize: int | None, image_size: int) -> int:
    """Side in pixels that images are resized to before the crop of `image_size`; None: no crop.

    Raises `ConfigError` when the crop would be larger than the image.
    """
    if resize is not None and resize < image_size:
        raise ConfigError(
            f"resize={resize} is smaller than the centre that is kept (extractor.image_size={image_size}): "
            "enlarge it, or leave it out to see the whole picture"
        )
    return image_size if resize is None else resize


def crop_centre(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) to the central (B, C, size, size)."""
    height, width = images.shape[-2:]
    top, left = (height - size) // 2, (width - size) // 2
    return images[..., top : top + size, left : left + size]


def paste_centre(maps: Tensor, side: int) -> Tensor:
    """Inverse of `crop_centre` for maps: (B, 1, h, w) to (B, 1, side, side); the border gets each map's minimum."""
    height, width = maps.shape[-2:]
    top, left = (side - height) // 2, (side - width) // 2
    border = (left, side - width - left, top, side - height - top)
    if not any(border):
        return maps
    inside = F.pad(torch.ones(1, 1, height, width, dtype=torch.bool, device=maps.device), border)
    return torch.where(inside, F.pad(maps, border), maps.amin((2, 3), keepdim=True))
