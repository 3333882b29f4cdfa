"""Experiment trackers: losses by step, settings and metrics of a run in TensorBoard or MLflow, which are imported here alone.

A tracker is a function of a run folder. It logs `training.json`, `recipe.yaml` and, if present, `report.json`. Logging a run
again replaces its previous entry.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from andon.core.errors import AndonError, ConfigError, DataError, nearest
from andon.core.files import from_json
from andon.core.text import utf8
from andon.runs.folder import read_recipe, read_stages

T = TypeVar("T")

Tracker = Callable[[Path], None]
"""Logs a run folder."""
FOLDER = "tensorboard"
"""Folder of the event files inside a run folder."""
NUMBERS = ("thresholds", "teacher", "time", "latency_ms", "throughput_ips", "parameters", "multiply_adds")
"""Parts of `report.json` besides `metrics` whose numbers are logged."""
LONGEST = 500
"""Length limit of a parameter value that every MLflow server accepts."""
AT_ONCE = 100
"""Parameters per call to MLflow."""
POINTS_AT_ONCE = 1000
"""Metric values per call to MLflow."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a curve."""

    name: str
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """Everything that is logged of a run."""

    name: str
    """Recipe, category and seed."""
    dataset: str
    settings: dict[str, str]
    """Resolved settings by dotted name, versions and weights."""
    curves: list[Point]
    """`loss/STAGE/TERM` by step, and the values of early stopping, `judged/STAGE/NAME`, by epoch."""
    numbers: dict[str, float]
    """`test/METRIC` and the other numbers of the report; undefined values are left out."""


def open_tracker(name: str) -> Tracker:
    """The tracker called `tensorboard`, `mlflow`, or `mlflow:URI`.

    TensorBoard writes into the run folder; MLflow without a URI uses its default (`MLFLOW_TRACKING_URI`). Raises
    `ConfigError` for an unknown tracker and when its library is not installed.
    """
    kind, colon, uri = name.partition(":")
    if kind not in ("tensorboard", "mlflow"):
        raise ConfigError(f"unknown tracker {kind!r}; {nearest(kind, ['tensorboard', 'mlflow'])}")
    if kind == "tensorboard" and colon:
        raise ConfigError(
            f"tracker {name!r}: tensorboard takes no place, its files go into {FOLDER}/ of the run folder"
        )
    try:
        return _tensorboard() if kind == "tensorboard" else _mlflow(uri)
    except ImportError as error:
        raise ConfigError(
            f'{kind} is not installed ({error.name or error}): pip install "andon[track]"'
        ) from error


def read_tracked_run(run: Path) -> TrackedRun:
    """Settings, curves and numbers of a run folder. Raises `DataError` when the run is not finished."""
    recipe = read_recipe(run)
    data = recipe["data"]
    settings: dict[str, Any] = {
        **dict(_flat(recipe["config"])),
        **{key: recipe[key] for key in ("detector", "seed", "hold_out", "precision") if key in recipe},
        **{f"data.{key}": data[key] for key in ("path", "category", "layout", "fingerprint")},
        **{f"version.{key}": value for key, value in recipe.get("versions", {}).items()},
        "weights": ", ".join(line["name"] for line in recipe.get("weights", ())) or "none",
    }
    report = run / "report.json"
    return TrackedRun(
        name=f"{recipe['name']} {data['category']} seed {recipe['seed']}",
        dataset=data.get("dataset") or "data",
        settings={key: str(value) for key, value in settings.items()},
        curves=list(_curves(run)),
        numbers=_measured(report) if report.is_file() else {},
    )


def _curves(run: Path) -> Iterator[Point]:
    for name, stage in read_stages(run).items():
        for kind, key, points in (("loss", "step", stage.curve), ("judged", "epoch", stage.judged)):
            for point in points:
                yield from (
                    Point(f"{kind}/{name}/{term}", int(point[key]), value)
                    for term, value in point.items()
                    if term != key and value is not None and math.isfinite(value)
                )


def _measured(report: Path) -> dict[str, float]:
    try:
        return _numbers(from_json(report.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{report} is damaged: evaluate the run again") from error


def _numbers(report: Mapping[str, Any]) -> dict[str, float]:
    """{name: value} of the finite numbers of a report."""
    tested = {f"test/{name}": values["value"] for name, values in report["metrics"].items()}
    others = dict(_flat({key: report[key] for key in NUMBERS if key in report}))
    return {
        name: float(value)
        for name, value in (tested | others).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _tensorboard() -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    def log(run: Path) -> None:
        tracked = read_tracked_run(run)
        before = list((run / FOLDER).glob("events.out.tfevents.*"))
        with SummaryWriter(str(run / FOLDER)) as writer:
            rows = [f"| {key} | {value} |" for key, value in tracked.settings.items()]
            table = "\n".join(["| setting | value |", "|---|---|", *rows])
            writer.add_text("run", f"{tracked.name}\n\n{table}")
            for point in tracked.curves:
                writer.add_scalar(point.name, point.value, point.step)
            for name, value in tracked.numbers.items():
                writer.add_scalar(name, value, 0)
        for file in before:
            file.unlink()

    return log


def _mlflow(uri: str) -> Tracker:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no usage reports
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(uri or None)
    except MlflowException as error:
        raise ConfigError(
            f"MLflow cannot use {uri or 'its default place'}: {_first_sentence(error)}"
        ) from error

    def log(run: Path) -> None:
        try:
            _send(client, run, read_tracked_run(run))
        except MlflowException as error:
            raise AndonError(
                f"MLflow did not take {run} ({_first_sentence(error)}): the run itself is kept, "
                "`andon evaluate` with --track shows it again"
            ) from error

    return log


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].split(". ")[0]


def _send(client: Any, run: Path, tracked: TrackedRun) -> None:
    """Create a run in the experiment of the data set, fill it, and delete its predecessor."""
    from mlflow.entities import Metric, Param

    name = f"andon {tracked.dataset}"
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found is not None else client.create_experiment(name)
    own = hashlib.sha256(utf8(f"{platform.node()}:{run.resolve()}")).hexdigest()[:16]
    before = client.search_runs([experiment], filter_string=f"tags.andon_run = '{own}'")
    tags = {"andon_run": own, "andon_folder": str(run.resolve())[-LONGEST:]}
    made = client.create_run(experiment, run_name=tracked.name, tags=tags).info.run_id
    now = round(time.time() * 1000)
    points = [*tracked.curves, *(Point(key, 0, value) for key, value in tracked.numbers.items())]
    for some in _chunks(list(tracked.settings.items()), AT_ONCE):
        client.log_batch(made, params=[Param(_mlflow_name(key), value[:LONGEST]) for key, value in some])
    for part in _chunks(points, POINTS_AT_ONCE):
        client.log_batch(made, metrics=[Metric(_mlflow_name(p.name), p.value, now, p.step) for p in part])
    client.set_terminated(made)
    for old in before:
        client.delete_run(old.info.run_id)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _mlflow_name(name: str) -> str:
    """Name with every character that MLflow refuses, such as `@`, replaced by a full stop."""
    return re.sub(r"[^\w\-. :/]", ".", name)
