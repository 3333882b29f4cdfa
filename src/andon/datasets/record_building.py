"""Records of the images in a folder or table, and what is logged about them; shared by all layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from andon.core.errors import DataError
from andon.core.listing import natural_key
from andon.core.records import Group, Record, Split
from andon.core.text import plural
from andon.datasets.dataset import Records
from andon.datasets.exclusion import find_excluded
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_names import FolderNames
from andon.datasets.folder_scan import image_folders
from andon.datasets.layouts import Options
from andon.datasets.mask_pairing import NO_MASKS, MaskFiles, separate_masks
from andon.datasets.sessions import with_sessions


def folder_records(
    folder: Path,
    listed: Sequence[Path],
    root: Path,
    category: str,
    split: Split,
    *,
    defect_type: str = "good",
    group: Group = "good",
    mask_files: Mapping[Path, MaskFiles] | None = None,
    log: FindingsLog,
) -> list[Record]:
    """Records of the images `listed` in one folder; mask files among them become masks of their images."""
    label = 0 if defect_type == "good" else 1
    kept, beside = separate_masks(listed, plain=label == 1)
    if beside:
        names = [found.masks[0].name for found in beside.values()]
        log.notes.append(
            f"{len(beside)} files beside pictures in {folder} are read as their masks: {first_few(names)}"
        )
    mask_files = beside | dict(mask_files or {})
    records = []
    for image, name in zip(kept, unique_ids(kept, root), strict=True):
        found = mask_files.get(image, NO_MASKS)
        records.append(
            Record(image, name, category, split, label, defect_type, group, found.masks, found.kind)
        )
    return records


def chosen_good(records: Sequence[Record], options: Options, log: FindingsLog) -> list[Record]:
    """The good `records` to learn from or to split, without excluded ones, with their sessions.

    Raises `DataError` for a name to exclude that is unknown or ambiguous, where none is left, or for sessions not found.
    """
    excluded = find_excluded(records, options.exclude, strict=not options.lenient)
    log.excluded += sorted(excluded)
    log.told += [record.image for record in records if record.id in excluded]
    kept = [record for record in records if record.id not in excluded]
    if not kept:
        raise DataError(f"all {plural(len(records), 'good picture')} are excluded: leave some to learn from")
    return with_sessions(kept, options.sessions, log)


def say_guess(
    names: FolderNames, log: FindingsLog, *, good: Sequence[Path] = (), bad: Sequence[Path] = ()
) -> None:
    """Log what was concluded from names of folders that are neither told nor documented."""
    for kind, other, folders in (("good", "bad", good), ("bad", "good", bad)):
        guessed = dict.fromkeys(folder.name for folder in folders if names.is_guess(folder.name))
        log.guesses += [
            f"the folder {name!r} is read as {kind} parts, by its name: --{kind} {quote(name)} confirms it, "
            f"--{other} {quote(name)} says the opposite"
            for name in guessed
        ]


def of_split(records: Sequence[Record], split: Split) -> list[Record]:
    """The records of one split."""
    return [record for record in records if record.split == split]


def good_folder_records(
    folder: Path,
    root: Path,
    category: str,
    split: Split,
    names: FolderNames,
    *,
    mask_files: Mapping[Path, MaskFiles] | None = None,
    log: FindingsLog,
) -> list[Record]:
    """Records of the images in a folder of good ones, then of those in the folders in it, each of which is a session.

    The images in folders named like anomalous ones are left out, with an error.
    """
    records: list[Record] = []
    for inside, listed in image_folders(folder, log):
        way = inside.relative_to(folder)
        if any(names.is_bad(part) for part in way.parts):
            log.told += listed
            log.errors.append(
                f"{inside} holds {plural(len(listed), 'picture')} and is named like a folder of bad parts, inside a folder of "
                "good ones: left out, move it, or say --good NAME"
            )
            continue
        found = folder_records(inside, listed, root, category, split, mask_files=mask_files, log=log)
        session = way.as_posix() if way.parts else None
        records += [replace(record, session=session) for record in found]
    return records


def anomalous_folder_records(
    found: Iterable[tuple[Path, Sequence[Path]]],
    root: Path,
    category: str,
    defect_type: str,
    *,
    group: Group,
    mask_files: Mapping[Path, MaskFiles],
    log: FindingsLog,
) -> list[Record]:
    """Records of the test images in the folders of one defect type, as `image_folders` finds them."""
    return [
        record
        for inside, listed in found
        for record in folder_records(
            inside,
            listed,
            root,
            category,
            "test",
            defect_type=defect_type,
            group=group,
            mask_files=mask_files,
            log=log,
        )
    ]


def unique_ids(listed: Sequence[Path], root: Path) -> list[str]:
    """POSIX paths relative to `root`, without suffix where they are unique without it."""
    stems = Counter((path.parent, path.stem) for path in listed)
    return [
        (path if stems[path.parent, path.stem] > 1 else path.with_name(path.stem))
        .relative_to(root)
        .as_posix()
        for path in listed
    ]


def without_missing_files(records: Sequence[Record], table: str, log: FindingsLog) -> list[Record]:
    """The records of `table` whose image exists; a mask that does not exist is removed from its record."""
    absent = [record.id for record in records if not record.image.is_file()]
    if absent:
        log.errors.append(
            f"{plural(len(absent), 'picture')} named in {table} are not there: {first_few(absent)}; copy them again"
        )
    gone = set(absent)
    return [
        record
        if all(mask.is_file() for mask in record.masks)
        else replace(record, masks=(), mask_kind="none")
        for record in records
        if record.id not in gone
    ]


def sorted_records(records: Sequence[Record]) -> Records:
    """Records sorted by defect type, then by id in natural order."""
    return Records(sorted(records, key=lambda record: (record.defect_type, natural_key(record.id))))


def log_missing_masks(records: Sequence[Record], log: FindingsLog) -> None:
    """Log the anomalous images without a mask, or that there are no masks at all."""
    anomalous = [record for record in records if record.label == 1]
    missing = [record.id for record in anomalous if not record.masks]
    if anomalous and len(missing) == len(anomalous):
        log.notes.append("no masks: only image metrics can be computed")
    elif missing:
        log.errors.append(
            f"{len(missing)} of {len(anomalous)} anomalous pictures have no mask and are left out of "
            f"pixel metrics: {first_few(missing)}"
        )
