"""Functions of the public surface that start from a name, a run folder or a detector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.core.errors import ConfigError

if TYPE_CHECKING:
    from andon.detectors._base import Detector


def create(detector: str | None = None, recipe: str | None = None, **settings: Any) -> Detector:
    """An untrained detector, by name (default: `east`) and recipe (default: the detector's `lite0`, where it has one).

    A full recipe name or a YAML file names the detector too: `create(recipe="padim/lite0")`. `settings` change single values,
    groups with a double underscore: `create("efficientad_ast", teacher__epochs=24)`.
    Raises `ConfigError` for an unknown name or setting, `WeightsError` when weights are missing.
    """
    from andon.detectors._recipes import choose_recipe, resolve
    from andon.detectors._recipes import create as create_from_recipe

    chosen = choose_recipe(detector, recipe)
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    return create_from_recipe(resolve(chosen, changes))


def export(
    source: Detector | str | Path,
    path: str | Path,
    *,
    int8_limit: float | None = None,
    data: str | None = None,
) -> dict[str, Any]:
    """Write a fitted detector, or that of a run folder, as a network file; returns what `andon export --json` prints.

    `path` ends in .onnx, or in .xml for OpenVINO. The file is executed and compared with the detector before it is kept; a run
    is compared on its own good images too, which `data` finds where they were moved. With `int8_limit`, for runs and
    .onnx alone, convolutions compute in 8-bit integers, if that costs no more image AUROC. Raises `ConfigError` for a
    detector that cannot be exported and for missing packages, `ExportError` where the predictions differ.
    """
    from andon.runs.export import export_run, summary

    path = Path(path)
    if path.suffix not in {".onnx", ".xml"}:
        raise ConfigError(f"{path} must end in .onnx, or in .xml for OpenVINO")
    if int8_limit is not None and path.suffix != ".onnx":
        raise ConfigError(
            f"{path}: 8-bit networks are ONNX files, which OpenVINO executes as well: end it in .onnx"
        )
    if isinstance(source, str | Path):
        return export_run(Path(source), path, int8_limit=int8_limit, data=data)
    if int8_limit is not None or data is not None:
        raise ConfigError(
            "int8_limit and data need the images of a run: give the run folder instead of a detector"
        )
    from andon.exporting.network import export as write

    return summary(write(source, path, form="onnx" if path.suffix == ".onnx" else "openvino"))


def pack(run: str | Path, path: str | Path, *, data: str | None = None) -> dict[str, Any]:
    """Write the detector of a run folder as one packed file (.andon) with check images; returns its manifest.

    `data` is where the run's images are now, if they were moved. Raises `DataError` where there are too few for the checks.
    """
    from andon.exporting.packed import SUFFIX
    from andon.runs.export import pack_run

    path = Path(path)
    if path.suffix != SUFFIX:
        raise ConfigError(f"{path} must end in {SUFFIX}")
    return pack_run(Path(run), path, data=data)
