"""Trees of `train/<good>`, `validation/<good>`, `test/<type>` and optional masks: MVTec AD and its kin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.images import natural_key
from andon.core.records import Group, Record, Split
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog, pictures, some
from andon.datasets.folder_names import GOOD, MASKS, TEST, TRAIN, VALIDATION, is_good
from andon.datasets.layouts import Options
from andon.datasets.listing import folders_in, named, scan
from andon.datasets.masks import Saturation
from andon.datasets.pairing import NO_TRUTH, MaskFolders, Truth, split_companions
from andon.datasets.splits import VALIDATION_PERCENT, hold_out


def is_tree(folder: Path) -> bool:
    """Whether `train/<good>` exists, names in any case."""
    return any(named(folders_in(train), GOOD) for train in named(folders_in(folder), TRAIN))


def read_tree(
    folder: Path,
    category: str,
    options: Options,
    *,
    layout: str,
    group: Callable[[str], Group],
    saturation: Mapping[int, Saturation] | None = None,
    log: FindingsLog | None = None,
) -> Dataset:
    """Read one category. `group` gives the group of a defect folder's name.

    Raises `DataError` when there are no images in `train/<good>`, or too few to hold one out.
    """
    log = log or FindingsLog()
    train = _good_records(folder, TRAIN, category, "train", log)
    if not train:
        raise DataError(f"{folder} has no pictures in train/good: add pictures of good parts")
    validation = _good_records(folder, VALIDATION, category, "validation", log)
    if not validation and options.hold_out:
        train, validation = hold_out(train, VALIDATION_PERCENT, options.seed, base=folder, into="validation")
        log.notes.append(
            f"{pictures(len(validation))} of train held out for validation (seed {options.seed})"
        )
    test = _test_records(folder, category, group, log)
    return Dataset(
        name=layout,
        root=folder.parent,
        category=category,
        layout=layout,
        train=Records(train),
        validation=Records(validation),
        test=Records(test),
        saturation=saturation,
        findings=log.findings(),
    )


def _good_records(
    folder: Path, names: frozenset[str], category: str, split: Split, log: FindingsLog
) -> list[Record]:
    records: list[Record] = []
    for top in named(folders_in(folder), names):
        for kind in folders_in(top):
            listed = scan(kind, log).pictures
            if is_good(kind.name):
                records += records_of(kind, listed, folder.parent, category, split, log=log)
            elif listed and kind.name.lower() not in MASKS:
                log.errors.append(
                    f"{kind} holds {pictures(len(listed))} in {split}, which is for good ones: left out, "
                    "move them to test"
                )
    return records


def _test_records(
    folder: Path, category: str, group: Callable[[str], Group], log: FindingsLog
) -> list[Record]:
    tops = named(folders_in(folder), TEST)
    kinds = [kind for top in tops for kind in folders_in(top) if kind.name.lower() not in MASKS]
    defects = [kind for kind in kinds if not is_good(kind.name)]
    masks = MaskFolders(folder, log)
    records: list[Record] = []
    for kind in kinds:
        listed = scan(kind, log).pictures
        is_anomalous = kind in defects
        truths = masks.truths(listed, kind, only=defects == [kind])
        records += records_of(
            kind,
            listed,
            folder.parent,
            category,
            "test",
            defect_type=kind.name if is_anomalous else "good",
            group=group(kind.name) if is_anomalous else "good",
            truths=truths,
            log=log,
        )
    masks.report_unused()
    for top in tops:
        loose = scan(top, log).pictures
        if loose:
            log.warnings.append(
                f"{pictures(len(loose))} directly in {top} have no label and are not read: {some(loose)}"
            )
    log_missing_masks(records, log)
    return sorted(records, key=lambda record: record.defect_type)


def records_of(
    folder: Path,
    listed: Sequence[Path],
    root: Path,
    category: str,
    split: Split,
    *,
    defect_type: str = "good",
    group: Group = "good",
    truths: Mapping[Path, Truth] | None = None,
    log: FindingsLog,
) -> list[Record]:
    """Records of the images `listed` in one folder; masks among them are attached to their images."""
    label = 0 if defect_type == "good" else 1
    kept, beside = split_companions(listed, plain=label == 1)
    if beside:
        names = [found.masks[0].name for found in beside.values()]
        log.notes.append(
            f"{len(beside)} files beside pictures in {folder} are read as their masks: {some(names)}"
        )
    truth = beside | dict(truths or {})
    records = []
    for picture, name in zip(kept, unique_ids(kept, root), strict=True):
        found = truth.get(picture, NO_TRUTH)
        records.append(
            Record(picture, name, category, split, label, defect_type, group, found.masks, found.kind)
        )
    return records


def unique_ids(listed: Sequence[Path], root: Path) -> list[str]:
    """POSIX paths relative to `root` without suffix; with it where two images differ in nothing else."""
    stems = Counter((path.parent, path.stem) for path in listed)
    return [
        (path if stems[path.parent, path.stem] > 1 else path.with_name(path.stem))
        .relative_to(root)
        .as_posix()
        for path in listed
    ]


def present(records: Sequence[Record], table: str, log: FindingsLog) -> list[Record]:
    """Those of the records named in `table` whose image is there; a mask that is not there is taken off its record."""
    absent = [record.id for record in records if not record.image.is_file()]
    if absent:
        log.errors.append(
            f"{pictures(len(absent))} named in {table} are not there: {some(absent)}; copy them again"
        )
    gone = set(absent)
    return [
        record
        if all(mask.is_file() for mask in record.masks)
        else replace(record, masks=(), mask_kind="none")
        for record in records
        if record.id not in gone
    ]


def ordered(records: Sequence[Record]) -> Records:
    """By defect type, then natural order of ids."""
    return Records(sorted(records, key=lambda record: (record.defect_type, natural_key(record.id))))


def log_missing_masks(records: Sequence[Record], log: FindingsLog) -> None:
    """Say which anomalous images have no mask, or that none has."""
    anomalous = [record for record in records if record.label == 1]
    missing = [record.id for record in anomalous if not record.masks]
    if anomalous and len(missing) == len(anomalous):
        log.notes.append("no masks: only image metrics can be computed")
    elif missing:
        log.errors.append(
            f"{len(missing)} of {len(anomalous)} anomalous pictures have no mask and are left out of "
            f"pixel metrics: {some(missing)}"
        )
