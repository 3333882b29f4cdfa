"""MVTec 3D-AD: images with organised point clouds. Bergmann et al., VISAPP 2022 (arXiv 2112.09045).

    <category>/train/good/rgb/000.png,  <category>/train/good/xyz/000.tiff
    <category>/validation/good/...                                           optional; otherwise 10 % of train are held out
    <category>/test/<good or defect type>/{rgb,xyz}/... and gt/000.png

Point clouds are float32 (H, W, 3) in metres. Masks have the name of their image and are all zero for good images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.image_files import point_cloud_beside
from andon.core.records import Record, Split
from andon.core.text import plural
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_names import TEST, TRAIN, VALIDATION, FolderNames
from andon.datasets.folder_scan import folders_in, named, scan
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.mask_pairing import MaskFolders
from andon.datasets.record_building import chosen_good, folder_records, log_missing_masks, of_split
from andon.datasets.splits import hold_out_validation

NAME = "mvtec3d"
COLOUR, POINTS = "rgb", "xyz"


def fits(folder: Path, options: Options) -> bool:
    """Whether `train/good` holds `rgb` and `xyz` folders."""
    return any(
        {COLOUR, POINTS} <= {inside.name.lower() for inside in folders_in(good)}
        for train in named(folders_in(folder), TRAIN)
        for good in options.names.goods(folders_in(train))
    )


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read one category. An image without a point cloud is kept and reported as an error in the findings."""
    log = FindingsLog()
    train = _records(folder, TRAIN, category, "train", options.names, log)
    if not train:
        raise DataError(f"{folder} has no pictures in train/good/rgb: add pictures of good parts")
    validation = _records(folder, VALIDATION, category, "validation", options.names, log)
    good = chosen_good([*train, *validation], options, log)
    train, validation = of_split(good, "train"), of_split(good, "validation")
    if not validation and options.hold_out:
        train, validation = hold_out_validation(train, options.seed, log, base=folder)
    test = sorted(
        _records(folder, TEST, category, "test", options.names, log), key=lambda record: record.defect_type
    )
    log_missing_masks(test, log)
    _log_missing_points([*train, *validation, *test], log)
    return Dataset(
        name=NAME,
        root=folder.parent,
        category=category,
        layout=NAME,
        train=Records(train),
        validation=Records(validation),
        test=Records(test),
        findings=log.findings(),
    )


def _records(
    folder: Path, tops: frozenset[str], category: str, split: Split, names: FolderNames, log: FindingsLog
) -> list[Record]:
    masks = MaskFolders(folder, log)
    records: list[Record] = []
    for kind in (kind for top in named(folders_in(folder), tops) for kind in folders_in(top)):
        listed = [path for colours in named(folders_in(kind), {COLOUR}) for path in scan(colours, log).images]
        good = names.is_good(kind.name)
        if not good and split != "test":
            if listed:
                log.told += listed
                log.errors.append(
                    f"{kind} holds {plural(len(listed), 'picture')} in {split}, which is for good ones: left out, "
                    "move them to test"
                )
            continue
        records += folder_records(
            kind,
            listed,
            folder.parent,
            category,
            split,
            defect_type="good" if good else kind.name,
            group="good" if good else "anomalous",
            mask_files=masks.files_of(listed, kind),
            log=log,
        )
    return [replace(record, depth=point_cloud_beside(record.image)) for record in records]


def _log_missing_points(records: Sequence[Record], log: FindingsLog) -> None:
    missing = [record.id for record in records if record.depth is None]
    if missing:
        log.errors.append(
            f"{plural(len(missing), 'picture')} without a point cloud in xyz/: {first_few(missing)}; add it"
        )


LAYOUT = Layout(
    name=NAME,
    order=3,
    expects="train/good/rgb and train/good/xyz folders",
    find=by_folder(fits),
    read=read,
)
