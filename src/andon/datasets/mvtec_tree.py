"""Read folders of the form `train/good`, `validation/good`, `test/<type>` with optional masks, as in MVTec AD.

Folders inside a good one are sessions: `train/good/monday/000.png`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from andon.core.errors import DataError
from andon.core.listing import images_below
from andon.core.records import Group, Record, Split
from andon.core.text import plural
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_names import MASKS, TEST, TRAIN, VALIDATION, FolderNames
from andon.datasets.folder_scan import folders_in, image_folders, named, scan
from andon.datasets.layouts import Options
from andon.datasets.mask_pairing import MaskFolders
from andon.datasets.masks import Saturation
from andon.datasets.record_building import (
    anomalous_folder_records,
    chosen_good,
    good_folder_records,
    log_missing_masks,
    of_split,
    say_guess,
)
from andon.datasets.splits import hold_out_validation


def is_mvtec_tree(folder: Path, options: Options) -> bool:
    """Whether `train/good` exists; all names of `folder_names` are accepted."""
    return any(options.names.goods(folders_in(train)) for train in named(folders_in(folder), TRAIN))


def read_mvtec_tree(
    folder: Path,
    category: str,
    options: Options,
    *,
    layout: str,
    group: Callable[[str], Group],
    saturation: Mapping[int, Saturation] | None = None,
    log: FindingsLog | None = None,
) -> Dataset:
    """Read one category. `group` maps the name of a defect folder to its group.

    Raises `DataError` when `train/good` has no images, or too few to hold one out.
    """
    log = log or FindingsLog()
    train = _good_records(folder, TRAIN, category, "train", options.names, log)
    if not train:
        raise DataError(f"{folder} has no pictures in train/good: add pictures of good parts")
    validation = _good_records(folder, VALIDATION, category, "validation", options.names, log)
    good = chosen_good([*train, *validation], options, log)
    train, validation = of_split(good, "train"), of_split(good, "validation")
    if not validation and options.hold_out:
        train, validation = hold_out_validation(train, options.seed, log, base=folder)
    test = _test_records(folder, category, group, options.names, log)
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
    folder: Path, tops: frozenset[str], category: str, split: Split, names: FolderNames, log: FindingsLog
) -> list[Record]:
    records: list[Record] = []
    for top in named(folders_in(folder), tops):
        for kind in folders_in(top):
            if names.is_good(kind.name):
                say_guess(names, log, good=[kind])
                records += good_folder_records(kind, folder.parent, category, split, names, log=log)
                continue
            listed = [] if kind.name.lower() in MASKS else list(images_below(kind))
            if listed:
                log.told += listed
                log.errors.append(
                    f"{kind} holds {plural(len(listed), 'picture')} in {split}, which is for good ones: left out, "
                    "move them to test"
                )
    return records


def _test_records(
    folder: Path, category: str, group: Callable[[str], Group], names: FolderNames, log: FindingsLog
) -> list[Record]:
    tops = named(folders_in(folder), TEST)
    kinds = [kind for top in tops for kind in folders_in(top) if kind.name.lower() not in MASKS]
    defects = [kind for kind in kinds if not names.is_good(kind.name)]
    masks = MaskFolders(folder, log)
    records: list[Record] = []
    for kind in kinds:
        found = image_folders(kind, log)
        mask_files = masks.files_below(found, kind, only=defects == [kind])
        if kind not in defects:
            say_guess(names, log, good=[kind])
            records += good_folder_records(
                kind, folder.parent, category, "test", names, mask_files=mask_files, log=log
            )
            continue
        records += anomalous_folder_records(
            found, folder.parent, category, kind.name, group=group(kind.name), mask_files=mask_files, log=log
        )
    masks.report_unused()
    for top in tops:
        loose = scan(top, log).images
        if loose:
            log.told += loose
            log.warnings.append(
                f"{plural(len(loose), 'picture')} directly in {top} have no label and are not read: {first_few(loose)}"
            )
    log_missing_masks(records, log)
    return sorted(records, key=lambda record: record.defect_type)
