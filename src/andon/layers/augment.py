"""Augmentation of training images; randomness comes from the given CPU generator, or from the image itself."""

from __future__ import annotations

import io
import math
import zlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

GAIN = 0.12
"""Largest change of brightness in `disturbed`."""
SHIFT = 0.01
"""Largest shift in `disturbed`, of the image's side."""
QUALITY = (60, 96)
"""JPEG quality in `disturbed`, from, and below."""


def random_view(
    images: Tensor,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.8, 1.0),
    ratio: tuple[float, float] = (0.9, 1.1),
    jitter: float = 0.2,
) -> Tensor:
    """Random resized crop, horizontal flip and colour jitter (brightness, contrast, saturation), independent per image.

    (B, 3, H, W) in [0, 1] to the same shape and range. Ranges: `scale` of the cropped area, `ratio` of width to height, factors
    in 1 ± `jitter`.
    """
    out = []
    for image in images:
        view = F.interpolate(
            _crop(image, generator, scale, ratio)[None],
            size=images.shape[2:],
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )[0]
        if uniform(generator, 0, 1) < 0.5:
            view = view.flip(2)
        out.append(_jitter(view, generator, jitter))
    return torch.stack(out)


def _crop(
    image: Tensor, generator: torch.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    height, width = image.shape[1:]
    area = uniform(generator, *scale)
    aspect = math.exp(uniform(generator, math.log(ratio[0]), math.log(ratio[1])))
    h = min(height, max(1, round(height * math.sqrt(area / aspect))))
    w = min(width, max(1, round(width * math.sqrt(area * aspect))))
    top = int(torch.randint(height - h + 1, (), generator=generator))
    left = int(torch.randint(width - w + 1, (), generator=generator))
    return image[:, top : top + h, left : left + w]


def _jitter(image: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    brightness, contrast, saturation = (uniform(generator, 1 - strength, 1 + strength) for _ in range(3))
    image = (image * brightness).clamp(0, 1)
    image = _towards(image, luma(image).mean(), contrast)
    return _towards(image, luma(image), saturation)


def jitter_one(images: Tensor, generator: torch.Generator, strength: float = 0.2) -> Tensor:
    """Jitter either brightness, contrast or saturation of each image by a factor in 1 ± `strength` (EfficientAD, Algorithm 1).

    (B, 3, H, W) in [0, 1] to the same shape and range.
    """
    out = []
    for image in images:
        kind = int(torch.randint(3, (), generator=generator))
        factor = uniform(generator, 1 - strength, 1 + strength)
        anchor = (torch.zeros_like(image), luma(image).mean(), luma(image))[kind]
        out.append(_towards(image, anchor, factor))
    return torch.stack(out)


def some_grey(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, 3, H, W) to the same shape; each image is converted to grey with probability `share`."""
    grey = torch.rand(len(images), generator=generator) < share
    return torch.stack([luma(p).expand(3, -1, -1) if g else p for p, g in zip(images, grey, strict=True)])


def disturbed(images: Tensor) -> Tensor:
    """What a line does to good images: other light, a shift, and compression of every other one.

    (B, 3, H, W) in [0, 1] to the same shape and range. Brightness changes by a factor in 1 ± `GAIN`; the image moves by up to
    `SHIFT` of its side, and its edge is mirrored; JPEG has a quality in `QUALITY`. Draws are seeded by the image's content, so
    that a copy does not depend on which images it is made with.
    """
    return torch.stack([_disturbed(image) for image in images])


def _disturbed(image: Tensor) -> Tensor:
    content = image.mul(255).round().byte().permute(1, 2, 0).cpu().contiguous().numpy()
    generator = torch.Generator().manual_seed(zlib.crc32(content.tobytes()))
    brighter = (image * uniform(generator, 1 - GAIN, 1 + GAIN)).clamp(0, 1)
    _, height, width = image.shape
    most = [max(1, round(SHIFT * side)) for side in (height, width)]
    top, left = (int(torch.randint(2 * m + 1, (), generator=generator)) for m in most)
    padded = F.pad(brighter[None], [most[1], most[1], most[0], most[0]], mode="reflect")[0]
    shifted = padded[:, top : top + height, left : left + width]
    quality = int(torch.randint(*QUALITY, (), generator=generator))
    return _compressed(shifted, quality) if uniform(generator, 0, 1) < 0.5 else shifted


def _compressed(image: Tensor, quality: int) -> Tensor:
    """(3, H, W) in [0, 1] after JPEG."""
    pixels = image.mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1).to(image) / 255


def luma(image: Tensor) -> Tensor:
    """(3, H, W) to grey (1, H, W), ITU-R BT.601."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=image.device, dtype=image.dtype)
    return (image * weights[:, None, None]).sum(0, keepdim=True)


def _towards(image: Tensor, anchor: Tensor, factor: float) -> Tensor:
    """Interpolation: factor 0 gives the anchor, 1 the image; above 1 it extrapolates."""
    return (factor * image + (1 - factor) * anchor).clamp(0, 1)


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Draw a number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))
