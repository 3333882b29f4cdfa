"""Predictions of an archive: any number of images, one line of a table each; may be stopped at any moment and continued.

The table (CSV) is also the record of what is done: lines are only ever added, each is handed to the operating system before
the next image's, and a last line that was torn by a kill is dropped. The same command continues; every image is predicted
once, and again where its file has changed: then its last line counts. Held in memory are a few batches of images, and the
paths, sizes and times of those that are done (about 0.4 kB each).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from sys import intern
from typing import BinaryIO, NamedTuple, Protocol

from andon.core.errors import DataError, InterruptedRun, OutputError
from andon.core.files import lock, writing_errors
from andon.core.listing import PassedBy
from andon.core.own_output import check_save
from andon.core.progress import NoProgress, Progress
from andon.core.records import Record
from andon.core.text import from_cell, plural, safe_cell
from andon.detectors._saving import detector_folder
from andon.runs.inputs import walk_archive
from andon.runs.predict import FilePrediction, file_predictions
from andon.runs.unlike import UnlikeCounts
from andon.runtime.predictor import Predictor
from andon.thresholds.history import FILE as CHANGES

COLUMNS = (*FilePrediction.__dataclass_fields__, "bytes", "modified_ns", "detector")
"""The prediction, size and time of the file as it was then, and the beginning of the hash of what made it: `detector_key`."""
SYNC_EVERY = 256
"""Lines after which the table is forced to the disk, so that a power cut costs no more."""


class Stamp(NamedTuple):
    """By which a changed file is told; both 0 where there is no file."""

    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """That of a file as it is now."""
        try:
            found = path.stat()
        except OSError:
            return cls(0, 0)
        return cls(found.st_size, found.st_mtime_ns)


class Workers(Protocol):
    """Machines that predict in place of this process: `andon.experiments.cluster.Cluster`."""

    def file_predictions(
        self, run: Path, records: Iterator[Record], *, save: Path | None, maps: bool, strict: bool
    ) -> Iterator[FilePrediction]:
        """One prediction for each record, in the order they end."""


class Table:
    """The table on disk, open for adding lines; see `open_table`."""

    def __init__(self, stream: BinaryIO, path: Path, detector: str) -> None:
        self.stream, self.path, self.detector = stream, path, detector
        self._taken: dict[str, Stamp] = {}
        """Images that have a line or are being predicted."""
        self._verdict_of: dict[str, str] = {}
        self.verdicts: Counter[str] = Counter()
        """Images by verdict; where an image has several lines, the last one counts."""
        self.added = 0
        """Lines that were added since the table was opened."""
        self._since = 0
        self._read()

    def _read(self) -> None:
        """Take in the whole lines and drop a torn one. Raises `OutputError` when they are not this detector's."""
        header, end = _line(COLUMNS), 0
        self.stream.seek(0)
        for number, line in enumerate(self.stream, 1):
            if not line.endswith(b"\n"):
                break
            self._take(line, number, header)
            end += len(line)
        self.stream.seek(end)
        if end == 0 and not header.startswith(self.stream.read(len(header))):
            raise self._foreign()
        self.stream.truncate(end)
        self.stream.seek(end)
        if end == 0:
            with writing_errors(self.path):
                self.stream.write(header)
                self.stream.flush()

    def _take(self, line: bytes, number: int, header: bytes) -> None:
        if number == 1:
            if line != header:
                raise self._foreign()
            return
        try:
            values = next(csv.reader([line.decode("utf-8", "surrogateescape")]), [])
            found = dict(zip(COLUMNS, values, strict=True))
            stamp = Stamp(int(found["bytes"]), int(found["modified_ns"]))
        except (csv.Error, ValueError):  # a cell of more than 131,072 characters, too few cells, no number
            raise OutputError(
                f"line {number} of {self.path} is damaged: bring back the original or choose another --out"
            ) from None
        if found["detector"] != self.detector:
            raise OutputError(
                f"{self.path} holds answers of another detector, by other thresholds or with another --strict "
                f"({found['detector']}, now {self.detector}): choose another --out"
            )
        path = from_cell(found["path"])
        self._taken[path] = stamp
        self._count(path, found["verdict"])

    def _count(self, path: str, verdict: str) -> None:
        before = self._verdict_of.get(path)
        if before is not None:
            self.verdicts[before] -= 1
        self._verdict_of[path] = intern(verdict)
        self.verdicts[verdict] += 1

    def take(self, path: str) -> bool:
        """Whether an image has to be predicted: it has no line, or its file has changed since. From now on it is taken."""
        stamp = Stamp.of(Path(path))
        if self._taken.get(path) == stamp:
            return False
        self._taken[path] = stamp
        return True

    def _foreign(self) -> OutputError:
        return OutputError(
            f"{self.path} is no table of `andon predict`, so it is left alone: choose another --out"
        )

    def add(self, one: FilePrediction) -> None:
        """Add the line of an image that was taken."""
        values = one.row() | {"reason": " ".join(one.reason.split()), "detector": self.detector}
        values |= self._taken.get(one.path, Stamp(0, 0))._asdict()
        with writing_errors(self.path):
            self.stream.write(_line([values[name] for name in COLUMNS]))
            self.stream.flush()
            self._since += 1
            if self._since >= SYNC_EVERY:
                os.fsync(self.stream.fileno())
                self._since = 0
        self._count(one.path, one.verdict)
        self.added += 1


def _line(values: Sequence[object]) -> bytes:
    """One line of CSV, without formulas; bytes of file names that are no UTF-8 stay as they are."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([safe_cell(value) for value in values])
    return text.getvalue().encode("utf-8", "surrogateescape")


@contextlib.contextmanager
def open_table(path: Path, detector: str) -> Iterator[Table]:
    """Open or begin the table of a detector.

    Raises `OutputError` when it cannot be written, is in use by another process, or holds something else.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OutputError(f"{path} is no regular file, so no table is kept there: choose another --out")
    with writing_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        stream = path.open("r+b")
    with stream:
        if not lock(stream.fileno()):
            raise OutputError(f"another process is writing {path}: wait for it or choose another --out")
        yield Table(stream, path, detector)
        with writing_errors(path):
            stream.flush()
            os.fsync(stream.fileno())


def predict_archive(
    run: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    save: Path | None = None,
    maps: bool = False,
    predictor: Predictor | None = None,
    strict: bool = False,
    unlike: UnlikeCounts | None = None,
    cluster: Workers | None = None,
    progress: Progress | None = None,
    passed: PassedBy | None = None,
) -> tuple[int, Counter[str]]:
    """Predict every image that has no line in the table `out`; heat maps and masks go to `save`.

    `predictor` is the run's, by PyTorch unless it is given. What is passed by is counted in `passed`. Returns the number of new
    lines, and all images by verdict. With a `cluster` its workers predict, and lines stand in the order they end. An image that
    cannot be read gets its line, with the verdict `unreadable`. With `strict` one that is unlike the training images has the
    verdict `ERROR`. New images unlike them are counted in `unlike`. Raises `OutputError` where the table has lines and `save`
    nothing of them.
    """
    from andon.detectors._saving import load_detector

    passed = PassedBy() if passed is None else passed
    check_places(inputs, save)
    predictor = predictor or load_detector(run)
    with open_table(out, detector_key(run, strict=strict)) as table:
        failed: list[DataError] = []
        before, records = table.verdicts.total(), _untaken(inputs, table, passed, failed)
        if before and save is not None and not _holds_anything(save):
            raise OutputError(
                f"{out} has lines of {plural(before, 'picture')} that left nothing in {save}: choose another --out, or leave "
                "--save out"
            )
        found = (
            file_predictions(predictor, records, save=save, maps=maps, strict=strict)
            if cluster is None
            else cluster.file_predictions(run, records, save=save, maps=maps, strict=strict)
        )
        try:
            with (progress or NoProgress()).task("predicting", 0, done=before) as task:
                for one in found:
                    table.add(one)
                    if unlike is not None:
                        unlike.add(one.path, one.notes)
                    task.advance()
        except KeyboardInterrupt:
            raise InterruptedRun("stopped; the same command continues") from None
        if failed:
            raise failed[0]
        return table.added, +table.verdicts


def _holds_anything(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _untaken(
    inputs: Sequence[Path], table: Table, passed: PassedBy, failed: list[DataError]
) -> Iterator[Record]:
    """Images that have to be predicted, each once. What ends the walk goes to `failed`: images before it are predicted."""
    walk = walk_archive(inputs, passed)
    while True:
        try:
            record = next(walk, None)
        except DataError as error:
            failed.append(error)
            return
        if record is None:
            return
        path = str(record.image)
        if "\n" in path or "\r" in path:
            raise DataError(f"{path!r} has a line break in its name: rename it")
        if table.take(path):
            yield record


def check_places(inputs: Sequence[Path], save: Path | None) -> None:
    """Raise `DataError` for an input that is not there, `OutputError` where heat maps would be taken for images."""
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path} does not exist: check the path")
    check_save(inputs, save)


def detector_key(run: Path, *, strict: bool = False) -> str:
    """Twelve hexadecimal digits that name a saved detector: settings, state and thresholds, with every change of them."""
    folder = detector_folder(run)
    digest = hashlib.sha256((folder / "detector.json").read_bytes())
    if (folder / CHANGES).is_file():
        digest.update((folder / CHANGES).read_bytes())
    if strict:
        digest.update(b"--strict")
    return digest.hexdigest()[:12]
