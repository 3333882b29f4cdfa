"""`andon backup`, `andon restore`, `andon audit verify`: the stored verdicts of a line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import Json, print_json, say
from andon.core.errors import DataError

app = typer.Typer()
audit_app = typer.Typer(help="Check who changed what on a line.", no_args_is_help=True)

DataFolder = Annotated[Path, typer.Option("--data", help="Data folder of the line.")]
Database = Annotated[
    str, typer.Option(help="URL of a PostgreSQL database; default: SQLite in the data folder.")
]
DEFAULT_FOLDER = Path("andon-data")


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the backup.")],
    data: DataFolder = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Copy verdicts, images and audit of a line to a new folder; the line goes on meanwhile."""
    from andon.line.store.backup import backup as write

    manifest = write(data, target)
    if as_json:
        print_json(asdict(manifest))
        return
    missing = f", {manifest.missing} images were gone" if manifest.missing else ""
    say(
        f"{target}: {manifest.rows} verdicts, {manifest.images} images{missing}; audit head {manifest.audit_head}"
    )


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder written by `andon backup`.")],
    data: Annotated[Path, typer.Option("--data", help="New data folder to make.")] = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Make a new data folder from a backup, with every file and the audit checked."""
    from andon.line.store.backup import restore as read

    restored = read(source, data)
    if as_json:
        print_json({**asdict(restored), "head": str(restored.head)})
        return
    damaged = f", {restored.damaged} images are damaged or missing" if restored.damaged else ""
    say(f"{data}: {restored.rows} verdicts, {restored.images} images{damaged}; the audit is sound")


@audit_app.command("verify")
def audit_verify(
    data: DataFolder = DEFAULT_FOLDER,
    database: Database = "",
    head: Annotated[
        str, typer.Option(help="NUMBER:HASH from the log or a backup: rows missing at the end show, too.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check the chain of hashes; exit code 2 where a row was changed or is missing. The line may run meanwhile."""
    from andon.line.store.audit import Head, verify_database

    result = verify_database(database or data, Head.parse(head) if head else None)
    if as_json:
        print_json({"sound": not result.problem, "head": str(result.head), "problem": result.problem})
    if result.problem:
        raise DataError(f"the audit is not sound: {result.problem}; compare with a backup")
    if not as_json:
        say(f"{result.head.seq} rows, the audit is sound; head {result.head}")
