"""VisA as published: Zou et al., ECCV 2022 (arXiv 2207.14315).

    <root>/<object>/Data/Images/{Normal,Anomaly}/*.JPG
    <root>/<object>/Data/Masks/Anomaly/NNN.png          defect types as values 1, 2, ... (the files look black)
    <root>/<object>/image_anno.csv                      columns image, label, mask; label: defect types or normal
    <root>/split_csv/1cls.csv                           columns object, split, label, image, mask; paths relative to <root>

A normal and an anomalous image may have the same name, so ids contain the folder. The defect type of an image with
several types joins them with `+`. Reorganised copies (`1cls/<object>/train/good`) are read like MVTec AD.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Record, Split
from andon.datasets.dataset import Dataset
from andon.datasets.findings import FindingsLog
from andon.datasets.folder_scan import folders_in
from andon.datasets.layouts import Layout, Options
from andon.datasets.manifest_rows import resolve
from andon.datasets.mvtec_tree import is_mvtec_tree, read_mvtec_tree
from andon.datasets.published.counts import VISA, compare_any
from andon.datasets.record_building import (
    chosen_good,
    log_missing_masks,
    sorted_records,
    without_missing_files,
)
from andon.datasets.splits import hold_out_validation

NAME = "visa"
SPLITS = Path("split_csv", "1cls.csv")
REORGANISED = "1cls"
IMAGES = Path("Data", "Images")
LABELS = {"normal": 0, "anomaly": 1}
COLUMNS = {"object", "split", "label", "image", "mask"}


def find(path: Path, options: Options) -> Mapping[str, Path]:
    """Objects of the root, the object at `path` itself, or the objects of a reorganised copy in `1cls`."""
    if not path.is_dir():
        return {}
    if (path / IMAGES).is_dir() and (path.parent / SPLITS).is_file():
        return {path.name: path}
    found = {folder.name: folder for folder in folders_in(path) if (folder / IMAGES).is_dir()}
    if found and (path / SPLITS).is_file():
        return found
    return {
        folder.name: folder for folder in folders_in(path / REORGANISED) if is_mvtec_tree(folder, options)
    }


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read one object. Raises `DataError` when the split table cannot be read or names no training images."""
    if is_mvtec_tree(folder, options):
        dataset = read_mvtec_tree(folder, category, options, layout=NAME, group=lambda defect: "anomalous")
    else:
        dataset = _read_published(folder, category, options)
    return replace(dataset, findings=dataset.findings + compare_any(dataset, {"VisA": VISA}))


def _read_published(folder: Path, category: str, options: Options) -> Dataset:
    log = FindingsLog()
    root = folder.parent
    kinds = _defect_types(folder, log)
    records = [_record(row, where, root, kinds) for row, where in _rows(root / SPLITS, category)]
    records = without_missing_files(records, str(root / SPLITS), log)
    train: list[Record] = []
    for record in records:
        if record.split == "train" and record.label == 0:
            train.append(record)
        elif record.split == "train":
            log.errors.append(f"{record.image} is anomalous in train, which is for good pictures: left out")
    if not train:
        raise DataError(f"{root / SPLITS} names no normal training pictures of {category!r}: copy it again")
    train = chosen_good(train, options, log)
    validation: list[Record] = []
    if options.hold_out:
        train, validation = hold_out_validation(train, options.seed, log, base=folder)
    test = [record for record in records if record.split == "test"]
    log_missing_masks(test, log)
    return Dataset(
        name=NAME,
        root=root,
        category=category,
        layout=NAME,
        train=sorted_records(train),
        validation=sorted_records(validation),
        test=sorted_records(test),
        findings=log.findings(),
    )


def _record(row: Mapping[str, str], where: str, root: Path, kinds: Mapping[str, str]) -> Record:
    split, label = row["split"], LABELS.get(row["label"].lower())
    if split not in ("train", "test") or label is None:
        raise DataError(
            f"{where}: split is {split!r} and label {row['label']!r}, expected train or test and normal or "
            "anomaly: copy the table again from the data set"
        )
    in_split: Split = "train" if split == "train" else "test"
    image = resolve(row["image"], root, where, allow_outside=False)
    mask = resolve(row["mask"], root, where, allow_outside=False) if row["mask"] and label else None
    return Record(
        image=image,
        id=image.relative_to(root).with_suffix("").as_posix(),
        category=row["object"],
        split=in_split,
        label=label,
        defect_type=kinds.get(image.name, "anomaly") if label else "good",
        group="anomalous" if label else "good",
        masks=(mask,) if mask else (),
        mask_kind="classes" if mask else "none",
    )


def _defect_types(folder: Path, log: FindingsLog) -> dict[str, str]:
    """Defect types of each anomalous image by file name, joined with `+`."""
    table = folder / "image_anno.csv"
    if not table.is_file():
        log.notes.append(f"no {table.name} in {folder}: the kinds of defect are not known")
        return {}
    kinds = {}
    for row, _ in _table(table, {"image", "label"}):
        names = [name.strip() for name in row["label"].split(",")]
        if names != ["normal"]:
            kinds[Path(row["image"]).name] = "+".join(dict.fromkeys(name for name in names if name))
    return kinds


def _rows(table: Path, category: str) -> Iterator[tuple[dict[str, str], str]]:
    return (found for found in _table(table, COLUMNS) if found[0]["object"] == category)


def _table(path: Path, columns: set[str]) -> Iterator[tuple[dict[str, str], str]]:
    """Rows of a CSV file, each with its file and line for messages. Raises `DataError` without `columns`."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
        rows = [
            ({k: v or "" for k, v in row.items() if k}, f"{path}, line {reader.line_num}") for row in reader
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): copy it again from the data set") from error
    if not columns <= set(reader.fieldnames or ()):
        raise DataError(f"{path} lacks columns, expected {', '.join(sorted(columns))}: copy it again")
    yield from rows


LAYOUT = Layout(
    name=NAME,
    order=5,
    expects="split_csv/1cls.csv and <object>/Data/Images",
    find=find,
    read=read,
    listed=True,
)
