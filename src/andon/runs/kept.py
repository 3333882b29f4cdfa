"""The network that is kept in a run folder, so that `andon predict` answers without PyTorch, on the fastest runtime.

RUN/runtime/network.onnx   the detector, as `andon export` writes it
RUN/runtime/network.json   which detector and andon it belongs to, its hash; for each machine, which runtimes answer as PyTorch
                           does and how fast, or why there is no network

It is made when it is first needed. Thresholds are not taken from it but from the run, so a change of thresholds leaves it as it
is; another fit or another version of andon makes it anew, and another processor or version of a runtime proves it anew.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from andon.core.errors import AndonError, ConfigError, DataError, OutputError
from andon.core.files import file_sha256, from_json, write_json
from andon.core.images import as_uint8
from andon.core.version import VERSION
from andon.detectors._saving import detector_folder, read_calibration
from andon.exporting.installed import check_installed
from andon.exporting.latency import processor
from andon.runtime import Model
from andon.runtime.runtimes import PACKAGES, open_session
from andon.thresholds.calibration import Calibration

if TYPE_CHECKING:
    from andon.detectors._base import Detector

NETWORK, RECORD = "runtime/network.onnx", "runtime/network.json"
FORMAT = 2
"""Version of the record; 1: scores with a region were those of the whole map."""
BITS_ROUNDING = 1e-3
"""By how much values of 8 bits, divided by 255 and multiplied again, differ from whole numbers at most."""
ROUNDS, LONGEST = 10, 5.0
"""Calls of each runtime that are timed in turn, unless they take so many seconds."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How the runtimes of one machine execute the network."""

    milliseconds: dict[str, float] = field(default_factory=dict)
    """Median of one image, of each runtime whose scores, maps and verdicts are those of PyTorch."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why others are not used."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The record of a run's network."""

    andon: str
    detector: str
    """Hash of detector.json, which names settings, learned state, thresholds as fitted and region."""
    sha256: str
    """Hash of the network; empty where there is none."""
    refused: str = ""
    """Why the detector has no network."""
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    """By machine, see `this_machine`."""


def kept_model(run: Path, runtime: str = "auto", *, threads: int | None = None) -> Model | None:
    """The kept network with the current thresholds of the run; None where it has to be made or proven first.

    `auto` is the fastest of the runtimes that answer as PyTorch does. Raises `ConfigError` where the detector has no network or
    this runtime does not answer so.
    """
    fitted = read_calibration(detector_folder(run))
    if fitted.too_deep:
        raise ConfigError(fitted.too_deep)
    kept = read_kept(run)
    proof = None if kept is None else kept.proofs.get(this_machine())
    if kept is not None and kept.refused:
        raise ConfigError(kept.refused)
    if kept is None or proof is None:
        return None
    content = _content(run)
    if content is None or hashlib.sha256(content).hexdigest() != kept.sha256:
        return None
    opened = open_session(run / NETWORK, _chosen(proof, runtime), threads=threads)
    return Model(opened.session, opened.description, str(run / NETWORK), fitted)


def _chosen(proof: Proof, runtime: str) -> str:
    if runtime == "auto" and proof.milliseconds:
        return min(proof.milliseconds, key=lambda name: proof.milliseconds[name])
    if runtime in proof.milliseconds:
        return runtime
    reason = proof.refused.get(runtime) or next(iter(proof.refused.values()), "no runtime is installed")
    raise ConfigError(reason)


def check_possible(run: Path) -> None:
    """Raise `ConfigError` or `OutputError`, with the reason, where no network can be kept in this run folder."""
    check_installed(PACKAGES["onnx"])
    if not os.access(run, os.W_OK):
        raise OutputError(f"{run} cannot be written, so no network for faster runtimes is kept in it")


def keep(
    run: Path,
    detector: Detector,
    images: Sequence[npt.NDArray[np.float32]] = (),
    *,
    step: Callable[[str], object] = lambda following: None,
) -> None:
    """Export the detector of a run into its folder, where that was not done, and measure the runtimes of this machine.

    They are compared with the detector on `images` (H, W, 3) in [0, 1] and on images of noise. Raises what `check_possible`
    raises, `ConfigError` for a detector that cannot be exported or learned from more than 8 bits. `step` is called with what
    follows the export.
    """
    check_possible(run)
    path, digest = run / NETWORK, detector_digest(run)
    kept, content = read_kept(run), _content(run)
    if kept is None or content is None or hashlib.sha256(content).hexdigest() != kept.sha256:
        try:
            _check_bits(detector.fitted(), images)
            _export(detector, path)
        except ConfigError as error:
            path.unlink(missing_ok=True)
            _write(run, Kept(VERSION, digest, "", str(error)))
            raise
        kept = Kept(VERSION, digest, file_sha256(path))
    step("comparing runtimes")
    proof = _prove(detector, path, [as_uint8(pixels) for pixels in images])
    _write(run, Kept(VERSION, digest, kept.sha256, "", {**kept.proofs, this_machine(): proof}))


def _export(detector: Detector, path: Path) -> None:
    """Write the network. Raises `ConfigError` also for whatever the exporter does not understand."""
    from andon.exporting.network import write_network

    try:
        write_network(detector, path)
    except (AndonError, OSError, MemoryError):
        raise
    except Exception as error:  # the exporter raises kinds of its own
        raise ConfigError(f"PyTorch cannot export this {detector.name} ({type(error).__name__})") from error


def _check_bits(fitted: Calibration, images: Sequence[npt.NDArray[np.float32]]) -> None:
    """Raise `ConfigError` where the detector learned from more than 8 bits; `images` tell where it does not know."""
    if fitted.too_deep:
        raise ConfigError(fitted.too_deep)
    for pixels in images if fitted.seen is None else ():
        if np.abs(pixels * 255 - np.round(pixels * 255)).max() > BITS_ROUNDING:
            raise ConfigError("the pictures have more than 8 bits, which a network file rounds to 8")


def _prove(detector: Detector, path: Path, images: Sequence[npt.NDArray[np.uint8]]) -> Proof:
    from andon.exporting.network import Exported, compare_all, noise

    names = [name for name, package in PACKAGES.items() if find_spec(package) is not None]
    models: dict[str, Model] = {}
    refused: dict[str, str] = {}
    for name in names:
        try:
            opened = open_session(path, name)
            models[name] = Model(opened.session, opened.description, str(path))
        except DataError as error:
            refused[name] = str(error)
    try:
        found = compare_all(detector, list(models.values()), path, images)
    except AndonError as error:
        return Proof({}, {name: str(error) for name in names})
    for name, result in zip(list(models), found, strict=True):
        if not isinstance(result, Exported):
            refused[name] = str(result)
            del models[name]
    image = images[0] if images else next(noise(detector))[0]
    return Proof(_milliseconds(models, image), refused)


def _milliseconds(models: Mapping[str, Model], image: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Median milliseconds from the decoded image to the verdict, all in turn."""
    spent: dict[str, list[float]] = {name: [] for name in models}
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for name, model in models.items():
            start = time.perf_counter()
            next(model.judged([image], ahead=0))
            spent[name].append(1000 * (time.perf_counter() - start))
        if time.perf_counter() - began > LONGEST:
            break
    return {name: round(statistics.median(times), 3) for name, times in spent.items()}


def read_kept(run: Path) -> Kept | None:
    """The record of the run's network; None where there is none that fits this detector and this andon."""
    try:
        values = from_json((run / RECORD).read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            return None
        proofs = {machine: Proof(**proof) for machine, proof in values.pop("proofs").items()}
        kept = Kept(**values, proofs=proofs)
        fits = (kept.andon, kept.detector) == (VERSION, detector_digest(run))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return kept if fits else None


def _write(run: Path, kept: Kept) -> None:
    values: dict[str, Any] = asdict(kept)
    write_json(run / RECORD, {"format": FORMAT, **values})


def _content(run: Path) -> bytes | None:
    try:
        return (run / NETWORK).read_bytes()
    except OSError:
        return None


def detector_digest(run: Path) -> str:
    """SHA-256 of detector.json, which names settings, learned state, thresholds as fitted and region."""
    return file_sha256(detector_folder(run) / "detector.json")


def this_machine() -> str:
    """What a proof holds for: the processor and the versions of the runtimes that are installed."""
    packages = [package for package in PACKAGES.values() if find_spec(package) is not None]
    return "; ".join([processor(), *(f"{package} {_version(package)}" for package in packages)])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # installed under another name, such as onnxruntime-gpu
        return str(importlib.import_module(package).__version__)
