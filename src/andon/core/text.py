"""Text from outside (file names, categories, messages of libraries), for terminals and for tables that spreadsheets open."""

from __future__ import annotations

import math
import unicodedata
from typing import TypeVar

T = TypeVar("T")

FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
"""Beginnings that a spreadsheet takes for a formula."""
HERE = "./"
"""Before a path it names the same file; before a formula it makes text of it."""


def printable(text: str) -> str:
    r"""`text` with escapes for control characters and undecodable bytes, which could move the cursor or hide text.

    >>> print(printable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(
        char
        if char.isprintable() or char == "\n" or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def utf8(text: str) -> bytes:
    """`text` in UTF-8, for hashes; undecodable bytes of file names (surrogates) are kept apart instead of refused."""
    return text.encode("utf-8", "surrogatepass")


def safe_cell(value: T) -> T | str:
    """A cell of a CSV table: `./` stands before text that a spreadsheet would execute. Numbers, as text too, stay.

    >>> safe_cell("=1+1.png"), safe_cell("a.png"), safe_cell("-0.5")
    ('./=1+1.png', 'a.png', '-0.5')
    """
    if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value):
        return HERE + value
    return value


def from_cell(cell: str) -> str:
    """What `safe_cell` was given."""
    return cell[len(HERE) :] if cell.startswith(tuple(HERE + sign for sign in FORMULA)) else cell


LARGEST_NUMBER = 2**63 - 1
"""Of a column of a database."""


def whole_number(text: str, most: int = LARGEST_NUMBER) -> int | None:
    """The number that `text` is, from 0 to `most`; None for every other text, however long.

    >>> whole_number("4711"), whole_number("-1"), whole_number("٣"), whole_number("9" * 5000)
    (4711, None, None, None)
    """
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most))):
        return None
    found = int(text)
    return found if found <= most else None


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def plural(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
