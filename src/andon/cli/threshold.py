"""`andon threshold`: show and change the score from which on a part is rejected."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli.options import Json, Run, print_json, print_table
from andon.core.errors import UsageError

if TYPE_CHECKING:
    from andon.thresholds.calibration import Calibration
    from andon.thresholds.history import Change

app = typer.Typer()


@app.command()
def threshold(
    run: Run,
    false_reject_rate: Annotated[
        float | None, typer.Option(help="Largest fraction of good images to reject, e.g. 0.01.")
    ] = None,
    look: Annotated[
        float | None,
        typer.Option(
            help="Sets a second, lower threshold: at most this fraction of good images reaches it (inspected or rejected)."
        ),
    ] = None,
    good: Annotated[
        list[Path] | None,
        typer.Option(help="With --false-reject-rate: further good images, or folders of them."),
    ] = None,
    labelled: Annotated[
        str | None,
        typer.Option(
            help="Data with good and anomalous test images: set the threshold with the lowest expected cost."
        ),
    ] = None,
    escape_cost: Annotated[
        float | None, typer.Option(help="With --labelled: cost of a defective part that passes.")
    ] = None,
    reject_cost: Annotated[
        float | None, typer.Option(help="With --labelled: cost of a good part that is rejected.")
    ] = None,
    defect_rate: Annotated[
        float, typer.Option(help="With --labelled: fraction of defective parts on the line.")
    ] = 0.01,
    undo: Annotated[
        bool, typer.Option("--undo", help="Restore the thresholds before the last change.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Reason, stored with the change.")] = "",
    as_json: Json = False,
) -> None:
    """Show the thresholds, the false-reject rate they support and their history, or change them. Scores stay as they are."""
    from andon.core.progress import default_progress
    from andon.detectors._saving import detector_folder
    from andon.runs import thresholds
    from andon.runs.folder import changing
    from andon.thresholds import history

    changes = {
        "--false-reject-rate": false_reject_rate is not None,
        "--labelled": labelled is not None,
        "--undo": undo,
    }
    asked = [name for name, given in changes.items() if given]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} set the same threshold: choose one of them")
    if false_reject_rate is None and (look is not None or good):
        raise UsageError("--look and --good belong to --false-reject-rate: say which rate is wanted")
    if labelled is not None and (escape_cost is None or reject_cost is None):
        raise UsageError("--labelled needs both prices: --escape-cost and --reject-cost")
    if asked and not reason.strip():
        raise UsageError("a change of thresholds needs a reason that others understand later: --reason TEXT")
    with changing(run) if asked else nullcontext():
        fitted = thresholds.fitted(run)
        if false_reject_rate is not None:
            thresholds.by_rate(
                run, false_reject_rate, look=look, good=good or (), reason=reason, progress=default_progress()
            )
        if labelled is not None and escape_cost is not None and reject_cost is not None:
            thresholds.by_cost(
                run,
                labelled,
                escape=escape_cost,
                reject=reject_cost,
                defect_rate=defect_rate,
                reason=reason,
                progress=default_progress(),
            )
        folder = detector_folder(run)
        if undo:
            history.undo(folder, fitted, reason=reason)
        known = history.read_changes(folder)
    _show(run, fitted, known, as_json=as_json)


def _show(run: Path, fitted: Calibration, changes: Sequence[Change], *, as_json: bool) -> None:
    """Thresholds in use, what they did on the test images, and the changes since the fit, as text or one JSON document."""
    from andon.runs import thresholds
    from andon.thresholds import history
    from andon.thresholds.session_rates import session_rates

    now = history.with_changes(fitted, changes)
    found = thresholds.measured(run, now.image.value)
    rates = session_rates(now)
    if as_json:
        print_json(
            {
                "run": str(run),
                "image": now.image.to_json(),
                "pixel": now.pixel.to_json(),
                "look": None if now.look is None else now.look.to_json(),
                "measured": {name: metric.to_json() for name, metric in found.items()} or None,
                "sessions": None if rates is None else rates.to_json(),
                "figures": thresholds.figures_now(run, now).to_json(),
                "basis": thresholds.describe_basis(fitted),
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
    print_table("", ["threshold", "score", "raw", "where it comes from"], rows)
    if found:
        from andon.report.text import rate

        names = {"image_recall": "recall", "image_fpr": "false-reject rate"}
        print("on the test pictures of the last evaluation, at the image threshold:")
        for name, metric in found.items():
            print(f"  {names[name]} {rate(name, metric)}")
    if rates is not None:
        print(rates.describe())
    print(f"as fitted: {thresholds.describe_basis(fitted)}")
    for change in changes:
        print(f"{change.when} {change.who}: {change.reason} ({change.rule})")
