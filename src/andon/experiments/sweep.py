"""Sweeps: every detector on every category with every seed, one run folder each.

Each run has its own process, so that its peak memory can be measured and a crash does not end the sweep. A second call with
the same folder skips finished runs and resumes unfinished ones.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from andon.core.errors import AndonError, ConfigError, DataError, InterruptedRun
from andon.core.files import from_json, write_json
from andon.core.progress import NoProgress, Progress
from andon.datasets import Dataset, Records
from andon.datasets.embedded_cache import PREFIX
from andon.detectors._recipes import Recipe, default_recipe, load_recipe, resolve
from andon.detectors._registry import detector_class, known_detector
from andon.experiments.comparison import check_figures
from andon.experiments.targets import find_targets, folder_name
from andon.runs.evaluate import evaluate_run
from andon.runs.fit import fit_run
from andon.runs.folder import read_scores
from andon.runs.source import Source

RESULT = "result.json"
"""Marks a complete run; holds the job, the fingerprint of its images and the peak memory."""
MOST_SEEDS, LARGEST_BUDGET = 1_000, 1_000
"""Bounds of what a sweep repeats and lengthens."""
LASTING = "; this run fails again until that is changed"
"""End of the message of a failure that does not pass by itself."""


class DamagedRunWarning(UserWarning):
    """A finished run whose files cannot be read any more."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a sweep."""

    recipe: str
    """Full recipe name, `detector/variant`."""
    data: str
    category: str
    layout: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    """Row name in tables; default: the recipe name."""
    told_apart: str = ""
    """Name of the data set in tables and folders where another one has the same category; default: the category."""

    @property
    def name(self) -> str:
        """Row name in tables."""
        return self.label or self.recipe

    @property
    def target(self) -> str:
        """Name of the data set in tables and folders."""
        return self.told_apart or self.category

    def folder(self, out: Path) -> Path:
        """Run folder below the folder of the sweep."""
        return out / "runs" / folder_name(self.name) / folder_name(self.target) / f"seed-{self.seed}"


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run."""

    job: Job
    report: Mapping[str, Any]
    """`report.json`."""
    peak_memory: int | None
    """Bytes: largest resident set of the run's process, plus the peak allocation on a CUDA device; None where unknown."""

    def value(self, name: str) -> float:
        """Metric by its name in `report.json`; NaN where it is undefined or absent."""
        value = self.report["metrics"].get(name, {}).get("value")
        return float("nan") if value is None else float(value)

    @property
    def weights(self) -> str:
        """Names of the pretrained weights."""
        return ", ".join(line["name"] for line in self.report["weights"]) or "none"

    @property
    def on_test(self) -> bool:
        """Whether the epoch was selected on test labels."""
        return bool(self.report["protocol"]["selected_on_test_labels"])

    @property
    def labelled(self) -> int:
        """Number of labelled anomalous images taken out of the test set."""
        return int(self.report["protocol"].get("labelled_anomalous", 0))

    @property
    def label_use(self) -> str:
        """Use of the labelled images; empty where the detector learns from good images only."""
        return str(self.report["protocol"].get("label_use", ""))


def plan(
    data: str | Sequence[str],
    recipes: Sequence[str],
    *,
    categories: Sequence[str] = (),
    seeds: int = 1,
    layout: str = "auto",
    budget: float = 1.0,
    settings: Mapping[str, Any] | None = None,
) -> list[Job]:
    """Jobs of a sweep, seeds outermost, so that an interrupted sweep leaves complete rows.

    `data` is one data set or several; no `categories` means all of each. `recipes` are detector names (their default recipe)
    or `detector/variant`. `budget` scales the epochs and steps of each recipe. Raises `ConfigError` for no or unknown recipes,
    settings that `checked` refuses and what `check_extent` refuses, and what `find_targets` raises.
    """
    check_extent(seeds, budget)
    if not recipes:
        raise ConfigError("no detector is named: name one of `andon detectors`, or all")
    targets = find_targets([data] if isinstance(data, str) else data, categories, layout)
    chosen: dict[str, dict[str, Any]] = {}
    for name in recipes:
        if "/" not in name:
            known_detector(name)
        full = name if "/" in name else default_recipe(name)
        chosen[full] = budgeted(full, budget, settings or {})
    return [
        Job(recipe, target.data, target.category, layout, seed, changes, told_apart=name)
        for seed in range(seeds)
        for name, target in targets.items()
        for recipe, changes in chosen.items()
    ]


def check_extent(seeds: int, budget: float) -> None:
    """Raise `ConfigError` for a number of seeds or a budget that no sweep can have."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise ConfigError(f"seeds is {seeds}: a number from 1 to {MOST_SEEDS:,} is needed")
    if not 0 < budget <= LARGEST_BUDGET:
        raise ConfigError(
            f"budget is {budget:g}: a share of the recipe's training above 0 and up to {LARGEST_BUDGET:,} is needed, e.g. 0.5"
        )


def budgeted(recipe: str, budget: float, settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings`, plus the epochs and steps of the recipe scaled by `budget`.

    Values in `settings` are not scaled. Raises what `checked` raises.
    """
    resolved = checked(recipe, settings).config.model_dump()
    lengths = {} if budget == 1 else _lengths(resolved)
    return {name: max(1, round(budget * length)) for name, length in lengths.items()} | dict(settings)


def checked(recipe: str, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with these settings, before anything is run.

    Raises `ConfigError` for unknown settings, taps that its network lacks, and a seed, which each job has of its own.
    """
    if "seed" in settings:
        raise ConfigError(f"seed={settings['seed']} cannot be set for many runs: seeds are set by --seeds")
    found = resolve(load_recipe(recipe), settings)
    if settings:
        try:
            detector_class(found.detector).check(found.config)
        except ConfigError as error:
            raise ConfigError(f"recipe {recipe} with these settings: {error}") from error
    return found


def _lengths(config: Mapping[str, Any], prefix: str = "") -> dict[str, int]:
    """Settings that count epochs or steps, {dotted name: value}."""
    found: dict[str, int] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _lengths(value, f"{prefix}{name}.")
        elif name in {"epochs", "steps"} and value:
            found[prefix + name] = value
    return found


def run_job(
    job: Job, out: Path, device: str = "auto", progress: Progress | None = None, *, data: str | None = None
) -> None:
    """Fit and evaluate one run, or resume it. Raises what `fit_run` and `evaluate_run` raise.

    `data` replaces `job.data`, for a process with another working directory.
    """
    run = job.folder(out)
    recipe = _recipe(job)
    source = _source(job if data is None else replace(job, data=data), recipe)
    fitted = fit_run(run, source, recipe, resume=True, device=device, progress=progress)
    evaluate_run(run, progress=progress, fitted=fitted)
    result = {"job": _identity(job), "images": _fingerprint(fitted[1]), "peak_memory": peak_memory()}
    write_json(run / RESULT, result)


def peak_memory() -> int | None:
    """Peak memory of this process in bytes: resident set, plus the peak allocation on a CUDA device; None on Windows."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return resident + int(torch.cuda.max_memory_allocated())
    return resident


def finished(job: Job, out: Path) -> Result | None:
    """Result of a complete run, else None. Raises `ConfigError` when the run has other data, images or settings.

    A run of which a file is missing or damaged is not complete: `DamagedRunWarning`.
    """
    run = job.folder(out)
    if not (run / RESULT).is_file():
        return None
    try:
        file = RESULT
        more = from_json((run / file).read_bytes())
        made, images, peak = more["job"], more.get("images"), more["peak_memory"]
        file = "report.json"
        result = Result(job, from_json((run / file).read_bytes()), peak)
        check_figures(result)
        file = "predictions.csv"
        read_scores(run)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, DataError):
        warnings.warn(
            f"{run / file} is missing or damaged, so the run counts as not finished and is made again",
            DamagedRunWarning,
            stacklevel=2,
        )
        return None
    if made != _identity(job):
        raise ConfigError(
            f"{run} was made with other data or settings: repeat the original command or choose another --out"
        )
    if images is not None and not job.data.startswith(PREFIX) and images != _fingerprint(_dataset(job)):
        raise ConfigError(
            f"the pictures in {job.data} changed since {run} was made: bring them back, or choose another --out"
        )
    return result


def _identity(job: Job) -> dict[str, Any]:
    return {"recipe": job.recipe, "data": job.data, "layout": job.layout, "settings": dict(job.settings)}


def _recipe(job: Job) -> Recipe:
    return resolve(load_recipe(job.recipe), {**job.settings, "seed": job.seed})


def _source(job: Job, recipe: Recipe) -> Source:
    return Source(job.data, job.category or None, job.layout, recipe.good, recipe.bad)


def _dataset(job: Job) -> Dataset:
    recipe = _recipe(job)
    return _source(job, recipe).split_by(recipe)


def _fingerprint(dataset: Dataset) -> str:
    """sha256 (hex) of all images, however they are split."""
    records = [*dataset.train, *dataset.validation, *dataset.test, *dataset.labelled]
    return Records(sorted(records, key=lambda record: record.id)).fingerprint()


Runner = Callable[[Sequence[Job], Path, str], Iterator[tuple[Job, str]]]
"""(jobs, sweep folder, device) to finished jobs, each with its failure message, empty on success."""


@dataclass(slots=True)
class Outcome:
    """Finished and failed runs of a sweep."""

    results: list[Result]
    failures: dict[str, str]
    """{run folder: failure message}."""

    @property
    def summary(self) -> str:
        """In one line: how many runs failed, and whether it helps to try again; empty where none failed."""
        if not self.failures:
            return ""
        lasting = sum(failure.endswith(LASTING) for failure in self.failures.values())
        said = f"{len(self.failures)} of {len(self.failures) + len(self.results)} runs failed"
        if not lasting:
            return f"{said}; the same command tries them again"
        return f"{said}, {lasting} of them for a reason that lasts: change what the messages above name"


def sweep(
    jobs: Sequence[Job],
    out: Path,
    *,
    device: str = "auto",
    runner: Runner | None = None,
    after: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Execute all unfinished runs: sequentially, each in its own process, or with `runner`.

    A failed run is listed in the outcome and does not stop the others. `after` is called with the folder of each run that
    this call completed. Raises `InterruptedRun` after Ctrl-C.
    """
    failures: dict[str, str] = {}
    before = [finished(job, out) for job in jobs]
    todo = [job for job, result in zip(jobs, before, strict=True) if result is None]
    with (progress or NoProgress()).task("runs", len(jobs), done=len(jobs) - len(todo)) as task:
        for job, failure in (runner or one_by_one)(todo, out, device):
            if failure:
                failures[str(job.folder(out))] = failure
            elif after is not None:
                after(job.folder(out))
            task.advance(1, f"{job.name} {job.target} seed {job.seed}")
    tried = (
        (job, made) for job, made in zip(jobs, before, strict=True) if str(job.folder(out)) not in failures
    )
    results = [result for job, made in tried if (result := made or finished(job, out)) is not None]
    return Outcome(results, failures)


def one_by_one(jobs: Sequence[Job], out: Path, device: str) -> Iterator[tuple[Job, str]]:
    """`Runner` of a single machine."""
    for job in jobs:
        yield job, _in_own_process(job, out, device)


def _in_own_process(job: Job, out: Path, device: str) -> str:
    """Run a job in a new process; returns the failure message, empty on success.

    Ctrl-C and SIGTERM also stop the job, which saves a checkpoint; `InterruptedRun` is raised then.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_in_child, args=(sender, job, out, device))
    with _interruptible():
        try:
            process.start()
            sender.close()  # the child holds its own end: if it dies, `recv` raises EOFError
            failure: str | None = receiver.recv()
        except EOFError:
            failure = "its process was killed (out of memory?)"
        except KeyboardInterrupt:
            process.terminate()
            failure = None
        process.join()
    if failure is None:
        raise InterruptedRun("stopped; the same command continues")
    return failure


def _run_in_child(sender: Connection, job: Job, out: Path, device: str) -> None:
    """Run the job and send its failure message: empty on success, None when it was interrupted."""
    try:
        with _interruptible():
            run_job(job, out, device)
        sender.send("")
    except (InterruptedRun, KeyboardInterrupt):
        sender.send(None)
    except (AndonError, OSError) as error:
        sender.send(failure_of(error))


def failure_of(error: AndonError | OSError, where: str = "") -> str:
    """Failure message of a run, with `LASTING` where the same settings always fail; `where` follows the error."""
    return f"{error}{where}{LASTING if isinstance(error, ConfigError) else ''}"


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C inside the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
