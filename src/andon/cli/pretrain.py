"""`andon pretrain`: teachers that are made once and serve every product."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import Device, Json, Settings, print_json

app = typer.Typer(help="Make teachers that serve every product.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `pdn` a command of its own while it is the only one."""


@app.command("pdn")
def pretrain_pdn(
    name: Annotated[
        str, typer.Option(help="Name of the teacher in the weight store, for `teacher.weights`.")
    ],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...", help="Pictures of anything, subfolders included; none: procedural ones."
        ),
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Seeds initialisation, order and every draw.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted distillation.")] = False,
    device: Device = "auto",
    origin: Annotated[str, typer.Option(help="Origin line, in place of the one that is composed.")] = "",
    licence: Annotated[str, typer.Option(help="Licence line, in place of the one that is composed.")] = "",
    as_json: Json = False,
) -> None:
    """Distil EfficientAD's teacher from a large network (settings: `--set size=medium`, `--set target.weights=...`)."""
    from andon.config import parse_assignments
    from andon.pretraining import DistillationConfig
    from andon.pretraining import pretrain_pdn as distil
    from andon.progress import default_progress
    from andon.runs import check_device

    config = DistillationConfig().updated(parse_assignments(settings or []), where="--set")
    check_device(device)
    entry = distil(
        name,
        folders or [],
        config,
        seed=seed,
        device=device,
        resume=resume,
        progress=default_progress(),
        origin=origin,
        licence=licence,
    )
    if as_json:
        print_json(
            {"name": entry.name, "network": entry.network, "origin": entry.origin, "sha256": entry.sha256}
        )
        return
    print(
        f"{entry.name} ({entry.network}) is in the weight store: use it with --set teacher.weights={entry.name}"
    )
