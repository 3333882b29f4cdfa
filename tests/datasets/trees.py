"""Tiny data sets on disk, one helper per layout, and archives of them."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from andon.core.records import Record
from andon.datasets import Dataset

SIDE = 16
SHAPE = (SIDE, SIDE)


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE), mode: str = "RGB") -> Path:
    """A image of `size` = (width, height) with random content that depends on path and seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *os.fsencode(path.as_posix())])
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


def write_images(folder: Path, count: int, suffix: str = ".png") -> list[Path]:
    """`000`, `001`, ... in `folder`."""
    return [write_image(folder / f"{index:03d}{suffix}") for index in range(count)]


def mvtec_tree(
    folder: Path,
    *,
    train: int = 12,
    good: int = 3,
    defects: Mapping[str, int] | None = None,
    masks: bool = True,
) -> Path:
    """A category in the layout of MVTec AD."""
    write_images(folder / "train" / "good", train)
    write_images(folder / "test" / "good", good)
    for kind, count in ({"crack": 2, "scratch": 3} if defects is None else defects).items():
        for image in write_images(folder / "test" / kind, count):
            if masks:
                write_mask(folder / "ground_truth" / kind / f"{image.stem}_mask.png")
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
    """A category in the layout of MVTec LOCO AD; `masks` gives the mask values of each test image."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "defects_config.json").write_text(json.dumps(config))
    write_images(folder / "train" / "good", 12)
    write_images(folder / "validation" / "good", validation)
    write_images(folder / "test" / "good", 2)
    for kind, files in (
        masks or {"logical_anomalies": [[255], [255, 240]], "structural_anomalies": [[240]]}
    ).items():
        for image, values in zip(write_images(folder / "test" / kind, len(files)), files, strict=True):
            for number, value in enumerate(values):
                write_mask(folder / "ground_truth" / kind / image.stem / f"{number:03d}.png", value)
    return folder


ARCHIVE_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz", "tar.bz2": "w:bz2"}


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def pack(folder: Path, archive: Path, inside: str = "") -> Path:
    """An archive of what is in `folder`, of the kind its name says."""
    files = [(path, f"{inside}{path.relative_to(folder).as_posix()}") for path in sorted(folder.rglob("*"))]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for path, name in files:
                opened.write(path, name)
        return archive
    with tarfile.open(archive, ARCHIVE_MODES[archive.name.split(".", 1)[1]]) as opened:
        for path, name in files:
            opened.add(path, name, recursive=False)
    return archive


def ids(records: Iterable[Record]) -> list[str]:
    return [record.id for record in records]


def stems(records: Iterable[Record]) -> list[str]:
    return [record.image.stem for record in records]


def by_id(records: Sequence[Record]) -> dict[str, Record]:
    found = {record.id: record for record in records}
    assert len(found) == len(records), "ids are unique"
    return found


def all_by_id(data: Dataset) -> dict[str, Record]:
    return by_id([*data.train, *data.validation, *data.test])
