"""One folder of normal and one of defective images (docs/reference/data.md, "Own folders").

    <category>/normal/*.jpg  or  <category>/normal/<session>/*.jpg
    <category>/defect/*.jpg  or  <category>/defect/<type>/*.jpg
    <category>/masks/...                                    optional

20 % of the normal images go to test, 10 % of the remaining ones to validation; all defective images go to test.
"""

from __future__ import annotations

from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Record
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog, first_few, plural
from andon.datasets.folder_names import BAD, GOOD, MASKS, RESERVED
from andon.datasets.folder_scan import folders_in, has_images, named, scan
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.mask_pairing import MaskFolders
from andon.datasets.record_building import chosen_good, folder_records, good_folder_records, log_missing_masks
from andon.datasets.splits import TEST_PERCENT, hold_out, hold_out_validation

NAME = "folders"


def fits(folder: Path) -> bool:
    """Whether there is a folder of normal images, or of sessions of them; all names of `folder_names.GOOD` are accepted."""
    return any(
        has_images(good) or any(has_images(session) for session in _sessions(good))
        for good in named(folders_in(folder), GOOD)
    )


def _sessions(good: Path) -> list[Path]:
    """Folders inside a good one whose names do not say that they are good, bad or a split themselves."""
    return [path for path in folders_in(good) if path.name.lower() not in GOOD | BAD | RESERVED]


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read one category. Without defective images the test split is empty."""
    log = FindingsLog()
    masks = MaskFolders(folder, log)
    train: list[Record] = []
    for good in named(folders_in(folder), GOOD):
        listed = scan(good, log).images
        train += good_folder_records(
            good, folder.parent, category, "train", mask_files=masks.files_of(listed, good), log=log
        )
    if not train:
        raise DataError(
            f"{folder} holds no usable normal pictures: all are empty or broken links, copy them again"
        )
    train = chosen_good(train, options, log)
    test = _defects(folder, category, masks, log)
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


def _defects(folder: Path, category: str, masks: MaskFolders, log: FindingsLog) -> list[Record]:
    kinds = _defect_folders(folder, log)
    records: list[Record] = []
    for kind in kinds:
        listed = scan(kind, log).images
        mask_files = masks.files_of(listed, kind, only=len(kinds) == 1)
        records += folder_records(
            kind,
            listed,
            folder.parent,
            category,
            "test",
            defect_type=kind.name,
            group="anomalous",
            mask_files=mask_files,
            log=log,
        )
    return sorted(records, key=lambda record: record.defect_type)


def _defect_folders(folder: Path, log: FindingsLog) -> list[Path]:
    """Folders of anomalous images: `defect/` and its sub-folders, or without it all folders beside `normal/`."""
    beside = [path for path in folders_in(folder) if path.name.lower() not in GOOD | RESERVED]
    known = named(beside, BAD)
    others = [path for path in beside if path not in known and has_images(path)]
    if known:
        if others:
            log.warnings.append(
                f"folders beside {known[0].name} are not read: {first_few([path.name for path in others])}"
            )
        inside = [kind for top in known for kind in folders_in(top) if kind.name.lower() not in MASKS]
        return [path for path in (*known, *inside) if has_images(path)]
    if others:
        log.notes.append(
            "folders beside the normal pictures are read as defect types: "
            f"{first_few([path.name for path in others])}"
        )
    return others


LAYOUT = Layout(name=NAME, order=13, expects="normal/ and defect/ folders", find=by_folder(fits), read=read)
