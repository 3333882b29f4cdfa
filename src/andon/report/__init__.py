"""Writes a `Report` as files: numbers, page, figures, heat maps, masks."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from andon.core.text import safe_cell

if TYPE_CHECKING:
    from andon.core.progress import Progress
    from andon.report.report import Report

__all__ = ["save_report"]

PER_EVALUATION = ("figures/*.png", "heatmaps/**/*.png", "masks/**/*.png", "maps/**/*.tiff")
"""Files whose names depend on the test images."""
STAGED, BEFORE = ".evaluating", ".before"
"""Folder in which a report is written, and the folder in that one where an earlier report lies until the new one is complete."""


def save_report(
    report: Report,
    folder: Path,
    *,
    maps: bool = False,
    heatmaps: bool = True,
    progress: Progress | None = None,
) -> None:
    """Writes the report into `folder`, replacing an earlier one.

    report.json, report.html, predictions.csv and figures/ always; heatmaps/ and masks/ with `heatmaps`; maps/ with
    `maps`: float32 TIFF at the images' own size, in the folder layout of the evaluation code of MVTec AD and MVTec LOCO AD,
    `<category>/test/<defect>/<image>.tiff`. The page always shows a few images. All is written beside an earlier report
    first, which is kept whole if that fails; then report.json goes first and comes last: if it exists, the other files
    are complete. Raises `DataError` when an image can no longer be read, `OutputError` when the folder
    cannot be written, and before anything is written when one of these folders holds files that andon did not draw.
    """
    from andon.core.files import write_bytes, write_json, write_text
    from andon.core.own_output import check_drawn, mark
    from andon.core.progress import NoProgress, track
    from andon.report.figures import draw_figures
    from andon.report.file_names import places, safe_name
    from andon.report.maps import save_case
    from andon.report.page import render

    check_drawn(folder)
    staged = folder / STAGED
    # Where the process was killed in `_put_in_place`, neither report is whole.
    if (staged / BEFORE / "report.json").is_file():
        for path in _drawings(folder):
            path.unlink()
    shutil.rmtree(staged, ignore_errors=True)
    try:
        if heatmaps or maps:
            category = safe_name(report.category or report.dataset or "pictures")
            where = places([case.record for case in report.cases])
            cases = track(progress or NoProgress(), report.cases, "writing pictures", len(report.cases))
            for case, place in zip(cases, where, strict=True):
                map_place = f"{category}/test/{place}" if maps else None
                save_case(case, report.calibration, staged, place, heatmaps=heatmaps, map_place=map_place)
        figures = draw_figures(report)
        mark(staged / "figures")
        for name, content in figures.items():
            write_bytes(staged / "figures" / f"{name}.png", content)
        write_text(staged / "predictions.csv", predictions_csv(report))
        write_text(staged / "report.html", render(report, figures))
        write_json(staged / "report.json", report.to_json())
        _put_in_place(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def predictions_csv(report: Report) -> str:
    """CSV text: one line per image, in the order of evaluation; labels and verdicts are 0 or 1.

    `./` stands before names that a spreadsheet would take for formulas.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    gate = ["is_anomalous_gated"] if report.gate else []
    writer.writerow(("id", "defect_type", "label", "score", "raw_score", "is_anomalous", *gate, "path"))
    for case in report.cases:
        record = case.record
        score, raw = f"{case.score:.9g}", f"{case.raw_score:.9g}"  # nine digits identify a float32
        verdicts = [int(case.is_anomalous), *([int(bool(case.gated))] if report.gate else [])]
        name, defect_type = safe_cell(record.id), safe_cell(record.defect_type)
        path = safe_cell(str(record.image))
        writer.writerow((name, defect_type, record.label, score, raw, *verdicts, path))
    return stream.getvalue()


def _put_in_place(staged: Path, folder: Path) -> None:
    """Moves the files in `staged` into `folder` in place of an earlier report, all or nothing."""
    from andon.core.files import all_or_nothing, writing_errors
    from andon.core.own_output import MARKER, mark

    last = staged / "report.json"
    new = [path for path in staged.rglob("*") if path.is_file() and path != last and path.name != MARKER]
    for marker in staged.glob(f"*/{MARKER}"):
        mark(folder / marker.parent.name)  # stays, so that not even an empty folder lacks it
    with all_or_nothing() as move, writing_errors(folder):

        def aside(path: Path) -> None:
            if path.is_file():
                move(path, staged / BEFORE / path.relative_to(folder))

        if (folder / "report.json").is_file():
            aside(folder / "report.json")
            for path in _drawings(folder):
                aside(path)
        for path in (*new, last):
            target = folder / path.relative_to(staged)
            aside(target)
            move(path, target)


def _drawings(folder: Path) -> list[Path]:
    """Drawings of a report, which may be of other images than those of the next one."""
    from andon.core.own_output import is_own

    return [
        path
        for pattern in PER_EVALUATION
        if is_own(folder / pattern.partition("/")[0])
        for path in folder.glob(pattern)
    ]
