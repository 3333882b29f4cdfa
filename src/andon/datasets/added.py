"""Good images that are added to those a data set has to learn from (docs/reference/data.md, "Added images")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from andon.core.opening import read_day
from andon.core.records import Record
from andon.datasets.dataset import Dataset, Records, file_digest
from andon.datasets.findings import FindingsLog
from andon.datasets.sessions import AUTO, with_sessions


def with_added(dataset: Dataset, files: Mapping[str, Path], sessions: str) -> Dataset:
    """The data set with these images, by id, among its training images in the order of ids; those that are gone are left out.

    Sessions are told apart as if the images lay in the folder of good images.
    """
    added = [
        Record(file, name, dataset.category, "train", 0, "good", "good")
        for name, file in files.items()
        if file.is_file()
    ]
    if not added:
        return dataset
    good = sorted(_with_sessions(list(dataset.train), added, sessions), key=lambda record: record.id)
    return replace(dataset, train=Records(good))


def new_ids(dataset: Dataset, images: Sequence[Path]) -> dict[str, Path]:
    """Ids that the images would have in the folder of good images; a name that is in use gets a number."""
    folder = min((PurePosixPath(record.id).parent for record in dataset.train), key=lambda p: len(p.parts))
    used = {record.id for record in (*dataset.train, *dataset.validation, *dataset.test, *dataset.labelled)}
    stems = Counter(path.stem for path in images)
    found: dict[str, Path] = {}
    for path in images:
        name = wanted = (folder / (path.stem if stems[path.stem] == 1 else path.name)).as_posix()
        number = 2
        while name in used or name in found:
            name, number = f"{wanted}-{number}", number + 1
        found[name] = path
    return found


def passed_by(dataset: Dataset, images: Sequence[Path]) -> dict[Path, str]:
    """Why some of the images are not added: their content is learned from already, is in the test, or occurs twice."""
    seen = {file_digest(record.image): record.id for record in (*dataset.train, *dataset.validation)}
    kept_out = {file_digest(record.image): record.id for record in (*dataset.test, *dataset.labelled)}
    reasons: dict[Path, str] = {}
    for path in images:
        digest = file_digest(path)
        if digest in kept_out:
            reasons[path] = f"is the test picture {kept_out[digest]}"
        elif digest in seen:
            reasons[path] = f"is learned from already ({seen[digest]})"
        else:
            seen[digest] = path.name
    return reasons


def _with_sessions(before: list[Record], added: list[Record], how: str) -> list[Record]:
    by_name = (record for record in before if record.session and record.session != read_day(record.image))
    if how == AUTO and any(by_name):  # folders or a manifest say sessions, and nothing about these images
        return [*before, *added]
    unknown = [replace(record, session=None) for record in [*before, *added]]
    return with_sessions(unknown, how, FindingsLog())
