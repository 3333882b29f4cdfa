"""`andon backup`, `andon restore`, `andon audit verify`: the stored verdicts of a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import Json, print_json, say
from andon.core.errors import DataError
from andon.core.text import plural

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
    """Copy verdicts, images and audit of a line to a new folder; the line goes on meanwhile.

    Exit code 2 where a golden image or a candidate is gone; all else is copied.
    """
    from andon.line.store.backup import backup as write

    manifest = write(data, target)
    if as_json:
        print_json(asdict(manifest))
    else:
        gone = _counted("were gone", images=manifest.missing, maps=manifest.missing_maps)
        found = f"{manifest.rows} verdicts, {manifest.images} images{gone}"
        say(f"{target}: {found}; audit head {manifest.audit_head}")
    _complain(target, manifest.missing_for_good, "bring them back and make another backup")


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder written by `andon backup`.")],
    data: Annotated[Path, typer.Option("--data", help="New data folder to make.")] = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Make a new data folder from a backup, with every file and the audit checked.

    Exit code 2 where a golden image or a candidate is gone or damaged; all else is there.
    """
    from andon.line.store.backup import restore as read

    restored = read(source, data)
    if as_json:
        print_json({**asdict(restored), "head": str(restored.head)})
    else:
        damaged = _counted("are damaged or missing", images=restored.damaged, maps=restored.damaged_maps)
        say(f"{data}: {restored.rows} verdicts, {restored.images} images{damaged}; the audit is sound")
    _complain(data, restored.missing_for_good, "take them from another backup")


def _counted(what: str, **kinds: int) -> str:
    found = " and ".join(f"{n} {kind}" for kind, n in kinds.items() if n)
    return f", {found} {what}" if found else ""


def _complain(folder: Path, missing: Sequence[str], advice: str) -> None:
    """List golden images and candidates that are not there; raises `DataError` for them."""
    for key in missing:
        say(f"missing or damaged: {key}")
    if missing:
        raise DataError(
            f"{folder} is complete but for {plural(len(missing), 'file')} (golden images, candidates) listed above: {advice}"
        )


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
