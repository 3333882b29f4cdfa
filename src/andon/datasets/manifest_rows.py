"""Rows of a manifest in UTF-8: CSV (`,` `;` or tab), JSON or JSON lines (docs/reference/data.md, "Manifests")."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from andon.core.errors import DataError, nearest
from andon.core.files import from_json
from andon.core.records import Split
from andon.datasets.folder_names import TEST, TRAIN, VALIDATION, meaning

COLUMNS = ("image", "split", "label", "category", "defect_type", "mask", "object_id", "session")
SUFFIXES = (".csv", ".json", ".jsonl")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a manifest, before paths are resolved."""

    where: str
    """File and row, for messages."""
    image: str
    split: Split | None
    """None where the split rule decides."""
    label: int | None
    """None where unknown."""
    category: str
    defect_type: str
    masks: tuple[str, ...]
    object_id: str | None
    session: str | None
    metadata: dict[str, str] = field(default_factory=dict)
    """Further columns."""


def read_rows(path: Path) -> list[Row]:
    """Rows of a manifest. Raises `DataError`, which names file and row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check path and permissions") from error
    kinds = {".csv": _from_csv, ".json": _from_json, ".jsonl": _from_lines}
    rows = [
        _row(values, where)
        for where, values in kinds[path.suffix.lower()](text, path)
        if any(values.values())
    ]
    if not rows:
        raise DataError(f"{path} lists no pictures: add one row per picture, with the column image")
    return rows


def _from_csv(text: str, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip().lower() for cell in cells]
                _check_header(header, path)
                continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) > len(header):
                raise DataError(
                    f"{where} has {len(cells)} cells under {len(header)} columns: put values that hold "
                    "the delimiter in quotes"
                )
            yield where, {name: cell.strip() for name, cell in zip(header, cells, strict=False)}
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num} is not CSV ({error}): correct the line") from error


def _delimiter(text: str) -> str:
    """The most frequent of `,` `;` and tab outside quotes in the first line that is not empty."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    unquoted = "".join(first.split('"')[::2])
    return max(",;\t", key=unquoted.count)


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} twice: rename or remove one")
    if "image" not in header:
        raise DataError(
            f"{path} has no column image (found: {', '.join(header)}): name the column with the "
            "pictures' paths image"
        )


def _from_json(text: str, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    items = _parse(text, str(path))
    if not isinstance(items, list):
        raise DataError(f'{path} holds no list: expected [{{"image": ...}}, ...]')
    for number, item in enumerate(items, start=1):
        yield f"{path}, entry {number}", _texts(item, f"{path}, entry {number}")


def _from_lines(text: str, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield (
                f"{path}, line {number}",
                _texts(_parse(line, f"{path}, line {number}"), f"{path}, line {number}"),
            )


def _parse(text: str, where: str) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}): correct it") from error


def _texts(item: Any, where: str) -> dict[str, str]:
    """A JSON object with string values: null becomes empty, true and false 1 and 0, lists are joined with `;`."""
    if not isinstance(item, Mapping):
        raise DataError(f'{where} is no object: expected {{"image": ...}}')
    return {str(name).strip().lower(): _text(value) for name, value in item.items()}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ";".join(_text(part) for part in value)
    return str(int(value)) if isinstance(value, bool) else str(value).strip()


def _row(values: Mapping[str, str], where: str) -> Row:
    if not values.get("image"):
        near = "" if "image" in values else f" (found: {', '.join(values)})"
        raise DataError(f"{where} names no picture{near}: fill image or remove the row")
    label = _label(values.get("label", ""), where)
    return Row(
        where=where,
        image=values["image"],
        split=_split(values.get("split", ""), where),
        label=label,
        category=values.get("category", ""),
        defect_type=values.get("defect_type", ""),
        masks=tuple(mask.strip() for mask in values.get("mask", "").split(";") if mask.strip()),
        object_id=values.get("object_id") or None,
        session=values.get("session") or None,
        metadata={name: value for name, value in values.items() if name and name not in COLUMNS},
    )


def _split(text: str, where: str) -> Split | None:
    known: dict[Split, frozenset[str]] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    if not text:
        return None
    for split, names in known.items():
        if text.lower() in names:
            return split
    raise DataError(
        f"{where}: unknown split {text!r}, {nearest(text.lower(), known)}; leave it empty to split by rule"
    )


def _label(text: str, where: str) -> int | None:
    if not text:
        return None
    text = text.removesuffix(".0")  # pandas writes integers of a column with gaps so
    found = meaning(text)
    if found is not None:
        return {"good": 0, "bad": 1}[found]
    raise DataError(
        f"{where}: unknown label {text!r}, must be 0 or good, 1 or bad, or empty where it is not known"
    )


def resolve(text: str, base: Path, where: str, *, allow_outside: bool) -> Path:
    """Path of a file that a manifest in `base` names `text`; backslashes are separators too.

    Raises `DataError` for absolute paths and `..` unless `allow_outside`.
    """
    windows = PureWindowsPath(text)
    parts = PurePosixPath(text.replace("\\", "/"))
    if not allow_outside and (windows.anchor or parts.is_absolute() or ".." in parts.parts):
        raise DataError(
            f"{where}: {text!r} may lie outside {base}: use a path below it, or from Python "
            "andon.open_dataset(..., allow_outside=True)"
        )
    return base / (text if windows.drive else parts)
