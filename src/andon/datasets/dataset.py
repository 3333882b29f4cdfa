"""`Dataset`: one category as sequences of records for training, validation and test, with the findings of reading it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import overload

from andon.core.errors import DataError
from andon.core.files import file_sha256
from andon.core.records import Record
from andon.core.text import plural, utf8
from andon.datasets.findings import Findings
from andon.datasets.masks import Saturation


class Records(Sequence[Record]):
    """An immutable sequence of records. A slice is again `Records`."""

    __slots__ = ("_records",)

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = tuple(records)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        return Records(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __eq__(self, other: object) -> bool:
        return self._records == other._records if isinstance(other, Records) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._records)

    def __repr__(self) -> str:
        return f"Records({len(self)} records)"

    @property
    def labels(self) -> tuple[int | None, ...]:
        """1 anomalous, 0 good, None unknown; one per record."""
        return tuple(record.label for record in self)

    def fingerprint(self) -> str:
        """sha256 (hex) over ids, labels and the contents of images, masks and point clouds, in order.

        Independent of the location of the files. A file is read once per process unless it changes. Raises `DataError`
        when a file cannot be read.
        """
        digest = hashlib.sha256()
        for record in self:
            clouds = () if record.depth is None else (record.depth,)
            files = " ".join(file_digest(path) for path in (record.image, *record.masks, *clouds))
            digest.update(utf8(f"{record.id}\0{record.label}\0{files}\n"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """One category of a data set.

    `train` and `validation` hold good images. `test` is used for evaluation alone; it is empty for a folder of good images.
    `labelled` holds anomalous images that were moved out of `test` for training.
    """

    name: str
    """Name of the data set, or of its layout where it has no name of its own."""
    root: Path
    """Record ids are paths relative to this folder."""
    category: str
    layout: str
    """Name of the layout, a module of `andon.datasets.layouts`."""
    train: Records
    validation: Records
    test: Records
    saturation: Mapping[int, Saturation] | None = None
    """Saturation by pixel value of the masks (MVTec LOCO AD), None for other data sets."""
    labelled: Records = field(default=Records())
    """Anomalous training images; empty unless requested (`move_labelled`)."""
    licence: str = ""
    """Origin and licence of the images; empty for data of the user."""
    findings: Findings = field(default=Findings(), repr=False)
    """Findings of reading the folders; `check_dataset` opens the files as well."""

    @property
    def notes(self) -> tuple[str, ...]:
        """The findings, one line each: errors, warnings, guesses, notes."""
        found = self.findings
        return found.errors + found.warnings + found.guesses + found.notes

    @property
    def excluded(self) -> tuple[str, ...]:
        """Ids of good images that were left out on request."""
        return self.findings.excluded

    @property
    def has_masks(self) -> bool:
        """Whether any test image has a mask; without masks only image-level metrics can be computed."""
        return any(record.masks for record in self.test)

    def pooled(self) -> Dataset:
        """The data set with its validation images among the training images, in the order of their ids."""
        train = sorted([*self.train, *self.validation], key=lambda record: record.id)
        return replace(
            self, train=Records(replace(record, split="train") for record in train), validation=Records()
        )

    def summary(self, *, all_learned: bool = False) -> str:
        """Category, layout and numbers of images in one line; `all_learned` where no good image is held out."""
        good, bad = (self.test.labels.count(label) for label in (0, 1))
        unknown = len(self.test) - good - bad
        learned = len(self.train) + len(self.validation)
        parts = [f"{len(self.train)} train", f"{len(self.validation)} validation"]
        if all_learned:
            parts = [f"{plural(learned, 'good picture')} to learn from"]
        if self.labelled:
            parts.append(f"{len(self.labelled)} labelled anomalous to learn from")
        tested = f"{good} good and {bad} anomalous" + (" to test" if all_learned else " test pictures")
        parts.append(tested if self.test else "no test pictures")
        if unknown:
            parts.append(f"{unknown} test pictures without label")
        if bad and not self.has_masks:
            parts.append("no masks: image metrics only")
        return f"{self.category} ({self.layout}): {', '.join(parts)}"


def records_of(given: object, what: str) -> tuple[Record, ...]:
    """The records of an argument of the caller, which may be a generator. Raises `DataError` for anything else."""
    advice = "give records, such as data.train of data = andon.open_dataset(FOLDER)"
    if isinstance(given, Dataset):
        raise DataError(f"{what} is a whole data set: give one part of it, such as data.train")
    if isinstance(given, str | Record) or not isinstance(given, Iterable):
        raise DataError(f"{what} is a {type(given).__name__}, no list of records: {advice}")
    found = tuple(given)
    for one in found:
        if not isinstance(one, Record):
            raise DataError(f"{what} holds a {type(one).__name__}, which is no record: {advice}")
    return found


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's content. Raises `DataError` when it cannot be read."""
    try:
        state = path.stat()
        return _digest(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): check that it is there and readable"
        ) from error


def content_key(record: Record) -> str:
    """What tells apart the pixels of an image: the hash of its file, and the bit depth unless it is that of the file."""
    digest = file_digest(record.image)
    return digest if record.bit_depth == 16 else f"{digest}-bits{record.bit_depth}"


@lru_cache(maxsize=200_000)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)
