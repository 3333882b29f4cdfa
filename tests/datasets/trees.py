"""Tiny data sets on disk, one helper per layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 16


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE), mode: str = "RGB") -> Path:
    """A picture of `size` = (width, height) with random content that depends on path and seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *path.as_posix().encode()])
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def write_mask(
    path: Path, values: npt.NDArray[np.uint8] | int = 255, size: tuple[int, int] = (SIDE, SIDE)
) -> Path:
    """A mask file with `values`, or with a 4 x 5 block of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(values, int):
        block = np.zeros((size[1], size[0]), dtype=np.uint8)
        block[3:7, 2:7] = values
        values = block
    Image.fromarray(values).save(path)
    return path


def write_pictures(folder: Path, count: int, suffix: str = ".png") -> list[Path]:
    """`000`, `001`, ... in `folder`."""
    return [write_picture(folder / f"{index:03d}{suffix}") for index in range(count)]


def mvtec_tree(
    folder: Path,
    *,
    train: int = 12,
    good: int = 3,
    defects: Mapping[str, int] | None = None,
    masks: bool = True,
) -> Path:
    """A category in the layout of MVTec AD."""
    write_pictures(folder / "train" / "good", train)
    write_pictures(folder / "test" / "good", good)
    for kind, count in ({"crack": 2, "scratch": 3} if defects is None else defects).items():
        for picture in write_pictures(folder / "test" / kind, count):
            if masks:
                write_mask(folder / "ground_truth" / kind / f"{picture.stem}_mask.png")
    return folder


DEFECTS = (
    {
        "defect_name": "1_additional_pushpin",
        "pixel_value": 255,
        "saturation_threshold": 6,
        "relative_saturation": False,
    },
    {"defect_name": "scratch", "pixel_value": 240, "saturation_threshold": 0.34, "relative_saturation": True},
)


def loco_tree(
    folder: Path,
    *,
    masks: Mapping[str, Sequence[Sequence[int]]] | None = None,
    config: Sequence[Mapping[str, object]] | None = DEFECTS,
    validation: int = 2,
) -> Path:
    """A category in the layout of MVTec LOCO AD; `masks` gives the mask values of each test picture."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "defects_config.json").write_text(json.dumps(config))
    write_pictures(folder / "train" / "good", 12)
    write_pictures(folder / "validation" / "good", validation)
    write_pictures(folder / "test" / "good", 2)
    for kind, files in (
        masks or {"logical_anomalies": [[255], [255, 240]], "structural_anomalies": [[240]]}
    ).items():
        for picture, values in zip(write_pictures(folder / "test" / kind, len(files)), files, strict=True):
            for number, value in enumerate(values):
                write_mask(folder / "ground_truth" / kind / picture.stem / f"{number:03d}.png", value)
    return folder
