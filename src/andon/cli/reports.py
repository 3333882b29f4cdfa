"""`andon shift-report`: what happened at a station, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from andon.cli.line import DEFAULT_FOLDER, Database, DataFolder
from andon.cli.options import Json, print_json, say
from andon.core.errors import UsageError
from andon.core.text import plural

app = typer.Typer()


@app.command("shift-report")
def shift_report(
    station: Annotated[str, typer.Argument(help="Name of the station.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path("shift.html"),
    data: DataFolder = DEFAULT_FOLDER,
    database: Database = "",
    since: Annotated[str, typer.Option(help="Start, e.g. 2026-11-28T06:00; local time.")] = "",
    until: Annotated[str, typer.Option(help="End; default: now.")] = "",
    lot: Annotated[str, typer.Option(help="A lot instead of a shift.")] = "",
    name: Annotated[str, typer.Option(help="Name of the line, for the heading.")] = "line",
    as_json: Json = False,
) -> None:
    """Write a report of the running shift, of a period or of a lot; the line may run meanwhile."""
    from andon.core.files import writing_errors
    from andon.line.clock import now_us
    from andon.line.page.render import report_file
    from andon.line.reports import shift
    from andon.line.store.connection import ask_database

    now, begin, end = now_us(), _time("--since", since), _time("--until", until)

    def read(connection: Any) -> shift.ShiftReport:
        of = shift.period(connection, station, now=now, since=begin, until=end, lot=lot or None)
        return shift.read(connection, of, line=name, now=now)

    report = ask_database(database or data, read, seconds=shift.REPORT_SECONDS)
    if as_json:
        print_json(report.to_json())
        return
    with writing_errors(out):
        out.write_text(report_file(report), encoding="utf-8")
    say(f"{out}: {plural(report.parts, 'part')}, {plural(report.stop_summary.stops, 'stop')}")


def _time(option: str, text: str) -> int | None:
    """Microseconds UTC of a local time; None for an empty text. Raises `UsageError`."""
    from datetime import datetime

    if not text:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e6)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text!r} is no time: give it as 2026-11-28T06:00") from None
