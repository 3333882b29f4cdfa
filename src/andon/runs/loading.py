"""Loading what predicts, from whatever it was made: a run, a detector folder, an exported network or a packed file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from andon.core.errors import ConfigError, DataError, UsageError
from andon.core.progress import NoProgress, Progress
from andon.runtime.runtimes import RUNTIMES, SUFFIXES, known_runtime

if TYPE_CHECKING:
    from andon.detectors._base import Detector
    from andon.runtime import Model

DEFAULT_RUNTIME = "ANDON_RUNTIME"
"""Environment variable: runtime of run folders where none is named."""
ALIASES = {"onnxruntime": "onnx"}


@dataclass(frozen=True, slots=True)
class Answering:
    """What predicts, and how it came to be that."""

    predictor: Detector | Model
    note: str = ""
    """Why PyTorch predicts where another runtime may have been faster; empty where that was not so."""

    @property
    def runtime(self) -> str:
        """What executes it, with the version, e.g. `openvino 2026.4.1`."""
        return self.predictor.runtime

    def describe(self) -> str:
        """One line for people."""
        return f"executed by {self.runtime}" + (f", since {self.note}" if self.note else "")


def load(path: str | Path, runtime: str | None = None, *, threads: int | None = None) -> Detector | Model:
    """A `Predictor`: predict, stream and fitted are those of Detector, whatever it was made from.

    path is a run folder or the folder a detector was saved to, an exported network (.onnx, .xml), or a packed detector (.andon),
    which proves itself first. runtime is torch (the default but for exported networks), onnx, openvino or auto: the fastest one
    that is installed and predicts as torch does. threads limits the cores used. Raises DataError for anything else,
    ConfigError for a runtime that cannot execute it here.
    """
    path = Path(path)
    if runtime is None and path.suffix.lower() == ".andon":
        from andon.exporting.packed import open_pack

        return open_pack(path, threads=threads)
    if runtime is None and not _is_network(path):
        runtime = "torch"
    return open_predictor(path, runtime, threads=threads).predictor


def open_predictor(
    path: Path, runtime: str | None = None, *, threads: int | None = None, progress: Progress | None = None
) -> Answering:
    """As `load`, but by `auto` unless told otherwise; for run folders also by the variable ANDON_RUNTIME.

    The first call on a run exports its network into the run folder, which `progress` shows; see `andon.runs.kept`.
    """
    runtime = known_choice(runtime)
    if path.suffix.lower() == ".andon":
        from andon.exporting.packed import open_pack

        return Answering(open_pack(path, runtime or "auto", threads=threads))
    if _is_network(path):
        if runtime == "torch":
            raise ConfigError(
                f"{path} is an exported network, torch executes run folders: give the run, or leave --runtime out"
            )
        from andon.runtime import open_model

        return Answering(open_model(path, None if runtime == "auto" else runtime, threads=threads))
    runtime = runtime or known_choice(os.environ.get(DEFAULT_RUNTIME)) or "auto"
    if runtime == "torch":
        return Answering(_detector(path, threads))
    return _open_run(path, runtime, threads, progress)


def known_choice(runtime: str | None) -> str | None:
    """The runtime by its short name. Raises `ConfigError` where it is unknown or not installed."""
    runtime = ALIASES.get(runtime or "", runtime)
    if runtime in (None, "", "auto", "torch"):
        return runtime or None
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime {runtime!r} is unknown: choose auto, torch, onnx or openvino")
    return known_runtime(runtime)


def _is_network(path: Path) -> bool:
    """Whether a path names an exported network."""
    return path.suffix.lower() in SUFFIXES


def _detector(path: Path, threads: int | None) -> Detector:
    from andon.detectors._saving import load_detector

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return load_detector(path)


def _open_run(run: Path, runtime: str, threads: int | None, progress: Progress | None) -> Answering:
    """A run executed by its kept network, which is made if needed; with `auto` by torch where that is not possible."""
    from andon.detectors._saving import detector_folder, read_calibration
    from andon.runs.kept import check_possible, keep, kept_model

    read_calibration(detector_folder(run))  # raises for none, or a changed one, before PyTorch is imported
    detector: Detector | None = None
    try:
        model = kept_model(run, runtime, threads=threads)
        if model is None:
            check_possible(run)
            with (progress or NoProgress()).task("preparing the network for fast runtimes, once", 3) as task:
                detector = _detector(run, threads)
                task.advance(note="exporting")
                keep(run, detector, _good_images(run, detector), step=lambda what: task.advance(note=what))
                task.advance()
            model = kept_model(run, runtime, threads=threads)
    except UsageError as error:
        if runtime != "auto":
            raise ConfigError(
                f"{run} is not executed by {runtime}, since {error}; --runtime torch executes it"
            ) from error
        return Answering(detector or _detector(run, threads), str(error))
    return Answering(model or detector or _detector(run, threads))


def _good_images(run: Path, detector: Detector) -> Sequence[npt.NDArray[np.float32]]:
    """Some good images of the run, those that were not learned from first; none where they cannot be found."""
    from andon.runs.export import good_images
    from andon.runs.source import run_data

    try:
        return good_images(run_data(run), detector)
    except DataError:
        return ()
