"""A manifest: a table with one row per image (docs/reference/data.md, "Manifests").

Columns: `image` (required), `split`, `label`, `category`, `defect_type`, `mask` (several joined with `;`),
`object_id`, `session`. Of the good images without a split, 20 % go to test where test has anomalous images but no good one,
10 % to validation where no row is in validation, the rest to train. Other images without a split go to test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Group, MaskKind, Record, Split
from andon.core.text import plural
from andon.datasets.dataset import Dataset
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_scan import folders_in
from andon.datasets.layouts import Layout, Options
from andon.datasets.manifest_rows import SUFFIXES, Row, read_rows, resolve
from andon.datasets.record_building import chosen_good, log_missing_masks, sorted_records
from andon.datasets.splits import TEST_PERCENT, hold_out, hold_out_validation
from andon.datasets.unread import unnamed_files

NAME = "manifest"
GROUPS: dict[int | None, Group] = {0: "good", 1: "anomalous", None: "unknown"}
MASK_KINDS: tuple[MaskKind, ...] = ("none", "single", "channels")
"""By number of mask files; 2 or more are channels."""


def find(path: Path, options: Options) -> Mapping[str, Path]:
    """Categories of a manifest file, of the one in a folder, or of those in its sub-folders."""
    manifest = _manifest_at(path)
    manifests = (
        [manifest] if manifest else [found for folder in folders_in(path) if (found := _manifest_at(folder))]
    )
    return {_category(row, file): file for file in manifests for row in read_rows(file)}


def _manifest_at(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES else None
    return next(
        (path / f"manifest{suffix}" for suffix in SUFFIXES if (path / f"manifest{suffix}").is_file()), None
    )


def _category(row: Row, manifest: Path) -> str:
    return row.category or manifest.absolute().parent.name


def read(manifest: Path, category: str, options: Options) -> Dataset:
    """Read the rows of one category. Raises `DataError` for files that are missing or listed twice."""
    log = FindingsLog()
    rows = [row for row in read_rows(manifest) if _category(row, manifest) == category]
    ruled: list[Record] = []
    given: dict[Split, list[Record]] = {"train": [], "validation": [], "test": []}
    for row, record in zip(rows, _records(rows, manifest.parent, category, options), strict=True):
        if row.split is None and record.label == 0:
            ruled.append(record)
        elif record.label == 1 and row.split in ("train", "validation"):
            log.errors.append(
                f"{row.where}: {row.image} is anomalous in {row.split}, which is for good pictures: left "
                "out, move it to test"
            )
        else:
            given[record.split].append(record)
    pool = [*ruled, *given["train"], *given["validation"]]
    chosen = {record.id: record for record in chosen_good(pool, options, log)} if pool else {}
    ruled, given["train"], given["validation"] = (
        [chosen[record.id] for record in records if record.id in chosen]
        for records in (ruled, given["train"], given["validation"])
    )
    train, validation, test = _split_by_rule(ruled, given, manifest, options, log)
    if not train:
        raise DataError(
            f"{manifest} has no good pictures for training in {category!r}: set label 0, or split train"
        )
    log_missing_masks(test, log)
    return Dataset(
        name=NAME,
        root=manifest.parent,
        category=category,
        layout=NAME,
        train=sorted_records(train),
        validation=sorted_records(validation),
        test=sorted_records(test),
        findings=log.findings() + unnamed_files(_named(manifest)),
    )


def _named(manifest: Path) -> list[Path]:
    """All images and masks that the manifest names, of every category."""
    texts = (text for row in read_rows(manifest) for text in (row.image, *row.masks))
    paths = (manifest.parent / text.replace("\\", "/") for text in texts)
    return [path for path in paths if path.parent.is_dir()]


def _split_by_rule(
    ruled: list[Record], given: dict[Split, list[Record]], manifest: Path, options: Options, log: FindingsLog
) -> tuple[list[Record], list[Record], list[Record]]:
    validation, test = given["validation"], given["test"]
    base = manifest.parent
    if ruled and test and not any(record.label == 0 for record in test):
        ruled, good_test = hold_out(ruled, TEST_PERCENT, options.seed, base=base, into="test")
        test = test + good_test
        log.notes.append(
            f"{plural(len(good_test), 'picture')} of good parts held out for test (seed {options.seed})"
        )
    train = given["train"] + [replace(record, split="train") for record in ruled]
    if train and not validation and options.hold_out:
        train, validation = hold_out_validation(train, options.seed, log, base=base, whose=" of good parts")
    return train, validation, test


def _records(rows: Sequence[Row], base: Path, category: str, options: Options) -> list[Record]:
    def files(row: Row, texts: Sequence[str]) -> tuple[Path, ...]:
        return tuple(resolve(text, base, row.where, allow_outside=options.allow_outside) for text in texts)

    images = [files(row, [row.image])[0] for row in rows]
    masks = [files(row, row.masks) for row in rows]
    _require_files([*images, *(mask for each in masks for mask in each)], rows)
    _require_unique(images, rows)
    return [
        Record(
            image=image,
            id=name,
            category=category,
            split=row.split or "test",
            label=row.label,
            defect_type=row.defect_type or ("good" if row.label == 0 else ""),
            group=GROUPS[row.label],
            masks=truth,
            mask_kind=MASK_KINDS[min(len(truth), 2)],
            object_id=row.object_id,
            session=row.session,
            metadata=row.metadata,
        )
        for row, image, truth, name in zip(rows, images, masks, _ids(images, base), strict=True)
    ]


def _ids(images: Sequence[Path], base: Path) -> list[str]:
    """Ids: paths relative to the manifest, without suffix where unique; `outside/...` for other folders."""
    names = []
    for image in images:
        inside = image.is_relative_to(base) and ".." not in image.relative_to(base).parts
        resolved = image if inside else image.resolve()
        names.append(image.relative_to(base) if inside else Path("outside", *resolved.parts[1:]))
    counts = Counter(name.with_suffix("") for name in names)
    return [(name if counts[name.with_suffix("")] > 1 else name.with_suffix("")).as_posix() for name in names]


def _require_files(files: Sequence[Path], rows: Sequence[Row]) -> None:
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError(
            f"{rows[0].where} and below name {len(missing)} files that do not exist: {first_few(missing)}; "
            "correct the paths or remove the rows"
        )


def _require_unique(images: Sequence[Path], rows: Sequence[Row]) -> None:
    seen: dict[Path, Row] = {}
    for row, image in zip(rows, images, strict=True):
        if image in seen:
            raise DataError(f"{row.where} names {row.image} again, after {seen[image].where}: remove one row")
        seen[image] = row


LAYOUT = Layout(
    name=NAME,
    order=1,
    expects="manifest.csv, .json or .jsonl with the column image",
    find=find,
    read=read,
    listed=True,
)
