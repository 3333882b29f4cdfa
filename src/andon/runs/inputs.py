"""The images that are named on the command line, and those below the folders named there."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from andon.core.errors import DataError
from andon.core.image_files import point_cloud_beside
from andon.core.listing import PassedBy, images_below, is_image
from andon.core.records import Record
from andon.datasets.no_run import check_no_run, is_run


class PassedByWarning(UserWarning):
    """Files or folders among the input were not read."""


def check_order(run: Path, images: Sequence[Path]) -> None:
    """Raise `DataError` where an image stands in place of the run, or a run among the images that it is to judge."""
    found = next((path for path in images if is_run(path)), None)
    if found is not None and not is_run(run):
        raise DataError(
            f"{found} is a run and comes first, before the pictures: `andon predict {quote(str(found))} {quote(str(run))}`"
        )
    if run.is_file() and is_image(run):
        raise DataError(f"{run} is a picture, the run comes first: `andon predict RUN {quote(str(run))}`")


def list_inputs(inputs: Sequence[Path], passed: PassedBy | None = None) -> list[Record]:
    """Records of the named images and of all images below the named folders, as `walk_inputs` gives them.

    Ids are unique: the files' names where that is enough, longer paths otherwise. Raises `DataError` as `walk_inputs`.
    """
    records = list(walk_inputs(inputs, passed))
    counts = Counter(record.id for record in records)
    return [record if counts[record.id] == 1 else _by_whole_path(record) for record in records]


def walk_inputs(inputs: Sequence[Path], passed: PassedBy | None = None) -> Iterator[Record]:
    """Records of the named images and of those below the named folders: folder by folder, in natural order.

    Names are read as they are needed. The id is the path below the folder, or the file's name. What is passed by is counted
    in `passed`, and told as a `PassedByWarning` at the end. Raises `DataError` for a path that is not there, and at
    the end for a folder without images.
    """
    passed = PassedBy() if passed is None else passed
    empty: list[Path] = []
    for path in inputs:
        check_no_run(path)
        if not path.exists():
            raise DataError(f"{path} does not exist: check the path, as in `andon predict RUN IMAGES`")
        if not path.is_dir():
            yield Record(image=path, id=path.name, depth=point_cloud_beside(path))
            continue
        is_empty = True
        for image in images_below(path, passed):
            is_empty = False
            yield Record(image=image, id=image.relative_to(path).as_posix(), depth=point_cloud_beside(image))
        if is_empty:
            empty.append(path)
    if empty:
        raise no_images(empty[0], passed)
    for line in passed.lines():
        warnings.warn(line, PassedByWarning, stacklevel=2)


def walk_archive(inputs: Sequence[Path], passed: PassedBy | None = None) -> Iterator[Record]:
    """As `walk_inputs`; the id is the whole path where several inputs are given, since names are not known in advance."""
    for record in walk_inputs(inputs, passed):
        yield record if len(inputs) == 1 else _by_whole_path(record)


def _by_whole_path(record: Record) -> Record:
    """With an id that no other file has, so that one's heat map does not replace another's."""
    return replace(record, id="/".join(record.image.resolve().parts[1:]))


def no_images(path: Path, passed: PassedBy) -> DataError:
    """The error of a folder without images, which says what it holds instead."""
    what = "".join(f" ({line})" for line in passed.lines())
    return DataError(
        f"{path} holds no pictures that can be read{what}: give a folder with png, jpg, bmp, tif or webp files, as in "
        "`andon predict RUN IMAGES`"
    )
