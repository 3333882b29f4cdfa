"""The rows of `peers.py`: what both sides compute with which settings, and the files of the weights that both load."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file

from andon.datasets.penalty_images import PROCEDURAL, procedural_images
from andon.detectors._recipes import load_recipe, resolve
from andon.nn.backbones import normalisation
from andon.nn.weights import entries, locate

NETWORK, WEIGHTS, TAPS = "tf_efficientnet_lite0", "lite0", ("blocks.2", "blocks.4")
"""The backbone of both libraries, its weights in andon's store, and the features that PatchCore and PaDiM see."""
PAPER_PADIM = {"channels": 100, "patches": "cell", "common": 0.0, "regularisation": 0.01, "smoothing": 4.0}
"""andon's PaDiM as in the paper, which is what anomalib has."""
ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "patchcore-1": ("patchcore", "lite0", {"coreset": 0.01}),
    "patchcore-10": ("patchcore", "lite0", {"coreset": 0.1}),
    "padim": ("padim", "lite0", PAPER_PADIM),
    "padim-regularised": ("padim", "lite0", {}),
    "efficientad": ("efficientad", "starter", {}),
    "east": ("east", "lite0", {}),
}
"""By row: andon's detector, recipe and settings."""
ONCE = ("patchcore-10", "efficientad")
"""Measured on the first data set alone: minutes."""
ALONE = ("padim-regularised", "east")
"""Rows of andon for which anomalib has no counterpart."""


def settings_of(row: str, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that both sides need to know about a row."""
    detector, recipe, settings = ROWS[row]
    given: dict[str, Any] = {
        "detector": detector,
        "recipe": recipe,
        "set": settings,
        "compared": row not in ALONE,
    }
    if detector == "efficientad":
        return given | trained_settings(options)
    mean, std = normalisation(NETWORK)
    given |= {"network": NETWORK, "taps": TAPS, "mean": mean[0], "std": std[0]}
    beside = out.with_name(out.name.replace("anomalib", "andon")).absolute().with_suffix(".npz")
    return given | {"weights": str(weights_file(options.work)), "channels": str(beside)}


def trained_settings(options: argparse.Namespace) -> dict[str, Any]:
    """EfficientAD's recipe, the file of its teacher and the penalty pictures, the same for both."""
    recipe = resolve(load_recipe(options.efficientad, "efficientad"), {}).config
    assert recipe.teacher.size == "small", "only EfficientAD-S is compared"
    files = {entry.name: entry.path for entry in entries()}
    folder = procedural_images(options.work.absolute() / "penalty" / "procedural", PROCEDURAL)
    return {
        "recipe": options.efficientad,
        "set": {"penalty__folder": str(folder)},
        "weights": str(files[recipe.teacher.weights]),
        "steps": recipe.steps,
        "lr": recipe.optimiser.lr,
        "weight_decay": recipe.optimiser.weight_decay,
        "penalty": str(folder.parent),
    }


def weights_file(work: Path) -> Path:
    """The backbone's weights under timm's names, written once: both sides have the tensors of this file."""
    file = work.absolute() / f"{WEIGHTS}.safetensors"
    if not file.is_file():
        names = timm.create_model(NETWORK).state_dict()
        state = locate(WEIGHTS, NETWORK).state or {}
        tensors = [tensor.contiguous() for tensor in state.values()]
        save_file(dict(zip(names, tensors, strict=True)), file)
    return file
