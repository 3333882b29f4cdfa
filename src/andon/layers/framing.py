"""Looking at the centre of an image only, as the papers do (resize to 256, crop 224), with maps of the whole image."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from andon.core.errors import ConfigError


def frame_side(resize: int | None, image_size: int) -> int:
    """Side in pixels that images are resized to. Raises `ConfigError` when the centre would be larger than the image."""
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


def fill_border(maps: Tensor, side: int) -> Tensor:
    """(B, 1, h, w) maps of a centre to (B, 1, side, side): the border, which nothing saw, repeats the nearest seen value."""
    height, width = maps.shape[-2:]
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(maps, (left, side - width - left, top, side - height - top), mode="replicate")
