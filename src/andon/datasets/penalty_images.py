"""Penalty images of the student loss (EfficientAD, arXiv 2303.14535, Sec. 3.2): images from a folder, or procedural ones.

The paper uses ImageNet. Procedural images replace it where no photographs are available.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from andon.core.errors import DataError
from andon.core.files import writing
from andon.core.listing import list_images
from andon.core.paths import cache_dir
from andon.core.records import Record

PROCEDURAL = 128
"""Number of procedural images."""
SIDE = 288
VERSION = 1


def penalty_records(folder: str | None, setting: str = "penalty.folder") -> list[Record]:
    """Records of the images in `folder`, or for None of the procedural images (generated once, kept in the cache).

    Raises `DataError`, which names the `setting`, for a folder that does not exist or holds no images.
    """
    if folder is None:
        root = procedural_images(cache_dir() / "penalty" / f"v{VERSION}", PROCEDURAL)
    else:
        root = Path(folder)
        if not root.is_dir():
            raise DataError(
                f"{setting}={folder} does not exist: check the path, or leave it out for procedural pictures"
            )
    images = list_images(root)
    if not images:
        raise DataError(
            f"{setting}={folder} holds no pictures: add some, or leave it out for procedural pictures"
        )
    return [
        Record(image=path, id=f"penalty/{path.stem}", category="penalty", split="train") for path in images
    ]


def procedural_images(folder: Path, count: int) -> Path:
    """Draw the first `count` procedural images into `folder`, except those that exist. Returns `folder`."""
    for index in range(count):
        path = folder / f"{index:03d}.png"
        if not path.is_file():
            with writing(path) as part:
                Image.fromarray(procedural_image(index)).save(part, format="PNG")
    return folder


def procedural_image(index: int, side: int = SIDE) -> npt.NDArray[np.uint8]:
    """(side, side, 3) procedural image number `index`: colour noise, stripes, and flat or textured shapes."""
    rng = np.random.Generator(np.random.PCG64DXSM([index, VERSION]))
    image = _texture(rng, side)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    for _ in range(rng.integers(2, 12)):
        shape = _shape(rng, rows, columns, side)
        fill = _texture(rng, side) if rng.random() < 0.5 else rng.random(3, dtype=np.float32)[None, None, :]
        shade = rng.uniform(0.6, 1.0) + rng.uniform(0.0, 0.4) * columns / side
        image = np.where(shape[:, :, None], fill * shade[:, :, None], image)
    image = ndimage.gaussian_filter(image, (rng.uniform(0.3, 1.2),) * 2 + (0,))
    image += rng.normal(0, rng.uniform(0.0, 0.02), image.shape)
    return np.asarray(np.clip(np.round(image * 255), 0, 255), dtype=np.uint8)


def _texture(rng: np.random.Generator, side: int) -> npt.NDArray[np.float32]:
    """(side, side, 3) in [0, 1]: anisotropic colour noise around a random colour, sometimes with stripes."""
    grain = np.exp(rng.uniform(np.log(0.6), np.log(40.0), 2))
    noise = ndimage.gaussian_filter(rng.standard_normal((side, side, 3)), (*grain, 0), mode="wrap")
    noise /= noise.std() + 1e-6
    if rng.random() < 0.4:  # stripes or checks
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 40)
        rows, columns = np.mgrid[0:side, 0:side]
        wave = np.sin(2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle)) / period)
        noise += rng.uniform(0.5, 2.0) * wave[:, :, None]
    mixed = noise @ rng.uniform(-1, 1, (3, 3))
    return np.asarray(np.clip(rng.random(3) + rng.uniform(0.03, 0.2) * mixed, 0, 1), dtype=np.float32)


def _shape(
    rng: np.random.Generator, rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32], side: int
) -> npt.NDArray[np.bool_]:
    """(side, side), True inside an ellipse, a rotated rectangle or a band."""
    centre, size, angle = rng.uniform(0, side, 2), rng.uniform(0.03, 0.35, 2) * side, rng.uniform(0, np.pi)
    u = (columns - centre[0]) * np.cos(angle) + (rows - centre[1]) * np.sin(angle)
    v = (rows - centre[1]) * np.cos(angle) - (columns - centre[0]) * np.sin(angle)
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray((u / size[0]) ** 2 + (v / size[1]) ** 2 < 1)
    if kind == 1:
        return np.asarray((abs(u) < size[0]) & (abs(v) < size[1]))
    return np.asarray(abs(v) < 0.15 * size[1])
