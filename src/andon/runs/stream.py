"""Predictions for another program: paths come in one by one, each is answered before the next one is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from andon.core.image_files import point_cloud_beside
from andon.core.records import Record
from andon.runs.predict import file_predictions
from andon.runs.unlike import UnlikeCounts
from andon.runtime.predictor import Predictor


def answer_lines(
    predictor: Predictor,
    lines: Iterable[bytes],
    write: Callable[[str], object],
    *,
    save: Path | None = None,
    maps: bool = False,
    strict: bool = False,
    warn: Callable[[str], object] | None = None,
) -> None:
    """Predict the image whose path is in each of `lines`; `write` gets its answer, a JSON object in one line, at once.

    Keys are those of `FilePrediction`. A path that cannot be read has the verdict `unreadable`; empty lines are passed over. Heat
    maps and masks go to `save`, under the whole path. With `strict` an image unlike the training images has the verdict `ERROR`.
    `warn` gets a line for the first image of each way in which images are unlike them.
    """
    unlike = UnlikeCounts()
    answers = file_predictions(predictor, _records(lines), save=save, maps=maps, at_once=True, strict=strict)
    for one in answers:
        write(json.dumps(one.to_json()) + "\n")
        for line in unlike.add(one.path, one.notes):
            if warn is not None:
                warn(line)


def _records(lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        if name := line.rstrip(b"\r\n"):
            yield _record(Path(os.fsdecode(name)))


def _record(path: Path) -> Record:
    try:
        place = "/".join(path.resolve().parts[1:])
        return Record(image=path, id=place, depth=point_cloud_beside(path))
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a NUL: decoding says why
        return Record(image=path, id=str(path))
