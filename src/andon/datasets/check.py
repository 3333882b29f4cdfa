"""`check_dataset`: opens every file of a data set once and reports what is wrong."""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from andon.core.appearance import range_warnings
from andon.core.deep_images import AlphaWarning, bit_depth_of, describe_bit_depth
from andon.core.errors import DataError
from andon.core.image_files import decode, read_points
from andon.core.progress import NoProgress, Progress, track
from andon.core.records import Record
from andon.core.text import plural
from andon.datasets.dataset import Dataset, file_digest
from andon.datasets.findings import Findings, FindingsLog, first_few
from andon.datasets.masks import has_pixel_truth, load_ground_truth
from andon.datasets.open import list_categories, open_dataset, unread_categories

MIN_TRAIN, MIN_VALIDATION = 10, 5
"""A warning is given below these numbers of good images."""


@dataclass(frozen=True, slots=True)
class _FileCheck:
    """What was found in the files of one record."""

    digest: str = ""
    size: tuple[int, int] | None = None
    """(H, W), None where the image cannot be read."""
    mode: str = ""
    brightest: float = 0.0
    """Largest value in [0, 1], where those of 16-bit files use all bits."""
    largest: int | None = None
    """Largest stored value of a file with more than 8 bits."""
    has_truth: bool = True
    errors: tuple[str, ...] = ()


def check_dataset(
    data: Dataset | str | Path,
    category: str | None = None,
    layout: str = "auto",
    *,
    seed: int = 0,
    allow_outside: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Decode every image and mask and return the problems; faults of the data are not raised.

    Without `category` all categories of a path are checked. Errors are unreadable files, masks that do not fit their
    image, anomalous images in train, and files that are both in test and in another split. `workers` is the number of
    decoding threads.
    """
    if isinstance(data, Dataset):
        return _check(data, workers, progress or NoProgress())
    findings = Findings()
    try:
        categories = [category] if category else list_categories(data, layout, allow_outside=allow_outside)
    except DataError as error:
        return Findings(errors=(str(error),))
    for name in categories:
        try:
            dataset = open_dataset(data, name, layout, seed=seed, allow_outside=allow_outside)
        except DataError as error:
            findings += Findings(errors=(str(error),))
            continue
        findings += _check(dataset, workers, progress or NoProgress())
    return findings + (Findings() if category else unread_categories(data, layout))


def _check(dataset: Dataset, workers: int | None, progress: Progress) -> Findings:
    records = [*dataset.train, *dataset.validation, *dataset.test]
    threads = workers or min(8, os.cpu_count() or 1)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore", AlphaWarning)
        found = pool.map(lambda record: _check_files(record, dataset), records)
        checks = list(track(progress, found, f"Checking {dataset.category}", len(records)))
    log = FindingsLog()
    log.errors += [error for check in checks for error in check.errors]
    _check_counts(dataset, log)
    _check_duplicates(records, checks, log)
    _check_truth(records, checks, log)
    _check_kinds(checks, log)
    _check_bit_depth(records, checks, log)
    log.notes.insert(0, dataset.summary())
    return dataset.findings + log.findings()


def _check_files(record: Record, dataset: Dataset) -> _FileCheck:
    try:
        digest = file_digest(record.image)
        decoded = decode(record.image)
    except DataError as error:
        return _FileCheck(errors=(str(error),))
    height, width = decoded.pixels.shape[:2]
    errors = []
    has_truth = True
    try:
        has_truth = has_pixel_truth(record, load_ground_truth(record, (height, width), dataset.saturation))
        if record.depth is not None:
            read_points(record.depth, (height, width))
    except DataError as error:
        errors.append(str(error))
    return _FileCheck(
        digest=digest,
        size=(height, width),
        mode=decoded.mode,
        brightest=float(decoded.pixels.max()),
        largest=decoded.largest,
        has_truth=has_truth,
        errors=tuple(errors),
    )


def _check_counts(dataset: Dataset, log: FindingsLog) -> None:
    wanted = (("train", dataset.train, MIN_TRAIN), ("validation", dataset.validation, MIN_VALIDATION))
    for name, records, least in wanted:
        if len(records) < least:
            log.warnings.append(
                f"{dataset.category} has {plural(len(records), 'picture')} for {name}, {least} or more are advised"
            )


def _check_duplicates(records: Sequence[Record], checks: Sequence[_FileCheck], log: FindingsLog) -> None:
    """Log an error for a file both in test and in another split, a warning for any other duplicate."""
    same: dict[str, list[Record]] = defaultdict(list)
    for record, check in zip(records, checks, strict=True):
        if check.digest:
            same[check.digest].append(record)
    for twins in same.values():
        if len(twins) < 2:
            continue
        splits = {record.split for record in twins}
        rank = log.errors if "test" in splits and len(splits) > 1 else log.warnings
        where = " and ".join(sorted(splits))
        rank.append(
            f"the same picture {len(twins)} times in {where}: {first_few([record.id for record in twins])}; "
            "keep one"
        )


def _check_truth(records: Sequence[Record], checks: Sequence[_FileCheck], log: FindingsLog) -> None:
    empty = [
        record.id
        for record, check in zip(records, checks, strict=True)
        if record.label == 1 and record.masks and check.size and not check.has_truth
    ]
    if empty:
        log.warnings.append(
            f"{len(empty)} anomalous pictures have an empty mask and are left out of pixel metrics: "
            f"{first_few(empty)}"
        )


def _check_kinds(checks: Sequence[_FileCheck], log: FindingsLog) -> None:
    sizes = Counter(f"{check.size[1]} x {check.size[0]}" for check in checks if check.size)
    modes = Counter(check.mode for check in checks if check.size)
    for what, kinds in (("sizes", sizes), ("pixel modes", modes)):
        if len(kinds) > 1:
            log.notes.append(
                f"{len(kinds)} {what}: {first_few([f'{kind} ({count})' for kind, count in kinds.most_common()])}"
            )


def _check_bit_depth(records: Sequence[Record], checks: Sequence[_FileCheck], log: FindingsLog) -> None:
    """Note how many bits the good images use; log an error for test images above, a warning where little of the range is used."""
    read = [(record, check) for record, check in zip(records, checks, strict=True) if check.size]
    learned = [
        check.largest for record, check in read if record.split != "test" and check.largest is not None
    ]
    bits = bit_depth_of(max(learned)) if learned else 16
    if learned:
        log.notes.append(describe_bit_depth(bits, max(learned)))
    above = {record.id: check.largest for record, check in read if (check.largest or 0) >= 2**bits}
    if above:
        log.errors.append(
            f"{plural(len(above), 'picture')} with values above the {bits} bits of the training pictures, which are not read: "
            f"{first_few(list(above))}; fit with --set bit_depth={bit_depth_of(max(value or 0 for value in above.values()))}"
        )
    scale = 65535 / (2**bits - 1)
    brightest = max(
        (check.brightest * (scale if check.largest is not None else 1) for _, check in read), default=1
    )
    log.warnings += range_warnings(brightest, len(read))
