"""`andon pretrain`: teachers and feature extractors that are made once and serve every product."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from andon.cli.options import Device, Json, Settings, print_json

if TYPE_CHECKING:
    from andon.weights import WeightEntry

app = typer.Typer(help="Make teachers and feature extractors that serve every product.", no_args_is_help=True)


TeacherName = Annotated[
    str, typer.Option(help="Name of the teacher in the weight store, for `teacher.weights`.")
]
Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FOLDER]...", help="Pictures of anything, subfolders included; none: procedural ones."
    ),
]
Seed = Annotated[int, typer.Option(help="Seeds initialisation, order and every draw.")]
Continue = Annotated[bool, typer.Option("--resume", help="Continue an interrupted call.")]
Origin = Annotated[str, typer.Option(help="Origin line, in place of the one that is composed.")]
Licence = Annotated[str, typer.Option(help="Licence line, in place of the one that is composed.")]


@app.command("pdn")
def pretrain_pdn(
    name: TeacherName,
    folders: Folders = None,
    settings: Settings = None,
    seed: Seed = 0,
    resume: Continue = False,
    device: Device = "auto",
    origin: Origin = "",
    licence: Licence = "",
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
    _say(entry, as_json)


@app.command("flow")
def pretrain_flow(
    name: TeacherName,
    folders: Folders = None,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Recipe of efficientad_ast that is to use the flow.")
    ] = "starter",
    settings: Settings = None,
    seed: Seed = 0,
    resume: Continue = False,
    device: Device = "auto",
    origin: Origin = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Learn one flow teacher for all products; extractor and flow are those of a recipe, `--set steps=...` the training."""
    from andon.config import parse_assignments
    from andon.pretraining import FlowPretrainingConfig
    from andon.pretraining import pretrain_flow as learn
    from andon.progress import default_progress
    from andon.registry import load_recipe
    from andon.runs import check_device, resolve

    whole = resolve(load_recipe(recipe, "efficientad_ast"), {})
    config = FlowPretrainingConfig.matching(whole.config)
    config = config.updated(parse_assignments(settings or []), where="--set")
    check_device(device)
    entry = learn(
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
    _say(entry, as_json)


@app.command("backbone")
def pretrain_backbone(
    name: Annotated[
        str, typer.Option(help="Name of the weights in the weight store, for `extractor.weights`.")
    ],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...",
            help="Pictures with a subfolder for each kind, or in one place (each its own kind); none: procedural ones.",
        ),
    ] = None,
    settings: Settings = None,
    seed: Seed = 0,
    resume: Continue = False,
    device: Device = "auto",
    origin: Origin = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Train a feature extractor by telling pictures apart, from the package's weights on (`--set start=random`: anew)."""
    from andon.config import parse_assignments
    from andon.pretraining import BackbonePretrainingConfig
    from andon.pretraining import pretrain_backbone as learn
    from andon.progress import default_progress
    from andon.runs import check_device

    config = BackbonePretrainingConfig().updated(parse_assignments(settings or []), where="--set")
    check_device(device)
    entry = learn(
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
    _say(entry, as_json, "extractor")


def _say(entry: WeightEntry, as_json: bool, part: str = "teacher") -> None:
    if as_json:
        print_json(
            {"name": entry.name, "network": entry.network, "origin": entry.origin, "sha256": entry.sha256}
        )
        return
    print(
        f"{entry.name} ({entry.network}) is in the weight store: use it with --set {part}.weights={entry.name}"
    )
