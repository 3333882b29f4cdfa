"""Tables of text cells as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from andon.core.text import safe_cell


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells with notes."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = ["| " + " | ".join(row) + " |" for row in (self.columns, *self.rows)]
        lines.insert(1, "|" + "---|" * len(self.columns))
        return "\n".join([f"### {self.title}", "", *lines, "", *(f"{note}\n" for note in self.notes)])

    def latex(self) -> str:
        """The table in LaTeX, a `tabular` inside a `table`."""
        body = " \\\\\n".join(" & ".join(map(_latex, row)) for row in (self.columns, *self.rows))
        head, _, rest = body.partition("\n")
        notes = "".join(f"\\par\\footnotesize {_latex(note)}\n" for note in self.notes)
        return (
            f"\\begin{{table}}\n\\caption{{{_latex(self.title)}}}\n\\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}\n"
            f"{head}\n\\hline\n{rest} \\\\\n\\end{{tabular}}\n{notes}\\end{{table}}\n"
        )

    def cells(self) -> list[tuple[str, str, str, str]]:
        """All cells as (table title, row, column, text)."""
        return [
            (self.title, row[0], column, text)
            for row in self.rows
            for column, text in zip(self.columns[1:], row[1:], strict=True)
        ]


def as_csv(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV, without formulas."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([safe_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _latex(text: str) -> str:
    return text.translate(LATEX)


LATEX = str.maketrans(
    {
        "\\": "\\textbackslash{}",
        "_": "\\_",
        "%": "\\%",
        "&": "\\&",
        "#": "\\#",
        "$": "\\$",
        "{": "\\{",
        "}": "\\}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "±": "$\\pm$",
        "–": "--",
        "“": "``",
        "”": "''",
    }
)
"""Escapes of LaTeX."""
