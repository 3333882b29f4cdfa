"""Answers of a drop folder as a table: one line for each part, one file for each day."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

from andon.core.text import safe_cell, whole_number
from andon.line.clock import SECOND
from andon.line.inbox.files import ANSWERS, shown
from andon.line.store import Inspection

COLUMNS = ("id", "time", "file", "part_id", "lot", "recipe", "verdict", "score", "cause", "same_as")


class AnswerTable:
    """`answers/answers-YYYY-MM-DD.csv` (local day of the verdict). A part that is told again has one line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file, self._ids = Path(), set[int]()
        """The file written last, and the parts in it."""

    def add(self, name: str, row: Inspection) -> None:
        """A line for the part that came as file `name`. Raises `OSError`."""
        day = datetime.fromtimestamp(row.t_done / SECOND).strftime("%Y-%m-%d")
        file = self._folder / ANSWERS / f"answers-{day}.csv"
        if file != self._file or not file.exists():
            self._file, self._ids = file, _begun(file)
        if row.id in self._ids:
            return
        with file.open("a", encoding="utf-8", newline="") as table:
            table.write(_line(_cells(name, row)))
        self._ids.add(row.id)


def _cells(name: str, row: Inspection) -> list[object]:
    time = datetime.fromtimestamp(row.t_done / SECOND, UTC).isoformat(timespec="milliseconds")
    texts = (shown(name), row.part_id or "", row.lot or "", row.recipe or "")
    found = (row.verdict.name, "" if row.score is None else f"{row.score:.6g}", row.cause)
    return [row.id, time, *map(safe_cell, texts), *found, "" if row.same_as is None else row.same_as]


def _line(cells: list[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()


def _begun(file: Path) -> set[int]:
    """Ids in the file, which is begun with the names of the columns; a line that a crash left half is ended."""
    file.parent.mkdir(exist_ok=True)
    try:
        content = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        file.write_text(_line([*COLUMNS]), encoding="utf-8", newline="")
        return set()
    if not content.endswith("\n"):
        with file.open("a", encoding="utf-8", newline="") as table:
            table.write("\r\n")
        content = content.rpartition("\n")[0]
    ids = set[int]()
    rows = csv.reader(io.StringIO(content))
    while True:
        try:
            row = next(rows, None)
        except csv.Error:  # a cell of more than 131,072 characters: no line of ours
            continue
        if row is None:
            return ids
        if row and (number := whole_number(row[0])) is not None:
            ids.add(number)
