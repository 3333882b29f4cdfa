"""Work on many machines: a Ray cluster makes the runs of a sweep and predicts images. Ray lives here.

Only the place differs from the work on one machine: the same plan, the same `run_job`, the same predictions. The data set (or
the images) must be found under the same path on every node, and every node needs the same version of andon. Results come back
into the caller's folder, whether the nodes share a disk with it or not. What a lost worker was doing is done again elsewhere;
on a shared disk a run continues from its last checkpoint, otherwise it begins anew.
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
from andon.experiments.sweep import RESULT, Job, run_job
from andon.runs.fit import PACKAGES
from andon.runs.folder import clear
from andon.runs.predict import FilePrediction, file_predictions

if TYPE_CHECKING:
    from andon.detectors._base import Detector

RETRIES = 3
"""Times a piece of work whose worker was lost is done again before it counts as failed."""
CHUNK = 64
"""Images a worker predicts at a time."""
ANSWERS_WITHIN = 10.0
"""Seconds a cluster may take to answer at its address."""
FIRST, LAST = "recipe.yaml", ("detector/detector.json", RESULT)
"""Files of a run folder that make it a run, and those that say that a part of it is complete."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster and what a piece of work asks of it."""

    address: str
    """`auto` (the cluster this machine belongs to), `HOST:PORT`, or `ray://HOST:PORT` for Ray's client."""
    cores: int = 2
    """CPU cores of one run or of one worker that answers; also its number of threads."""

    def runs(self, jobs: Sequence[Job], out: Path, device: str) -> Iterator[tuple[Job, str]]:
        """The `Runner` of a cluster: yields each job with why it failed, or nothing, in the order they end.

        Raises `ConfigError` when Ray is not installed, the cluster cannot be reached, or no node is large enough.
        """
        if not jobs:
            return
        with self._connected() as ray, _mark(out) as mark:
            gpus = self._gpus(ray, device)
            self._check_size(ray, gpus)
            asks = ray.remote(
                num_cpus=self.cores,
                num_gpus=gpus,
                max_calls=1,  # a process for each run, so that its peak memory is its own
                max_retries=RETRIES,
                retry_exceptions=[InterruptedRun],  # its node was told to stop
            )
            task = asks(_make_run)
            left = {task.remote(job, _absolute(job.data), mark, device, _versions()): job for job in jobs}
            while left:
                reference, failure, content = _next_ended(ray, left)
                job = left.pop(reference)
                if content:
                    _unpack_run(content, job.folder(out))
                yield job, failure

    def file_predictions(
        self, run: Path, records: Iterator[Record], *, save: Path | None, maps: bool, skip_unreadable: bool
    ) -> Iterator[FilePrediction]:
        """Predictions of all records, in the order their chunks end; heat maps and masks come back into `save`.

        Records are drawn only as workers become free. Raises `DataError` for an image that cannot be read, unless
        `skip_unreadable`, and `AndonError` when workers are lost again and again.
        """
        with self._connected() as ray:
            self._check_size(ray, 0)
            content = _pack(run / "detector" if (run / "detector").is_dir() else run)
            detector = [ray.put(content)]  # in a list, so that only workers that need it fetch it
            key = hashlib.sha256(content).hexdigest()
            task = ray.remote(num_cpus=self.cores, max_retries=RETRIES)(_answer_chunk)
            options = (save is not None, maps, skip_unreadable, _versions())
            room = 2 * max(1, int(ray.cluster_resources().get("CPU", 0)) // self.cores)
            chunks = iter(lambda: list(itertools.islice(records, CHUNK)), [])
            left = {task.remote(detector, key, chunk, *options) for chunk in itertools.islice(chunks, room)}
            while left:
                reference, failure, result = _next_ended(ray, left)
                left.remove(reference)
                if failure:
                    raise AndonError(failure) if result is None else DataError(failure)
                left |= {task.remote(detector, key, chunk, *options) for chunk in itertools.islice(chunks, 1)}
                found, pictures = result
                if save is not None:
                    _unpack(pictures, save)
                yield from found

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        """Ray, connected; a connection that was there before is used and left open."""
        ray = _ray()
        if ray.is_initialized():
            yield ray
            return
        passed = {name: os.environ[name] for name in ("ANDON_OFFLINE",) if name in os.environ}
        try:
            _knock(self.address)
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
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints what it notices; stdout is for results
            try:
                yield ray
            finally:
                ray.shutdown()

    def _gpus(self, ray: Any, device: str) -> int:
        """GPUs a run asks for: one where the device says so, or may be a GPU and the cluster has any."""
        return int(device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1))

    def _check_size(self, ray: Any, gpus: int) -> None:
        """Raise `ConfigError` when no node could ever take a piece of work; Ray itself would wait for ever."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cores and node.get("GPU", 0) >= gpus for node in nodes):
            largest = max((node.get("CPU", 0) for node in nodes), default=0)
            raise ConfigError(
                f"no node of the Ray cluster has {self.cores} cores and {gpus} GPUs (most cores: {largest:g}): "
                "ask for less with --cores or --device cpu"
            )


def _ray() -> Any:
    """Ray, imported. Raises `ConfigError` when it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            'work on a cluster needs Ray, which is not installed: pip install "andon[cluster]"'
        ) from error
    return ray


def _knock(address: str) -> None:
    """Raise `OSError` when nothing listens at HOST:PORT, where Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN).close()


def _next_ended(ray: Any, left: Collection[Any]) -> tuple[Any, str, Any]:
    """The next of the tasks to end: its reference, why it failed or nothing, and what it brought.

    Raises `InterruptedRun` after Ctrl-C, with what is under way cancelled.
    """
    try:
        (reference,), _ = ray.wait(list(left), num_returns=1)
        return reference, *ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # a fault in andon: the other runs go on
        return reference, str(error).strip().splitlines()[-1], None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        return reference, f"its worker was lost {RETRIES + 1} times (out of memory?): {reason}", None
    except KeyboardInterrupt:
        for reference in left:
            ray.cancel(reference)
        raise InterruptedRun("stopped; the same command continues") from None


# On a node --------------------------------------------------------------------------------------------------------

_DETECTOR: dict[str, Detector] = {}
"""The detector this worker answered with last, by the hash of its files."""


def _make_run(job: Job, data: str, mark: Path, device: str, versions: Mapping[str, str]) -> tuple[str, bytes]:
    """Make a run; returns why it failed, or nothing, and the packed run folder where the caller's is not seen."""
    try:
        _check_versions(versions)
        if mark.is_file():  # the caller's folder is seen here
            run_job(job, mark.parent, device, data=data)
            return "", b""
        with tempfile.TemporaryDirectory(prefix="andon-") as scratch:
            run_job(job, Path(scratch), device, data=data)
            return "", _pack(job.folder(Path(scratch)))
    except InterruptedRun:
        raise
    except (AndonError, OSError) as error:
        return f"{error} (on {platform.node()})", b""


def _answer_chunk(
    detector: Sequence[Any],
    key: str,
    records: Sequence[Record],
    save: bool,
    maps: bool,
    skip_unreadable: bool,
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
            found = list(
                file_predictions(
                    _DETECTOR[key], records, save=folder, maps=maps, skip_unreadable=skip_unreadable
                )
            )
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


# Carrying files ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mark(folder: Path) -> Iterator[Path]:
    """A file in the folder, under its absolute path, by which a node finds out whether it sees the folder."""
    mark = folder.resolve() / f".cluster-{uuid.uuid4().hex}"
    write_text(mark, "")
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _absolute(data: str) -> str:
    """Where the data is, for a process that works in another folder."""
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
    """Write the files of an archive into a folder, each at once or not at all."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in sorted(archive.namelist(), key=lambda name: (name in LAST, name != FIRST, name)):
            write_bytes(folder / name, archive.read(name))


def _unpack_run(content: bytes, run: Path) -> None:
    """Put a finished run into its folder, in place of what an unfinished one left there."""
    clear(run)
    _unpack(content, run)
