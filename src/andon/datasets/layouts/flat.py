"""A folder of good images; 10 % are held out for validation and the test split is empty."""

from __future__ import annotations

from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Record
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_scan import has_images, scan
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.record_building import chosen_good, folder_records
from andon.datasets.splits import hold_out_validation

NAME = "flat"


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read the images directly inside `folder`."""
    log = FindingsLog()
    listing = scan(folder, log)
    train = folder_records(folder, listing.images, folder.parent, category, "train", log=log)
    if not train:
        raise DataError(f"{folder} holds no usable pictures: all are empty or broken links, copy them again")
    train = chosen_good(train, options, log)
    validation: list[Record] = []
    if options.hold_out:
        train, validation = hold_out_validation(train, options.seed, log, base=folder, whose="")
    log.notes.append("a folder of pictures: all are taken for good ones, there is no test")
    unread = [path.name for path in listing.folders if has_images(path)]
    if unread:
        log.warnings.append(f"pictures in folders inside {folder} are not read: {first_few(unread)}")
    return Dataset(
        NAME,
        folder.parent,
        category,
        NAME,
        Records(train),
        Records(validation),
        Records(),
        findings=log.findings(),
    )


LAYOUT = Layout(name=NAME, order=14, expects="pictures of good parts", find=by_folder(has_images), read=read)
