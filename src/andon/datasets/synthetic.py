"""Synthetic anomalies on good images, with masks, for selections that need anomalous images but may not use real ones.

Three kinds, after CutPaste (Li et al., arXiv 2104.04015) and DRAEM (Zavrtanik et al., arXiv 2108.07610):
`patch`: a rectangle of another good image; `scar`: a thin rectangle of another good image; `texture`: a procedural texture,
partly transparent, inside an irregular outline. A setting selected on them is better than a random choice and worse than
one selected on real defects (docs/reference/data.md, "Synthetic anomalies").
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from andon.core.files import writing
from andon.core.image_files import read_size
from andon.core.images import read_image
from andon.core.paths import cache_dir
from andon.core.records import Record
from andon.datasets.dataset import content_key
from andon.datasets.masks import load_ground_truth
from andon.datasets.penalty_images import procedural_image

Colours = npt.NDArray[np.float32]
"""(H, W, 3) in [0, 1]."""
Mask = npt.NDArray[np.bool_]
"""(H, W)."""

KINDS = ("patch", "scar", "texture")
MOST = 60
"""Largest number of images with a synthetic anomaly."""
VISIBLE = 4 / 255
"""Smallest change of a channel, in [0, 1], that belongs to the mask."""
ATTEMPTS = 20
VERSION = 1


def synthetic_anomalies(good: Sequence[Record], *, seed: int, most: int = MOST) -> list[Record]:
    """Records of good images with a synthetic anomaly each, the kinds in turn, at most `most`.

    Images and masks are written to the cache once; the same good images and seed give the same files. Point clouds are
    those of the good images. Anomalies outside the inspected region are left out, so that the list may be empty.
    """
    if not good:
        return []
    chosen = list(good[:most])
    content = "|".join([str(VERSION), str(seed), *(content_key(record) for record in chosen)])
    folder = cache_dir() / "synthetic" / hashlib.sha256(content.encode()).hexdigest()[:16]
    records = []
    for k, record in enumerate(chosen):
        kind = KINDS[k % len(KINDS)]
        image, mask = folder / f"{k:03d}.png", folder / f"{k:03d}_mask.png"
        if not (image.is_file() and mask.is_file()):
            donor = read_image(chosen[(k + 1) % len(chosen)])
            made, where = add_anomaly(read_image(record), donor, kind, seed=[seed, k])
            _write(image, np.asarray(np.round(made * 255), np.uint8))
            _write(mask, where.astype(np.uint8) * 255)
        records.append(
            replace(
                record,
                image=image,
                id=f"synthetic/{kind}/{k:03d}",
                label=1,
                defect_type=kind,
                group="unknown",
                masks=(mask,),
                mask_kind="single",
                object_id=None,
            )
        )
    if chosen[0].region is None:
        return records
    return [record for record in records if load_ground_truth(record, read_size(record.image)).defects]


def add_anomaly(
    image: Colours, donor: Colours, kind: str, *, seed: int | Sequence[int]
) -> tuple[Colours, Mask]:
    """A copy of `image` with one synthetic anomaly of `kind`, and its mask (H, W).

    Rectangles are taken from `donor`, another good image of any size.
    """
    rng = np.random.Generator(np.random.PCG64DXSM(seed))
    changed, mask = image, np.zeros(image.shape[:2], dtype=bool)
    for _ in range(ATTEMPTS):  # a rectangle pasted on a similar place changes too little
        inside, colours = _texture(image, rng) if kind == "texture" else _piece(image, donor, kind, rng)
        changed = np.asarray(np.clip(np.where(inside[:, :, None] > 0, colours, image), 0, 1), np.float32)
        mask = np.abs(changed - image).max(2) >= VISIBLE
        if mask.sum() >= max(4, 0.2 * (inside > 0).sum()):
            return changed, mask
    # No visible change in `ATTEMPTS` draws: white on dark, black on bright.
    colours = np.where(image < 0.5, 1.0, 0.0)
    changed = np.where(inside[:, :, None] > 0, colours, image).astype(np.float32)
    return changed, np.abs(changed - image).max(2) >= VISIBLE


def _piece(
    image: Colours, donor: Colours, kind: str, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], Colours]:
    """A rotated rectangle of the donor at another position, with slightly changed brightness and colour."""
    height, width = image.shape[:2]
    side = min(height, width)
    if kind == "scar":
        size = np.array([rng.uniform(0.008, 0.03), rng.uniform(0.06, 0.25)]) * side
    else:
        area, aspect = rng.uniform(0.004, 0.05) * side**2, np.exp(rng.uniform(-1.1, 1.1))
        size = np.array([np.sqrt(area * aspect), np.sqrt(area / aspect)])
    inside = _rectangle(height, width, np.maximum(size, 2), rng)
    shift = rng.integers([0, 0], [donor.shape[0], donor.shape[1]])
    rows = (np.arange(height) + shift[0]) % donor.shape[0]
    columns = (np.arange(width) + shift[1]) % donor.shape[1]
    colours = donor[rows[:, None], columns[None]] * rng.uniform(0.9, 1.1) * rng.uniform(0.97, 1.03, 3)
    return inside, np.asarray(colours, np.float32)


def _texture(image: Colours, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], Colours]:
    """A partly transparent procedural texture inside the upper half of smooth noise, within a disc."""
    height, width = image.shape[:2]
    side = min(height, width)
    coarse = rng.standard_normal((-(-height * 64 // side), -(-width * 64 // side)))
    noise = ndimage.gaussian_filter(coarse, rng.uniform(1.5, 5))
    noise = ndimage.zoom(noise, (height / noise.shape[0], width / noise.shape[1]), order=1)
    centre = rng.integers([0, 0], [height, width])
    rows, columns = np.ogrid[0:height, 0:width]
    reach = rng.uniform(0.05, 0.2) * side
    near = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < reach**2
    inside = (near & (noise >= np.median(noise[near]))).astype(np.float32)
    texture = procedural_image(int(rng.integers(1 << 30))).astype(np.float32) / 255
    repeats = (-(-height // texture.shape[0]), -(-width // texture.shape[1]), 1)
    texture = np.tile(texture, repeats)[:height, :width]
    opacity = rng.uniform(0.1, 0.6)
    return inside, np.asarray(opacity * texture + (1 - opacity) * image, np.float32)


def _rectangle(
    height: int, width: int, size: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """(height, width), 1 inside a rotated rectangle whose centre is in the image."""
    centre, angle = rng.uniform([0, 0], [height, width]), rng.uniform(0, np.pi)
    rows, columns = np.ogrid[0:height, 0:width]
    u = (columns - centre[1]) * np.cos(angle) + (rows - centre[0]) * np.sin(angle)
    v = (rows - centre[0]) * np.cos(angle) - (columns - centre[1]) * np.sin(angle)
    inside = (abs(u) <= size[1] / 2) & (abs(v) <= size[0] / 2)
    return np.asarray(inside, np.float32)


def _write(path: Path, values: npt.NDArray[np.uint8]) -> None:
    with writing(path) as part:
        Image.fromarray(values).save(part, format="PNG")
