"""Fit, evaluate and predict on a Ray cluster: the runs of a sweep, or the images of a prediction. Only this module uses Ray.

The same plan, `run_job` and predictions as on one machine. The data must be found under the same path on every node, and
every node needs the same versions of andon and its main dependencies. Results return to the caller's folder, with or without
a shared disk. The work of a lost worker is repeated on another: a run continues from its last checkpoint on a shared disk and
starts anew otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import platform
import socket
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from andon.core.errors import AndonError, ConfigError, DataError, InterruptedRun
from andon.core.files import write_bytes, write_text
from andon.core.records import Record
from andon.experiments.sweep import RESULT, Job, failure_of, run_job
from andon.runs.fit import PACKAGES
from andon.runs.folder import clear
from andon.runs.predict import FilePrediction, file_predictions

if TYPE_CHECKING:
    from andon.detectors._base import Detector

RETRIES = 3
"""Times a task is repeated after its worker was lost before it counts as failed."""
CHUNK = 64
"""Images a worker predicts at a time."""
CONNECT_TIMEOUT = 10.0
"""Seconds within which a cluster must accept a connection."""
FIRST, LAST = "recipe.yaml", ("detector/detector.json", RESULT)
"""The file that makes a folder a run, written first, and those that say that a part of it is complete, written last."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster and the resources of one task on it."""

    address: str
    """`auto` (the cluster this machine belongs to), `HOST:PORT`, or `ray://HOST:PORT` for Ray's client."""
    cores: int = 2
    """CPU cores of one run or one predicting worker; also its number of threads."""

    def runs(self, jobs: Sequence[Job], out: Path, device: str) -> Iterator[tuple[Job, str]]:
        """The `Runner` of a cluster: yields each job with why it failed, or nothing, in the order they end.

        Raises `ConfigError` when Ray is not installed, the cluster cannot be reached, or no node is large enough.
        """
        if not jobs:
            return
        with self._connected() as ray, _mark(out) as mark:
            gpus = self._gpus(ray, device)
            self._check_size(ray, gpus)
            remote = ray.remote(
                num_cpus=self.cores,
                num_gpus=gpus,
                max_calls=1,  # a process for each run, so that its peak memory is its own
                max_retries=RETRIES,
                retry_exceptions=[InterruptedRun],  # its node was told to stop
            )
            task = remote(_make_run)
            pending = {task.remote(job, _absolute(job.data), mark, device, _versions()): job for job in jobs}
            while pending:
                reference, failure, content = _next_ended(ray, pending)
                job = pending.pop(reference)
                if content:
                    _unpack_run(content, job.folder(out))
                yield job, failure

    def file_predictions(
        self, run: Path, records: Iterator[Record], *, save: Path | None, maps: bool, strict: bool = False
    ) -> Iterator[FilePrediction]:
        """Predictions of all records, in the order their chunks end; heat maps and masks come back into `save`.

        Records are drawn only as workers become free. Raises `AndonError` when workers are lost again and again.
        """
        with self._connected() as ray:
            self._check_size(ray, 0)
            content = _pack(run / "detector" if (run / "detector").is_dir() else run)
            detector = [ray.put(content)]  # in a list, so that only workers that need it fetch it
            key = hashlib.sha256(content).hexdigest()
            task = ray.remote(num_cpus=self.cores, max_retries=RETRIES)(_predict_chunk)
            options = (save is not None, maps, strict, _versions())
            room = 2 * max(1, int(ray.cluster_resources().get("CPU", 0)) // self.cores)
            chunks = iter(lambda: list(itertools.islice(records, CHUNK)), [])
            pending = {
                task.remote(detector, key, chunk, *options) for chunk in itertools.islice(chunks, room)
            }
            while pending:
                reference, failure, result = _next_ended(ray, pending)
                pending.remove(reference)
                if failure:
                    raise AndonError(failure) if result is None else DataError(failure)
                pending |= {
                    task.remote(detector, key, chunk, *options) for chunk in itertools.islice(chunks, 1)
                }
                found, heat_maps = result
                if save is not None:
                    _unpack(heat_maps, save)
                yield from found

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        """Ray, connected. An existing connection is used and left open."""
        ray = _ray()
        if ray.is_initialized():
            yield ray
            return
        passed = {
            name: os.environ[name] for name in ("ANDON_OFFLINE", "ANDON_MAX_PIXELS") if name in os.environ
        }
        try:
            _check_reachable(self.address)
            ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level="error",
                runtime_env={"env_vars": passed},
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"no Ray cluster answers at {self.address} ({str(error).splitlines()[0]}): start one with "
                "`ray start --head` and give its address, or auto on one of its machines"
            ) from error
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints warnings; stdout is for results
            try:
                yield ray
            finally:
                ray.shutdown()

    def _gpus(self, ray: Any, device: str) -> int:
        """GPUs of one run: one for `cuda`, and for `auto` where the cluster has any."""
        return int(device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1))

    def _check_size(self, ray: Any, gpus: int) -> None:
        """Raise `ConfigError` when no node is large enough for a task; Ray itself would wait for ever."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cores and node.get("GPU", 0) >= gpus for node in nodes):
            largest = max((node.get("CPU", 0) for node in nodes), default=0)
            raise ConfigError(
                f"no node of the Ray cluster has {self.cores} cores and {gpus} GPUs (most cores: {largest:g}): "
                "ask for less with --cores or --device cpu"
            )


def _ray() -> Any:
    """Ray, imported. Raises `ConfigError` when it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no usage reports
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            'work on a cluster needs Ray, which is not installed: pip install "andon[cluster]"'
        ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise `OSError` when nothing listens at HOST:PORT, where Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT).close()


def _next_ended(ray: Any, pending: Collection[Any]) -> tuple[Any, str, Any]:
    """The next of the tasks to end: its reference, why it failed or nothing, and its result.

    Raises `InterruptedRun` after Ctrl-C; the pending tasks are cancelled.
    """
    try:
        (reference,), _ = ray.wait(list(pending), num_returns=1)
        return reference, *ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # a fault in andon: the other runs go on
        return reference, str(error).strip().splitlines()[-1], None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        return reference, f"its worker was lost {RETRIES + 1} times (out of memory?): {reason}", None
    except KeyboardInterrupt:
        for reference in pending:
            ray.cancel(reference)
        raise InterruptedRun("stopped; the same command continues") from None


# On a node --------------------------------------------------------------------------------------------------------

_DETECTOR: dict[str, Detector] = {}
"""The detector this worker used last, by the hash of its files."""


def _make_run(job: Job, data: str, mark: Path, device: str, versions: Mapping[str, str]) -> tuple[str, bytes]:
    """Make a run: why it failed, or nothing, and the packed run folder where this node does not see the caller's."""
    try:
        _check_versions(versions)
        if mark.is_file():  # this node sees the caller's folder
            run_job(job, mark.parent, device, data=data)
            return "", b""
        with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
            run_job(job, Path(scratch), device, data=data)
            return "", _pack(job.folder(Path(scratch)))
    except InterruptedRun:
        raise
    except (AndonError, OSError) as error:
        return failure_of(error, f" (on {platform.node()})"), b""


def _predict_chunk(
    detector: Sequence[Any],
    key: str,
    records: Sequence[Record],
    save: bool,
    maps: bool,
    strict: bool,
    versions: Mapping[str, str],
) -> tuple[str, tuple[list[FilePrediction], bytes]]:
    """Why it failed, or nothing; predictions of some images and their packed heat maps."""
    try:
        _check_versions(versions)
        if key not in _DETECTOR:
            _DETECTOR.clear()
            _DETECTOR[key] = _unpacked_detector(_ray().get(detector[0]))
        with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
            folder = Path(scratch) if save else None
            found = list(file_predictions(_DETECTOR[key], records, save=folder, maps=maps, strict=strict))
            return "", (found, _pack(Path(scratch)))
    except (AndonError, OSError) as error:
        return f"{error} (on {platform.node()})", ([], b"")


def _check_versions(wanted: Mapping[str, str]) -> None:
    """Raise `ConfigError` when this node would compute with other versions than the caller."""
    for name, here in _versions().items():
        if here != wanted[name]:
            raise ConfigError(
                f"this node has {name} {here}, the caller {wanted[name]}: install the same everywhere"
            )


def _versions() -> dict[str, str]:
    """Versions that results depend on; builds for CPU and for CUDA count as one."""
    return {name: metadata.version(name).split("+")[0] for name in PACKAGES}


def _unpacked_detector(content: bytes) -> Detector:
    from andon.detectors._saving import load_detector

    with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
        _unpack(content, Path(scratch))
        return load_detector(scratch)


# Transfer of files ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mark(folder: Path) -> Iterator[Path]:
    """A file by whose absolute path a node finds out whether it sees the folder."""
    mark = folder.resolve() / f".cluster-{uuid.uuid4().hex}"
    write_text(mark, "")
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _absolute(data: str) -> str:
    """The path of the data, for a process with another working directory."""
    return data if data.startswith("embedded:") else str(Path(data).resolve())


def _pack(folder: Path) -> bytes:
    """All files below a folder as one uncompressed archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return stream.getvalue()


def _unpack(content: bytes, folder: Path) -> None:
    """Write the files of an archive into a folder, each in full or not at all."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in sorted(archive.namelist(), key=lambda name: (name in LAST, name != FIRST, name)):
            write_bytes(folder / name, archive.read(name))


def _unpack_run(content: bytes, run: Path) -> None:
    """Put a finished run into its folder, in place of what an unfinished one left there."""
    clear(run)
    _unpack(content, run)
