"""MVTec AD 2: Heckler-Kram et al., arXiv 2503.21622.

    <category>/{train,validation}/good/NNN_regular.png
    <category>/test_public/{good,bad}/NNN_<light>.png
    <category>/test_public/ground_truth/bad/NNN_<light>_mask.png
    <category>/{test_private,test_private_mixed}/*.png              labels not published

Images with the same number in the same folder show one scene under different illuminations and share an object id.
Private images are test images without a label: `evaluate` skips them, `andon data submission` predicts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Record, Split
from andon.core.text import plural
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog
from andon.datasets.folder_names import MASKS, TRAIN, VALIDATION, FolderNames
from andon.datasets.folder_scan import folders_in, named, scan
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.mask_pairing import MaskFolders
from andon.datasets.published.counts import MVTEC_AD_2, compare_any
from andon.datasets.record_building import (
    chosen_good,
    folder_records,
    log_missing_masks,
    of_split,
    unique_ids,
)
from andon.datasets.splits import hold_out_validation

NAME = "mvtec_ad_2"
PUBLIC = "test_public"
PRIVATE = ("test_private", "test_private_mixed")


def fits(folder: Path, options: Options) -> bool:
    """Whether there is a `test_public` folder."""
    return (folder / PUBLIC).is_dir()


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read one category; private images and `validation` may be absent."""
    log = FindingsLog()
    train = _good(folder, TRAIN, category, "train", options.names, log)
    if not train:
        raise DataError(f"{folder} has no pictures in train/good: copy them again")
    validation = _good(folder, VALIDATION, category, "validation", options.names, log)
    good = chosen_good([*train, *validation], options, log)
    train, validation = of_split(good, "train"), of_split(good, "validation")
    if not validation and options.hold_out:
        train, validation = hold_out_validation(train, options.seed, log, base=folder)
    public = _public(folder, category, options.names, log)
    log_missing_masks(public, log)
    private = [record for name in PRIVATE for record in _private(folder / name, category, log)]
    if private:
        log.notes.append(
            f"{plural(len(private), 'picture')} in {' and '.join(PRIVATE)} have no label: left out of all metrics, "
            "`andon data submission` writes the answers for the benchmark server"
        )
    dataset = Dataset(
        name=NAME,
        root=folder.parent,
        category=category,
        layout=NAME,
        train=Records(train),
        validation=Records(validation),
        test=Records(public + private),
        findings=log.findings(),
    )
    counted = compare_any(dataset, {"MVTec AD 2": MVTEC_AD_2})
    return replace(dataset, findings=dataset.findings + counted)


def _good(
    folder: Path, tops: frozenset[str], category: str, split: Split, names: FolderNames, log: FindingsLog
) -> list[Record]:
    records: list[Record] = []
    for top in named(folders_in(folder), tops):
        for kind in names.goods(folders_in(top)):
            records += folder_records(kind, scan(kind, log).images, folder.parent, category, split, log=log)
    return _scenes(records, folder)


def _public(folder: Path, category: str, names: FolderNames, log: FindingsLog) -> list[Record]:
    top = folder / PUBLIC
    masks = MaskFolders(top, log)
    records: list[Record] = []
    for kind in folders_in(top):
        if kind.name.lower() in MASKS:
            continue
        listed = scan(kind, log).images
        good = names.is_good(kind.name)
        records += folder_records(
            kind,
            listed,
            folder.parent,
            category,
            "test",
            defect_type="good" if good else kind.name,
            group="good" if good else "anomalous",
            mask_files=masks.files_of(listed, kind),
            log=log,
        )
    masks.report_unused()
    return _scenes(sorted(records, key=lambda record: record.defect_type), folder)


def _private(folder: Path, category: str, log: FindingsLog) -> list[Record]:
    listed = scan(folder, log).images if folder.is_dir() else ()
    base = folder.parent
    ids = unique_ids(listed, base.parent)
    return _scenes([Record(path, name, category) for path, name in zip(listed, ids, strict=True)], base)


def _scenes(records: Sequence[Record], base: Path) -> list[Record]:
    """Set object ids: `train/good/007_regular.png` becomes `train/good/007`."""

    def scene(path: Path) -> str:
        return path.with_name(path.stem.split("_")[0]).relative_to(base).as_posix()

    return [replace(record, object_id=scene(record.image)) for record in records]


LAYOUT = Layout(
    name=NAME, order=4, expects="train/good and test_public folders", find=by_folder(fits), read=read
)
