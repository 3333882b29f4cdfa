"""A folder of good images; 10 % are held out for validation and the test split is empty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from andon.core.errors import DataError
from andon.core.records import Record
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_scan import folders_in, has_images, scan
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.record_building import chosen_good, folder_records
from andon.datasets.splits import hold_out_validation

NAME = "flat"


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read the images directly inside `folder`."""
    if options.names.is_bad(folder.name):
        raise DataError(
            f"{folder} is named like a folder of bad parts, and andon learns from good ones: give the folder of good parts, or "
            f"confirm that these are good: `andon fit {quote(str(folder))} --good {quote(folder.name)}`"
        )
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
    beside = [path.name for path in folders_in(folder.parent) if options.names.is_bad(path.name)]
    if beside and options.names.is_good(folder.name):
        log.notes.append(f"give {folder.parent} to test with the pictures in {first_few(beside)}, too")
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


def find(path: Path, options: Options) -> Mapping[str, Path]:
    """The folder itself, or its sub-folders with images; among several those named like bad parts are no products."""
    found = by_folder(lambda folder, _: has_images(folder))(path, options)
    good = {name: folder for name, folder in found.items() if not options.names.is_bad(folder.name)}
    return good or found


LAYOUT = Layout(name=NAME, order=10, expects="pictures of good parts", find=find, read=read)
