"""Real-IAD: Wang et al., CVPR 2024, arXiv 2403.12580. Five views of each part.

    <root>/realiad_{256,512,1024,raw}/<category>/OK/S0001/*.jpg
    <root>/realiad_{256,512,1024,raw}/<category>/NG/<code>/S0001/{*.jpg,*_mask.png}
    <root>/realiad_jsons/<set>/<category>.json              the splits

By default the set `realiad_jsons` (multi-view) is read, at the first size of `SIZES` that exists. To choose another one,
give the folder of a size (`<root>/realiad_512`) or of a set (`<root>/realiad_jsons/realiad_jsons_sv`) as the path. Views of
one part share an object id and are never divided between splits. A view of a defective part may be labelled OK. The sets
`*_fuiad_*` (fully unsupervised) contain defects in train on purpose; their training images are read without labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from andon.core.errors import DataError
from andon.core.files import from_json
from andon.core.records import Record, Split
from andon.core.text import plural
from andon.datasets.dataset import Dataset
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_scan import folders_in
from andon.datasets.layouts import Layout, Options
from andon.datasets.manifest_rows import resolve
from andon.datasets.record_building import (
    chosen_good,
    log_missing_masks,
    sorted_records,
    without_missing_files,
)
from andon.datasets.splits import VALIDATION_PERCENT, hold_out

NAME = "real_iad"
SIZES = ("realiad_1024", "realiad_raw", "realiad_512", "realiad_256")
JSONS = "realiad_jsons"
MULTI_VIEW = "realiad_jsons"
UNSUPERVISED = "_fuiad_"
GOOD = "OK"


def find(path: Path, options: Options) -> Mapping[str, Path]:
    """Categories with images, each with its table in the chosen set or its folder in the chosen size."""
    if path.name in SIZES and (path.parent / JSONS).is_dir():
        tables = _tables(path.parent / JSONS / MULTI_VIEW)
        return {folder.name: folder for folder in folders_in(path) if folder.name in tables}
    if path.parent.name == JSONS and _sizes(path.parent.parent):
        return _unpacked(_tables(path), path.parent.parent)
    return _unpacked(_tables(path / JSONS / MULTI_VIEW), path) if _sizes(path) else {}


def _tables(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {file.stem: file for file in sorted(folder.glob("*.json")) if not file.name.startswith(".")}


def _sizes(root: Path) -> list[Path]:
    return [root / name for name in SIZES if (root / name).is_dir()]


def _unpacked(tables: Mapping[str, Path], root: Path) -> dict[str, Path]:
    return {
        name: table for name, table in tables.items() if any((size / name).is_dir() for size in _sizes(root))
    }


def read(chosen: Path, category: str, options: Options) -> Dataset:
    """Read one category; `chosen` is its table or its folder of one size. Raises `DataError` for a malformed table."""
    log = FindingsLog()
    if chosen.is_dir():
        size, root = chosen.parent, chosen.parent.parent
        table = root / JSONS / MULTI_VIEW / f"{category}.json"
    else:
        table, root = chosen, chosen.parent.parent.parent
        size = next(size for size in _sizes(root) if (size / category).is_dir())
    log.notes.append(f"pictures of {size.name}, splits of {table.parent.name}")
    hidden = UNSUPERVISED in table.parent.name
    values = _load(table)
    train = without_missing_files(
        _records(values, "train", table, size, category, hidden=hidden), str(table), log
    )
    test = without_missing_files(_records(values, "test", table, size, category), str(table), log)
    bad = [record.id for record in train if record.label == 1]
    if bad:
        log.errors.append(
            f"{len(bad)} anomalous pictures in train of {table}, which is for good ones: left out ({first_few(bad)})"
        )
        train = [record for record in train if record.label != 1]
    if not train:
        raise DataError(f"{table} names no training pictures that are there: unpack {size.name} completely")
    if hidden:
        log.notes.append("train may hold defects, as this set intends: its labels are not looked at")
    train = chosen_good(train, options, log)
    validation: list[Record] = []
    if options.hold_out:
        train, validation = hold_out(train, VALIDATION_PERCENT, options.seed, base=size, into="validation")
        log.notes.append(
            f"{plural(len(validation), 'picture')} of train held out for validation, by parts (seed {options.seed})"
        )
    log_missing_masks(test, log)
    return Dataset(
        name=NAME,
        root=size,
        category=category,
        layout=NAME,
        train=sorted_records(train),
        validation=sorted_records(validation),
        test=sorted_records(test),
        findings=log.findings(),
    )


def _load(table: Path) -> Mapping[str, Any]:
    try:
        values = from_json(table.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{table} cannot be read as JSON ({error}): unpack it again") from error
    if not isinstance(values, dict) or not all(
        isinstance(values.get(key), list) for key in ("train", "test")
    ):
        raise DataError(f"{table} has no lists train and test: unpack it again")
    return values


def _records(
    values: Mapping[str, Any], split: Split, table: Path, size: Path, category: str, *, hidden: bool = False
) -> list[Record]:
    meta = values.get("meta")
    prefix = meta.get("prefix") if isinstance(meta, dict) else None
    base = PurePosixPath(prefix if isinstance(prefix, str) else category)
    return [
        _record(entry, f"{table}, {split} {number}", split, base, size, category, hidden)
        for number, entry in enumerate(values[split], start=1)
    ]


def _record(
    entry: Any, where: str, split: Split, base: PurePosixPath, size: Path, category: str, hidden: bool
) -> Record:
    kind, text, mask = (
        entry.get(key) if isinstance(entry, dict) else None
        for key in ("anomaly_class", "image_path", "mask_path")
    )
    if not isinstance(kind, str) or not isinstance(text, str) or not isinstance(mask, str | None):
        raise DataError(f"{where}: expected anomaly_class, image_path and mask_path: unpack the table again")
    image = _file(text, base, size, where)
    label = None if hidden else int(kind != GOOD)
    truth = (_file(mask, base, size, where),) if mask and label else ()
    return Record(
        image=image,
        id=image.relative_to(size).with_suffix("").as_posix(),
        category=category,
        split=split,
        label=label,
        defect_type={0: "good", 1: kind, None: ""}[label],
        group={0: "good", 1: "anomalous", None: "unknown"}[label],  # type: ignore[arg-type]
        masks=truth,
        mask_kind="single" if truth else "none",
        object_id=image.parent.relative_to(size).as_posix(),
    )


def _file(text: str, base: PurePosixPath, size: Path, where: str) -> Path:
    """Path of a file in a table. Raises `DataError` for one outside the folder of images."""
    resolve(text, size, where, allow_outside=False)  # before the prefix hides an absolute path
    return resolve(f"{base}/{text}", size, where, allow_outside=False)


LAYOUT = Layout(
    name=NAME,
    order=6,
    expects="realiad_jsons and realiad_<size> folders",
    find=find,
    read=read,
    listed=True,
)
