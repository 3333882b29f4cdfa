"""What lies in a data set and is not read: counted and named, so that nothing is left out silently. No file is opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from andon.core.listing import BROKEN, FILE, FORMAT, HIDDEN, LINK, OWN, PassedBy, images_below, list_images
from andon.core.text import plural
from andon.datasets.dataset import Dataset
from andon.datasets.findings import Findings, first_few
from andon.datasets.folder_names import MASKS, RESERVED
from andon.datasets.folder_scan import folders_in, holds_images


def unread_files(dataset: Dataset, folder: Path) -> Findings:
    """Findings about the files below the folder of a category that are no images, masks or points of `dataset`.

    Masks without an image are a finding of reading masks.
    """
    passed = PassedBy()
    unread = _without_used(
        [path for path in images_below(folder, passed) if not _in_masks(path, folder)], dataset
    )
    warnings = []
    if unread:
        places = Counter(path.parent.relative_to(folder).as_posix() for path in unread)
        listed = first_few([f"{place} ({count})" for place, count in places.items()])
        example = unread[0].relative_to(folder).as_posix()
        warnings.append(
            f"{plural(len(unread), 'picture')} in {folder} {'is' if len(unread) == 1 else 'are'} not read: {listed}, such as "
            f"{example}; move them, or say what a folder of them holds with --good NAME or --bad NAME"
        )
    return Findings(
        warnings=(*warnings, *passed.lines(FORMAT, BROKEN)),
        notes=tuple(passed.lines(OWN, HIDDEN, LINK, FILE)),
    )


def unnamed_files(named: Collection[Path]) -> Findings:
    """A note about images in the folders of the `named` ones that a table does not name."""
    known = {path.resolve() for path in named}
    folders = dict.fromkeys(path.parent for path in sorted(known))
    images = (path for folder in folders for path in list_images(folder))
    beside = [path for path in images if path not in known and path.resolve() not in known]
    if not beside:
        return Findings()
    return Findings(
        notes=(
            f"{plural(len(beside), 'picture')} beside those of the manifest not named in it: {first_few(beside)}",
        )
    )


def unread_folders(path: Path, categories: Collection[Path]) -> list[str]:
    """Names of the folders with images in `path` that are no category, although others are."""
    if not path.is_dir() or path in categories:
        return []
    return [
        folder.name
        for folder in folders_in(path)
        if folder not in categories and folder.name.lower() not in RESERVED and holds_images(folder)
    ]


def _in_masks(path: Path, folder: Path) -> bool:
    return any(part.lower() in MASKS for part in path.parent.relative_to(folder).parts)


def _without_used(found: list[Path], dataset: Dataset) -> list[Path]:
    """Those of the images that the data set neither uses nor names in a message, wherever links lead."""
    records = [*dataset.train, *dataset.validation, *dataset.test]
    used = {path for record in records for path in (record.image, *record.masks, record.depth) if path}
    used.update(dataset.findings.told)
    left = [path for path in found if path not in used]
    if not left:
        return []
    real = {os.path.realpath(path) for path in used}
    return [path for path in left if os.path.realpath(path) not in real]
