"""Generate the embedded data sets on disk.

    <root>/embedded_ad/<category>/{train,test,ground_truth}/...      MVTec AD layout
    <root>/embedded_loco/<category>/{train,validation,test,ground_truth}/... and defects_config.json    MVTec LOCO layout
    <root>/dataset.json                                              generator, arguments, sha256 of every file

Each category is drawn by the module of its name in this package, see `Category`. One whose module lists `LOCO_DEFECTS` has
logical defects and the layout of MVTec LOCO AD.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from andon.core.errors import DataError, OutputError, nearest
from andon.core.files import NO_SPACE, to_json
from andon.datasets.embedded.loco_defects import LocoDefect, defects_config, pixel_values
from andon.datasets.embedded.random_streams import CATEGORY_IDS, SPLIT_IDS, Streams, streams
from andon.datasets.embedded.rendering import Rendered, Scene, finish

VERSION = 1
"""Increased whenever the same arguments give different images or masks."""
CATEGORIES: tuple[str, ...] = tuple(CATEGORY_IDS)
MIN_SIZE, MAX_SIZE = 128, 512
ENOUGH_TO_SHARE = 350
"""Number of images from which several processes are used by default."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Numbers of images of a category."""

    train: int
    validation: int
    """Only in the layout of MVTec LOCO AD; that of MVTec AD has no validation folder."""
    good: int
    """Good images in test."""
    defective: int
    """Images of each defect type in test."""


PROFILES = {
    "tiny": Profile(train=8, validation=4, good=4, defective=2),
    "small": Profile(train=60, validation=15, good=25, defective=10),
    "standard": Profile(train=200, validation=40, good=50, defective=20),
}


class Category(Protocol):
    """Interface of the module of a category."""

    DEFECTS: tuple[str, ...]
    MODE: str

    def scene(self, streams: Streams, defect: str | None, height: int) -> Scene:
        """Scene without a defect (None) or with one of `DEFECTS`."""


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One image to draw, with its file names relative to the root."""

    category: str
    split: str
    defect: str | None
    index: int
    """Number among the images of this split and defect; part of the seed."""
    image: str
    masks: str = ""
    """Mask file, or with a trailing `/` a folder of numbered mask files; empty for good images."""


def category_module(name: str) -> Category:
    """The module that draws a category. Raises `DataError` for unknown names."""
    if name not in CATEGORY_IDS:
        raise DataError(f"unknown generated category {name!r}; {nearest(name, CATEGORIES)}")
    return cast(Category, importlib.import_module(f"{__package__}.{name}"))


def loco_defects(name: str) -> tuple[LocoDefect, ...]:
    """Defect types of a category in the layout of MVTec LOCO AD; empty for one in the layout of MVTec AD."""
    return getattr(category_module(name), "LOCO_DEFECTS", ())


def render(
    category: str, split: str, defect: str | None, index: int, *, size: int = 256, seed: int = 0
) -> Rendered:
    """Draw one image with its defect-free twin and its masks, as `generate` does.

    `split` is train, validation or test; `defect` one of the category's defect types, None or "good" for a good image;
    `index` counts the images of that split and defect from 0; `size` is the height in pixels. Raises `DataError` for
    unknown names and for sizes outside 128 to 512.
    """
    module = category_module(category)
    if split not in SPLIT_IDS:
        raise DataError(f"unknown split {split!r}; {nearest(split, SPLIT_IDS)}")
    if defect == "good":
        defect = None
    if defect is not None and defect not in module.DEFECTS:
        raise DataError(f"{category} has no defect type {defect!r}; {nearest(defect, module.DEFECTS)}")
    _check_size(size)

    defect_id = 0 if defect is None else 1 + sorted(module.DEFECTS).index(defect)
    anew = partial(streams, seed, category, split, defect_id, index)
    good = module.scene(anew(), None, size)
    rendered = finish(good if defect is None else module.scene(anew(), defect, size), good, anew, size / 256)
    # The masks of structural defects are derived from images, scenes state those of logical ones.
    structural = pixel_values(loco_defects(category), "structural")
    if defect in structural:
        return replace(rendered, masks=tuple((structural[defect], mask) for _, mask in rendered.masks))
    return rendered


def planned_images(category: str, profile: Profile) -> Iterator[PlannedImage]:
    """All images of a category, good ones first."""
    loco = loco_defects(category)
    folder = f"{'embedded_loco' if loco else 'embedded_ad'}/{category}"
    validation = profile.validation if loco else 0
    for split, count in (("train", profile.train), ("validation", validation), ("test", profile.good)):
        for index in range(count):
            yield PlannedImage(category, split, None, index, f"{folder}/{split}/good/{index:03d}.png")
    if loco:
        yield from _grouped_defects(category, loco, folder, profile.defective)
        return
    for defect in category_module(category).DEFECTS:
        for index in range(profile.defective):
            image, mask = (f"{folder}/{top}/{defect}/{index:03d}" for top in ("test", "ground_truth"))
            yield PlannedImage(category, "test", defect, index, f"{image}.png", f"{mask}_mask.png")


def _grouped_defects(
    category: str, rows: Sequence[LocoDefect], folder: str, count: int
) -> Iterator[PlannedImage]:
    """Anomalous images of the layout of MVTec LOCO AD, numbered within each of the two groups."""
    numbers = {"logical": 0, "structural": 0}
    for row in rows:
        for index in range(count):
            place = f"{row.group}_anomalies/{numbers[row.group]:03d}"
            numbers[row.group] += 1
            image, masks = f"{folder}/test/{place}.png", f"{folder}/ground_truth/{place}/"
            yield PlannedImage(category, "test", row.name, index, image, masks)


def generate(
    root: Path | str,
    profile: str = "small",
    size: int = 256,
    seed: int = 0,
    categories: Sequence[str] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the embedded data sets below `root` and return it.

    `profile` is tiny, small or standard; `size` is the height in pixels, 128 to 512; `categories` is by default all of
    `CATEGORIES`. `workers` is the number of processes, by default one per core from `ENOUGH_TO_SHARE` images on; the files
    do not depend on it. `progress` is called with (images drawn, total). An interrupted call leaves no data set.

    Raises `DataError` for invalid arguments, `OutputError` when `root` contains such data or cannot be written.
    """
    root = Path(root)
    chosen = list(CATEGORIES) if categories is None else list(dict.fromkeys(categories))
    _check_arguments(profile, size, seed, chosen, workers)
    _check_free(root)
    part = root / f".{os.getpid()}.part"
    try:
        part.mkdir(parents=True)
        work = [image for name in chosen for image in planned_images(name, PROFILES[profile])]
        files = _draw_all(part, work, size, seed, workers, progress)
        for name in chosen:
            if rows := loco_defects(name):
                config = defects_config(rows, size)
                files.update(_write(part, f"embedded_loco/{name}/defects_config.json", config))
        arguments = {"profile": profile, "size": size, "seed": seed, "categories": chosen}
        _write(part, "dataset.json", _description(arguments, files))
        _publish(part, root)
    except OSError as error:
        advice = "free some space" if error.errno in NO_SPACE else "choose another folder"
        raise OutputError(f"{root} cannot be written ({error.strerror}): {advice}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def _check_arguments(profile: str, size: int, seed: int, chosen: Sequence[str], workers: int | None) -> None:
    """Raise `DataError` for the first invalid argument of `generate`."""
    if profile not in PROFILES:
        raise DataError(f"unknown profile {profile!r}; {nearest(profile, PROFILES)}")
    _check_size(size)
    if seed < 0:
        raise DataError(f"seed is {seed}, must be 0 or more")
    if workers is not None and workers < 1:
        raise DataError(f"workers is {workers}, must be 1 or more")
    for name in chosen:
        category_module(name)
    if not chosen:
        raise DataError(f"no categories to generate; {nearest('', CATEGORIES)}")


def _check_free(root: Path) -> None:
    """Raise `OutputError` when `root` contains generated data."""
    for name in ("embedded_ad", "embedded_loco", "dataset.json"):
        if (root / name).exists():
            raise OutputError(f"{root / name} is already there: delete it or choose another folder")


def _publish(part: Path, root: Path) -> None:
    """Move the content of `part` to `root`; `dataset.json` comes last, it marks the data set as complete."""
    for made in sorted(part.iterdir(), reverse=True):
        if made.is_dir():
            made.rename(root / made.name)
    (part / "dataset.json").rename(root / "dataset.json")


def _description(arguments: dict[str, object], files: dict[str, str]) -> str:
    return (
        to_json(
            {
                "generator": "andon embedded data sets",
                "generator_version": VERSION,
                "numpy_version": np.__version__,
                "licence": "Apache-2.0",
                "arguments": arguments,
                "files": dict(sorted(files.items())),
            }
        )
        + "\n"
    )


def _draw_all(
    root: Path,
    work: Sequence[PlannedImage],
    size: int,
    seed: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Draw and write all images, in this process or in `workers` processes. Returns {path: sha256}."""
    if workers is None:
        workers = (os.cpu_count() or 1) if len(work) >= ENOUGH_TO_SHARE else 1
    draw = partial(_draw, root, size, seed)
    files: dict[str, str] = {}

    def collect(results: Iterator[dict[str, str]]) -> None:
        for done, written in enumerate(results, start=1):
            files.update(written)
            if progress is not None:
                progress(done, len(work))

    if workers == 1:
        collect(map(draw, work))
        return files
    pool = ProcessPoolExecutor(min(workers, len(work)), multiprocessing.get_context("spawn"))
    try:
        collect(pool.map(draw, work, chunksize=4))
    finally:
        pool.shutdown(cancel_futures=True)
    return files


def _draw(root: Path, size: int, seed: int, planned: PlannedImage) -> dict[str, str]:
    """Draw one image and write its files. Returns {path: sha256}."""
    rendered = render(planned.category, planned.split, planned.defect, planned.index, size=size, seed=seed)
    files = _write(root, planned.image, png(rendered.image))
    for number, (value, mask) in enumerate(rendered.masks):
        path = f"{planned.masks}{number:03d}.png" if planned.masks.endswith("/") else planned.masks
        files |= _write(root, path, png(np.where(mask, value, 0).astype(np.uint8)))
    return files


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """PNG file of an image or mask, the same bytes for the same pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def _write(root: Path, name: str, content: bytes | str) -> dict[str, str]:
    """Write one file below `root`. Returns {name: sha256}."""
    data = content.encode() if isinstance(content, str) else content
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {name: hashlib.sha256(data).hexdigest()}


def _check_size(size: int) -> None:
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise DataError(f"size is {size}, must be {MIN_SIZE} to {MAX_SIZE} pixels (height of the pictures)")
