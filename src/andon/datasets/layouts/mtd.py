"""MTD, surface defects of magnetic tiles: Huang et al., The Visual Computer 36, 2020.

    MT_{Blowhole,Break,Crack,Fray,Uneven,Free}/Imgs/<name>.jpg
    MT_{Blowhole,Break,Crack,Fray,Uneven,Free}/Imgs/<name>.png          the mask of <name>.jpg

Masks have grey edges; values above 127 are anomalous. There is no published split: 20 % of the free tiles (rounded down)
go to test and 10 % of the others to validation (`splits.hold_out`); all defects go to test.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from andon.core.errors import DataError
from andon.core.records import Record
from andon.core.text import plural
from andon.datasets.dataset import Dataset, Records
from andon.datasets.findings import FindingsLog, first_few
from andon.datasets.folder_scan import folders_in, natural_order, scan
from andon.datasets.layouts import Layout, Options, by_folder
from andon.datasets.published.counts import MTD, compare
from andon.datasets.record_building import chosen_good, log_missing_masks
from andon.datasets.splits import TEST_PERCENT, hold_out, hold_out_validation

NAME = "mtd"
PREFIX = "MT_"
FREE = "Free"
IMAGES = {".jpg", ".jpeg"}
MASKS = {".png"}


def fits(folder: Path, options: Options) -> bool:
    """Whether there is a `MT_Free/Imgs` folder."""
    return (folder / f"{PREFIX}{FREE}" / "Imgs").is_dir()


def read(folder: Path, category: str, options: Options) -> Dataset:
    """Read the tiles. Raises `DataError` when there are no free tiles, or too few to hold some out."""
    log = FindingsLog()
    records = [
        record
        for kind in folders_in(folder)
        if kind.name.startswith(PREFIX)
        for record in _records(kind / "Imgs", kind.name.removeprefix(PREFIX), folder, category, log)
    ]
    free = [record for record in records if record.label == 0]
    defects = [record for record in records if record.label == 1]
    if not free:
        raise DataError(f"{folder} has no pictures in {PREFIX}{FREE}/Imgs: copy them again")
    log_missing_masks(defects, log)
    train = [replace(record, split="train") for record in chosen_good(free, options, log)]
    good: list[Record] = []
    validation: list[Record] = []
    if defects:
        train, good = hold_out(
            train,
            TEST_PERCENT,
            options.seed,
            base=folder,
            into="test",
            needs=2 + options.hold_out,
            round_down=True,
        )
        log.notes.append(
            f"{plural(len(good), 'picture')} of free tiles held out for test (seed {options.seed})"
        )
    if options.hold_out:
        train, validation = hold_out_validation(train, options.seed, log, base=folder, whose=" of free tiles")
    dataset = Dataset(
        name=NAME,
        root=folder.parent,
        category=category,
        layout=NAME,
        train=Records(train),
        validation=Records(validation),
        test=Records(sorted(good + defects, key=lambda record: record.defect_type)),
        findings=log.findings(),
    )
    return replace(dataset, findings=dataset.findings + compare(dataset, "MTD", [MTD]))


def _records(images: Path, kind: str, folder: Path, category: str, log: FindingsLog) -> list[Record]:
    """Tiles of one kind in natural order, each with the mask of the same stem."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in scan(images, log).images if images.is_dir() else ():
        by_stem[path.stem].append(path)
    label = 0 if kind == FREE else 1
    records: list[Record] = []
    orphans: list[Path] = []
    for files in by_stem.values():
        masks = tuple(path for path in files if path.suffix.lower() in MASKS)
        tiles = [path for path in files if path.suffix.lower() in IMAGES]
        if not tiles:
            orphans += files
            continue
        records.append(
            Record(
                image=tiles[0],
                id=tiles[0].with_suffix("").relative_to(folder.parent).as_posix(),
                category=category,
                label=label,
                defect_type=kind if label else "good",
                group="anomalous" if label else "good",
                masks=masks[:1],
                mask_kind="soft" if masks else "none",
            )
        )
    if orphans:
        log.errors.append(
            f"{len(orphans)} masks without a picture in {images}: {first_few(natural_order(orphans))}"
        )
    return records


LAYOUT = Layout(name=NAME, order=7, expects="MT_Free/Imgs folders", find=by_folder(fits), read=read)
