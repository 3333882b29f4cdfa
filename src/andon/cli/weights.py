"""`andon weights`: the local store of backbone weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from andon.cli.options import Json, print_json, print_table, say

app = typer.Typer(help="List, add and fetch backbone weights.", no_args_is_help=True)


@app.command("list")
def weights_list(as_json: Json = False) -> None:
    """List known weights, their origin, and whether they are on this machine."""
    from andon.nn.weights import entries

    rows = entries()
    if as_json:
        print_json(
            [
                {
                    "name": e.name,
                    "network": e.network,
                    "here": e.path is not None,
                    "origin": e.origin,
                    "licence": e.licence,
                    "sha256": e.sha256,
                    "use": e.use,
                }
                for e in rows
            ]
        )
        return
    table = [
        [
            f"{e.name} ({e.use})" if e.use else e.name,
            e.network,
            "yes" if e.path else "no",
            e.origin,
            e.licence,
            e.sha256[:12],
        ]
        for e in rows
    ]
    print_table("", ["weights", "network", "here", "origin", "licence", "sha256"], table)


@app.command("add")
def weights_add(
    file: Annotated[Path, typer.Argument(help="safetensors or PyTorch state dict.")],
    name: Annotated[str, typer.Option(help="Name to use in recipes.")],
    network: Annotated[
        str, typer.Option(help="timm network the weights belong to, or pdn_small, pdn_medium, flow.")
    ],
    origin: Annotated[str, typer.Option(help="Origin of the weights; shown in every report.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the weights; shown in every report.")] = "",
    sha256: Annotated[str, typer.Option(help="Expected hash of the file, or its first digits.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other weights of that name.")
    ] = False,
) -> None:
    """Copy weights from a file into the local store."""
    from andon.nn.weights import FLOW_NETWORK, PDN_NETWORKS, add

    check = None
    if file.is_file() and network not in {*PDN_NETWORKS, FLOW_NETWORK}:
        from andon.nn.backbones import check_state, known_network  # timm takes seconds to import

        known_network(network)
        check = partial(check_state, network)
    entry = add(
        file,
        name=name,
        network=network,
        origin=origin,
        licence=licence,
        expected_sha256=sha256,
        overwrite=overwrite,
        check=check,
    )
    print(f"added {entry.name} ({entry.network}), sha256 {entry.sha256}")


@app.command("fetch")
def weights_fetch(name: Annotated[str, typer.Argument(help="Name from `andon weights list`.")]) -> None:
    """Download weights after announcing source and licence, verify the hash, and store them."""
    from andon.core.download import is_offline
    from andon.core.progress import default_progress
    from andon.nn.weights import entries, fetch

    entry = next((e for e in entries() if e.name == name), None)
    if entry is not None and entry.path is None and not is_offline():
        say(f"fetching {name} from {entry.url} ({entry.licence}; {entry.origin})")
    with default_progress().task(f"fetching {name} (MB)", 0) as task:
        seen = [0]

        def show(done: int, total: int) -> None:
            task.advance((done >> 20) - seen[0], f"of {total >> 20}" if total else "")
            seen[0] = done >> 20

        fetched = fetch(name, progress=show)
    print(f"{fetched.name} is here: {fetched.path}")
