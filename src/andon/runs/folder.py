"""The folder of a run: what lies in it, whether it may be written, and reading it back.

RUN/recipe.yaml      resolved settings, seed, versions, data fingerprint, weights
RUN/detector/        detector.json and state.safetensors, thresholds.json where they were changed
RUN/training.json    loss curves, time and steps of each stage
RUN/features.safetensors   features of the good images, for images that are added later
RUN/checkpoints/     only while a fit is unfinished
RUN/.adding/         only while images are added
RUN/report.json ...  written by `evaluate`
RUN/model.onnx ...   written by `export`
RUN/runtime/         the network by which `predict` answers, see `andon.runs.kept`
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from andon.core.config import from_yaml
from andon.core.errors import ConfigError, DataError, OutputError
from andon.core.files import writing_errors
from andon.core.listing import is_image
from andon.core.mistaken import ADDING, how_to_make
from andon.core.text import from_cell

if TYPE_CHECKING:
    from andon.nn.stage import Stage

FEATURES = "features.safetensors"
DESCRIPTION = "detector/detector.json"
FITTED = ("detector/state.safetensors", DESCRIPTION, "training.json", "recipe.yaml", FEATURES)
"""Files that a fit writes."""
FOLLOWING = (
    "report.json",
    "report.html",
    "predictions.csv",
    "detector/thresholds.json",
    "model.onnx",
    "model.xml",
    "model.bin",
    "model-int8.onnx",
    "runtime/network.onnx",
    "runtime/network.json",
    "figures/*.png",
    "heatmaps/**/*.png",
    "masks/**/*.png",
    "maps/**/*.tiff",
    "heatmaps/.written-by-andon",
    "masks/.written-by-andon",
    "maps/.written-by-andon",
    "figures/.written-by-andon",
)
"""Files made from what was learned: another fit makes them wrong."""
OWN = (
    *FITTED,
    *FOLLOWING,
    "checkpoints/*.safetensors",
    f"{ADDING}/**/*",
    "tensorboard/events.out.tfevents.*",
    "**/.*.part",
    "**/.*.parts/*",
)
"""Files andon writes into a run folder; `--overwrite` removes these and nothing else."""


def check_output(run: Path, *, overwrite: bool, resume: bool) -> None:
    """Check that a run may be written there. Raises `OutputError` when the folder is in use."""
    if run.exists() and not run.is_dir():
        raise OutputError(f"{run} is a file, a folder is needed: choose another --out")
    if not run.exists() or not any(run.iterdir()) or resume:
        return
    if not overwrite:
        unfinished = (run / "checkpoints").is_dir()
        hint = "--resume continues it, " if unfinished else ""
        state = "holds an unfinished run" if unfinished else "is not empty"
        raise OutputError(
            f"{run} {state}: {hint}--overwrite replaces what andon wrote there, --out chooses another folder: "
            f"`andon fit ... --out {quote(f'{run}-2')}`"
        )
    if (run / "recipe.yaml").is_file():
        return
    images = (path for path in run.rglob("*") if is_image(path))
    found = next(itertools.chain(own_files(run), images), None)
    if found is not None:
        raise OutputError(
            f"{run} holds {found.relative_to(run)} but no recipe.yaml, so it is no run of andon and nothing in it is replaced: "
            "choose another --out"
        )


def clear(run: Path, patterns: Sequence[str] = OWN) -> None:
    """Remove the files andon wrote into a run folder, or those of them that fit `patterns`, and folders that are empty then."""
    for path in list(own_files(run, patterns)):
        path.unlink()
    tops = {
        run / pattern.split("/")[0] for pattern in patterns if "/" in pattern and not pattern.startswith("*")
    }
    inside = sorted(
        (path for top in tops for path in top.rglob("*") if path.is_dir()), reverse=True
    )  # deepest first
    remove_empty([*run.glob("**/.*.parts"), *inside, *tops, run])


def own_files(run: Path, patterns: Sequence[str] = OWN) -> Iterator[Path]:
    """Files in a run folder that fit `patterns`, by default all that andon wrote."""
    return (path for pattern in patterns for path in run.glob(pattern) if path.is_file())


@contextlib.contextmanager
def changing(run: Path) -> Iterator[None]:
    """Keep other processes from changing a run meanwhile, where the system can (POSIX). Raises `DataError` while one does."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        if run.is_dir():
            with writing_errors(run):
                handle = os.open(run, os.O_RDONLY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"another process is changing {run}: wait until it has ended") from None
        yield


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders, in this order, that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty, or not there
            folder.rmdir()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises `OutputError` when that is not possible."""
    with writing_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def read_recipe(run: Path) -> dict[str, Any]:
    """recipe.yaml of a finished run. Raises `DataError` when the folder holds none."""
    file = run / "recipe.yaml"
    if not file.is_file():
        raise DataError(f"{run} is not a run folder (no recipe.yaml): {how_to_make(run)}")
    if (run / "checkpoints").is_dir() and not (run / "detector").is_dir():
        raise DataError(
            f"{run} holds an unfinished run: continue it with `andon fit ... --out {run} --resume`"
        )
    return read_settings(file)


def read_settings(file: Path) -> dict[str, Any]:
    """recipe.yaml as written by `describe`. Raises `DataError` when it was changed so that it no longer says what it has to."""
    try:
        values = from_yaml(file.read_text(encoding="utf-8"), where=str(file))
    except (ConfigError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} is damaged: bring back the original or fit again with --overwrite"
        ) from error
    data = values.get("data")
    if (
        not isinstance(data, dict)
        or not values.keys() >= {"detector", "name", "seed", "hold_out", "config"}
        or not data.keys() >= {"path", "category", "layout", "fingerprint"}
    ):
        raise DataError(
            f"{file} lacks settings that andon wrote: bring back the original or fit again with --overwrite"
        )
    return values


def read_scores(run: Path) -> dict[str, tuple[bool, float]]:
    """Whether each test image is anomalous, and its raw score, by id. Raises `DataError` when they are missing or damaged."""
    file = run / "predictions.csv"
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        return {
            from_cell(row["id"]): (row["label"] == "1", float(row["raw_score"]))
            for row in rows
            if row["label"]
        }
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): evaluate the run again") from None


def last_scores(run: Path) -> dict[str, tuple[bool, float]]:
    """The finite ones of `read_scores`; empty before the first evaluation."""
    if not (run / "predictions.csv").is_file():
        return {}
    return {name: found for name, found in read_scores(run).items() if math.isfinite(found[1])}


def read_stages(run: Path) -> dict[str, Stage]:
    """Curves and times of the stages. Raises `DataError` when they are missing or damaged."""
    from andon.nn.stage import Stage

    file = run / "training.json"
    try:
        return {
            name: Stage.from_json(values)
            for name, values in json.loads(file.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is missing or damaged: bring back the original or fit again with --overwrite"
        ) from error
