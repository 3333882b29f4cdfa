"""Predicting files: what `andon predict` does with a list of images."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from andon.core.errors import DataError
from andon.core.files import writing_errors
from andon.core.images import AHEAD
from andon.core.progress import NoProgress, Progress
from andon.core.records import Note, Prediction, Record
from andon.core.text import safe_cell
from andon.runs.unlike import refused
from andon.runtime.predictor import Predictor, Unreadable

if TYPE_CHECKING:
    import numpy.typing as npt

    from andon.thresholds.calibration import Calibration


@dataclass(frozen=True, slots=True)
class FilePrediction:
    """The verdict on one file: a line of `andon predict`."""

    path: str
    verdict: str
    """`OK`, `NG`, `look` (between two thresholds: a person decides), `ERROR` (a value on the way is NaN or infinite, or the
    image was refused) or `unreadable`."""
    score: float | None
    """0 = typical good, 1 = threshold."""
    raw_score: float | None
    area: float | None
    """Share of the image that is marked."""
    reason: str = ""
    notes: tuple[Note, ...] = ()
    """How the image is unlike the training images."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"notes": [note._asdict() for note in self.notes]}

    def row(self) -> dict[str, Any]:
        """Columns of a table: of the notes their codes."""
        return asdict(self) | {"notes": " ".join(note.code for note in self.notes)}


def predict_files(
    predictor: Predictor,
    records: Sequence[Record],
    *,
    save: Path | None = None,
    maps: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> list[FilePrediction]:
    """Predict every image, in order; heat maps, masks and predictions.csv go to `save`.

    Each answer is in `save`, and its line handed to the operating system, before the next image's. An image that cannot be
    read has the verdict `unreadable`; the others are answered. With `strict` one that is unlike the training images has the
    verdict `ERROR`.
    """
    predictor.fitted()
    found: list[FilePrediction] = []
    with _table(save) as add, (progress or NoProgress()).task("predicting", len(records)) as task:
        for one in file_predictions(predictor, records, save=save, maps=maps, strict=strict):
            add(one)
            found.append(one)
            task.advance()
    return found


def file_predictions(
    predictor: Predictor,
    records: Iterable[Record],
    *,
    save: Path | None = None,
    maps: bool = False,
    at_once: bool = False,
    strict: bool = False,
) -> Iterator[FilePrediction]:
    """Verdicts in the order of the records, one at a time; heat maps and masks are in `save` before their verdict is given.

    Records are drawn as they are needed, and only a few batches of images are held; with `at_once` each image is answered before
    the next record is drawn. An image that cannot be read has the
    verdict `unreadable`, one without a finite score `ERROR`; neither has a heat map. A JPEG above the limit of pixels is
    decoded at a fraction of its size, which `reason` says. `notes` say how an image is unlike the training images; with
    `strict` its verdict is `ERROR`.
    """
    calibration = predictor.fitted()
    for outcome in predictor.outcomes(
        records,
        batch_size=1 if at_once else None,
        ahead=0 if at_once else AHEAD,
        keep_images=save is not None,
        reduce=True,
    ):
        assert outcome.record is not None
        path = str(outcome.record.image)
        if isinstance(outcome, Unreadable):
            yield FilePrediction(path, "unreadable", None, None, None, str(outcome.error))
            continue
        prediction = predictor.judge(refused(outcome) if strict else outcome)
        notes = prediction.notes
        if prediction.error:
            yield FilePrediction(path, prediction.verdict, None, None, None, prediction.error, notes)
            continue
        if save is not None:
            _save(prediction, calibration, save, maps, outcome.image)
        marked = np.count_nonzero(prediction.mask) / prediction.mask.size
        reason = "" if outcome.reduction == 1 else f"read at 1/{outcome.reduction} of its width and height"
        score, raw_score = prediction.score, prediction.raw_score
        yield FilePrediction(path, prediction.verdict, score, raw_score, marked, reason, notes)


def check_errors(verdicts: Mapping[str, int], where: str) -> None:
    """Raise `DataError` where some images have the verdict `ERROR`; `where` says where the reasons are."""
    count, total = verdicts.get("ERROR", 0), sum(verdicts.values())
    if count:
        raise DataError(
            f"{count} of {total} pictures have no verdict (ERROR); the others are answered; do not let these parts pass; {where}"
        )


def check_unreadable(verdicts: Mapping[str, int], reason: str) -> None:
    """Raise `DataError` where some of the answered images could not be read; `reason` is that of the first one."""
    count, total = verdicts.get("unreadable", 0), sum(verdicts.values())
    if count:
        raise DataError(f"{count} of {total} pictures cannot be read, the others are answered; {reason}")


@contextlib.contextmanager
def _table(folder: Path | None) -> Iterator[Callable[[FilePrediction], None]]:
    """A function that adds a line to a new predictions.csv in `folder`, and does nothing without a folder."""
    if folder is None:
        yield lambda one: None
        return
    path = folder / "predictions.csv"
    with writing_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    with stream:
        writer = csv.DictWriter(stream, list(FilePrediction.__dataclass_fields__))

        def add(one: FilePrediction) -> None:
            with writing_errors(path):
                writer.writerow({name: safe_cell(value) for name, value in one.row().items()})
                stream.flush()

        with writing_errors(path):
            writer.writeheader()
            stream.flush()
        yield add


def _save(
    prediction: Prediction,
    calibration: Calibration,
    folder: Path,
    maps: bool,
    image: npt.NDArray[np.uint8] | None,
) -> None:
    from andon.report.maps import save_prediction

    save_prediction(prediction, calibration, folder, maps=maps, image=image)
