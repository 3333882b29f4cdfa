"""The folder of a run: what lies in it, whether it may be written, and reading it back.

RUN/recipe.yaml      resolved settings, seed, versions, data fingerprint, weights
RUN/detector/        detector.json and state.safetensors, thresholds.json where they were changed
RUN/training.json    loss curves, time and steps of each stage
RUN/features.safetensors   features of the good images, for images that are added later
RUN/checkpoints/     only while a fit is unfinished
RUN/.adding/         only while images are added
RUN/.evaluating/     only while a report is written
RUN/.replaced/       only while another fit takes the place of a finished one
RUN/report.json ...  written by `evaluate`
RUN/model.onnx ...   written by `export`
RUN/runtime/         the network by which `predict` answers, see `andon.runs.kept`
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field

from andon.core.config import Config, Seed, from_yaml
from andon.core.errors import ConfigError, DataError, OutputError
from andon.core.files import all_or_nothing, from_json, lock, write_bytes, writing_errors
from andon.core.listing import is_image
from andon.core.text import from_cell
from andon.detectors._recipes import RecipeSettings
from andon.detectors._saving import ADDING, how_to_make
from andon.report import STAGED

if TYPE_CHECKING:
    from andon.nn.stage import Stage

FEATURES = "features.safetensors"
DESCRIPTION = "detector/detector.json"
MARK = "recipe.yaml"
"""The file by which a folder is a run of andon."""
REPLACED = ".replaced"
FITTED = (DESCRIPTION, "detector/state.safetensors", "training.json", FEATURES, MARK)
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
    f"{STAGED}/**/*",
)
"""Files made from what was learned: another fit makes them wrong."""
OWN = (
    *FOLLOWING,
    "checkpoints/*.safetensors",
    f"{ADDING}/**/*",
    f"{REPLACED}/**/*",
    "tensorboard/events.out.tfevents.*",
    "**/.*.part",
    "**/.*.parts/*",
    *FITTED,
)
"""Files andon writes into a run folder; `--overwrite` removes these and nothing else, in this order.

What follows from the detector goes before it, so that what a killed process leaves fits together; `MARK` goes last.
"""


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
    if (run / MARK).is_file():
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
        path.unlink(missing_ok=True)  # some fit two patterns
    tops = {
        run / pattern.split("/")[0] for pattern in patterns if "/" in pattern and not pattern.startswith("*")
    }
    inside = sorted(
        (path for top in tops for path in top.rglob("*") if path.is_dir()), reverse=True
    )  # deepest first
    remove_empty([*run.glob("**/.*.parts"), *inside, *tops, run])


def put_aside(run: Path) -> None:
    """Move what andon wrote into the folder `REPLACED` of the run, until `bring_back` or `drop_replaced`.

    The folder stays a run: `MARK` is copied. What an earlier call put aside is gone.
    """
    drop_replaced(run)
    with all_or_nothing() as move, writing_errors(run):
        for path in list(own_files(run, [pattern for pattern in OWN if pattern != MARK])):
            if path.is_file():  # some fit two patterns
                move(path, run / REPLACED / path.relative_to(run))
        write_bytes(run / REPLACED / MARK, (run / MARK).read_bytes())
    clear(run, FOLLOWING)  # leaves no empty folders


def bring_back(run: Path) -> None:
    """Remove what was written since `put_aside`, and move back what that moved; a run that replaced none is gone."""
    aside = run / REPLACED
    clear(run, [pattern for pattern in OWN if pattern != f"{REPLACED}/**/*"])
    with all_or_nothing() as move, writing_errors(run):
        for path in [path for path in aside.rglob("*") if path.is_file()]:
            move(path, run / path.relative_to(aside))


def drop_replaced(run: Path) -> None:
    """Remove what was put aside."""
    clear(run, [f"{REPLACED}/**/*"])


def own_files(run: Path, patterns: Sequence[str] = OWN) -> Iterator[Path]:
    """Files in a run folder that fit `patterns`, by default all that andon wrote."""
    return (path for pattern in patterns for path in run.glob(pattern) if path.is_file())


@contextlib.contextmanager
def changing(run: Path, *, make: bool = False) -> Iterator[None]:
    """Keep other processes from changing a run meanwhile, where the system can (POSIX). Raises `DataError` while one does.

    The lock ends with the process, and is not re-entrant. With `make` the folder is made, and removed again if it stays empty.
    """
    made: list[Path] = []
    if make:
        made = list(itertools.takewhile(lambda folder: not folder.exists(), (run, *run.parents)))
    try:
        if made:
            make_folder(run)
        with _locked(run):
            yield
    finally:
        remove_empty(made)


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    if os.name != "posix" or not run.is_dir():
        yield
        return
    with writing_errors(run):
        handle = os.open(run, os.O_RDONLY)
    try:
        # A folder that was removed after it was opened protects nothing.
        if not (_lock(handle) and run.is_dir() and os.path.samestat(os.fstat(handle), run.stat())):
            raise DataError(f"another process is changing {run}: wait until it has ended")
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    try:
        return lock(handle)
    except OSError:  # a file system without locks, such as some network shares, where runs work all the same
        return True


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


class Described(Config):
    """What recipe.yaml says, with its types; further keys are kept as they are."""

    model_config = ConfigDict(extra="allow")
    remedy: ClassVar[str] = "bring back the original or fit again with --overwrite"
    missing: ClassVar[str] = remedy


class DescribedSessions(Described):
    """`data.sessions`, see `Sessions.to_json`."""

    pictures: dict[str, int]
    held_out: list[str]
    in_turn: bool = False


class DescribedChoice(Described):
    """`data.choice`, see `Choice.to_json`."""

    chosen: str
    changes: dict[str, Any] = Field(alias="settings")
    auroc: dict[str, float]
    gain: float
    images: dict[str, str]


class DescribedData(Described):
    """`data`, see `andon.runs.fit.describe`."""

    path: str
    category: str
    layout: str
    dataset: str = ""
    train: int
    validation: int = 0
    fingerprint: str
    folds: int = 0
    skipped: dict[str, str] = Field(default_factory=dict)
    labelled: dict[str, str] = Field(default_factory=dict)
    added: dict[str, str] = Field(default_factory=dict)
    sessions: DescribedSessions | None = None
    region: dict[str, Any] = Field(default_factory=dict)
    choice: DescribedChoice | None = None


class DescribedRun(RecipeSettings, Described):
    """The whole file."""

    name: str
    seed: Seed
    hold_out: bool
    config: dict[str, Any]
    data: DescribedData
    weights: list[dict[str, Any]] = Field(default_factory=list)
    versions: dict[str, Any] = Field(default_factory=dict)


def read_settings(file: Path) -> dict[str, Any]:
    """recipe.yaml as written by `describe`. Raises `DataError` when it was changed so that it no longer says what it has to.

    A key that is missing or has another type is named.
    """
    try:
        values = from_yaml(file.read_text(encoding="utf-8"), where=str(file))
    except (ConfigError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} is damaged: bring back the original or fit again with --overwrite"
        ) from error
    try:
        return DescribedRun.parse(values, where=str(file)).model_dump(
            mode="json", by_alias=True, exclude_unset=True
        )
    except ConfigError as error:
        raise DataError(str(error)) from None


def read_scores(run: Path) -> dict[str, tuple[bool, float]]:
    """Whether each test image is anomalous, and its raw score, by id. Raises `DataError` when they are missing or damaged."""
    file = run / "predictions.csv"
    try:
        text = file.read_bytes().decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        _check_whole(text, rows, _evaluated(run))
        return {
            from_cell(row["id"]): (row["label"] == "1", float(row["raw_score"]))
            for row in rows
            if row["label"]
        }
    except (OSError, KeyError, ValueError, csv.Error) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DataError(
            f"{file} is missing or damaged ({why}): evaluate the run again, `andon evaluate {quote(str(run))}`"
        ) from None


def _check_whole(text: str, rows: Sequence[Mapping[str | None, Any]], count: int | None) -> None:
    """Raise `ValueError` where a table of scores lacks something of what was written; `count`: images it is of."""
    if not text.endswith("\n"):
        raise ValueError("its last line is cut off")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values() or row.get("label") not in {"0", "1", ""}:
            raise ValueError(f"line {number} is none of andon's")
    if count is not None and len(rows) != count:
        raise ValueError(f"it has {len(rows)} of {count} pictures")


def _evaluated(run: Path) -> int | None:
    """Number of images of the last evaluation; None where no report.json says it. Raises `ValueError` for a damaged one."""
    file = run / "report.json"
    if not file.is_file():
        return None
    try:
        return int(from_json(file.read_bytes())["images"]["evaluated"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("report.json beside it cannot be read") from error


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
            for name, values in from_json(file.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is missing or damaged: bring back the original or fit again with --overwrite"
        ) from error
