"""Commands that list detectors and recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from andon.cli.options import Json, print_json, print_table

app = typer.Typer()


@app.command()
def detectors(as_json: Json = False) -> None:
    """List the detectors."""
    from andon.detectors._recipes import detectors as known

    infos = known()
    if as_json:
        print_json([{"name": i.name, "summary": i.summary, "recipes": list(i.recipes)} for i in infos])
        return
    print_table(
        "", ["detector", "what it is", "recipes"], [[i.name, i.summary, ", ".join(i.recipes)] for i in infos]
    )


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Recipe to show, with every setting and its meaning.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or show one recipe with all settings."""
    from andon.detectors._recipes import load_recipe, recipe_names, resolve, weight_names
    from andon.nn.weights import entries

    if name is None:
        known = [load_recipe(one) for one in recipe_names()]
        if as_json:
            print_json(
                [
                    {
                        "name": r.name,
                        "detector": r.detector,
                        "summary": r.summary,
                        "weights": weight_names(r),
                    }
                    for r in known
                ]
            )
            return
        said = {e.name: f"{e.name} ({e.use or e.licence})" for e in entries()}
        rows = [
            [r.name, r.summary, ", ".join(said.get(name, name) for name in weight_names(r))] for r in known
        ]
        print_table("", ["recipe", "what it is for", "weights (licence)"], rows)
        return
    recipe = resolve(load_recipe(name), {})
    if as_json:
        print_json(recipe.model_dump(mode="json"))
        return
    print(f"{recipe.name}: {recipe.summary}")
    own = [
        [key, str(getattr(recipe, key)), (info.description or "")]
        for key, info in type(recipe).model_fields.items()
    ]
    settings = [[key, str(value), meaning] for key, value, meaning in recipe.config.settings()]
    shown = [row for row in own if row[0] not in {"config", "name", "summary", "detector"}]
    print_table("", ["setting (--set key=value)", "value", "meaning"], shown + settings)
