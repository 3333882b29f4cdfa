"""Predicting files: what `andon predict` does with a list of pictures."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.datasets.depth import point_cloud_beside
from andon.errors import DataError
from andon.files import write_text
from andon.images import decode, is_picture, natural_key
from andon.progress import NoProgress, Progress
from andon.structures import Prediction, Record

if TYPE_CHECKING:
    from andon.detector import Detector


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of `andon predict`."""

    path: str
    verdict: str
    """`OK`, `NG` or `unreadable`."""
    score: float | None
    """0 = typical good, 1 = threshold."""
    raw_score: float | None
    area: float | None
    """Share of the picture that is marked."""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def list_inputs(inputs: Sequence[Path]) -> list[Record]:
    """Records of the named pictures and of all pictures below the named folders, in natural order.

    Ids are unique: the files' names where that is enough, longer paths otherwise. Raises `DataError` for a path that is
    not there or a folder without pictures.
    """
    records: list[Record] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(
                (p for p in path.rglob("*") if p.is_file() and is_picture(p)),
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
    """Pictures of one name in several folders get their whole path as id, so that one's heat map does not replace the other's."""
    counts = Counter(record.id for record in records)
    return [
        record if counts[record.id] == 1 else replace(record, id="/".join(record.image.resolve().parts[1:]))
        for record in records
    ]


def predict_files(
    detector: Detector,
    records: Sequence[Record],
    *,
    save: Path | None = None,
    maps: bool = False,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> list[Answer]:
    """Answer for every picture, in order; heat maps, masks and predictions.csv go to `save`.

    Raises `DataError` for a picture that cannot be read, before anything is written, unless `skip_unreadable`.
    """
    detector.fitted()
    reasons: dict[int, str] = {}
    for k, record in enumerate(records):
        try:
            decode(record.image)
        except DataError as error:
            if not skip_unreadable:
                raise
            reasons[k] = str(error)
    readable = [record for k, record in enumerate(records) if k not in reasons]
    found: list[Answer] = []
    with (progress or NoProgress()).task("predicting", len(readable)) as task:
        for prediction in detector.stream(readable):
            found.append(_answer(prediction))
            if save is not None:
                _save(prediction, detector, save, maps)
            task.advance()
    answers = iter(found)
    ordered = [
        Answer(str(record.image), "unreadable", None, None, None, reasons[k])
        if k in reasons
        else next(answers)
        for k, record in enumerate(records)
    ]
    if save is not None:
        write_text(save / "predictions.csv", _csv(ordered))
    return ordered


def _answer(prediction: Prediction) -> Answer:
    assert prediction.record is not None
    return Answer(
        path=str(prediction.record.image),
        verdict="NG" if prediction.is_anomalous else "OK",
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


def _save(prediction: Prediction, detector: Detector, folder: Path, maps: bool) -> None:
    from andon.report.pictures import save_prediction

    save_prediction(prediction, detector.fitted(), folder, maps=maps)
