"""`andon pretrain`: teachers and feature extractors, trained once for all products."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from andon.cli.options import Device, Json, print_json
from andon.core.seeds import LARGEST_SEED

if TYPE_CHECKING:
    from andon.core.config import Config
    from andon.nn.weights import WeightEntry

app = typer.Typer(help="Train teachers and feature extractors once for all products.", no_args_is_help=True)


TeacherName = Annotated[
    str, typer.Option(help="Name of the teacher in the weight store, for `teacher.weights`.")
]
Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FOLDER]...",
        help="Folders of arbitrary images, subfolders included; default: procedural images.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the training; docs/reference/models/teachers.md lists them.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(min=0, max=LARGEST_SEED, help="Seed of initialisation, order and random draws."),
]
Continue = Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")]
Anew = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace weights of that name, and start anew after an interruption."),
]
Origin = Annotated[str, typer.Option(help="Origin to record, instead of the composed one.")]
Licence = Annotated[str, typer.Option(help="Licence to record, instead of the composed one.")]


@app.command("pdn")
def pretrain_pdn(
    name: TeacherName,
    folders: Folders = None,
    settings: Settings = None,
    seed: Seed = 0,
    resume: Continue = False,
    overwrite: Anew = False,
    device: Device = "auto",
    origin: Origin = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Distil EfficientAD's teacher from a large network (settings such as `--set size=medium`, `--set target.weights=...`)."""
    from andon.pretraining import DistillationConfig
    from andon.pretraining import pretrain_pdn as distil

    _make(
        distil,
        DistillationConfig(),
        name=name,
        folders=folders,
        settings=settings,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        device=device,
        origin=origin,
        licence=licence,
        as_json=as_json,
    )


@app.command("flow")
def pretrain_flow(
    name: TeacherName,
    folders: Folders = None,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Recipe of efficientad_ast that will use the flow.")
    ] = "starter",
    settings: Settings = None,
    seed: Seed = 0,
    resume: Continue = False,
    overwrite: Anew = False,
    device: Device = "auto",
    origin: Origin = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Train one flow teacher for all products; extractor and flow as in the recipe, training by `--set steps=...`."""
    from andon.detectors._recipes import load_recipe, resolve
    from andon.pretraining import FlowPretrainingConfig
    from andon.pretraining import pretrain_flow as learn

    whole = resolve(load_recipe(recipe, "efficientad_ast"), {})

    _make(
        learn,
        FlowPretrainingConfig.matching(whole.config.model_dump(mode="json")),
        name=name,
        folders=folders,
        settings=settings,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        device=device,
        origin=origin,
        licence=licence,
        as_json=as_json,
    )


@app.command("backbone")
def pretrain_backbone(
    name: Annotated[
        str, typer.Option(help="Name of the weights in the weight store, for `extractor.weights`.")
    ],
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...",
            help="Folders with one subfolder per class, or without (each image its own class); default: procedural images.",
        ),
    ] = None,
    settings: Settings = None,
    seed: Seed = 0,
    resume: Continue = False,
    overwrite: Anew = False,
    device: Device = "auto",
    origin: Origin = "",
    licence: Licence = "",
    as_json: Json = False,
) -> None:
    """Train a feature extractor by classification, starting from the embedded weights (`--set start=random`: from scratch)."""
    from andon.pretraining import BackbonePretrainingConfig
    from andon.pretraining import pretrain_backbone as learn

    _make(
        learn,
        BackbonePretrainingConfig(),
        name=name,
        folders=folders,
        settings=settings,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        device=device,
        origin=origin,
        licence=licence,
        as_json=as_json,
        part="extractor",
    )


def _make(
    pretrain: Callable[..., WeightEntry],
    config: Config,
    *,
    folders: list[Path] | None,
    settings: list[str] | None,
    device: str,
    as_json: bool,
    part: str = "teacher",
    **options: Any,
) -> None:
    """Call `pretrain` with changed settings and say what came of it; recipes take it as `PART.weights`."""
    from andon.core.config import parse_assignments
    from andon.core.progress import default_progress
    from andon.nn.training import check_device

    config = config.updated(parse_assignments(settings or []), where="--set")
    check_device(device)
    entry = pretrain(
        folders=folders or [], config=config, device=device, progress=default_progress(), **options
    )
    if as_json:
        print_json(
            {"name": entry.name, "network": entry.network, "origin": entry.origin, "sha256": entry.sha256}
        )
        return
    print(
        f"{entry.name} ({entry.network}) is in the weight store: use it with --set {part}.weights={entry.name}"
    )
