"""Predicting files: what `andon predict` does with a list of images."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from andon.core.errors import DataError
from andon.core.files import write_text
from andon.core.image_files import decode, is_image, natural_key
from andon.core.progress import NoProgress, Progress
from andon.core.records import Prediction, Record
from andon.datasets.depth import point_cloud_beside

if TYPE_CHECKING:
    from andon.thresholds.calibration import Calibration

CHUNK = 256
"""Images handed to the detector at a time; it decodes ahead only within them."""


class Judge(Protocol):
    """What answers for images: a detector, or a network made from one."""

    def fitted(self) -> Calibration:
        """The thresholds."""

    def stream(self, pictures: list[Record]) -> Iterator[Prediction]:
        """One prediction after the other."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of `andon predict`."""

    path: str
    verdict: str
    """`OK`, `NG`, `look` (between two limits: a person decides) or `unreadable`."""
    score: float | None
    """0 = typical good, 1 = threshold."""
    raw_score: float | None
    area: float | None
    """Share of the image that is marked."""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def list_inputs(inputs: Sequence[Path]) -> list[Record]:
    """Records of the named images and of all images below the named folders, in natural order.

    Ids are unique: the files' names where that is enough, longer paths otherwise. Raises `DataError` for a path that is
    not there or a folder without images.
    """
    records: list[Record] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(
                (p for p in path.rglob("*") if p.is_file() and is_image(p)),
                key=lambda p: natural_key(str(p)),
            )
            if not found:
                raise DataError(
                    f"{path} holds no pictures: give a folder with png, jpg, bmp, tif or webp files"
                )
            records += [
                Record(image=p, id=p.relative_to(path).as_posix(), depth=point_cloud_beside(p)) for p in found
            ]
        elif path.is_file():
            records.append(Record(image=path, id=path.name, depth=point_cloud_beside(path)))
        else:
            raise DataError(f"{path} does not exist: check the path")
    return _with_unique_ids(records)


def _with_unique_ids(records: Sequence[Record]) -> list[Record]:
    """Images of one name in several folders get their whole path as id, so that one's heat map does not replace the other's."""
    counts = Counter(record.id for record in records)
    return [
        record if counts[record.id] == 1 else replace(record, id="/".join(record.image.resolve().parts[1:]))
        for record in records
    ]


def predict_files(
    detector: Judge,
    records: Sequence[Record],
    *,
    save: Path | None = None,
    maps: bool = False,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> list[Answer]:
    """Answer for every image, in order; heat maps, masks and predictions.csv go to `save`.

    Raises `DataError` for an image that cannot be read, before anything is written, unless `skip_unreadable`.
    """
    detector.fitted()
    if not skip_unreadable:
        for record in records:
            decode(record.image)
    found: list[Answer] = []
    with (progress or NoProgress()).task("predicting", len(records)) as task:
        for answer in answers(detector, records, save=save, maps=maps, skip_unreadable=skip_unreadable):
            found.append(answer)
            task.advance()
    if save is not None:
        write_text(save / "predictions.csv", _csv(found))
    return found


def answers(
    detector: Judge,
    records: Iterable[Record],
    *,
    save: Path | None = None,
    maps: bool = False,
    skip_unreadable: bool = False,
) -> Iterator[Answer]:
    """Answers in the order of the records, one at a time; heat maps and masks go to `save` before their answer is given.

    Records are drawn as they are needed, and only a batch of images is held. Raises `DataError` for an image that cannot
    be read, unless `skip_unreadable`.
    """
    calibration, source = detector.fitted(), iter(records)
    while chunk := list(islice(source, CHUNK)):
        for record, prediction in _predictions(detector, chunk, skip_unreadable):
            if isinstance(prediction, str):
                yield Answer(str(record.image), "unreadable", None, None, None, prediction)
                continue
            if save is not None:
                _save(prediction, calibration, save, maps)
            yield _answer(prediction)


def _predictions(
    detector: Judge, records: list[Record], skip_unreadable: bool
) -> Iterator[tuple[Record, Prediction | str]]:
    """Each record with its prediction, or with the reason why it cannot be read."""
    done = 0
    try:
        for prediction in detector.stream(records):
            yield records[done], prediction
            done += 1
    except DataError as error:
        if not skip_unreadable:
            raise
        if len(records) == 1:
            yield records[0], str(error)
            return
        for record in records[done:]:  # one of them cannot be read: ask for each alone
            yield from _predictions(detector, [record], skip_unreadable)


def _answer(prediction: Prediction) -> Answer:
    assert prediction.record is not None
    return Answer(
        path=str(prediction.record.image),
        verdict=prediction.verdict,
        score=prediction.score,
        raw_score=prediction.raw_score,
        area=float(prediction.mask.mean()),
    )


def _csv(answers: Sequence[Answer]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(Answer.__dataclass_fields__))
    writer.writeheader()
    writer.writerows(asdict(answer) for answer in answers)
    return stream.getvalue()


def _save(prediction: Prediction, calibration: Calibration, folder: Path, maps: bool) -> None:
    from andon.report.pictures import save_prediction

    save_prediction(prediction, calibration, folder, maps=maps)
