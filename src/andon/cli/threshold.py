"""`andon limit`: see and change from which score on a part is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import Json, Run, print_json, print_table
from andon.core.errors import UsageError

app = typer.Typer()


@app.command()
def limit(
    run: Run,
    false_rejects: Annotated[
        float | None, typer.Option(help="Largest share of good pictures to reject, e.g. 0.01.")
    ] = None,
    look: Annotated[
        float | None,
        typer.Option(
            help="With --false-rejects: share of good pictures that a person looks at or that are rejected."
        ),
    ] = None,
    good: Annotated[
        list[Path] | None,
        typer.Option(help="With --false-rejects: further good pictures, or folders of them."),
    ] = None,
    labelled: Annotated[
        str | None,
        typer.Option(help="Data with good and defective test pictures: the limit that costs least."),
    ] = None,
    escape_cost: Annotated[
        float | None, typer.Option(help="With --labelled: price of a defective part that passes.")
    ] = None,
    reject_cost: Annotated[
        float | None, typer.Option(help="With --labelled: price of a good part that is rejected.")
    ] = None,
    defect_rate: Annotated[
        float, typer.Option(help="With --labelled: share of defective parts on the line.")
    ] = 0.01,
    undo: Annotated[bool, typer.Option("--undo", help="Back to the limits before the last change.")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept with the change.")] = "",
    as_json: Json = False,
) -> None:
    """Show the limits in force, what they promise and how they came about; or change them. Scores stay as they are."""
    from andon.core.progress import default_progress
    from andon.runs import thresholds as adjusting
    from andon.thresholds import history as limits

    asked = [
        name
        for name, given in (
            ("--false-rejects", false_rejects is not None),
            ("--labelled", labelled is not None),
            ("--undo", undo),
        )
        if given
    ]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} set the same limit: choose one of them")
    if false_rejects is None and (look is not None or good):
        raise UsageError("--look and --good belong to --false-rejects: say which rate is wanted")
    if labelled is not None and (escape_cost is None or reject_cost is None):
        raise UsageError("--labelled needs both prices: --escape-cost and --reject-cost")
    if asked and not reason.strip():
        raise UsageError("a change of limits needs a reason that others understand later: --reason TEXT")
    fitted = adjusting.fitted(run)
    if false_rejects is not None:
        adjusting.by_rate(
            run, false_rejects, look=look, good=good or (), reason=reason, progress=default_progress()
        )
    if labelled is not None and escape_cost is not None and reject_cost is not None:
        adjusting.by_cost(
            run,
            labelled,
            escape=escape_cost,
            reject=reject_cost,
            defect_rate=defect_rate,
            reason=reason,
            progress=default_progress(),
        )
    folder = adjusting.detector_folder(run)
    if undo:
        limits.undo(folder, fitted, reason=reason)
    changes = limits.read_changes(folder)
    now = limits.in_force(fitted, changes)
    if as_json:
        print_json(
            {
                "run": str(run),
                "image": now.image.to_json(),
                "pixel": now.pixel.to_json(),
                "look": None if now.look is None else now.look.to_json(),
                "promise": adjusting.basis(fitted),
                "changes": [change.to_json() for change in changes],
            }
        )
        return
    shown = [("a person looks from", now.look, now.score_display)] if now.look is not None else []
    shown += [
        ("rejected from", now.image, now.score_display),
        ("a pixel is marked from", now.pixel, now.pixel_display),
    ]
    rows = [[what, f"{float(on(x.value)):.3f}", f"{x.value:.6g}", x.describe()] for what, x, on in shown]
    print_table("", ["limit", "score", "raw", "where it comes from"], rows)
    print(f"as fitted: {adjusting.basis(fitted)}")
    for change in changes:
        print(f"{change.when} {change.who}: {change.reason} ({change.rule})")
