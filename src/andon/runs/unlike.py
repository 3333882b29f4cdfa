"""Images of a prediction run that are unlike the training images: counted by kind, or refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from andon.core.records import Note
from andon.runtime.predictor import RawPrediction


@dataclass(slots=True)
class _Kind:
    path: str
    note: Note
    count: int = 1

    def describe(self) -> str:
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        return (
            f"{self.path}{more}: unlike the training pictures ({self.note.text}): verdicts may be wrong, --strict refuses such "
            "pictures"
        )


class UnlikeCounts:
    """How many images are unlike the training images, by the code of the note."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, path: str, notes: Iterable[Note]) -> list[str]:
        """Count the notes of one image; returns a line for each code that is new."""
        new = []
        for note in notes:
            if note.code in self._kinds:
                self._kinds[note.code].count += 1
            else:
                self._kinds[note.code] = _Kind(path, note)
                new.append(self._kinds[note.code].describe())
        return new

    def warnings(self) -> list[str]:
        """One line for each code, which names the first image and counts the others."""
        return [kind.describe() for kind in self._kinds.values()]


def refused(found: RawPrediction) -> RawPrediction:
    """The result of an image with notes as an error, so that its verdict is `ERROR`; any other unchanged."""
    if found.error or not found.notes:
        return found
    said = "; ".join(note.text for note in found.notes)
    return replace(found, error=f"unlike the training pictures: {said}")
