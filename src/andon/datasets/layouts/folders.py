"""One folder of normal and one of defective images (docs/reference/data.md, "Own folders").

    <category>/normal/*.jpg  or  <category>/normal/<session>/*.jpg
    <category>/defect/*.jpg  or  <category>/defect/<type>/*.jpg
    <category>/masks/...                                    optional

20 % of the normal images go to test, 10 % of the remaining ones to validation; all defective images go to test.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Record
from andon.core.text import plural
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_names import MASKS, RESERVED, FolderNames
from andon.datasets.folder_scan import folders_in, has_images, holds_images, image_folders, scan
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.mask_pairing import MaskFolders
from andon.datasets.record_building import (
    anomalous_folder_records,
    chosen_good,
    good_folder_records,
    log_missing_masks,
    say_guess,
)
from andon.datasets.splits import TEST_PERCENT, hold_out, hold_out_validation

NAME = "folders"


def fits(folder: Path, options: Options) -> bool:
    """Whether there is a folder of normal images, or of sessions of them; names mean what `FolderNames` says."""
    names = options.names
    return any(
        has_images(good) or any(holds_images(session) for session in _sessions(good, names))
        for good in names.goods(folders_in(folder))
    )


def _sessions(good: Path, names: FolderNames) -> list[Path]:
    """Folders inside a good one whose names do not say that they are good, bad or a split themselves."""
    return [
        path
        for path in folders_in(good)
        if not (names.is_good(path.name) or names.is_bad(path.name) or path.name.lower() in RESERVED)
    ]


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read one category. Without defective images the test split is empty."""
    log = FindingsLog()
    masks = MaskFolders(folder, log)
    goods = options.names.goods(folders_in(folder))
    say_guess(options.names, log, good=goods)
    train: list[Record] = []
    for good in goods:
        found = good_folder_records(
            good,
            folder.parent,
            category,
            "train",
            options.names,
            mask_files=masks.files_below(image_folders(good, log), good),
            log=log,
        )
        several = len(goods) > 1
        train += [
            replace(record, session=record.session or good.name) if several else record for record in found
        ]
    if not train:
        raise DataError(
            f"{folder} holds no usable normal pictures: all are empty or broken links, copy them again"
        )
    train = chosen_good(train, options, log)
    test = _defects(folder, category, masks, options.names, log)
    masks.report_unused()
    log_missing_masks(test, log)

    validation: list[Record] = []
    needs = 1 + bool(test) + options.hold_out
    if test:
        train, good_test = hold_out(train, TEST_PERCENT, options.seed, base=folder, into="test", needs=needs)
        log.notes.append(
            f"{plural(len(good_test), 'picture')} of normal parts held out for test (seed {options.seed})"
        )
        test = sorted(good_test + test, key=lambda record: record.defect_type)
    if options.hold_out:
        train, validation = hold_out_validation(
            train, options.seed, log, base=folder, whose=" of normal parts"
        )
    return Dataset(
        NAME,
        folder.parent,
        category,
        NAME,
        Records(train),
        Records(validation),
        Records(test),
        findings=log.findings(),
    )


def _defects(
    folder: Path, category: str, masks: MaskFolders, names: FolderNames, log: FindingsLog
) -> list[Record]:
    kinds = _defect_folders(folder, names, log)
    records: list[Record] = []
    for kind, found in kinds.items():
        mask_files = masks.files_below(found, kind, only=len(kinds) == 1)
        records += anomalous_folder_records(
            found, folder.parent, category, kind.name, group="anomalous", mask_files=mask_files, log=log
        )
    return sorted(records, key=lambda record: record.defect_type)


def _defect_folders(
    folder: Path, names: FolderNames, log: FindingsLog
) -> dict[Path, list[tuple[Path, tuple[Path, ...]]]]:
    """Folders of anomalous images by defect type: `defect/` and its sub-folders, or without it all folders beside `normal/`."""
    beside = [
        path
        for path in folders_in(folder)
        if not names.is_good(path.name) and path.name.lower() not in RESERVED
    ]
    known = [path for path in beside if names.is_bad(path.name)]
    if not known:
        others = [path for path in beside if holds_images(path)]
        if others:
            log.guesses.append(
                "folders beside the normal pictures are read as defect types: "
                f"{first_few([path.name for path in others])}"
            )
        return {path: image_folders(path, log) for path in others}
    say_guess(names, log, bad=known)
    kinds: dict[Path, list[tuple[Path, tuple[Path, ...]]]] = {}
    for top in known:
        kinds[top] = [(top, scan(top, log).images)]
        kinds |= {
            kind: image_folders(kind, log) for kind in folders_in(top) if kind.name.lower() not in MASKS
        }
    return {kind: found for kind, found in kinds.items() if any(listed for _, listed in found)}


LAYOUT = Layout(name=NAME, order=9, expects="normal/ and defect/ folders", find=by_folder(fits), read=read)
